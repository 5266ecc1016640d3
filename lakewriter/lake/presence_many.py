"""The series that a lake knows, and the presence of many series at once.

`presence` reads one series.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat

from lakewriter.candle import Candle
from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.gaps.ledgers import read_reported
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.lake.presence import Presence, read_with_cache
from lakewriter.lake.presence_cache import PartitionPresence, PresenceCache, SeriesPresenceCache
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
    cache: PresenceCache | None = None,
) -> Iterator[Presence]:
    """Yield the presence of each series, in order.

    On an object store the wanted days are prefetched. Unchanged files are not read again: a
    cache in the lake's local state has their candles. It gets what the caller reads of a
    series before it asks for the next one. It is written at the end if `store.keep_presence` was
    called: queries and pictures change nothing in a lake.

    Args:
        wanted: the filter of series and days.
        others: further series; they may have no file.
        unflushed: the journal's candles, read before this call.
        cache: the cache, or None to read that of the lake.

    Raises:
        LakeError: if a file cannot be read.
    """
    cache = cache or PresenceCache(store)
    all_days = PartitionFilter(wanted.markets, wanted.symbols, wanted.intervals)
    days: dict[Series, dict[str, Sequence[str]]] = {series: {} for series in others}
    listed: dict[Series, dict[str, Mapping[str, str]]] = {}
    for partition, directories, files in _partitions(store, all_days):
        series = partition.series
        day = partition.date.isoformat()
        days.setdefault(series, {})[day] = directories
        if files:
            listed.setdefault(series, {})[day] = files
    caches: dict[Series, SeriesPresenceCache] = {}
    read: Iterator[dict[str, PartitionPresence]] = repeat({})
    if store.is_remote:
        caches = {series: cache.of(series, days[series], listed.pop(series, {})) for series in sorted(days)}
        read = _prefetched(store, wanted, days, caches)
    for series, known in zip(sorted(days), read, strict=False):
        cached = caches.get(series) or cache.of(series, days[series])
        yield Presence(store, series, days[series], unflushed.get(series, ()), known, cached)
        cache.put(cached)
    if store.keeps_presence:
        cache.write(everything=all_days == ALL)


def _prefetched(
    store: LakeStore,
    wanted: PartitionFilter,
    days: Mapping[Series, Mapping[str, Sequence[str]]],
    caches: Mapping[Series, SeriesPresenceCache],
) -> Iterator[dict[str, PartitionPresence]]:
    """Yield the wanted days of each series on an object store, in order. Those in no cache are prefetched."""
    known: dict[Series, dict[str, PartitionPresence]] = {}
    unknown: dict[Series, list[str]] = {}
    for series, cached in caches.items():
        known[series], unknown[series] = {}, []
        for day in wanted.keep_days(series.interval, sorted(days[series])):
            presence = cached.get(day, days[series][day])
            if presence is None:
                unknown[series].append(day)
            else:
                known[series][day] = presence

    def read_one(place: tuple[Series, str]) -> PartitionPresence:
        series, day = place
        return read_with_cache(store, series, day, days[series][day], caches[series])

    read = prefetch(read_one, [(series, day) for series in unknown for day in unknown[series]], PENDING_MAX)
    for series, names in unknown.items():
        yield known.pop(series) | {day: next(read) for day in names}


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
