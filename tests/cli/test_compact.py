"""`lakewriter compact`: its options, output and exit codes."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lakewriter.candle import to_table
from lakewriter.cli import cli
from lakewriter.cli.runs.compact import _expected
from lakewriter.errors import LakeError, LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.partition import Partition, partition_of
from support.candles import stream_candle
from support.lakes import files_and_bytes
from support.running import run

FIRST = partition_of(stream_candle(0))
SECOND = partition_of(stream_candle(1440, symbol="ETHUSDT"))


def foreign(store: LakeStore, partition: Partition, *minutes: int) -> None:
    """Put a foreign file into the partition."""
    path = store.root / partition.path / "part.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table([stream_candle(minute) for minute in minutes]), path)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """A lake of two partitions, each with a foreign file of one new candle and one duplicate."""
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    for partition, minute in ((FIRST, 0), (SECOND, 1440)):
        store.merge(partition, to_table([stream_candle(minute)]))
        foreign(store, partition, minute, minute + 1)
    return store


def compact(store: LakeStore, *arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["compact", "--lake", str(store.root), *arguments])


def said(result: Result) -> dict[str, object]:
    assert result.exception is None, result.exception
    assert result.exit_code == 0
    assert result.stderr == ""
    found: dict[str, object] = json.loads(result.stdout)
    return found


def lakewriter(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process."""
    environment = {name: value for name, value in os.environ.items() if name != "LAKEWRITER_LAKE"}
    return run(*arguments, cwd=cwd, environment=environment)


def test_json(store):
    """--json prints one object of counts, and a second run finds nothing to do."""
    first = said(compact(store, "--json"))
    assert first.pop("seconds") >= 0
    size = first.pop("bytes_after")
    assert size == sum((store.root / partition.file).stat().st_size for partition in (FIRST, SECOND))
    assert first.pop("bytes_before") > size
    assert first == {
        "partitions": 2,
        "rewritten": 2,
        "rows": 4,
        "duplicates_removed": 2,
        "rows_disputed": 0,
        "rows_not_closed": 0,
        "files_removed": 2,
        "directories_removed": 0,
        "failed": 0,
        "dry_run": False,
        "at_least": [],
    }
    second = said(compact(store, "--json"))
    del second["seconds"]
    assert second == {
        **first,
        "rewritten": 0,
        "duplicates_removed": 0,
        "files_removed": 0,
        "directories_removed": 0,
        "bytes_before": size,
        "bytes_after": size,
    }


def test_sentence(store):
    """Without --json it prints one sentence, and nothing on stderr."""
    result = compact(store)
    assert result.stderr == ""
    assert re.fullmatch(
        r"2 partitions, 4 candles: 2 rewritten, 2 duplicates and 2 files removed, "
        r"\d+\.\d kB → \d+\.\d kB in \d+\.\d s\n",
        result.stdout,
    )
    assert compact(store).stdout.startswith(
        "2 partitions, 4 candles: 0 rewritten, 0 duplicates and 0 files removed, "
    )


def test_dry_run(store):
    """--dry-run prints the planned changes, and changes no byte on the disk."""
    before = files_and_bytes(store.root)
    text = compact(store, "--dry-run").stdout
    assert text.startswith(
        "2 partitions, 4 candles: 2 would be rewritten, 2 duplicates and 2 files would be removed, "
    )
    dry = said(compact(store, "--dry-run", "--json"))
    assert dry["dry_run"] is True
    assert files_and_bytes(store.root) == before
    wet = said(compact(store, "--json"))
    for counts in (dry, wet):
        del counts["seconds"], counts["dry_run"]
    assert dry == wet


@pytest.mark.parametrize(
    ("arguments", "partitions"),
    [
        (["--market", "spot"], 2),
        (["--market", "coin_futures"], 0),
        (["--market", "coin_futures", "--market", "spot"], 2),
        (["--symbol", "btcusdt"], 1),
        (["--symbol", "BTCUSDT", "--symbol", "ETHUSDT"], 2),
        (["--interval", "1m"], 2),
        (["--interval", "1M"], 0),
        (["--since", "2024-07-01"], 1),
        (["--until", "2024-06-30"], 1),
        (["--since", "2024-06-30", "--until", "2024-07-01"], 2),
        (["--since", "2024-07-02"], 0),
    ],
    ids=range(11),
)
def test_filters(store, arguments, partitions):
    """Each filter keeps the named partitions; --since and --until are inclusive."""
    found = said(compact(store, "--json", *arguments))
    assert (found["partitions"], found["rewritten"]) == (partitions, partitions)


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["--since", "yesterday"], "--since: 'yesterday' is not a day", "--since 2024-06-30, or 7d"),
        (["--until", "2024-02-30"], "--until: '2024-02-30' is not a day", "--until 2024-06-30, or 7d"),
        (["--market", "forex"], "market: 'forex' is unknown", "choose from: spot usdt_futures coin_futures"),
        (
            ["--symbol", "../x"],
            "symbol: '../x' cannot be a symbol",
            "symbols look like BTCUSDT or BTCUSD_PERP",
        ),
    ],
)
def test_bad_filters(store, arguments, what, hint):
    """An invalid filter is a usage error in one line, and changes nothing."""
    before = files_and_bytes(store.root)
    error = compact(store, *arguments).exception
    assert isinstance(error, UsageError)
    assert (error.what, error.hint) == (what, hint)
    assert files_and_bytes(store.root) == before


def test_failures(store):
    """A failed partition is named on stderr and makes the exit code 1; the others are compacted."""
    foreign(store, FIRST, 1440)
    result = compact(store, "--json")
    counts = json.loads(result.stdout)
    assert (counts["partitions"], counts["rewritten"], counts["failed"]) == (2, 1, 1)
    path = store.root / FIRST.path / "part.parquet"
    assert result.stderr == (
        f"lakewriter: {path}: row 1: day: is a candle of another day than {FIRST.date}\n"
    )
    assert isinstance(result.exception, LakewriterError)
    assert result.exception.what == "compact: files of 1 partition are unchanged"
    assert (
        result.exception.hint == "it was not changed; repair it, or move it out of the lake, then run again"
    )


def test_many_failures(store):
    """Of many failures the first twenty are shown, the rest counted."""
    for number in range(25):
        foreign(store, partition_of(stream_candle(0, symbol=f"S{number:02d}USDT")), 1440)
    lines = compact(store).stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "lakewriter: … and 5 more"


def test_stale_temporary_files(store):
    """Temporary files of crashed writers are removed, by the system's clock."""
    names = [f".candles.parquet.tmp-{number}-ab" for number in (1, 2)]
    old, young = (store.root / FIRST.path / name for name in names)
    for path in (old, young):
        path.write_bytes(b"torn")
    os.utime(old, (0, time.time() - 4000))
    assert said(compact(store, "--json"))["files_removed"] == 3
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("directory", ["", "forgotten", "gaps", "instruments", "subscriptions", "weight"])
def test_stale_temporary_files_of_our_own(store: LakeStore, directory: str) -> None:
    """Stale temporary files beside the small files of the state are removed, too."""
    path = store.root / "_lakewriter" / directory / ".some.ndjson.tmp-1-ab"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"torn")
    os.utime(path, (0, time.time() - 4000))
    compact(store)
    assert not path.exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_jobs(store, jobs):
    """Any number of processes gives the same result."""
    assert said(compact(store, "--json", "--jobs", jobs))["rewritten"] == 2


def test_empty_lake(tmp_path):
    """An empty lake needs no work."""
    store = LakeStore.create(str(tmp_path), "test")
    assert compact(store).stdout.startswith("0 partitions, 0 candles: 0 rewritten, ")


def test_plain_directory(tmp_path):
    """A directory with partitions and without `_lakewriter` is a lake."""
    store = LakeStore.local(tmp_path)
    foreign(store, FIRST, 0)
    assert said(compact(store, "--json"))["rewritten"] == 1


def test_missing_lake(tmp_path):
    """An absent lake is an error with the command that creates one, and is not created."""
    error = compact(LakeStore.local(tmp_path / "absent")).exception
    assert isinstance(error, LakeError)
    assert error.what == f"lake: {tmp_path}/absent does not exist"
    assert not (tmp_path / "absent").exists()


def test_lake_before_the_command(store):
    """--lake may precede the command, come from the environment, or follow the command, which wins."""
    root = str(store.root)
    runner = CliRunner()
    for arguments, environment in [
        (["--lake", root, "compact", "--json"], {}),
        (["compact", "--json"], {"LAKEWRITER_LAKE": root}),
        (["--lake", "/absent", "compact", "--json", "--lake", root], {"LAKEWRITER_LAKE": "/absent"}),
    ]:
        result = runner.invoke(cli, arguments, env=environment)
        assert json.loads(result.stdout)["partitions"] == 2


def test_help():
    """The help has an example and each option."""
    text = CliRunner().invoke(cli, ["compact", "--help"]).stdout
    assert "lakewriter compact --market spot --since 2024-06-01 --dry-run" in text
    for option in (
        "--market",
        "--symbol",
        "--interval",
        "--since",
        "--until",
        "--dry-run",
        "--json",
        "--jobs",
        "--lake",
    ):
        assert option in text


@pytest.mark.slow
def test_as_a_user(store, tmp_path):
    """Data goes to stdout, one error line and its hint to stderr; the exit code is 0, 1 or 2 by the cause."""
    done = lakewriter("compact", "--lake", "lake", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rewritten"] == 2
    wrong = lakewriter("compact", "--lake", "lake", "--since", "x", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "lakewriter: --since: 'x' is not a day\n  --since 2024-06-30, or 7d\n"
    absent = lakewriter("compact", cwd=tmp_path)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert (
        absent.stderr
        == "lakewriter: lake: data does not exist\n  lakewriter record spot:BTCUSDT:1m makes one\n"
    )


def test_a_bar_does_not_list_the_lake_a_second_time(store: LakeStore) -> None:
    """The bar's total is that of the last compaction of the whole lake; without one it is counted."""
    assert _expected(store, ALL, whole_lake=True) == 2
    said(compact(store, "--json"))

    class Unlisted(LakeStore):
        """A lake that must not be listed."""

        def partitions(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionDirs]:
            raise AssertionError(wanted)

    assert _expected(Unlisted.open(str(store.root)), ALL, whole_lake=True) == 2
