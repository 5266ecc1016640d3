"""A child is killed, or its disk fails, at each of its system calls; no promised candle is lost."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crash.forked import ALL, FIRST, FORGETTABLE, KEPT, SECOND, SELECTION, THIRD
from crash.remains import (
    Key,
    compact_all,
    files_below,
    journal_directories,
    key_of,
    make_candle,
    plain_keys,
    recover,
    strays,
    tables,
    temporaries,
)
from lakewriter.candle import Candle, to_table
from lakewriter.lake import forget as forgetting
from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import partition_of
from support.lengths import either
from support.running import PATIENCE_S, TESTS, plain_rows, wait_until

pytestmark = pytest.mark.slow

# What a file or a directory changes by, and the opening of what is changed.
CALLS = ("write", "fdatasync", "fsync", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "openat", "flock")

FOREIGN = [make_candle("BTCUSDT", 0), make_candle("BTCUSDT", 1, trade_num=1), make_candle("BTCUSDT", 7)]


class Promised(NamedTuple):
    """The promises that a child got before its end.

    Args:
        code: its exit code; -9 if it was killed.
        kept: candles whose commit or merge returned.
        merged: candles whose merge returned.
        refused: candles whose commit failed, by the error's name.
        failure: the error that ended it, or "".
    """

    code: int
    kept: list[Key]
    merged: list[Key]
    refused: list[tuple[str, list[Key]]]
    failure: str


class Server:
    """The process that forks the children, and the strace of each."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crash.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(TESTS)},
        )

    def run(self, work: str, root: Path, *injections: str) -> Promised:
        """Run a job in a child, with strace's faults."""
        promises = root.with_suffix(".promises")
        promises.unlink(missing_ok=True)
        pid = self._say(f"{work} {root} {promises}")
        with traced(int(pid), injections):
            code = int(self._say("go"))
        return promised(code, promises.read_text() if promises.exists() else "")

    def _say(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE_S)


class traced:  # noqa: N801 - reads as what the process is inside the block
    """A context in which strace holds the process."""

    def __init__(self, pid: int, injections: tuple[str, ...]) -> None:
        calls = ",".join(each.partition(":")[0] for each in injections)
        injects = [word for each in injections for word in ("-e", f"inject={each}")]
        self._status = Path(f"/proc/{pid}/status")
        self._strace = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={calls}", *injects],
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> None:
        wait_until(lambda: self._is_traced() or self._strace.poll() is not None)
        if self._strace.poll() is not None:
            self.__exit__()

    def _is_traced(self) -> bool:
        return "TracerPid:\t0\n" not in self._status.read_text()

    def __exit__(self, *_: object) -> None:
        _, errors = self._strace.communicate(timeout=PATIENCE_S)
        assert not errors, errors


def promised(code: int, log: str) -> Promised:
    """Read the promises that a child reported."""
    kept: list[Key] = []
    merged: list[Key] = []
    refused: list[tuple[str, list[Key]]] = []
    failure = ""
    for line in log.splitlines():
        what, _, names = line.partition(" ")
        if what == "failed":
            failure = names
            continue
        keys = [Key(name.split(":")[0], int(name.split(":")[1])) for name in names.split()]
        if what in ("committed", "merged"):
            kept += keys
        elif what != "ended":
            refused.append((what, keys))
        if what == "merged":
            merged += keys
    return Promised(code, kept, merged, refused, failure)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    may = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    if may.returncode:
        pytest.skip(f"needs to be allowed to trace: {may.stderr.strip()}")
    started = Server()
    yield started
    started.close()


def lake_with_a_foreign_file(root: Path) -> Path:
    """Make a directory in which a foreign file repeats a candle, has an older one, and one of its own."""
    directory = root / partition_of(FOREIGN[0]).path
    directory.mkdir(parents=True)
    pq.write_table(to_table(FOREIGN), directory / "part-0.parquet")
    return root


def check(root: Path, was: Promised, known: list[Candle]) -> None:
    """Recover after a dead child, and compare the lake with the promises."""
    in_files = {
        Key(name.split("/")[1].removeprefix("symbol="), minute)
        for name, table in tables(root).items()
        for minute in _minutes(table)
    }
    if was.kept:
        assert set(was.kept) <= in_files | {key_of(candle) for candle in read_unflushed(root)}
    assert set(was.merged) <= in_files
    recover(root)
    assert set(was.kept) <= set(plain_keys(root))
    compact_all(root)
    rows = plain_rows(root, "symbol, epoch_ms(candle_begin_time), trade_num") if tables(root) else []
    assert len({row[:2] for row in rows}) == len(rows), "a candle is there twice"
    seen = {(*key_of(candle), candle.trade_num) for candle in [*known, *FOREIGN]}
    assert {(symbol, *_minutes_of(begin_ms), trades) for symbol, begin_ms, trades in rows} <= seen
    if Key("ETHUSDT", 2) in was.kept:  # its group had the correction of another candle
        assert (("BTCUSDT", 1), 6) in {
            ((symbol, *_minutes_of(begin)), trades) for symbol, begin, trades in rows
        }
    assert read_unflushed(root) == []
    assert journal_directories(root) == []
    assert strays(root) == []
    assert [name for name in temporaries(root) if not name.startswith("_lakewriter/")] == []


def _minutes(table: pa.Table) -> list[int]:
    begins = table["candle_begin_time"].cast(pa.int64()).to_pylist()
    return [minute for begin_ms in begins for minute in _minutes_of(begin_ms)]


def _minutes_of(begin_ms: object) -> tuple[int]:
    return ((int(str(begin_ms)) - make_candle("BTCUSDT", 0).begin_ms) // 60_000,)


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call(server: Server, tmp_path: Path, call: str) -> None:
    """A kill at the first, second, … last call of a kind loses no promised candle."""
    kill_at_every(server, tmp_path, "commit_short_of_space" if call == "ftruncate" else "record", call)


@pytest.mark.parametrize("work", ["merge_many", "merge_many_alone"])
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "mkdir", "openat", "flock"])
def test_killed_at_every_call_of_many_merges(server: Server, tmp_path: Path, work: str, call: str) -> None:
    """After a kill during many merges, each partition is as before or as after, whole."""
    kill_at_every(server, tmp_path, work, call)


def kill_at_every(server: Server, tmp_path: Path, work: str, call: str) -> None:
    """Kill the child at each of its system calls of a kind, and check the lake each time."""
    # Most openings only read: some of them will do, what they make is met by the other calls.
    killed = 0
    for count in range(1, 300, either(20, 3) if call == "openat" else either(4, 1)):
        root = lake_with_a_foreign_file(tmp_path / f"lake-{count}")
        was = server.run(work, root, f"{call}:signal=KILL:when={count}")
        assert not was.failure
        check(root, was, ALL)
        if was.code == 0:
            break
        assert was.code == -9
        killed += 1
    assert was.code == 0
    assert killed
    print(f"{work}, {call}: killed {killed} times")


@pytest.mark.parametrize("work", ["merge_many", "merge_many_alone"])
def test_many_merges_whose_sync_fails(server: Server, tmp_path: Path, work: str) -> None:
    """If one of many files or directories cannot be synced the merge raises; each file is whole, old or new."""
    for count in range(1, 200, either(4, 1)):
        root = tmp_path / f"lake-{count}"
        was = server.run(work, root, f"fsync:error=EIO:when={count}")
        check(root, was, ALL)
        if was.code == 0:
            break
        assert "Input/output error" in was.failure
        assert not [name for name in files_below(root) if ".tmp-" in name]
    assert was.code == 0


def lake_to_forget(root: Path) -> Path:
    """Make a lake of which the work `forget` removes a part."""
    store = LakeStore.create(str(root), "test")
    for candle in FORGETTABLE:
        store.merge(partition_of(candle), to_table([candle]))
    return root


def check_forgotten(root: Path, was: Promised) -> None:
    """Check the lake after an interrupted forgetting; the next one removes the rest, and all is on record."""
    kept, all_keys = ({key_of(candle) for candle in some} for some in (KEPT, FORGETTABLE))
    there = set(plain_keys(root))
    assert kept <= there <= all_keys
    store = LakeStore.open(str(root))
    gone = all_keys - there
    explained = {
        Key(line.symbol, minute)
        for line in read_forgotten(root)
        for start_ms, stop_ms in line.ranges
        for minute in range(_minutes_of(start_ms)[0], _minutes_of(stop_ms)[0])
    }
    assert gone <= explained <= all_keys - kept
    if was.code == 0:
        assert there == kept
    for item in forgetting.partitions_to_forget(store, SELECTION):
        assert forgetting.forget_partition(store, item, SELECTION).error == ""
    compact_all(root)
    assert set(plain_keys(root)) == kept
    assert strays(root) == []
    assert [name for name in temporaries(root) if not name.startswith("_lakewriter/")] == []


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "unlink", "rmdir", "flock", "openat", "mkdir"])
def test_forgetting_killed_at_every_call(server: Server, tmp_path: Path, call: str) -> None:
    """A kill during a removal loses no other candle, and each removed one is on record."""
    for count in range(1, 300, either(20, 3) if call == "openat" else either(3, 1)):
        root = lake_to_forget(tmp_path / f"lake-{count}")
        was = server.run("forget", root, f"{call}:signal=KILL:when={count}")
        assert not was.failure
        check_forgotten(root, was)
        if was.code == 0:
            break
        assert was.code == -9
    assert was.code == 0
    assert count > 1


@pytest.mark.parametrize(
    ("call", "error"), [("fsync", "EIO"), ("unlink", "EACCES"), ("rename", "ENOSPC"), ("write", "ENOSPC")]
)
def test_a_forgetting_that_fails_says_so(server: Server, tmp_path: Path, call: str, error: str) -> None:
    """If any call fails, the error is reported, no other candle is lost, and each removed one is on record."""
    for count in range(1, 300, either(3, 1)):
        root = lake_to_forget(tmp_path / f"lake-{count}")
        was = server.run("forget", root, f"{call}:error={error}:when={count}")
        check_forgotten(root, was)
        if was.code == 0:
            break
        assert was.failure
    assert was.code == 0
    assert count > 1


def _refused(server: Server, root: Path, *injections: str) -> Promised:
    was = server.run("commit_stubbornly", lake_with_a_foreign_file(root), *injections)
    assert (was.code, was.failure) == (0, "")
    return was


def test_a_sync_that_fails_is_no_promise(server: Server, tmp_path: Path) -> None:
    """A commit whose fdatasync fails raises an error without a retry; other candles are kept."""
    was = _refused(server, tmp_path / "lake", "fdatasync:error=EIO:when=2")
    assert was.refused == [("LakeError", [key_of(candle) for candle in SECOND])]
    assert was.kept == [key_of(candle) for candle in [*FIRST, *THIRD]]
    check(tmp_path / "lake", was, [*FIRST, *SECOND, *THIRD])


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
def test_a_write_that_is_refused_leaves_nothing(server: Server, tmp_path: Path, error: str) -> None:
    """A commit that the disk refuses leaves no line, and the next one works."""
    # The first write is that of lake.json.
    was = _refused(server, tmp_path / "lake", f"write:error={error}:when=3")
    assert was.refused == [("DiskRefusedError", [key_of(candle) for candle in SECOND])]
    assert [key_of(candle) for candle in read_unflushed(tmp_path / "lake")] == was.kept
    assert was.kept == [key_of(candle) for candle in [*FIRST, *THIRD]]
    check(tmp_path / "lake", was, [*FIRST, *THIRD])


@pytest.mark.parametrize("injections", [(), ("ftruncate:error=EIO",), ("lseek:error=EIO",)])
def test_a_part_of_a_commit_spoils_no_later_one(
    server: Server, tmp_path: Path, injections: tuple[str, ...]
) -> None:
    """Half-written lines of a full disk precede no later line, even if they cannot be cut off."""
    root = lake_with_a_foreign_file(tmp_path / "lake")
    was = server.run("commit_short_of_space", root, *(injections or ("ftruncate:delay_enter=1",)))
    assert (was.code, was.failure) == (0, "")
    assert was.refused == [("refused", [key_of(candle) for candle in SECOND])]
    assert was.kept == [key_of(candle) for candle in [*FIRST, *THIRD]]
    check(root, was, [*FIRST, *SECOND, *THIRD])


@pytest.mark.parametrize(
    ("call", "error"),
    [("openat", "EROFS"), ("openat", "EACCES"), ("openat", "EMFILE"), ("fsync", "EIO"), ("fsync", "ENOSPC")],
)
def test_a_failing_call_loses_no_promise(server: Server, tmp_path: Path, call: str, error: str) -> None:
    """If any open or sync fails, the child reports it and keeps its promises; recovery succeeds."""
    for count in range(1, 200, either(20, 3)):
        root = lake_with_a_foreign_file(tmp_path / f"lake-{count}")
        was = server.run("record", root, f"{call}:error={error}:when={count}")
        check(root, was, ALL)
        if was.code == 0:
            break
        assert was.failure, "no error was raised"
    assert was.code == 0


def test_a_merge_whose_sync_fails_changes_nothing(server: Server, tmp_path: Path) -> None:
    """If the new file or its directory cannot be synced the merge raises; each file is whole, old or new."""
    kept: list[list[Key]] = []
    for count in range(1, 200, either(50, 1)):
        root = tmp_path / f"lake-{count}"
        was = server.run("merge", root, f"fsync:error=EIO:when={count}")
        check(root, was, ALL)
        if was.code == 0:
            break
        assert "Input/output error" in was.failure
        assert not [name for name in files_below(root) if ".tmp-" in name]
        kept.append(was.merged)
    assert was.code == 0
    assert kept == sorted(kept, key=len)
