"""The partitions to copy: two listings and the source's journals, joined in the order of paths.

Rule: the journals are read first, then the source's files are listed. A candle that leaves
a journal in between is in its partition then.
"""

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from typing import NamedTuple

from lakewriter.candle import Candle
from lakewriter.copying.pair import Pair
from lakewriter.lake.listing import PartitionFiles
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import Partition, by_partition


class Item(NamedTuple):
    """A partition of the source, and its files in both lakes when they were listed.

    Args:
        partition: the partition.
        source_names, target_names: names of files, own and foreign, relative to the roots.
        listed: the versions of the own files in both lakes, from the listings; "" if the listing
            has none. They may be a part of the versions of a read.
        unflushed: candles of the source's journals.
        range_ms: the wanted begin times as a half-open range; the partition's period without
            a filter.
    """

    partition: Partition
    source_names: tuple[str, ...]
    target_names: tuple[str, ...]
    listed: tuple[str, str]
    unflushed: tuple[Candle, ...]
    range_ms: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """Whether every candle of the period is wanted."""
        return self.range_ms == (self.partition.start_ms, self.partition.stop_ms)

    @property
    def is_plain(self) -> bool:
        """Whether both lakes have no other file than their own, and all of the source's is wanted."""
        own = (self.partition.file,)
        return (
            self.is_whole
            and not self.unflushed
            and self.source_names == own
            and self.target_names in ((), own)
        )


def items_to_copy(pair: Pair, wanted: PartitionFilter) -> Iterator[Item]:
    """Yield the wanted partitions of the source, sorted by path.

    Raises:
        LakeError: if a lake cannot be listed, or the journals change at every attempt.
    """
    unflushed = _unflushed(pair, wanted)
    journals = (PartitionFiles(partition, ()) for partition in sorted(unflushed))
    listed = merge(pair.source.files(wanted), journals, key=lambda each: each.partition)
    targets = _Ascending(pair.target.files(wanted))
    for partition, found in groupby(listed, key=lambda each: each.partition):
        # One of two has no files: the journal's.
        source = max(found, key=lambda each: len(each.names))
        target = targets.files_of(partition)
        versions = source.versions.get(partition.file, ""), target.versions.get(partition.file, "")
        hot = tuple(unflushed.get(partition, ()))
        range_ms = wanted.clipped(partition.start_ms, partition.stop_ms)
        yield Item(partition, source.names, target.names, versions, hot, range_ms)


def _unflushed(pair: Pair, wanted: PartitionFilter) -> dict[Partition, list[Candle]]:
    chosen = (
        candle
        for candle in pair.source.unflushed()
        if wanted.covers(candle.series)
        and wanted.clipped(candle.begin_ms, candle.begin_ms + 1) == (candle.begin_ms, candle.begin_ms + 1)
    )
    return by_partition(chosen)


class _Ascending:
    """The partitions of a listing, looked up in ascending order."""

    def __init__(self, listed: Iterable[PartitionFiles]) -> None:
        self._listed = iter(listed)
        self._next = next(self._listed, None)

    def files_of(self, partition: Partition) -> PartitionFiles:
        """Return the files of a partition, which is later than that of the call before."""
        while self._next is not None and self._next.partition < partition:
            self._next = next(self._listed, None)
        if self._next is None or self._next.partition != partition:
            return PartitionFiles(partition, ())
        return self._next
