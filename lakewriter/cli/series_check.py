"""The check that filters match series in the lake, so that a misspelt filter fails in cron."""

from collections.abc import Collection, Iterator
from datetime import date
from difflib import SequenceMatcher
from itertools import chain

import msgspec

from lakewriter.clock import present_ms
from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.host_reports import living_anywhere
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import presence_of
from lakewriter.lake.presence_many import known_series
from lakewriter.lake.published import current_ledgers
from lakewriter.partition import day_of
from lakewriter.series import Series

# The minimum similarity of suggested series, from 0 to 1, and their minimum relative to
# the best similarity. Another market or interval halves the similarity.
_SIMILAR_MIN = 0.4
_NEARLY_BEST = 0.8
_SIMILAR_SHOWN_MAX = 3
_OTHER_FACTOR = 0.5

_LEVELS = ("markets", "symbols", "intervals")


def check_matches(
    command: str, store: LakeStore, partition_filter: PartitionFilter, seen: Collection[Series] = ()
) -> None:
    """Check that each chosen name matches a series in the lake.

    Args:
        command: the command's name, for the error.
        seen: series that are known to be in the lake. The check lists the lake only for
            names that match none of these.

    Raises:
        UsageError: if no series matches one of the names.
    """
    if not _selects_series(partition_filter):
        return
    unseen = [each for each in _each_name_alone(partition_filter) if not any(map(each.covers, seen))]
    matching = known_series(store, _without_days(partition_filter)) if unseen else set()
    for narrow in unseen:
        if not any(narrow.covers(series) for series in matching):
            what = f"{command}: the lake has no series that matches {_pattern(narrow)}"
            raise UsageError(what, _similar_series(narrow, known_series(store)))


def check_not_empty(command: str, store: LakeStore, partition_filter: PartitionFilter) -> None:
    """Raise the error that explains an empty result. A recorder that has just started is no error.

    Raises:
        UsageError: if the filter selects days, because the lake has no candles on them.
        LakeError: if the lake is empty and no recorder is running.
    """
    if partition_filter.since or partition_filter.until:
        days = _days_with_candles(store, _without_days(partition_filter))
        chosen = " ".join(
            f"{word} {day}"
            for word, day in (("since", partition_filter.since), ("until", partition_filter.until))
            if day
        )
        raise UsageError(
            f"{command}: {_pattern(partition_filter) if _selects_series(partition_filter) else 'the lake'} has nothing {chosen}",
            f"it has days from {days[0]} to {days[-1]}" if days else "it has no day yet",
        )
    # A series that was unsubscribed before its first candle has nothing to show.
    if not store.series() and not _is_recorded(store):
        raise LakeError(
            f"{command}: {store.name} has no candles, and no recorder writes to it",
            "lakewriter record spot:BTCUSDT:1m, or name another --lake",
        )


def _is_recorded(store: LakeStore) -> bool:
    """Return whether a recorder of any host lives."""
    with current_ledgers(store) as root:
        return bool(living_anywhere(store, root, present_ms()))


def _days_with_candles(store: LakeStore, partition_filter: PartitionFilter) -> list[date]:
    """Return the first and the last day with a candle of each series, sorted."""

    def bounds_of(series: Series) -> list[date]:
        presence = presence_of(store, series)
        return [day_of(each) for each in (presence.first_ms, presence.last_ms) if each is not None]

    found = store.storage.in_parallel(bounds_of, store.series(partition_filter))
    return sorted(chain.from_iterable(found))


def _each_name_alone(partition_filter: PartitionFilter) -> Iterator[PartitionFilter]:
    """Yield the whole filter, and for each chosen name a filter with only this name in its level."""
    yield _without_days(partition_filter)
    for level in _LEVELS:
        for name in getattr(partition_filter, level):
            yield msgspec.structs.replace(_without_days(partition_filter), **{level: (name,)})


def _selects_series(partition_filter: PartitionFilter) -> bool:
    return any(getattr(partition_filter, level) for level in _LEVELS)


def _without_days(partition_filter: PartitionFilter) -> PartitionFilter:
    return PartitionFilter(partition_filter.markets, partition_filter.symbols, partition_filter.intervals)


def _pattern(partition_filter: PartitionFilter) -> str:
    """Return a filter as text, such as "spot:BTCUSDT,ETHUSDT:*"."""
    return ":".join(",".join(getattr(partition_filter, level)) or "*" for level in _LEVELS)


def _similar_series(partition_filter: PartitionFilter, known: set[Series]) -> str:
    """Return a hint: the most similar known series, or how many there are if none is similar."""
    if not known:
        return "it has no series yet"
    similarities = {series: _similarity(partition_filter, series) for series in known}
    best = max(similarities.values())
    if best < _SIMILAR_MIN:
        return f"it has {len(known):,} others; lakewriter coverage"
    near = [series for series in sorted(known) if similarities[series] >= _NEARLY_BEST * best]
    shown = ", ".join(":".join(series) for series in near[:_SIMILAR_SHOWN_MAX])
    return f"it has {shown}" + (
        f" and {len(near) - _SIMILAR_SHOWN_MAX:,} like it" if len(near) > _SIMILAR_SHOWN_MAX else ""
    )


def _similarity(partition_filter: PartitionFilter, series: Series) -> float:
    """Return the similarity of a series to a filter, from 0 to 1."""
    # The names of markets and intervals are checked before, so only a symbol can be misspelt.
    pairs = ((partition_filter.markets, series.market), (partition_filter.intervals, series.interval))
    others = sum(bool(names) and name not in names for names, name in pairs)
    ratios = [SequenceMatcher(None, series.symbol, symbol).ratio() for symbol in partition_filter.symbols]
    return max(ratios, default=1.0) * _OTHER_FACTOR**others
