"""The plan of a backfill: which source serves which range of a series. Pure.

Rule 1: what the lake has, and what is known not to exist, is asked of nobody.
Rule 2: finished days come from the archive, the settled record: a day's file
for candles shorter than an hour, a month's for longer ones, whose days would
cost a request for a handful of rows. Rule 3: REST serves the rest, and whatever
the files turn out not to hold.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Literal, NamedTuple

from lakewriter.binance.archive_files import DAILY_INTERVALS, ArchiveFile, Period
from lakewriter.interval import DAY_MS, HOUR_MS
from lakewriter.market import Market
from lakewriter.partition import day_of
from lakewriter.ranges import Range, minus, union
from lakewriter.series import Series

# So long after its end a file is there, or never will be. Source: README.md of
# binance-public-data says the next day, and the first Monday of the next month.
PUBLISHED_MS: dict[Period, int] = {"daily": 3 * DAY_MS, "monthly": 14 * DAY_MS}

Choice = Literal["auto", "daily", "monthly", "none"]


class PlannedFile(NamedTuple):
    """A file of the archive to import.

    Args:
        file: which.
        bytes: what its zip weighs, as far as the archive says.
        start_ms, stop_ms: of its candles, those are wanted that begin here.
        alone: nobody else has them, so that days are taken that it has only in part.
    """

    file: ArchiveFile
    bytes: int
    start_ms: int
    stop_ms: int
    alone: bool = False


class Bounds(NamedTuple):
    """Where a series begins and ends, as far as the exchange says.

    Args:
        first_ms: begin of its first candle; None if nobody says.
        rest_stop_ms: REST has no candle that begins here or later; None if it may.
        stop_ms: no candle begins here or later, for its symbol trades no more; None
            while it does.
        gone: the market does not list its symbol any more: only the archive has its candles.
        unpublished_ms: of the time from here on the archive may have a file yet; None
            if it never will.
    """

    first_ms: int | None = None
    rest_stop_ms: int | None = None
    stop_ms: int | None = None
    gone: bool = False
    unpublished_ms: int | None = None


class FileList(NamedTuple):
    """Which files of a series are imported, in a few bytes each: there are millions in a large plan.

    Args:
        period: how long a time each is of; None if there are none.
        days: the first day of each, as an ordinal, ascending.
        sizes: what each weighs, in bytes.
    """

    period: Period | None
    days: "array[int]"
    sizes: "array[int]"


class SeriesPlan(NamedTuple):
    """What is to be done for one series.

    Args:
        series: which.
        bounds: where it begins and ends.
        start_ms: the first candle that is wanted begins here or later.
        stop_ms: … and the last one before this; None for "up to now".
        missing: what the lake lacks and may exist, when this was planned.
        file_list: what is imported; see `files`.
        rest: what REST is asked for, ascending.
        pages: how many requests that takes.
        weight: what they cost.
    """

    series: Series
    bounds: Bounds
    start_ms: int
    stop_ms: int | None
    missing: list[Range]
    file_list: FileList
    rest: list[Range]
    pages: int
    weight: int

    @property
    def candles(self) -> int:
        """How many candles are missing."""
        return sum(self.series.grid.count(*each) for each in self.missing)

    @property
    def file_bytes(self) -> int:
        """What is to be downloaded."""
        return sum(self.file_list.sizes)

    @property
    def file_count(self) -> int:
        """How many files are imported."""
        return len(self.file_list.days)

    @property
    def files(self) -> list[PlannedFile]:
        """What is imported, ascending; made anew each time."""
        period, ordinals, sizes = self.file_list
        return (
            []
            if period is None
            else [
                self._planned(ArchiveFile(self.series, period, date.fromordinal(ordinal)), size)
                for ordinal, size in zip(ordinals, sizes, strict=True)
            ]
        )

    def _planned(self, file: ArchiveFile, size: int) -> PlannedFile:
        stop_ms = file.stop_ms if self.stop_ms is None else min(file.stop_ms, self.stop_ms)
        return PlannedFile(file, size, max(file.start_ms, self.start_ms), stop_ms, self.bounds.gone)


def period_of(interval: str, choice: Choice = "auto") -> Period | None:
    """Return which files serve an interval; None for none."""
    if choice == "none":
        return None
    if interval not in DAILY_INTERVALS:
        return "monthly"
    if choice != "auto":
        return choice
    # "1h" has 24 rows a day: a month's file is one request where its days are thirty.
    return "daily" if Series("", "", interval).grid.length_ms < HOUR_MS else "monthly"


def plan_series(
    market: Market,
    series: Series,
    bounds: Bounds,
    span: tuple[int, int | None],
    missing: Iterable[Range],
    listed: Mapping[date, int],
    period: Period | None,
) -> SeriesPlan:
    """Return the plan for what is missing of a series.

    Args:
        bounds: where the series begins and ends.
        span: what is wanted; its end None for "up to now".
        missing: ranges of begin times on the grid.
        listed: the files that the archive has, by first day, with their bytes.
        period: of which those are; None if the archive is left out.
    """
    wanted = union(missing)
    found = list(_firsts(wanted, listed, period)) if period else []
    ordinals = array("l", (day.toordinal() for day in found))
    file_list = FileList(period, ordinals, array("q", (listed[day] for day in found)))
    plan = SeriesPlan(series, bounds, *span, wanted, file_list, [], 0, 0)
    left = minus(wanted, union((each.start_ms, each.stop_ms) for each in plan.files))
    pages = sum(pages_of(market, series, *each) for each in left)
    weight = pages * market.klines_weight(market.klines_page)
    return plan._replace(rest=left, pages=pages, weight=weight)


def pages_of(market: Market, series: Series, start_ms: int, stop_ms: int) -> int:
    """Return how many pages of REST it takes to read a range in full."""
    by_rows = -(-series.grid.count(start_ms, stop_ms) // market.klines_page)
    by_span = -(-(stop_ms - start_ms) // market.range_ms_max) if market.range_ms_max else 0
    return max(by_rows, by_span)


def unpublished_ms(series: Series, period: Period, newest: date, now_ms: int) -> int | None:
    """Return where the first file begins that may come yet; None if it would be there by now.

    Args:
        newest: the first day of the newest file.
    """
    stop_ms = ArchiveFile(series, period, newest).stop_ms
    following = ArchiveFile(series, period, day_of(stop_ms))
    return stop_ms if now_ms < following.stop_ms + PUBLISHED_MS[period] else None


def days(start_ms: int, stop_ms: int) -> Iterator[date]:
    """Yield every day of a half-open range."""
    day, last = day_of(start_ms), day_of(stop_ms - 1)
    while day <= last:
        yield day
        day += timedelta(days=1)


def _firsts(missing: list[Range], listed: Mapping[date, int], period: Period) -> Iterator[date]:
    """Yield the first day of each listed file that something is missing of, ascending."""
    last: date | None = None
    for start_ms, stop_ms in missing:
        for day in days(start_ms, stop_ms):
            first = day if period == "daily" else day.replace(day=1)
            if first != last and first in listed:
                last = first
                yield first
