"""The copy of a lake: records, then each partition, then the records again.

Rule: the records are copied twice. A candle that is healed during the copy leaves its gap
ledger, and may be in a partition that was copied before. A gap that begins during the copy
is in the ledger only at its end.

Killing a copy at any moment loses nothing: each partition is as before or as after, and
the next run goes on.
"""

import logging
from collections.abc import Iterator

from lakewriter.copying.pair import Pair
from lakewriter.copying.partition_copy import CopyResult, Versions, copy_partition
from lakewriter.copying.records import RecordCounts, copy_records
from lakewriter.copying.remembered import read_remembered, write_remembered
from lakewriter.copying.room import Room
from lakewriter.copying.work import Item, items_to_copy
from lakewriter.errors import LakeError, os_error_text
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.lake.storage import SYNC_THREADS

log = logging.getLogger(__name__)

# Limit of the rows in memory. A row takes about 120 bytes, and a comparison has some four
# copies of it. A partition of 1s has 86,400 rows.
ROWS_MAX = 1 << 18

# A store or a disk that refuses so many partitions in a row is taken to refuse all.
FAULTS_MAX = 20


class Copy:
    """One run of a copy. Iterate over it once; then its attributes have the results.

    Args:
        pair: the lakes.
        wanted: the filter of series and days.
        now_ms: the present.
        change: whether the target may be written.
        trust: whether earlier comparisons count for files that did not change since.

    Attributes:
        records: numbers of records that the target got, or would get.
    """

    def __init__(
        self, pair: Pair, wanted: PartitionFilter, now_ms: int, *, change: bool, trust: bool
    ) -> None:
        self._pair = pair
        self._wanted = wanted
        self._now_ms = now_ms
        self._change = change
        self._trust = trust
        self.records = RecordCounts()

    def __iter__(self) -> Iterator[CopyResult]:
        """Copy the partitions, and yield their results, sorted by path.

        Raises:
            LakeError: if a lake cannot be listed, a record cannot be read, or a store or a
                disk refuses FAULTS_MAX partitions in a row.
            OSError: if a record cannot be written.
        """
        first = self.records = copy_records(self._pair, self._wanted, change=self._change)
        remembered = read_remembered(self._pair)
        kept = {} if self._wanted == ALL else dict(remembered)
        try:
            for result in self._partitions(remembered if self._trust else {}):
                kept.pop(result.partition.file, None)
                if result.versions is not None:
                    kept[result.partition.file] = result.versions
                yield result
        except BaseException:  # also Ctrl-C: the next run reads only what this one did not compare
            self._remember(remembered, remembered | kept)
            raise
        if self._change:
            last = copy_records(self._pair, self._wanted, change=True)
            self.records = RecordCounts(*(one + other for one, other in zip(first, last, strict=True)))
        self._remember(remembered, kept)

    def _partitions(self, remembered: dict[str, Versions]) -> Iterator[CopyResult]:
        room = Room(ROWS_MAX)
        faults = 0

        def copy(item: Item) -> CopyResult:
            partition = item.partition
            grid = partition.series.grid
            with room.taken(grid.count(partition.start_ms, partition.stop_ms)):
                known = remembered.get(partition.file)
                return copy_partition(self._pair, item, self._now_ms, known, change=self._change)

        is_remote = self._pair.source.is_remote or self._pair.target.is_remote
        threads = PENDING_MAX if is_remote else SYNC_THREADS
        for result in prefetch(copy, items_to_copy(self._pair, self._wanted), threads):
            faults = faults + 1 if result.is_fault else 0
            if faults == FAULTS_MAX:
                raise LakeError(
                    f"copy: {FAULTS_MAX} partitions in a row failed: {result.errors[0]}", "run it again"
                )
            yield result

    def _remember(self, before: dict[str, Versions], after: dict[str, Versions]) -> None:
        if not self._change or after == before:
            return
        try:
            write_remembered(self._pair, after)
        except OSError as error:
            # Without it the next copy is only slower.
            log.warning("copy: the comparisons cannot be saved: %s", os_error_text(error))
