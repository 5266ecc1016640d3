"""What a backfill has done so far, for whoever shows it."""

import logging
from collections import Counter

import msgspec

from lakewriter.errors import LakeError
from lakewriter.partition import Partition
from lakewriter.series import Series

log = logging.getLogger(__name__)

# The first partitions and series that fail are named; more are counted.
_NAMED_MAX = 20


class Progress(msgspec.Struct):
    """Counts since the backfill was made.

    Args:
        series: series that are finished.
        files: files of the archive that were imported, or given up.
        file_bytes: what they weighed.
        pages: pages of REST that were answered.
        from_archive: candles that files held.
        from_rest: candles that REST had and the files did not.
        corrections: candles whose values in the lake were other ones.
        explained: candles that do not exist, with their reason in the ledger.
        unhealable: candles that could not be had, with the error in the ledger.
        unexplained: candles that are absent, and nobody can say why yet.
        refused: files that could not be used, by fault; REST was asked instead.
        retried: downloads and pages that were asked for again.
        unmerged: partitions that could not be merged; they are as they were.
        unreadable: series with a file that cannot be read; they are as they were.
        current: what was worked on last.
    """

    series: int = 0
    files: int = 0
    file_bytes: int = 0
    pages: int = 0
    from_archive: int = 0
    from_rest: int = 0
    corrections: int = 0
    explained: int = 0
    unhealable: int = 0
    unexplained: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    retried: int = 0
    unmerged: set[Partition] = msgspec.field(default_factory=set)
    unreadable: set[Series] = msgspec.field(default_factory=set)
    current: str = ""

    def failed(self, partition: Partition, error: LakeError) -> None:
        """Take note of a partition that could not be merged."""
        if partition not in self.unmerged and len(self.unmerged) < _NAMED_MAX:
            log.error("%s", error)
        self.unmerged.add(partition)

    def unread(self, series: Series, error: LakeError) -> None:
        """Take note of a series that cannot be finished, for nobody can tell what the lake has of it."""
        if len(self.unreadable) < _NAMED_MAX:
            log.error("%s: %s", series, error)
        self.unreadable.add(series)
