"""`lakewriter gaps` and `lakewriter coverage`: their output and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakewriter.cli import cli
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from support.candles import BTC
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.living_recorder import MINUTE_MS, LivingRecorder, mark_gap
from support.running import PATIENCE_S, run


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Six minutes of two symbols; minutes 2 and 3 of BTCUSDT are absent."""
    return make_lake(
        tmp_path,
        [rest_candle(n) for n in (0, 1, 4, 5)] + [rest_candle(n, symbol="ETHUSDT") for n in range(6)],
    )


def invoke(store: LakeStore, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [*arguments, "--lake", str(store.root)])


def test_no_gaps(store: LakeStore) -> None:
    """Without gaps the command prints one line, and exits 0."""
    done = invoke(store, "gaps", "--symbol", "ETHUSDT")
    assert (done.exit_code, done.stdout) == (0, "no gaps: every expected candle is present\n")
    assert invoke(store, "gaps", "--symbol", "ETHUSDT", "--json").stdout == ""


def test_gaps_are_a_table(store: LakeStore) -> None:
    """Gaps with a reason are printed as a table, the newest last, and the exit code is 0."""
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 6, 9)
    mark_gap(recorder, 2, 4, "exchange_halt")
    done = invoke(store, "gaps")
    assert done.exit_code == 0
    assert done.stderr == ""
    header, _, first, second, count = done.stdout.splitlines()
    assert header.split() == [
        "market", "symbol", "interval", "start", "stop", "candles", "reason", "detected_at", "resolved_at", "error",
    ]  # fmt: skip
    assert "2024-06-30 00:02:00  2024-06-30 00:04:00        2  exchange_halt" in first
    assert "pending" in second
    assert count == "(2 rows)"
    (halt,) = [json.loads(line) for line in invoke(store, "gaps", "--json", "--until", "2024-06-30").stdout.splitlines()][:1]  # fmt: skip
    assert halt["start"] == "2024-06-30T00:02:00Z"
    assert halt["candles"] == 2
    assert invoke(store, "gaps", "--symbol", "ethusdt").stdout.startswith("no gaps")
    recorder.die()


@pytest.mark.parametrize("orphaned", [True, False])
def test_gaps_without_a_reason_end_with_1(store: LakeStore, orphaned: bool) -> None:
    """Gaps that no recorder heals, and unhealable ones, give exit 1 and one line."""
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 2, 4, "pending" if orphaned else "unhealable")
    if orphaned:
        recorder.die()
    done = invoke(store, "gaps")
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.exit_code == 1
    assert done.exception.what == "gaps: 2 candles in 1 gaps have no reason"
    assert "2024-06-30 00:02:00" in done.stdout


def test_many_gaps_show_the_newest(store: LakeStore) -> None:
    """Only the newest gaps are printed without --all; every gap counts."""
    recorder = LivingRecorder(store.root)
    for minute in range(6, 196, 2):
        mark_gap(recorder, minute, minute + 1, "exchange_halt")
        mark_gap(recorder, minute + 1, minute + 2, "delisted")
    done = invoke(store, "gaps")
    assert done.stdout.splitlines()[-1] == "(40 rows)"
    assert done.stderr == "lakewriter: 151 older gaps are not shown; --all\n"
    assert invoke(store, "gaps", "--all").stdout.splitlines()[-1] == "(191 rows)"
    assert len(invoke(store, "gaps", "--json").stdout.splitlines()) == 191
    recorder.die()


def test_coverage_is_a_line_a_series(store: LakeStore) -> None:
    """A series is one row with sums; candles missing without a reason give exit 1 and a hint."""
    done = invoke(store, "coverage")
    assert done.stdout.splitlines()[2:] == [
        "spot    BTCUSDT  1m        2024-06-30  2024-06-30         6        4        2          0   66.666",
        "spot    ETHUSDT  1m        2024-06-30  2024-06-30         6        6        0          0      100",
        "(2 rows)",
    ]
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.what == "coverage: 2 candles of 1 series are missing without a reason"
    assert done.exception.hint == f"lakewriter gaps --lake {store.root}"
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 2, 4)
    assert invoke(store, "coverage").exit_code == 0
    recorder.die()
    assert invoke(store, "coverage").exit_code == 1
    LivingRecorder(store.root).die()
    done = invoke(store, "coverage")
    assert done.exit_code == 1, "unhealable is explained, but no reason"
    assert done.stdout.splitlines()[2].split()[-2:] == ["2", "66.666"]


def test_coverage_by_day_and_json(store: LakeStore) -> None:
    """--by-day prints one row per day; --json one object per row, and the totals last."""
    done = invoke(store, "coverage", "--by-day", "--symbol", "BTCUSDT", "--json")
    day, totals = [json.loads(line) for line in done.stdout.splitlines()]
    assert day == {
        "market": "spot", "symbol": "BTCUSDT", "interval": "1m", "date": "2024-06-30",
        "expected": 6, "present": 4, "missing": 2, "explained": 0, "percent": 66.666, "left_at": None,
    }  # fmt: skip
    assert totals == {
        "totals": {
            "series": 1,
            "expected": 6,
            "present": 4,
            "missing": 2,
            "explained": 0,
            "without_reason": 2,
            "never_came": 0,
        }
    }
    assert done.exit_code == 1


def test_coverage_until_a_time(store: LakeStore) -> None:
    """A time as --until finds a series that stopped; a day only limits the answer."""
    eth = ("coverage", "--symbol", "ETHUSDT")
    assert invoke(store, *eth, "--until", "2024-06-30").exit_code == 0
    assert invoke(store, *eth, "--until", "2024-06-30T00:06:30Z").exit_code == 0
    assert invoke(store, *eth, "--until", "2024-06-30T00:07:00").exit_code == 1
    late = invoke(store, *eth, "--until", "2024-06-30T10:07:00+10:00", "--json")
    assert json.loads(late.stdout.splitlines()[-1])["totals"]["without_reason"] == 1
    now = invoke(store, *eth, "--until", "now")
    assert isinstance(now.exception, LakewriterError)
    assert "of 1 series are missing" in now.exception.what


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("gaps", "--since", "june"), "--since: 'june' is not a day"),
        (("gaps", "--until", "soon"), "--until: 'soon' is not a day or time"),
        (("coverage", "--until", "soon"), "--until: 'soon' is not a day or time"),
        (("coverage", "--market", "moon"), "market: 'moon' is unknown"),
    ],
)
def test_usage(store: LakeStore, arguments: tuple[str, ...], what: str) -> None:
    """The error for a wrong argument names it and has an example."""
    done = invoke(store, *arguments)
    assert isinstance(done.exception, UsageError)
    assert done.exception.what == what
    assert done.exception.hint


@pytest.mark.parametrize("name", ["gaps", "coverage"])
def test_help_has_examples(name: str) -> None:
    """Each --help has an example, and the list of commands has the command."""
    assert f"  lakewriter {name} --" in CliRunner().invoke(cli, [name, "--help"]).stdout
    assert name in CliRunner().invoke(cli, ["--help"]).stdout


@pytest.mark.slow
def test_as_a_person_meets_it(store: LakeStore) -> None:
    """Data goes to stdout; stderr has one line and the next command."""
    done = run("coverage", "--lake", str(store.root))
    assert done.returncode == 1
    assert done.stderr == (
        "lakewriter: coverage: 2 candles of 1 series are missing without a reason\n"
        f"  lakewriter gaps --lake {store.root}\n"
    )
    told = run("gaps", "--lake", str(store.root))
    assert told.returncode == 1
    assert told.stderr == (
        "lakewriter: gaps: 2 candles in 1 gaps have no reason\n"
        f"  lakewriter backfill spot:BTCUSDT:1m --since 2024-06-30 --lake {store.root}\n"
    )
    assert run("coverage", "--lake", str(store.root / "no")).returncode == 1


@pytest.mark.slow
def test_a_reader_that_goes_away_changes_no_verdict(store: LakeStore) -> None:
    """`| head` ends the output quietly, and the exit code is unchanged."""
    recorder = LivingRecorder(store.root)
    for minute in range(6, 1500):
        error = "this" if minute % 2 else "that"
        at = BEGIN_MS // MINUTE_MS + minute
        recorder.mark(BTC, at, at + 1, "unhealable", error)
    recorder.write()
    recorder.die()
    command = (
        f"{sys.executable} -m lakewriter gaps --all --lake {store.root} | head -n 1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "lakewriter: gaps: 1496 candles in 1495 gaps have no reason",
        f"  lakewriter backfill spot:BTCUSDT:1m --since 2024-06-30 --lake {store.root}",
    ]
