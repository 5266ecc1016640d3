"""Why a statement found no candles: the first level of the lake at which no name fits its filter.

Strategy: the names of all series are asked level by level what `pruning` asks
of directories. A misspelled symbol, the wrong market, an interval that was not
recorded, days before the first: each leaves nothing at one level. An empty
answer does not tell which, nor whether it is right.

The words alone read what a filter names out of its text; if they cannot, they
do without.
"""

import difflib
from collections.abc import Iterable, Sequence
from datetime import date

from lakewriter.interval import INTERVALS
from lakewriter.lake.journal import read_hot
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import day_of
from lakewriter.query.scan.pruning import FilterPruner
from lakewriter.series import Series

# So many names are said, and of the others how many there are.
_NAMES_MAX = 4

# Days are looked at of so many series.
_SERIES_MAX = 8


def explain_empty(store: LakeStore, wanted: Iterable[FilterPruner], *, found: bool) -> str:
    """Return one line that says why, of the first filter that fits no partition; "" if there is nothing to say.

    Args:
        found: whether there are rows all the same, as of a count: then nothing is
            said unless no filter fits any.
    """
    hot = {
        (Series(each.market, each.symbol, each.interval), day_of(each.begin_ms))
        for each in read_hot(store.state_dir)
    }
    everything = {*store.series(), *(series for series, _ in hot)}
    if not everything:
        return "no candles: the lake is empty"
    reasons = [_reason(store, everything, each, hot) for each in wanted]
    said = [reason for reason in reasons if reason]
    return f"no candles: {said[0]}" if said and (not found or said == reasons) else ""


def _reason(
    store: LakeStore, everything: set[Series], wanted: FilterPruner, hot: set[tuple[Series, date]]
) -> str:
    left = list(everything)
    for level in Series._fields:
        kept = wanted.keep(level, _names(left, level))
        if not kept:
            return _absent(level, left, everything, wanted)
        left = [series for series in left if getattr(series, level) in kept]
    return _of_days(store, left, wanted, hot)


def _absent(level: str, left: list[Series], everything: set[Series], wanted: FilterPruner) -> str:
    """Return who has no such name, and who has it, or what there is instead."""
    asked = wanted.named(level)
    owner = _common(left, Series._fields[: Series._fields.index(level)])
    what = f"{level} {asked}" if asked else f"such {level}"
    said = f"{owner} has no {what}" if owner else f"there is no {what}"
    elsewhere = sorted({series.market for series in everything if getattr(series, level) == asked})
    if elsewhere and level == "symbol":
        return f"{said}; {_listed(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'}"
    names = _names(left, level)
    if level == "interval":
        names.sort(key=list(INTERVALS).index)
    near = difflib.get_close_matches(asked.upper(), names, 1) if level == "symbol" else []
    names = near or names
    there = f"there {'is' if len(names) == 1 else 'are'} {_listed(names)}"
    return f"{said}; {there}{_made_of(left, asked)}" if level == "interval" else f"{said}; {there}"


def _made_of(left: list[Series], asked: str) -> str:
    """Return how candles of an interval are made of shorter ones of the same series, if they can be: of the shortest ones."""
    wanted_ms = INTERVALS[asked].length_ms if asked in INTERVALS else 0
    lengths_ms = {each: each.grid.length_ms for each in left}
    # On which of three days those begin is the exchange's choice.
    parts = [
        each for each, length in lengths_ms.items() if 0 < length < wanted_ms and wanted_ms % length == 0
    ]
    if len(_names(left, "symbol")) > 1 or not parts or asked == "3d":
        return ""
    shortest = min(sorted(parts), key=lengths_ms.__getitem__)
    market, symbol, interval = shortest
    return f": FROM resample('{market}', '{symbol}', '{interval}', '{asked}')"


def _of_days(
    store: LakeStore, left: list[Series], wanted: FilterPruner, hot: set[tuple[Series, date]]
) -> str:
    """Return which days the series have, if none of them fits."""
    if len(left) > _SERIES_MAX:
        return ""
    first, last = "", ""
    for series in left:
        only = PartitionFilter((series.market,), (series.symbol,), (series.interval,))
        days = {partition.date.isoformat() for partition, _ in store.partitions(only)}
        days |= {str(day) for each, day in hot if each == series}
        if wanted.keep_days(series.interval, sorted(days)):
            return ""
        first, last = min([*days, first or "~"]), max([*days, last])
    if not last:
        return ""
    span = first if first == last else f"{first} to {last}"
    owner = f"{left[0]} has" if len(left) == 1 else f"these {len(left)} series have"
    return f"{owner} {span} (UTC), and none of the days asked for"


def _common(left: Sequence[Series], levels: Sequence[str]) -> str:
    """Return the names that all of the series share."""
    found = [_names(left, level) for level in levels]
    return " ".join(names[0] for names in found if len(names) == 1)


def _names(series: Iterable[Series], level: str) -> list[str]:
    return sorted({getattr(each, level) for each in series})


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_MAX
    return ", ".join(names[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
