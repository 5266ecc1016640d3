"""The partitions that changed, found by the locks that their writers took.

Strategy: a merge holds one of 256 locks, which the partition's path chooses. After it,
only the partitions of that lock are looked at, and only those that can still have a
candle that was not handed out. A look takes one `lstat`; a file with another version is
opened. Its footer usually tells that it has nothing new.

Foreign files that another program adds to a partition take no lock. Their candles are
found when the partition changes otherwise, at the latest by a compaction.
"""

from collections.abc import Callable, Collection, Iterator

import pyarrow as pa

from lakewriter.errors import UnreadableError
from lakewriter.follow.partition_rows import partitions_of, read_partition
from lakewriter.follow.wanted_series import WantedSeries
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import read_footer
from lakewriter.lake.storage import LOCKS, Listing, lock_number
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import Partition, series_path
from lakewriter.series import Series

# Maximum number of partitions that are looked at, some 300 bytes each. 3,000 series of 1m
# have so many in 33 days.
TRACKED_MAX = 100_000


class PartitionChanges:
    """The partitions of the wanted series, and the versions of their files.

    Args:
        store: the lake.
        wanted: the series.
        needs: returns whether a partition can have something to hand out. The range is
            that of its begin times.
        first_ms: returns the first begin time that a series can still need.
    """

    def __init__(
        self,
        store: LakeStore,
        wanted: WantedSeries,
        needs: Callable[[Series, int, int], bool],
        first_ms: Callable[[Series], int],
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._needs = needs
        self._first_ms = first_ms
        self._versions: dict[Partition, str | None] = {}
        self._by_lock: list[dict[Partition, tuple[str, ...]]] = [{} for _ in range(LOCKS)]
        self._listings: dict[Series, Listing] = {}
        self._tracked = 0

    def note(self, partition: Partition, version: str | None) -> None:
        """Note the version of a partition whose rows were read. A partition without one is read again."""
        if len(self._versions) >= TRACKED_MAX and partition not in self._versions:
            del self._versions[next(iter(self._versions))]  # the first one: the oldest day of its series
        self._versions[partition] = version

    def changed(
        self, locks: Collection[int], *, footers_suffice: bool
    ) -> Iterator[tuple[Partition, pa.Table] | None]:
        """Yield the partitions of some locks that changed since they were read, and their rows.

        None is yielded for a partition that has nothing new, so that the caller can pause.

        Args:
            footers_suffice: whether a file is left out if its footer shows that it has
                no further begin time.

        Raises:
            LakeError: if a file cannot be read.
        """
        self._list()
        for number in sorted(locks):
            for partition, directories in list(self._by_lock[number].items()):
                if not self._needs(partition.series, partition.start_ms, partition.stop_ms):
                    del self._by_lock[number][partition]
                    self._versions.pop(partition, None)
                    self._tracked -= 1
                    continue
                version = self._store.storage.version(partition.file)
                if version is None or version == self._versions.get(partition):
                    continue
                if footers_suffice and self._is_known(partition, directories):
                    yield None
                    continue
                rows, self._versions[partition] = read_partition(self._store, partition, directories)
                yield partition, rows

    def _is_known(self, partition: Partition, directories: tuple[str, ...]) -> bool:
        """Return whether the footer of the only file shows no begin time that can be new."""
        if len(directories) > 1:
            return False
        found = self._store.storage.read(partition.file)
        if found is None:
            return False
        try:
            footer = read_footer(found.data, f"{self._store.name}/{partition.file}")
        except UnreadableError:
            return False
        if footer is None or self._needs(partition.series, footer.first_ms, footer.last_ms + 1):
            return False
        self._versions[partition] = found.version
        return True

    def _list(self) -> None:
        """Find new series and new partitions. A directory that did not change is not listed again."""
        for series in self._store.series(self._wanted):
            if not self._wanted.covers(series):
                continue
            listing = self._store.storage.entries(series_path(series))
            if self._listings.get(series) == listing:
                continue
            self._listings[series] = listing
            self._track(series)

    def _track(self, series: Series) -> None:
        first_ms = self._first_ms(series)
        for partition, directories in reversed(partitions_of(self._store, series).items()):
            of_lock = self._by_lock[lock_number(partition.path)]
            if partition.stop_ms <= first_ms:
                return
            if partition in of_lock or not self._needs(series, partition.start_ms, partition.stop_ms):
                continue
            if self._tracked >= TRACKED_MAX:
                warn_once(
                    f"follow: candles that reach {series} before {partition.date} later are left out:"
                    f" {TRACKED_MAX:,} partitions are followed already"
                )
                return
            of_lock[partition] = tuple(directories)
            self._tracked += 1
