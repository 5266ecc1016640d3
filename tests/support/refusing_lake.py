"""A lake that refuses to merge a symbol."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from lakewriter.lake.lake import LakeStore, Merged
from lakewriter.partition import Partition, partition_of
from support.candles import stream_candle


def begins(store: LakeStore, symbol: str = "BTCUSDT") -> list[int]:
    """Return the begin times in a symbol's partition of 2024-06-30."""
    table = store.read(partition_of(stream_candle(0, symbol)))
    return [] if table is None else table["candle_begin_time"].cast(pa.int64()).to_pylist()


class RefusingStore(LakeStore):
    """A lake that refuses merges of the symbol in `refused`."""

    refused = ""

    def merge(self, partition: Partition, rows: pa.Table) -> Merged:
        if partition.symbol == self.refused:
            raise OSError(28, "No space left on device")
        return super().merge(partition, rows)

    def merge_many(self, items: Sequence[tuple[Partition, pa.Table]]) -> list[Merged | Exception]:
        return [self._merge_or_error(partition, rows) for partition, rows in items]


def refusing(path: Path) -> RefusingStore:
    return RefusingStore.local(LakeStore.create(str(path / "lake"), "test").root)
