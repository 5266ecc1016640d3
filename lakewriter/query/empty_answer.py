"""The reason why a statement found no candles.

An empty answer may be correct. Other causes are a misspelled symbol, a wrong market,
an unrecorded interval, or days before the first candle.

Strategy: `pruning` tests the filter on the names of all series, level by level, as
it does on directories. The reason is the first level at which no name passes. The
text of the filter gives the name that the statement wants, if it contains one.
"""

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple, Protocol

from lakewriter.errors import EmptyAnswerWarning, LakeError
from lakewriter.interval import INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter, PartitionSelection
from lakewriter.lake.presence import presence_of
from lakewriter.partition import day_of, period_date
from lakewriter.series import Series

# Maximum number of names in a text, which counts the others.
_NAMES_MAX = 4

# Maximum number of series whose days are compared with the filter.
_SERIES_MAX = 8

# The candles in the journal, as series and days.
_Unflushed = set[tuple[Series, date]]


class NamedSelection(PartitionSelection, Protocol):
    """A selection of partitions that knows the names that its author wrote."""

    def single_name(self, level: str) -> str:
        """Return the only name that is wanted of a level; "" for no name or several."""


class Absence(NamedTuple):
    """The reason why a selection has no candles.

    Args:
        text: one line; "" if the lake has partitions of the selection.
        of_names: whether no series has the wanted names. Otherwise the days are absent.
    """

    text: str
    of_names: bool


_PRESENT = Absence("", of_names=False)
_EMPTY_LAKE = Absence("the lake is empty", of_names=True)

_PACKAGE = __name__.partition(".")[0]


def absences_of(store: LakeStore, selections: Iterable[NamedSelection]) -> Iterator[Absence]:
    """Yield for each selection the reason why it has no candles."""
    unflushed = _unflushed(store)
    all_series = _all_series(store, unflushed)
    for wanted in selections:
        found = _reason(store, all_series, wanted, unflushed) if all_series else _EMPTY_LAKE
        yield found._replace(text=f"no candles: {found.text}") if found.text else found


def warn_of_empty_answer(text: str) -> None:
    """Issue an EmptyAnswerWarning at the line that called lakewriter."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, EmptyAnswerWarning, level)


def explain_empty(store: LakeStore, filters: Iterable[NamedSelection], *, found: bool) -> str:
    """Return one line on the first filter that matches no partition; "" if every filter matches one.

    Args:
        found: whether the answer has rows, such as the row of a count. Then the
            result is "" if any filter matches a partition.
    """
    unflushed = _unflushed(store)
    all_series = _all_series(store, unflushed)
    if not all_series:
        return f"no candles: {_EMPTY_LAKE.text}"
    reasons = [_reason(store, all_series, wanted, unflushed).text for wanted in filters]
    known = [reason for reason in reasons if reason]
    return f"no candles: {known[0]}" if known and (not found or known == reasons) else ""


def _unflushed(store: LakeStore) -> _Unflushed:
    return {(candle.series, day_of(candle.begin_ms)) for candle in store.unflushed()}


def _all_series(store: LakeStore, unflushed: _Unflushed) -> set[Series]:
    return {*store.series(), *(series for series, _ in unflushed)}


def _reason(
    store: LakeStore, all_series: set[Series], wanted: NamedSelection, unflushed: _Unflushed
) -> Absence:
    left = list(all_series)
    for level in Series._fields:
        kept = wanted.keep(level, _names(left, level))
        if not kept:
            return Absence(_missing_name(level, left, all_series, wanted), of_names=True)
        left = [series for series in left if getattr(series, level) in kept]
    return _PRESENT._replace(text=_missing_days(store, left, wanted, unflushed))


def _missing_name(level: str, left: list[Series], all_series: set[Series], wanted: NamedSelection) -> str:
    """Return a text: the series that lack the name, and the markets that have it, or the existing names."""
    asked = wanted.single_name(level)
    owner = _shared_names(left, Series._fields[: Series._fields.index(level)])
    what = f"{level} {asked}" if asked else f"such {level}"
    text = f"{owner} has no {what}" if owner else f"there is no {what}"
    elsewhere = sorted({series.market for series in all_series if getattr(series, level) == asked})
    if elsewhere and level == "symbol":
        return f"{text}; {_listed(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'}"
    names = _names(left, level)
    if level == "interval":
        names.sort(key=list(INTERVALS).index)
    near = difflib.get_close_matches(asked.upper(), names, 1) if level == "symbol" else []
    names = near or names
    text += f"; there {'is' if len(names) == 1 else 'are'} {_listed(names)}"
    return text + _resample_hint(left, asked) if level == "interval" else text


def _resample_hint(left: list[Series], asked: str) -> str:
    """Return SQL that resamples the shortest interval of a symbol to another; "" if that is impossible."""
    wanted_ms = INTERVALS[asked].length_ms if asked in INTERVALS else 0
    lengths_ms = {series: series.grid.length_ms for series in left}
    # The exchange chooses the day on which 3d candles begin, so no bucket matches them.
    parts = [
        series for series, length in lengths_ms.items() if 0 < length < wanted_ms and wanted_ms % length == 0
    ]
    if len(_names(left, "symbol")) > 1 or not parts or asked == "3d":
        return ""
    shortest = min(sorted(parts), key=lengths_ms.__getitem__)
    market, symbol, interval = shortest
    return f": FROM resample('{market}', '{symbol}', '{interval}', '{asked}')"


def _missing_days(store: LakeStore, left: list[Series], wanted: NamedSelection, unflushed: _Unflushed) -> str:
    """Return the days of the series if none of them passes the filter; "" otherwise."""
    if len(left) > _SERIES_MAX:
        return ""
    first, last = "", ""
    for series in left:
        only = PartitionFilter((series.market,), (series.symbol,), (series.interval,))
        in_journal = {day for of_series, day in unflushed if of_series == series}
        periods = {found.partition.date for found in store.partitions(only)}
        periods |= {period_date(series.interval, day) for day in in_journal}
        if wanted.keep_days(series.interval, sorted(map(str, periods))):
            return ""
        days = [str(day) for day in in_journal.union(_ends(store, series, periods))]
        first, last = min([*days, first or "~"]), max([*days, last])
    if not last:
        return ""
    span = first if first == last else f"{first} to {last}"
    owner = f"{left[0]} has" if len(left) == 1 else f"these {len(left)} series have"
    return f"{owner} {span} (UTC), and none of the days asked for"


def _ends(store: LakeStore, series: Series, periods: set[date]) -> set[date]:
    """Return the first and the last day of a series.

    Args:
        periods: the first days of the series' partitions. The result is `periods` if a
            partition is a day, or if a file is unreadable.
    """
    if series.grid.file_period == "day":
        return periods
    try:
        presence = presence_of(store, series)
        ends = {day_of(time_ms) for time_ms in (presence.first_ms, presence.last_ms) if time_ms is not None}
    except (LakeError, OSError):
        return periods
    return ends or periods


def _shared_names(left: Sequence[Series], levels: Sequence[str]) -> str:
    """Return the names that all series share, one for each such level, joined by spaces."""
    found = [_names(left, level) for level in levels]
    return " ".join(names[0] for names in found if len(names) == 1)


def _names(series: Iterable[Series], level: str) -> list[str]:
    return sorted({getattr(one, level) for one in series})


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_MAX
    return ", ".join(names[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
