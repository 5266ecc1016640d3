"""Filters that match nothing: a spelling mistake must not pass for health in cron."""

from collections.abc import Collection, Iterator
from difflib import SequenceMatcher

import msgspec

from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.journal import living_recorders
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence_many import known_series
from lakewriter.series import Series

# So similarities, from 0 to 1, is what may have been meant, and what is nearly as similarities as the
# best; of these so many are named. Another market or interval halves the likeness.
_SIMILAR_MIN = 0.4
_NEARLY_BEST = 0.8
_SIMILAR_SHOWN_MAX = 3
_OTHER_FACTOR = 0.5

_LEVELS = ("markets", "symbols", "intervals")


def check_matches(
    command: str, store: LakeStore, wanted: PartitionFilter, seen: Collection[Series] = ()
) -> None:
    """See that each name that a user chose is of a series in the lake.

    Args:
        command: its name, for the message.
        seen: series that are known to be there: only for others the lake is asked.

    Raises:
        UsageError: if the lake has no series that matches one of them.
    """
    if not _selects_series(wanted):
        return
    unseen = [each for each in _each_name_alone(wanted) if not any(map(each.covers, seen))]
    matching = known_series(store, _without_days(wanted)) if unseen else set()
    for narrow in unseen:
        if not any(narrow.covers(series) for series in matching):
            what = f"{command}: the lake has no series that matches {_pattern(narrow)}"
            raise UsageError(what, _similar_series(narrow, known_series(store)))


def check_not_empty(command: str, store: LakeStore, wanted: PartitionFilter) -> None:
    """Say what it means that nothing was found, unless it is in order: a recorder has just begun.

    Raises:
        UsageError: if days were chosen on which there is nothing.
        LakeError: if there is nothing at all, and nobody records.
    """
    if wanted.since or wanted.until:
        days = sorted(partition.date for partition, _ in store.partitions(_without_days(wanted)))
        chosen = " ".join(
            f"{word} {day}" for word, day in (("since", wanted.since), ("until", wanted.until)) if day
        )
        raise UsageError(
            f"{command}: {_pattern(wanted) if _selects_series(wanted) else 'the lake'} has nothing {chosen}",
            f"it has days from {days[0]} to {days[-1]}" if days else "it has no day yet",
        )
    # A series that is only known by its subscription, and was left, has nothing to show.
    if not living_recorders(store.state_dir) and not store.series():
        raise LakeError(
            f"{command}: {store.name} has no candles, and nobody records into it",
            "lakewriter record spot:BTCUSDT:1m, or name another --lake",
        )


def _each_name_alone(wanted: PartitionFilter) -> Iterator[PartitionFilter]:
    """Yield the filter with each chosen name in turn as the only one of its level; the whole one first."""
    yield _without_days(wanted)
    for level in _LEVELS:
        for name in getattr(wanted, level):
            yield msgspec.structs.replace(_without_days(wanted), **{level: (name,)})


def _selects_series(wanted: PartitionFilter) -> bool:
    return any(getattr(wanted, level) for level in _LEVELS)


def _without_days(wanted: PartitionFilter) -> PartitionFilter:
    return PartitionFilter(wanted.markets, wanted.symbols, wanted.intervals)


def _pattern(wanted: PartitionFilter) -> str:
    """Return "spot:BTCUSDT,ETHUSDT:*"."""
    return ":".join(",".join(getattr(wanted, level)) or "*" for level in _LEVELS)


def _similar_series(wanted: PartitionFilter, known: set[Series]) -> str:
    """Return which series may have been meant."""
    if not known:
        return "it has no series yet"
    similarities = {series: _similarity(wanted, series) for series in known}
    best = max(similarities.values())
    if best < _SIMILAR_MIN:
        return f"it has {len(known):,} others; lakewriter coverage"
    near = [series for series in sorted(known) if similarities[series] >= _NEARLY_BEST * best]
    shown = ", ".join(":".join(series) for series in near[:_SIMILAR_SHOWN_MAX])
    return f"it has {shown}" + (
        f" and {len(near) - _SIMILAR_SHOWN_MAX:,} like it" if len(near) > _SIMILAR_SHOWN_MAX else ""
    )


def _similarity(wanted: PartitionFilter, series: Series) -> float:
    """Return how well a series fits a filter, from 0 to 1."""
    # Another market or interval than was meant is chosen, not misspelt.
    pairs = ((wanted.markets, series.market), (wanted.intervals, series.interval))
    others = sum(bool(names) and name not in names for names, name in pairs)
    spelt = [SequenceMatcher(None, series.symbol, symbol).ratio() for symbol in wanted.symbols]
    return max(spelt, default=1.0) * _OTHER_FACTOR**others
