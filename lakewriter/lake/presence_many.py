"""The series that a lake knows, and the presence of many series at once.

`presence` reads one series.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lakewriter.candle import Candle
from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.gaps.ledgers import read_reported
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.lake.presence import PartitionPresence, Presence, read_partition_presence
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.storage import NO_VERSIONS
from lakewriter.lake.subscriptions import read_periods
from lakewriter.partition import Partition
from lakewriter.series import Series


def known_series(store: LakeStore, wanted: PartitionFilter = ALL) -> set[Series]:
    """Return the wanted series in directories, journals, gap ledgers, subscriptions or forgotten ranges.

    No days are listed.

    Raises:
        LakeError: if a ledger or the journal cannot be read.
    """
    # Read in the order in which candles move through the lake: then no series is missed.
    with current_ledgers(store) as root:
        recorded = {reported.gap.series for reported in read_reported(root)}
        recorded |= {period.series for period in read_periods(root)}
        recorded |= {line.series for line in read_forgotten(root)}
    unflushed = store.unflushed().series()
    return {series for series in recorded | unflushed if wanted.covers(series)}.union(store.series(wanted))


def presence_of_many(
    store: LakeStore,
    wanted: PartitionFilter,
    others: Iterable[Series],
    unflushed: Mapping[Series, Iterable[Candle]],
) -> Iterator[Presence]:
    """Yield the presence of each series, in order.

    On an object store the wanted days are prefetched.

    Args:
        wanted: the filter of series and days.
        others: further series; they may have no file.
        unflushed: the journal's candles, read before this call.

    Raises:
        LakeError: if a file cannot be read.
    """
    all_days = PartitionFilter(wanted.markets, wanted.symbols, wanted.intervals)
    days: dict[Series, dict[str, Sequence[str]]] = {series: {} for series in others}
    listed: dict[tuple[Series, str], Mapping[str, str]] = {}
    for partition, directories, files in _partitions(store, all_days):
        series = partition.series
        day = partition.date.isoformat()
        days.setdefault(series, {})[day] = directories
        if files:
            listed[series, day] = files
    if not store.is_remote:
        for series in sorted(days):
            yield Presence(store, series, days[series], unflushed.get(series, ()))
        return
    wanted_days = {series: wanted.keep_days(series.interval, sorted(days[series])) for series in sorted(days)}
    places = ((series, day) for series, names in wanted_days.items() for day in names)

    def read_one(place: tuple[Series, str]) -> PartitionPresence:
        series, day = place
        return read_partition_presence(
            store, series, day, days[series][day], listed=listed.get(place, NO_VERSIONS)
        )

    read = prefetch(read_one, places, PENDING_MAX)
    for series, names in wanted_days.items():
        known = {day: next(read) for day in names}
        yield Presence(store, series, days[series], unflushed.get(series, ()), known)


def _partitions(
    store: LakeStore, wanted: PartitionFilter
) -> Iterator[tuple[Partition, Sequence[str], Mapping[str, str]]]:
    """Yield partitions, their directories, and their files with versions, or no files if they are not listed."""
    if not store.is_remote:
        for partition, directories, _ in store.partitions(wanted):
            yield partition, directories, NO_VERSIONS
        return
    for found in store.files(wanted):
        # A compaction moves candles into the partition's own directory.
        listed = {found.partition.path, *(name.rpartition("/")[0] for name in found.names)}
        yield found.partition, sorted(listed), found.versions
