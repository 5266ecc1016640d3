"""`lakewriter copy` between lakes on disks: bytes, merges, damaged files, wrong arguments, repeated runs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle, to_table
from lakewriter.copying.pair import Pair
from lakewriter.copying.run import Copy
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL
from lakewriter.partition import partition_of
from support.candles import candles, settled, stream_candle
from support.day_layout import further_directories, to_day_layout
from support.lakes import (
    BEGIN_MS,
    add_foreign,
    files_and_bytes,
    make_lake,
    rest_candle,
    rows_by_plain_files,
    write_parquet,
)
from support.lengths import examples
from support.running import run, run_here

MEMORY = "_lakewriter/copied/"


def copy(*arguments: str, cwd: Path) -> dict[str, Any]:
    """Copy a lake without an error; return the summary."""
    done = run("copy", *arguments, "--json", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary["proven"] is not summary["dry_run"]
    return summary


def refused(*arguments: str, cwd: Path) -> str:
    """Return the error of wrong arguments, which is one line and a hint."""
    done = run_here("copy", *arguments, cwd=cwd)
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and lines[0].startswith("lakewriter: "), done.stderr
    return done.stderr


def candle_files(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_and_bytes(root).items() if name.endswith(".parquet")}


def rows(root: Path) -> list[Candle]:
    """Return the rows of the partitions' own files, and check that no other file exists."""
    store = LakeStore.open(str(root))
    assert all(found.names == (found.partition.file,) for found in store.files())
    return rows_by_plain_files(store)


def summary_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_new_target_gets_the_same_bytes(tmp_path: Path) -> None:
    """Each partition of every period is the same file; a second run writes nothing, and says so."""
    several = [
        rest_candle(n, interval=interval, symbol=symbol)
        for n in range(40)
        for interval in ("1m", "1h", "1d")
        for symbol in ("BTCUSDT", "币安人生USDT")
    ]
    make_lake(tmp_path / "a", several)
    first = copy("a", "b", cwd=tmp_path)
    assert candle_files(tmp_path / "b") == candle_files(tmp_path / "a")
    assert (first["copied"], first["read_back"], first["rows"], first["added"]) == (8, 8, 240, 240)
    before = files_and_bytes(tmp_path / "b")
    second = copy("a", "b", cwd=tmp_path)
    assert (second["copied"], second["same"], second["unread"], second["bytes_written"]) == (0, 8, 8, 0)
    assert files_and_bytes(tmp_path / "b") == before
    said = run("copy", "a", "b", cwd=tmp_path).stdout
    assert "nothing was written; each of these candles is in" in said


def test_without_its_memory_a_run_compares_bytes(tmp_path: Path) -> None:
    """The memory of comparisons may be lost or damaged; the next run compares, and writes nothing else."""
    make_lake(tmp_path / "a", [rest_candle(n * 700) for n in range(9)])
    copy("a", "b", cwd=tmp_path)
    [memory] = (tmp_path / "b" / MEMORY).iterdir()
    kept = memory.read_bytes()
    for damage in (b"", b"{}", b"\xff", kept[:40]):
        memory.write_bytes(damage)
        again = copy("a", "b", cwd=tmp_path)
        assert (again["same"], again["unread"]) == (again["partitions"], 0)
        assert memory.read_bytes() == kept


def test_a_remembered_partition_is_compared_again_once_either_file_changes(tmp_path: Path) -> None:
    """A new candle in the source is copied, and a lost file of the target is put back."""
    source = make_lake(tmp_path / "a", [rest_candle(0), rest_candle(1440)])
    copy("a", "b", cwd=tmp_path)
    late = rest_candle(1)
    source.merge(partition_of(late), to_table([late]))
    (tmp_path / "b" / partition_of(rest_candle(1440)).file).unlink()
    again = copy("a", "b", cwd=tmp_path)
    assert (again["copied"], again["merged"], again["added"]) == (1, 1, 2)
    assert rows(tmp_path / "b") == rows(tmp_path / "a")


@given(st.lists(candles(), max_size=30), st.lists(candles(), max_size=30))
@examples(12, 200)
def test_two_lakes_are_merged_by_the_rule_of_the_lake(
    tmp_path_factory: pytest.TempPathFactory, one: list[Candle], other: list[Candle]
) -> None:
    """The target has the winner of each key of both lakes, as one merge would give it."""
    root = tmp_path_factory.mktemp("lakes")
    pair = Pair(make_lake(root / "a", one), make_lake(root / "b", other))
    results = list(Copy(pair, ALL, 0, change=True, trust=True))
    merged = settled([*settled(other), *settled(one)])
    assert rows(root / "b") == merged
    assert sum(each.added for each in results) == len(merged) - len(settled(other))
    again = list(Copy(pair, ALL, 0, change=True, trust=False))
    assert {each.outcome for each in again} <= {"same"} and len(again) == len(results)


def test_the_better_candle_of_the_target_stays(tmp_path: Path) -> None:
    """The summary counts corrections of the target, and the candles that it has better."""
    make_lake(tmp_path / "a", [rest_candle(0), rest_candle(1, trade_num=50), rest_candle(2, trade_num=3)])
    make_lake(tmp_path / "b", [rest_candle(0), rest_candle(1), rest_candle(2)])
    summary = copy("a", "b", cwd=tmp_path)
    got = {name: summary[name] for name in ("merged", "added", "replaced", "corrections", "disputed")}
    assert got == {"merged": 1, "added": 0, "replaced": 1, "corrections": 1, "disputed": 1}
    assert [row.trade_num for row in rows(tmp_path / "b")] == [10, 50, 10]


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """It tells what a copy would do, and does not create the target."""
    make_lake(tmp_path / "a", [rest_candle(0), rest_candle(1440), rest_candle(2880)])
    make_lake(tmp_path / "b", [rest_candle(0), rest_candle(1441)])
    before = files_and_bytes(tmp_path)
    summary = copy("a", "b", "--dry-run", cwd=tmp_path)
    assert [summary[name] for name in ("copied", "merged", "same", "added")] == [1, 1, 1, 2]
    assert copy("a", "new", "--dry-run", cwd=tmp_path)["copied"] == 3
    assert files_and_bytes(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_verify_only_finds_a_missing_and_a_worse_candle(tmp_path: Path) -> None:
    """It exits 1, changes nothing, and trusts no earlier comparison."""
    make_lake(tmp_path / "a", [rest_candle(0), rest_candle(1), rest_candle(1440)])
    copy("a", "b", cwd=tmp_path)
    assert copy("a", "b", "--verify-only", cwd=tmp_path)["unread"] == 0
    make_lake(tmp_path / "c", [rest_candle(0, trade_num=9)])
    before = files_and_bytes(tmp_path / "c")
    done = run("copy", "a", "c", "--verify-only", "--json", cwd=tmp_path)
    assert done.returncode == 1
    summary = summary_of(done)
    assert [summary[name] for name in ("differing", "added", "replaced", "proven")] == [2, 2, 1, False]
    assert files_and_bytes(tmp_path / "c") == before
    assert run("copy", "a", "absent", "--verify-only", cwd=tmp_path).returncode == 1
    assert not (tmp_path / "absent").exists()


def test_a_damaged_file_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """A damaged own file and a damaged foreign one are a line each; no other candle is left behind."""
    make_lake(tmp_path / "a", [rest_candle(1440 * day) for day in range(4)])
    damaged = tmp_path / "a" / partition_of(rest_candle(1440)).file
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3] ^= 0xFF
    damaged.write_bytes(data)
    foreign = add_foreign(tmp_path / "a", [rest_candle(2881)])
    foreign.write_bytes(b"PAR1 not parquet PAR1")
    done = run("copy", "a", "b", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert str(damaged) in done.stderr and str(foreign) in done.stderr
    assert len(done.stderr.splitlines()) == 4, done.stderr
    summary = summary_of(done)
    assert (summary["copied"], summary["failed"], summary["proven"]) == (3, 2, False)
    assert [row.begin_ms for row in rows(tmp_path / "b")] == [BEGIN_MS + day * DAY_MS for day in (0, 2, 3)]


def test_a_file_of_another_series_is_left_behind(tmp_path: Path) -> None:
    """A file of ours that was put into another symbol's directory is not copied under that name."""
    make_lake(tmp_path / "a", [rest_candle(0), rest_candle(0, symbol="ETHUSDT")])
    [eth] = (tmp_path / "a").glob("**/symbol=ETHUSDT/**/candles.parquet")
    wrong = tmp_path / "a" / partition_of(rest_candle(0)).file
    wrong.write_bytes(eth.read_bytes())
    done = run("copy", "a", "b", cwd=tmp_path)
    assert done.returncode == 1 and "was written for spot ETHUSDT 1m" in done.stderr
    assert [row.symbol for row in rows(tmp_path / "b")] == ["ETHUSDT"]


def test_foreign_files_and_journals_of_the_source_are_merged(tmp_path: Path) -> None:
    """The target gets one file with the rows of all files and of the journal, and the source stays."""
    hot = [rest_candle(3, trade_num=99), rest_candle(5000)]
    make_lake(tmp_path / "a", [rest_candle(0), rest_candle(3)], hot)
    add_foreign(tmp_path / "a", [rest_candle(1), rest_candle(2)])
    write_parquet(
        tmp_path / "a", "market=spot/symbol=ETH%55SDT/interval=1m/date=2024-06-30", to_table([rest_candle(7)])
    )
    before = files_and_bytes(tmp_path / "a")
    summary = copy("a", "b", cwd=tmp_path)
    found = rows(tmp_path / "b")
    assert [(row.symbol, (row.begin_ms - BEGIN_MS) // 60_000, row.trade_num) for row in found] == [
        ("BTCUSDT", 0, 10),
        ("BTCUSDT", 1, 10),
        ("BTCUSDT", 2, 10),
        ("BTCUSDT", 3, 99),
        ("BTCUSDT", 5000, 10),
        ("ETHUSDT", 7, 10),
    ]
    assert summary["unflushed"] == 2
    assert files_and_bytes(tmp_path / "a") == before
    assert copy("a", "b", cwd=tmp_path)["bytes_written"] == 0


def test_days_of_format_1_land_in_their_periods(tmp_path: Path) -> None:
    """A lake whose partitions are days becomes one of months and years; one that gets a copy gains no duplicate."""
    hours = [rest_candle(n, interval="1h") for n in range(100)]
    make_lake(tmp_path / "a", hours)
    wanted = rows(tmp_path / "a")
    make_lake(tmp_path / "c", hours)
    to_day_layout(tmp_path / "a")
    copy("a", "b", cwd=tmp_path)
    assert rows(tmp_path / "b") == wanted
    again = copy("b", "a", cwd=tmp_path)  # its rows are there, in files of days
    assert (again["same"], again["bytes_written"]) == (again["partitions"], 0)
    assert further_directories(LakeStore.open(str(tmp_path / "a")))


def test_a_file_without_rows_counts_as_absent(tmp_path: Path) -> None:
    """An own file that `forget` emptied on a store is not copied, and is replaced in a target."""
    from lakewriter.candle import SCHEMA
    from lakewriter.lake.parquet import encode

    partition = partition_of(rest_candle(0))
    empty = encode(SCHEMA.empty_table(), partition)
    for name in ("a", "b"):
        make_lake(tmp_path / name)
        path = tmp_path / name / partition.file
        path.parent.mkdir(parents=True)
        path.write_bytes(empty)
    make_lake(tmp_path / "c", [rest_candle(0)])
    assert copy("a", "new", cwd=tmp_path)["partitions"] == 0
    assert not candle_files(tmp_path / "new")
    copy("c", "b", cwd=tmp_path)
    assert rows(tmp_path / "b") == rows(tmp_path / "c")


def test_filters_select_series_and_days(tmp_path: Path) -> None:
    """Days cut a file of a month, and names are checked before the target is created."""
    make_lake(
        tmp_path / "a",
        [
            rest_candle(n, interval=interval, symbol=symbol)
            for n in range(72)
            for interval in ("1m", "1h")
            for symbol in ("BTCUSDT", "ETHUSDT")
        ],
    )
    copy("a", "b", "--symbol", "ETHUSDT", "--interval", "1h", "--since", "2024-07-01", cwd=tmp_path)
    found = rows(tmp_path / "b")
    assert {row.series for row in found} == {("spot", "ETHUSDT", "1h")}
    assert min(row.begin_ms for row in found) == BEGIN_MS + DAY_MS
    assert len(found) == 48
    assert "no series that matches" in refused("a", "new", "--symbol", "XRPUSDT", cwd=tmp_path)
    assert not (tmp_path / "new").exists()
    copy("a", "b", cwd=tmp_path)
    assert rows(tmp_path / "b") == rows(tmp_path / "a")


def test_wrong_lakes_are_one_line(tmp_path: Path) -> None:
    """A lake into itself or its inside, no lake, a newer lake, another thing: exit 2, nothing is written."""
    make_lake(tmp_path / "a", [rest_candle(0)])
    make_lake(tmp_path / "newer")
    (tmp_path / "newer/_lakewriter/lake.json").write_text('{"format_version": 99}')
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat.png").touch()
    (tmp_path / "file").touch()
    before = files_and_bytes(tmp_path)
    for arguments, error in {
        ("a", "a"): "are one lake",
        ("a", "link"): "are one lake",
        ("a", "a/backup"): "lies inside of",
        ("a", "a/market=spot/b"): "inside of",
        ("absent", "b"): "does not exist",
        ("pictures", "b"): "is no lake",
        ("a", "pictures"): "is neither empty nor a lake",
        ("a", "file"): "is a file",
        ("a", "newer"): "newer than",
        ("newer", "b"): "newer than",
        ("a", "ftp://b"): "no place for a lake",
    }.items():
        said = refused(*arguments, cwd=tmp_path)
        assert error in said and "--lake" not in said
    assert "exclude each other" in refused("a", "b", "--dry-run", "--verify-only", cwd=tmp_path)
    assert files_and_bytes(tmp_path) == before


def test_a_full_period_of_seconds_is_copied(tmp_path: Path) -> None:
    """The largest partition, a day of seconds, is copied and compared as any other."""
    day = [rest_candle(n, interval="1s") for n in range(0, 86_400, 60)]
    make_lake(tmp_path / "a", day)
    assert copy("a", "b", cwd=tmp_path)["rows"] == len(day)
    assert INTERVALS["1s"].count(BEGIN_MS, BEGIN_MS + DAY_MS) == 86_400
    assert candle_files(tmp_path / "a") == candle_files(tmp_path / "b")


def test_streamed_candles_keep_their_times(tmp_path: Path) -> None:
    """Event times, receive times and sources are those of the source."""
    make_lake(tmp_path / "a", [stream_candle(n) for n in range(5)])
    make_lake(tmp_path / "b", [rest_candle(n) for n in range(5, 8)])
    copy("a", "b", cwd=tmp_path)
    assert rows(tmp_path / "b")[:5] == [stream_candle(n) for n in range(5)]
