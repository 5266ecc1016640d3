"""Which files answer a query, and which of them may hold a candle twice.

The one place that decides what is read. A partition is *settled* if it has
just the file we wrote and nothing of it is in a journal: its file is read as
it stands. All other files are *loose*: their rows and the journal's are
deduplicated by whoever reads them.
"""

from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import Candle, to_table
from lakewriter.lake.journal import read_hot
from lakewriter.lake.lake import ALL, LakeStore, PartitionFilter, own_file
from lakewriter.partition import day_of, partition_of


class Snapshot(NamedTuple):
    """Everything that one answer is made of.

    Args:
        journal: candles not yet flushed, and maybe some that just were.
        settled: files to read as they stand, relative to the root.
        loose: files whose rows need deduplicating, relative to the root.
    """

    journal: list[Candle]
    settled: tuple[str, ...]
    loose: tuple[str, ...]


def take_snapshot(store: LakeStore, wanted: PartitionFilter = ALL) -> Snapshot:
    """Return what holds the candles now.

    The journal is read before the files are listed: a candle that is flushed
    in between is then seen twice, never not at all.

    Args:
        wanted: which files; the journal is returned whole.
    """
    journal = read_hot(store.root)
    flushing = {partition_of(candle) for candle in journal}
    settled: list[str] = []
    loose: list[str] = []
    for found in store.files(wanted):
        alone = own_file(found) and found.partition not in flushing
        (settled if alone else loose).extend(found.names)
    return Snapshot(journal, tuple(settled), tuple(loose))


def journal_table(candles: list[Candle]) -> pa.Table:
    """Return the candles with the columns that a path would give them."""
    table = to_table(candles)
    for name in ("market", "symbol", "interval"):
        table = table.append_column(
            name, pa.array([getattr(candle, name) for candle in candles], pa.string())
        )
    days = pa.array([day_of(candle.begin_ms) for candle in candles], pa.date32())
    return table.append_column("date", days)


def partitions_table(store: LakeStore) -> pa.Table:
    """Return one row per partition: its files and their bytes.

    Raises:
        FileNotFoundError: if a file vanished between listing and asking.
    """
    found = list(store.files())
    sizes = [sum((store.root / name).stat().st_size for name in names) for _, names in found]
    return pa.table(
        {
            "market": pa.array([partition.market for partition, _ in found], pa.string()),
            "symbol": pa.array([partition.symbol for partition, _ in found], pa.string()),
            "interval": pa.array([partition.interval for partition, _ in found], pa.string()),
            "date": pa.array([partition.date for partition, _ in found], pa.date32()),
            "files": pa.array([len(names) for _, names in found], pa.int64()),
            "bytes": pa.array(sizes, pa.int64()),
        }
    )
