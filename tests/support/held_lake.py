"""A lake to compact, one of whose partitions is locked, so that a compaction cannot end."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lakewriter.lake.lake import LakeStore
from lakewriter.lake.storage import lock_number
from lakewriter.partition import partition_of
from support.candles import stream_candle


def make_foreign_lake(root: Path, partitions: int) -> None:
    """Make a lake of partitions with three foreign files each; 40 candles in 60 rows."""
    import pyarrow.parquet as pq

    from lakewriter.candle import to_table

    store = LakeStore.create(str(root), "test")
    parts = [
        to_table([stream_candle(minute) for minute in range(10 * part, 10 * part + 20)]) for part in range(3)
    ]
    for number in range(partitions):
        directory = root / partition_of(stream_candle(0, symbol=f"S{number:05d}USDT")).path
        directory.mkdir(parents=True)
        for part, rows in enumerate(parts):
            pq.write_table(rows, directory / f"part-{part}.parquet")
    assert store.root == root.resolve()


@contextlib.contextmanager
def held_partition(root: Path, number: int) -> Iterator[Path]:
    """Lock a partition of `make_foreign_lake`; yield the lock file."""
    partition = partition_of(stream_candle(0, symbol=f"S{number:05d}USDT"))
    storage = LakeStore.open(str(root)).storage
    with storage.exclusive(partition.path):
        yield root / "_lakewriter/locks" / f"{lock_number(partition.path):02x}"


def waiting_for(lock: Path) -> int:
    """Return the number of processes that wait for a lock file."""
    inode = f":{lock.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and inode in line for line in lines)


def compacted(root: Path) -> int:
    """Return the number of partitions that have their one file."""
    return sum(1 for _ in root.glob("market=*/*/*/*/candles.parquet"))
