"""The counters of a backfill. The command line shows them."""

import logging
from collections import Counter

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.storage import StoreAwayError
from lakewriter.partition import Partition
from lakewriter.series import Series

log = logging.getLogger(__name__)

# The maximum failed partitions and series that the log names. Further ones are only counted.
_NAMED_MAX = 20


class Progress(msgspec.Struct):
    """The counts of one backfill.

    Args:
        series: the finished series.
        files: the archive files that were imported or given up.
        file_bytes: the size of those files.
        pages: the answered requests for REST pages.
        from_archive: the candles from files.
        from_rest: the candles from REST.
        corrections: the candles that changed in the lake.
        explained: the candles that do not exist, with their reason in the ledger.
        unhealable: the candles that could not be fetched, with the error in the ledger.
        unexplained: the absent candles without a reason so far.
        refused: the unusable files, by fault; REST serves their candles.
        retried: the retries of downloads and pages.
        unmerged: the partitions that could not be merged; they are unchanged.
        unreadable: the series with an unreadable file; they are unchanged.
        is_away: whether the lake's object store was away for some of either.
        current: the series or file that is being processed.
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
    is_away: bool = False
    current: str = ""

    def add_unmerged(self, partition: Partition, error: LakeError) -> None:
        """Add a partition that could not be merged; log the first ones."""
        if not self._is_away(error) and partition not in self.unmerged and len(self.unmerged) < _NAMED_MAX:
            log.error("%s", error)
        self.unmerged.add(partition)

    def add_unreadable(self, series: Series, error: LakeError) -> None:
        """Add a series that cannot be finished because of an unreadable file; log the first ones."""
        if not self._is_away(error) and len(self.unreadable) < _NAMED_MAX:
            log.error("%s: %s", series, error)
        self.unreadable.add(series)

    def _is_away(self, error: LakeError) -> bool:
        """Return whether the store is away; log the first such error for all partitions and series."""
        if not isinstance(error, StoreAwayError):
            return False
        if not self.is_away:
            log.error("%s", error.reason)
        self.is_away = True
        return True
