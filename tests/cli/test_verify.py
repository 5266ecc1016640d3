"""`lakewriter verify`: its options, output and exit codes."""

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lakewriter.cli import cli
from lakewriter.cli.runs.verify import compare_with
from lakewriter.cli.runs.verify_report import print_report
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL
from lakewriter.partition import partition_at
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from lakewriter.verify.findings import VerifyReport
from support.lakes import files_and_bytes
from support.running import PATIENCE_S, run
from support.truth_lakes import BTC, MONDAY_MS, Published, edited, rewrite, truth_lake, truth_table

HOUR = Series("spot", "BTCUSDT", "1h")
DAY = partition_at(BTC, MONDAY_MS + DAY_MS)


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of minutes and hours of one symbol."""
    return truth_lake(tmp_path_factory.mktemp("days") / "lake", [(BTC, 3), (HOUR, 3)]).root


@pytest.fixture
def store(three_days: Path, tmp_path: Path) -> LakeStore:
    """A copy of the lake, which a test may damage."""
    return LakeStore.local(Path(shutil.copytree(three_days, tmp_path / "lake")))


def invoke(store: LakeStore, *arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["verify", *arguments, "--lake", str(store.root)])


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_nothing_found(store: LakeStore) -> None:
    """A correct lake gives a table of the checks and exit 0, and is unchanged."""
    before = files_and_bytes(store.root)
    done = invoke(store)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "market  symbol   interval  check      checked  findings",
        "──────  ───────  ────────  ─────────  ───────  ────────",
        "spot    BTCUSDT  1m        partition        3         0",
        "spot    BTCUSDT  1m        candle        4320         0",
        "spot    BTCUSDT  1m        jumps         4319         0",
        "spot    BTCUSDT  1h        partition        1         0",
        "spot    BTCUSDT  1h        candle          72         0",
        "spot    BTCUSDT  1h        intervals       72         0",
        "spot    BTCUSDT  1h        jumps           71         0",
        "(7 rows)",
    ]
    assert files_and_bytes(store.root) == before


def test_something_found(store: LakeStore) -> None:
    """A finding is a row with series, time and description; exit 1, and the hint is a command."""
    rewrite(store, DAY, lambda rows: edited(rows, 7, volume=-1.0))
    done = invoke(store, "--check", "candle")
    assert isinstance(done.exception, LakewriterError)
    assert (done.exception.what, done.exception.exit_code) == ("verify: 1 finding", 1)
    assert done.exception.hint == "lakewriter verify --against archive --repair"
    table, findings = done.stdout.split("\n\n")
    assert table.splitlines()[2].split()[-2:] == ["4320", "1"]
    row = findings.splitlines()[2]
    assert row.startswith("candle  volume  spot    BTCUSDT  1m        2024-06-04 00:07:00  volume -1.0, ")


def test_a_candle_from_the_future(store: LakeStore) -> None:
    """A candle that begins after now is a finding, with a command that removes it; this minute's is not."""
    now_ms = time.time_ns() // 1_000_000
    begins = [now_ms // MINUTE_MS * MINUTE_MS + minutes * MINUTE_MS for minutes in (0, 365 * 24 * 60)]
    for begin_ms in begins:
        rows = truth_table(Truth(0), BTC, begin_ms, begin_ms + MINUTE_MS)
        store.merge(partition_at(BTC, begin_ms), rows)
    done = invoke(store, "--check", "candle")
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.what == "verify: 1 finding"
    moment = datetime.fromtimestamp(begins[1] / 1000, UTC)
    assert f"candle  future  spot    BTCUSDT  1m        {moment:%Y-%m-%d %H:%M}:00  begins 36" in done.stdout
    since = f"{moment:%Y-%m-%dT%H:%M}:00Z"
    assert done.exception.hint == f"lakewriter forget spot:BTCUSDT:1m --since {since} --dry-run"


def test_json(store: LakeStore) -> None:
    """--json prints one object per finding, and the totals last."""
    rewrite(store, DAY, lambda rows: edited(rows, 7, volume=-1.0))
    pq.write_table(pa.table({"x": [1]}), store.root / DAY.path / "part.parquet")
    done = invoke(store, "--json", "--check", "candle", "--check", "partition")
    unreadable, volume, totals = lines(done)
    assert done.exit_code == 1
    what = unreadable.pop("what")
    assert unreadable == {
        "check": "partition", "kind": "unreadable", "market": "spot", "symbol": "BTCUSDT", "interval": "1m",
        "time": "2024-06-04T00:00:00Z",
    }  # fmt: skip
    assert what == f"{DAY.path}/part.parquet: has no column candle_begin_time"
    assert (volume["check"], volume["time"]) == ("candle", "2024-06-04T00:07:00Z")
    of_check = {"market": "spot", "symbol": "BTCUSDT", "interval": "1m", "corrected": 0, "added": 0}
    by_check = totals["totals"].pop("by_check")  # type: ignore[attr-defined]
    assert totals == {"totals": {"findings": 2, "shown": 2, "corrected": 0, "added": 0, "unknown": 0}}
    assert by_check[:2] == [
        {**of_check, "check": "partition", "checked": 3, "findings": 1},
        {**of_check, "check": "candle", "checked": 4320, "findings": 1},
    ]


def test_unknown_values_are_one_line(store: LakeStore) -> None:
    """Nulls in optional columns are no finding: one line has the columns, and the exit code is 0."""

    def unknown(rows: pa.Table) -> pa.Table:
        for name in ("quote_volume", "trade_num"):
            at = rows.schema.get_field_index(name)
            values = [None, None, None, *rows[name].to_pylist()[3:]]
            rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
        return rows

    rewrite(store, DAY, unknown)
    done = invoke(store)
    assert (done.exit_code, done.exception) == (0, None)
    assert done.stderr == "lakewriter: 3 candles have no quote_volume, trade_num\n"
    (totals,) = lines(invoke(store, "--json"))
    assert totals["totals"]["unknown"] == 3  # type: ignore[index]
    assert totals["totals"]["findings"] == 0  # type: ignore[index]


def test_only_so_many_are_shown(store: LakeStore) -> None:
    """Of many findings the first ones of each check are printed, and the rest is counted."""
    rewrite(store, DAY, lambda rows: rows.set_column(6, rows.schema.field(6), pa.array([-1.0] * 1440)))
    done = invoke(store, "--check", "candle")
    assert done.stdout.splitlines()[-1] == "(20 rows)"
    assert done.stderr == "lakewriter: 1,420 more findings not shown; --max-findings\n"
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.what == "verify: 1,440 findings"
    few = invoke(store, "--check", "candle", "--max-findings", "1", "--json")
    assert len(lines(few)) == 2
    none = invoke(store, "--check", "candle", "--max-findings", "0")
    assert none.exit_code == 1
    assert none.stdout.splitlines()[-1] == "(2 rows)"


def test_foreign_files_are_for_compact(store: LakeStore) -> None:
    """For findings that compaction repairs the hint is that command, and it works."""
    pq.write_table(store.read(DAY).slice(0, 5), store.root / DAY.path / "part.parquet")  # type: ignore[union-attr]
    done = invoke(store)
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.hint == "lakewriter compact"
    assert CliRunner().invoke(cli, ["compact", "--lake", str(store.root)]).exit_code == 0
    assert invoke(store).exit_code == 0


def test_filters(store: LakeStore) -> None:
    """Filters select series and days, and other files are not opened."""
    rewrite(store, DAY, lambda rows: edited(rows, 7, volume=-1.0))
    assert invoke(store, "--until", "2024-06-03").exit_code == 0
    assert invoke(store, "--since", "2024-06-05").exit_code == 0
    assert invoke(store, "--since", "2024-06-04", "--until", "2024-06-04").exit_code == 1
    hours = invoke(store, "--interval", "1h")
    assert hours.exit_code == 0
    assert "intervals" not in hours.stdout, "the minutes were not asked for, so nothing was compared"


def test_jumps(store: LakeStore) -> None:
    """--jumps sets the minimum jump, and 0 disables the check."""
    names = ("open", "high", "low", "close")
    rewrite(
        store,
        DAY,
        lambda rows: edited(rows, 1439, **{name: rows[name][1439].as_py() * 10 for name in names}),
    )
    jumps = ("--check", "jumps", "--interval", "1m")
    assert "2024-06-04 23:59:00  opens at " in invoke(store, *jumps).stdout
    assert invoke(store, *jumps, "--jumps", "1e6").exit_code == 0
    off = invoke(store, *jumps, "--jumps", "0")
    assert (off.exit_code, off.stdout.count("jumps")) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--since", "june"), "--since: 'june' is not a day"),
        (("--market", "moon"), "market: 'moon' is unknown"),
        (("--repair",), "--repair: needs --against"),
    ],
)
def test_usage(store: LakeStore, arguments: tuple[str, ...], what: str) -> None:
    """The error for a wrong argument names it and has an example."""
    done = invoke(store, *arguments)
    assert isinstance(done.exception, UsageError)
    assert done.exception.what == what
    assert done.exception.hint


@pytest.mark.parametrize(
    "arguments", [("--check", "x"), ("--jumps", "-1"), ("--max-findings", "-1"), ("--against", "x")]
)
def test_bad_choices(store: LakeStore, arguments: tuple[str, ...]) -> None:
    """An unknown check, a bad number or a missing --against gives exit 2."""
    assert invoke(store, *arguments).exit_code == 2


def test_help() -> None:
    """The help has examples and every option, and names the unchecked candles."""
    text = CliRunner().invoke(cli, ["verify", "--help"]).stdout
    assert "  lakewriter verify --symbol BTCUSDT --since" in text
    for option in (
        "--check",
        "--against",
        "--repair",
        "--jumps",
        "--max-findings",
        "--json",
        "--until",
        "--lake",
    ):
        assert option in text
    assert "journal" in text
    assert "verify" in CliRunner().invoke(cli, ["--help"]).stdout


def test_a_repair_is_counted(store: LakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Corrected and added candles have their own columns and totals."""
    rewrite(store, DAY, lambda rows: edited(rows.slice(1), 7, volume=1e6))

    report = VerifyReport(10)
    asyncio.run(compare_with(store, contextlib.nullcontext(Published()), ALL, report, repair=True))
    print_report(report, as_json=False, repair=True)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[-2:] == ["corrected", "added"]
    assert table[2].split() == ["spot", "BTCUSDT", "1m", "against", "4320", "2", "1", "1"]
    assert table[3].split() == ["spot", "BTCUSDT", "1h", "against", "72", "0", "0", "0"]
    print_report(report, as_json=True, repair=True)
    totals = json.loads(capsys.readouterr().out.splitlines()[-1])["totals"]
    assert (totals["corrected"], totals["added"], totals["findings"]) == (1, 1, 2)


@pytest.mark.slow
def test_as_a_person_meets_it(store: LakeStore) -> None:
    """Data goes to stdout; stderr has one line and the next command, and no bar without a terminal."""
    done = run("verify", "--lake", str(store.root))
    assert (done.returncode, done.stderr) == (0, "")
    (store.root / DAY.file).write_bytes(b"torn")
    done = run("verify", "--lake", str(store.root))
    assert done.returncode == 1
    assert done.stderr == ("lakewriter: verify: 1 finding\n  lakewriter verify --against archive --repair\n")
    assert f"{DAY.file}: not a readable Parquet file of candles" in done.stdout


@pytest.mark.slow
def test_ctrl_c_ends_it(store: LakeStore) -> None:
    """Ctrl-C ends the command and its bar at once, with one word and exit 130."""
    for number in range(150):
        shutil.copytree(
            store.root / "market=spot/symbol=BTCUSDT", store.root / f"market=spot/symbol=C{number}USDT"
        )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lakewriter", "verify", "--lake", str(store.root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, stdin=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the process is
        while b"verifying" not in said:
            said += os.read(ours, 1000)
        process.send_signal(signal.SIGINT)
        while chunk := os.read(ours, 1000):
            said += chunk
    assert process.wait(PATIENCE_S) == 130
    assert b"Traceback" not in said
    assert b"stopped" in said
    os.close(ours)
