"""The plan of a backfill assigns each range of a series to a source. Pure.

Rule 1: candles in the lake, and candles known not to exist, are not fetched.
Rule 2: finished days come from the archive, whose candles are final. Candles shorter than
an hour come from daily files. All others come from monthly files, because a daily file
would hold at most 24 rows.
Rule 3: one page of REST holds years of the longest candles. REST serves a series if that
takes a fraction of the requests.
Rule 4: REST serves the rest, and the candles that files lack.
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

# The maximum delay of a file's publication after its end. Source: README.md of
# binance-public-data: the next day, and the first Monday of the next month.
PUBLISHED_AFTER_MS: dict[Period, int] = {"daily": 3 * DAY_MS, "monthly": 14 * DAY_MS}

# Younger candles are left out, because their values at REST may still change.
YOUNG_MS = 30_000

# REST serves a series if each of its pages replaces at least this many files. A file takes
# two requests, because its checksum is a second file. Weight is scarcer than requests to
# the archive, so fewer files are no reason to spend it.
FILES_PER_PAGE_MIN = 4

ArchiveChoice = Literal["auto", "daily", "monthly", "none"]


class PlannedFile(NamedTuple):
    """A file of the archive to import.

    Args:
        file: the file.
        bytes: the size of its zip, as the archive lists it.
        start_ms, stop_ms: the range of the candles to import.
        only_source: whether no other source has the candles. Then incomplete days of the
            file are imported too.
    """

    file: ArchiveFile
    bytes: int
    start_ms: int
    stop_ms: int
    only_source: bool = False


class Bounds(NamedTuple):
    """The begin and end of a series, according to the exchange.

    Args:
        first_ms: begin of its first candle; None if unknown.
        rest_stop_ms: REST has no candle that begins at this time or later; None without
            such a limit.
        stop_ms: no candle begins at this time or later, because its symbol no longer
            trades; None while the symbol trades.
        unlisted: whether the market no longer lists its symbol. Then only the archive
            has its candles.
        unpublished_ms: begin of the next file that the archive may still publish; None if
            it will publish no more files.
        rest_first_ms: begin of the first candle at REST; None if unknown.
    """

    first_ms: int | None = None
    rest_stop_ms: int | None = None
    stop_ms: int | None = None
    unlisted: bool = False
    unpublished_ms: int | None = None
    rest_first_ms: int | None = None


class FileList(NamedTuple):
    """The files of a series to import. A large plan has millions of files, so each takes a few bytes.

    Args:
        period: the period of the files; None without files.
        days: the first day of each file, as an ordinal, ascending.
        sizes: the size of each file in bytes.
    """

    period: Period | None
    days: "array[int]"
    sizes: "array[int]"


class SeriesPlan(NamedTuple):
    """The backfill of one series.

    Args:
        series: the series.
        bounds: the begin and end of the series.
        start_ms: the minimum begin time of a wanted candle.
        stop_ms: all wanted candles begin before this time; None for "up to now".
        missing: ranges that the lake lacked at the time of planning, and that may exist.
        file_list: the files to import; see `files`.
        rest: the ranges to fetch by REST, ascending.
        pages: the number of REST requests for `rest`.
        weight: the weight of those requests.
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
        """The number of missing candles."""
        return sum(self.series.grid.count(*each) for each in self.missing)

    @property
    def file_bytes(self) -> int:
        """The number of bytes to download."""
        return sum(self.file_list.sizes)

    @property
    def file_count(self) -> int:
        """The number of files to import."""
        return len(self.file_list.days)

    @property
    def files(self) -> list[PlannedFile]:
        """The files to import, ascending. Each access creates a new list."""
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
        return PlannedFile(file, size, max(file.start_ms, self.start_ms), stop_ms, self.bounds.unlisted)


def period_of(interval: str, choice: ArchiveChoice = "auto") -> Period | None:
    """Return the period of the files for an interval; None to use no files."""
    if choice == "none":
        return None
    if interval not in DAILY_INTERVALS:
        return "monthly"
    if choice != "auto":
        return choice
    # "1h" has 24 rows a day. A month's file replaces thirty requests.
    return "daily" if Series("", "", interval).grid.length_ms < HOUR_MS else "monthly"


def plan_series(
    market: Market,
    series: Series,
    bounds: Bounds,
    span: tuple[int, int | None],
    missing: Iterable[Range],
    listed: Mapping[date, int],
    period: Period | None,
    *,
    choose_rest: bool = False,
) -> SeriesPlan:
    """Return the plan for the missing candles of a series.

    Args:
        bounds: the begin and end of the series.
        span: the wanted range; its end is None for "up to now".
        missing: ranges of begin times on the grid.
        listed: the sizes of the archive's files, by first day.
        period: the period of those files; None to leave out the archive.
        choose_rest: whether REST may replace files that take many more requests.
    """
    missing_ranges = union(missing)
    chosen_days = list(_days_of_files(missing_ranges, listed, period)) if period else []
    if choose_rest and period and chosen_days:
        first_file = ArchiveFile(series, period, chosen_days[0])
        pages = sum(page_count(market, series, *each) for each in missing_ranges)
        if _rest_has(bounds, first_file) and pages * FILES_PER_PAGE_MIN <= len(chosen_days):
            chosen_days = []
    ordinals = array("l", (day.toordinal() for day in chosen_days))
    file_list = FileList(period, ordinals, array("q", (listed[day] for day in chosen_days)))
    plan = SeriesPlan(series, bounds, *span, missing_ranges, file_list, [], 0, 0)
    rest = minus(missing_ranges, union((each.start_ms, each.stop_ms) for each in plan.files))
    pages = sum(page_count(market, series, *each) for each in rest)
    weight = pages * market.klines_weight(market.klines_page)
    return plan._replace(rest=rest, pages=pages, weight=weight)


def _rest_has(bounds: Bounds, first_file: ArchiveFile) -> bool:
    """Return whether REST has the candles of a file and of all later ones.

    Only the archive has candles of unlisted symbols. Some contracts begin at REST after
    their first file, or end there before their last.
    """
    if bounds.unlisted or bounds.rest_stop_ms is not None or bounds.rest_first_ms is None:
        return False
    return bounds.rest_first_ms < first_file.stop_ms


def page_count(market: Market, series: Series, start_ms: int, stop_ms: int) -> int:
    """Return the number of REST pages for a whole range."""
    by_rows = -(-series.grid.count(start_ms, stop_ms) // market.klines_page)
    by_span = -(-(stop_ms - start_ms) // market.range_ms_max) if market.range_ms_max else 0
    return max(by_rows, by_span)


def unpublished_ms(series: Series, period: Period, newest: date, now_ms: int) -> int | None:
    """Return the begin of the next file of a series; None if the archive will no longer publish it.

    Args:
        newest: the first day of the newest file.
    """
    stop_ms = ArchiveFile(series, period, newest).stop_ms
    following = ArchiveFile(series, period, day_of(stop_ms))
    return stop_ms if now_ms < following.stop_ms + PUBLISHED_AFTER_MS[period] else None


def days_between(start_ms: int, stop_ms: int) -> Iterator[date]:
    """Yield every day of a half-open range."""
    day, last = day_of(start_ms), day_of(stop_ms - 1)
    while day <= last:
        yield day
        day += timedelta(days=1)


def _days_of_files(missing: list[Range], listed: Mapping[date, int], period: Period) -> Iterator[date]:
    """Yield the first day of each listed file whose period has missing candles, ascending."""
    last: date | None = None
    for start_ms, stop_ms in missing:
        for day in days_between(start_ms, stop_ms):
            first = day if period == "daily" else day.replace(day=1)
            if first != last and first in listed:
                last = first
                yield first
