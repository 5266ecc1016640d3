"""`lakewriter copy` that is killed or stopped at any moment, and beside writers of both lakes."""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.candle import Candle, to_table
from lakewriter.copying.pair import Pair
from lakewriter.copying.run import Copy
from lakewriter.lake.durable import is_temporary
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import LocalCatalogue, PartitionFiles
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.lake.storage import Storage
from lakewriter.partition import by_partition, partition_of
from support import running
from support.candles import settled
from support.lakes import (
    add_foreign,
    files_and_bytes,
    make_lake,
    merge_candles,
    rest_candle,
    rows_by_plain_files,
)
from support.lengths import either
from support.living_recorder import LivingRecorder, mark_gap
from support.running import child, plain_rows, wait_until

pytestmark = pytest.mark.slow

PARTITIONS = 40


def a_source(root: Path) -> LakeStore:
    store = make_lake(
        root,
        [rest_candle(1440 * day + n) for day in range(PARTITIONS) for n in range(3)],
        hot=[rest_candle(4), rest_candle(1440 * 50)],
    )
    add_foreign(root, [rest_candle(7)])
    recorder = LivingRecorder(root)
    mark_gap(recorder, 100, 110, "exchange_halt")
    recorder.die()
    return store


def a_target(root: Path) -> LakeStore:
    """A lake that has some partitions of the source, other rows, and a gap."""
    store = make_lake(root, [rest_candle(1440 * day + n, trade_num=9) for day in range(12) for n in (1, 3)])
    recorder = LivingRecorder(root)
    mark_gap(recorder, 105, 120, "unhealable")
    recorder.die()
    return store


def partition_files(root: Path) -> list[Path]:
    return list(root.glob("market=*/*/*/*/candles.parquet"))


def candle_files(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_and_bytes(root).items() if name.endswith(".parquet")}


def left(root: Path) -> dict[str, bytes]:
    """Return the files of a lake without the memory of comparisons, which has inode numbers."""
    return {
        name: data
        for name, data in files_and_bytes(root).items()
        if not name.startswith("_lakewriter/copied")
    }


def test_a_killed_copy_ends_in_the_same_lake(tmp_path: Path) -> None:
    """Killed at many moments, each partition is as before or as after; the next runs finish, without a trace."""
    a_source(tmp_path / "a")
    a_target(tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "whole")
    before = left(tmp_path / "b")
    assert running.run("copy", "a", "whole", cwd=tmp_path).returncode == 0
    wanted = left(tmp_path / "whole")
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(either(6, 60)):
        with child(tmp_path / "log", "copy", "a", "b", cwd=tmp_path) as copying:
            files = len(partition_files(tmp_path / "b")) + chance.randrange(12)
            wait_until(
                lambda files=files: (  # type: ignore[misc]
                    copying.process.poll() is not None or len(partition_files(tmp_path / "b")) >= files
                )
            )
            copying.kill()
        for name, data in candle_files(tmp_path / "b").items():
            assert data in (wanted[name], before.get(name)), (seed, name)
    for _ in range(2):
        done = running.run("copy", "a", "b", cwd=tmp_path)
        assert done.returncode == 0, (seed, done.stderr)
    assert "nothing was written" in done.stdout
    found = left(tmp_path / "b")
    # A temporary file of a record stays until a compaction is an hour later.
    found = {
        name: data for name, data in found.items() if not is_temporary(Path(name).name) or "parquet" in name
    }
    names = found.keys() | wanted.keys()
    different = {
        name: (found.get(name), wanted.get(name)) for name in names if found.get(name) != wanted.get(name)
    }
    assert not different, seed


def test_older_temporary_files_are_removed_before_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older temporary files are removed before a write: a copy that is killed after it comes here no more."""
    source, target = (
        make_lake(tmp_path / "a", [rest_candle(0)]),
        make_lake(tmp_path / "b", [rest_candle(1440)]),
    )
    [found] = source.files()
    older = target.root / found.partition.path / ".candles.parquet.tmp-1-00000000"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"PAR1")

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(LakeStore, "put_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        list(Copy(Pair(source, target), ALL, 10**15, change=True, trust=True))
    assert not older.exists()


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    """SIGINT during the work is exit 130 and one word; the next run goes on."""
    make_lake(tmp_path / "a", [rest_candle(1440 * day) for day in range(120)])
    with child(tmp_path / "log", "copy", "a", "b", cwd=tmp_path) as copying:
        wait_until(lambda: len(partition_files(tmp_path / "b")) > 5)
        started_s = time.monotonic()
        assert copying.stop(signal.SIGINT) == 130
        assert time.monotonic() - started_s < 20
    assert copying.log.read_text().strip() == "stopped"
    assert len(plain_rows(tmp_path / "b")) < 120
    done = running.run("copy", "a", "b", cwd=tmp_path)
    assert done.returncode == 0 and "120 partitions" in done.stdout
    assert len(plain_rows(tmp_path / "b")) == 120


def test_writers_of_both_lakes(tmp_path: Path) -> None:
    """Merges into both lakes during copies lose nothing: at the end the target has the winners of all rows."""
    source, target = make_lake(tmp_path / "a"), make_lake(tmp_path / "b")
    theirs = [rest_candle(1440 * day + n, trade_num=10 + n % 4) for n in range(12) for day in range(6)]
    ours = [rest_candle(1440 * day + n, trade_num=11) for n in range(4, 16) for day in range(6)]

    def write(store: LakeStore, rows: list[Candle]) -> None:
        for turn in range(0, len(rows), 6):
            merge_candles(store, rows[turn : turn + 6])

    writers = [threading.Thread(target=write, args=each) for each in ((source, theirs), (target, ours))]
    for each in writers:
        each.start()
    copies = 0
    while any(each.is_alive() for each in writers) or copies < 2:
        results = list(Copy(Pair(source, target), ALL, 0, change=True, trust=True))
        assert not [each.errors for each in results if each.errors]
        copies += 1
    for each in writers:
        each.join()
    list(Copy(Pair(source, target), ALL, 0, change=True, trust=True))
    assert rows_by_plain_files(target) == settled([*ours, *theirs])


def test_a_recorder_flushes_during_the_copy(tmp_path: Path) -> None:
    """Candles that leave the journal while the copy runs are in the target: from the journal or the file."""
    store = make_lake(tmp_path / "a", [rest_candle(1440 * day) for day in range(30)])
    hot = [rest_candle(1440 * day + 1) for day in range(30)]
    journal = create_journal(tmp_path / "a", "host")
    journal.commit(hot)
    copying = iter(Copy(Pair(store, make_lake(tmp_path / "b")), ALL, 0, change=True, trust=True))
    found = [next(copying)]
    for partition, rows in by_partition(hot).items():
        store.merge(partition, to_table(rows))
    segment = next(journal.directory.glob("*.ndjson"))
    segment.unlink()
    found += copying
    assert not [each.errors for each in found if each.errors]
    assert rows_by_plain_files(LakeStore.open(str(tmp_path / "b"))) == rows_by_plain_files(store)
    with contextlib.suppress(OSError):
        os.close(journal._lock_fd)


class ListedBefore(LocalCatalogue):
    """A catalogue whose listing was made before other programs changed the lake."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._listed = list(super().files())

    def files(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        return iter(self._listed)


def test_a_compaction_moves_rows_during_the_copy(tmp_path: Path) -> None:
    """A foreign file that is folded in after the listing loses no row."""
    store = make_lake(tmp_path / "a", [rest_candle(0)])
    foreign = add_foreign(tmp_path / "a", [rest_candle(1)])
    listed = LakeStore(str(store.root), store.storage, ListedBefore(store.storage), store.root)
    store.merge(partition_of(rest_candle(1)), to_table([rest_candle(1)]))
    foreign.unlink()
    results = list(Copy(Pair(listed, make_lake(tmp_path / "b")), ALL, 0, change=True, trust=True))
    assert [each.rows for each in results] == [2]
