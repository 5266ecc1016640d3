"""Tables on a terminal fit its width, and tables in a pipe are complete."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from lakewriter.cli.table_fit import fitted_lines
from lakewriter.lake.lake import LakeStore
from lakewriter.query.output.text import text_width
from support.lakes import make_lake, rest_candle
from support.living_recorder import MINUTE_MS, LivingRecorder
from support.running import run
from support.terminals import on_terminal

LONG = "1000000MOGUSDT"
HALT = "the exchange answered twice that it has no such candle, and the archive of the day has none either"
BEGIN_MINUTE = 1_719_705_600_000 // MINUTE_MS


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Many series of long names with gaps, some with a reason and a long error."""
    names = [("usdt_futures", LONG), ("coin_futures", "BTCUSD_260327"), ("spot", "币安人生USDT")]
    names += [("spot", f"A{number}USDT") for number in range(9)]
    root = tmp_path_factory.mktemp("tables") / "lake"
    store = make_lake(
        root,
        [
            rest_candle(n, market=market, symbol=symbol)
            for market, symbol in names
            for n in (*range(5), *range(7, 9))
        ],
    )
    recorder = LivingRecorder(root)
    for series in store.series():
        if series.market != "spot":
            recorder.mark(series, BEGIN_MINUTE + 5, BEGIN_MINUTE + 6, "exchange_halt", HALT)
    recorder.write()
    recorder.die()
    return store


COMMANDS = [
    ("coverage",),
    ("coverage", "--by-day"),
    ("gaps",),
    ("gaps", "--all"),
    ("verify",),
    ("forget", "*", "--dry-run"),
    ("query", "--list"),
    ("query", "FROM coverage", "--no-pager"),
    ("query", "FROM gaps", "--no-pager"),
]


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_line_is_wider_than_the_terminal(lake: LakeStore, arguments: tuple[str, ...], width: int) -> None:
    """No line is wider than the terminal, and each word is one that the pipe shows."""
    if "*" in arguments:
        arguments = ("forget", "usdt_futures:*:1m", "spot:*:1m", "--dry-run")
    _, shown = on_terminal(*arguments, "--lake", str(lake.root), screen=(50, width))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    piped = run(*arguments, "--lake", str(lake.root))
    # A bar is drawn over: the text after the last return stays.
    lines = [line.rpartition("\r")[2] for line in shown.split("\n") if "━" not in line]
    # Errors and summaries are sentences, which the terminal wraps.
    lines = [line for line in lines if not line.startswith(("lakewriter:", "  lakewriter", "would"))]
    assert len(lines) > 10
    known = set((piped.stdout + piped.stderr).replace(":", " ").split()) | {"series"}
    for line in lines:
        assert text_width(line) <= width, line
        if not re.search("[─…]|^[(]|[)]$", line):  # no rule, and no count of rows
            assert set(line.replace(":", " ").split()) <= known, line


@pytest.mark.slow
def test_every_row_and_error_is_shown(lake: LakeStore) -> None:
    """A narrow terminal shows each series, each reason, and the whole error below its row."""
    _, shown = on_terminal("gaps", "--lake", str(lake.root), screen=(50, 80))
    lines = shown.splitlines()
    at = lines.index(f"usdt_futures:{LONG}:1m  2024-06-30 00:05        1  exchange_halt")
    told = " ".join(line.strip() for line in lines[at + 1 : at + 3])
    assert told == HALT and lines[at + 1].startswith("    ")
    _, shown = on_terminal("coverage", "--lake", str(lake.root), screen=(50, 80))
    head, _, *rows = shown.splitlines()
    assert head.split() == ["series", "last", "missing", "explained", "percent"]
    assert f"usdt_futures:{LONG}:1m  2024-06-30        2          1   77.777" in rows
    assert "(12 rows; left out: first, expected, present; | cat shows them)" in rows


def test_a_pipe_gets_every_column(lake: LakeStore) -> None:
    """In a pipe the tables have all columns, also if COLUMNS says that the terminal is narrow."""
    done = run("gaps", "--lake", str(lake.root), environment={"COLUMNS": "40"}, fresh=True)
    assert done.stdout.splitlines()[0].split()[-3:] == ["detected_at", "resolved_at", "error"]
    assert HALT in done.stdout


def test_a_table_that_fits_is_as_in_a_pipe(tmp_path: Path) -> None:
    """A table that fits stays as it is, with three columns for the series."""
    table = pa.table({"market": ["spot"], "symbol": ["BTCUSDT"], "interval": ["1m"], "candles": [3]})
    assert list(fitted_lines(table, 80)) == [
        "market  symbol   interval  candles",
        "──────  ───────  ────────  ───────",
        "spot    BTCUSDT  1m              3",
        "(1 row)",
    ]
