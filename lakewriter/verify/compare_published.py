"""Whether our candles are those that the exchange publishes, and mending them.

What is published is told by a `Publisher`; this module asks it window by
window, compares, and with repair merges what wins. Nothing is ever deleted, and
no rule of `candle` is bent: a published candle wins as it would in any merge.
That the archive is settled makes it win over anything; a REST candle wins if it has
as many trades as ours or more, for a candle only gains trades: one with fewer is
reported and left, since there it is REST that lags.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, deduplicate, int_column
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import presence_of
from lakewriter.partition import Partition, day_of
from lakewriter.ranges import Range
from lakewriter.series import Series
from lakewriter.verify.aggregates import sources_of
from lakewriter.verify.differences import differences, flaws_of, winning
from lakewriter.verify.findings import VerifyReport
from lakewriter.verify.partition_contents import read_contents, series_places

# A candle that closed so recently may still change where it is published, and may
# still be in the journal here. Source: python-binance#1246; --flush-every is 5m.
SETTLED_AFTER_MS = 10 * 60 * 1000

# Months before this long ago are asked for whole; later days one by one, since
# what is published of them may end at any day.
WHOLE_MONTHS_AFTER_MS = 40 * DAY_MS


class Publisher(Protocol):
    """Who publishes candles: the archive, or REST."""

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        """Return what is published of a range, as rows of SCHEMA; None if nothing is, or not yet.

        May be cancelled at any time.
        """


class Window(NamedTuple):
    """A range to ask for, and how many partitions of ours are in it."""

    series: Series
    start_ms: int
    stop_ms: int
    partitions: int


async def compare(
    store: LakeStore,
    publisher: Publisher,
    wanted: PartitionFilter,
    report: VerifyReport,
    *,
    now_ms: int,
    repair: bool = False,
) -> AsyncIterator[Window]:
    """Compare every series with what is published, yielding each window when it is done.

    A series is compared from its first candle in the lake to its last one:
    what came before the recording is not missing.

    Args:
        now_ms: the time at the exchange.
        repair: merge published rows that are missing here, or that win.

    Raises:
        LakeError: if a merge fails.

    Crash: what was merged stays; the next run finds the rest.
    """
    for window in windows(store, wanted, now_ms):
        published = await publisher.rows(window.series, window.start_ms, window.stop_ms)
        if published is not None:
            _compare_window(store, window, published, report, repair=repair)
        await asyncio.sleep(0)  # a publisher that never waits must not keep Ctrl-C out
        yield window


def windows(store: LakeStore, wanted: PartitionFilter, now_ms: int) -> Iterator[Window]:
    """Yield the ranges to ask for, series by series, ascending."""
    for series, places in series_places(store, wanted):
        days = [place.partition.start_ms for place in places]
        start_ms, stop_ms = _span(store, series, days, now_ms)
        while start_ms < stop_ms:
            end_ms = min(_window_end(series, start_ms, now_ms), stop_ms)
            inside = bisect_left(days, end_ms) - bisect_left(days, start_ms - DAY_MS + 1)
            yield Window(series, start_ms, end_ms, inside)
            start_ms = end_ms


def _span(store: LakeStore, series: Series, days: list[int], now_ms: int) -> Range:
    """Return from the first to the last candle of the series, in those days, that has settled."""
    start_ms, stop_ms, grid = days[0], days[-1] + DAY_MS, series.grid
    try:
        there = presence_of(store, series)
        if there.first_ms is not None and there.last_ms is not None:
            start_ms, stop_ms = max(start_ms, there.first_ms), min(stop_ms, there.last_ms + 1)
            grid = there.grid
    except LakeError:
        pass  # the first or last file cannot be read: its whole day is asked for
    return start_ms, min(stop_ms, grid.floor(now_ms - SETTLED_AFTER_MS))


def _window_end(series: Series, start_ms: int, now_ms: int) -> int:
    """Return where the window that begins then ends: with its month, or its day.

    A day of seconds is as many rows as two months of minutes.
    """
    day_end_ms, month_end_ms = (
        INTERVALS[name].end(INTERVALS[name].floor(start_ms)) for name in ("1d", "1mo")
    )
    if sources_of(series.interval) == ["1d"]:
        return month_end_ms  # published by the month alone
    long_past = month_end_ms <= now_ms - WHOLE_MONTHS_AFTER_MS
    return month_end_ms if long_past and series.interval != "1s" else day_end_ms


def _compare_window(
    store: LakeStore, window: Window, published: pa.Table, report: VerifyReport, *, repair: bool
) -> None:
    series = window.series
    ours, unreadable = _ours(store, window)
    published = _between(deduplicate(published), window, unreadable)
    found = differences(ours, published)
    wins = winning(ours.take(pa.array(found.ours)), published.take(pa.array(found.differs)))
    tally = report.of(series, "against")
    tally.checked += len(np.union1d(*(int_column(each, "candle_begin_time") for each in (ours, published))))
    report.add(series, flaws_of(ours, published, found, wins, repair=repair))
    if repair:
        better = np.sort(np.concatenate([found.missing, found.differs[wins]]))
        for partition, rows in _by_day(series, published.take(pa.array(better))):
            merged = store.merge(partition, rows)
            tally.corrected += merged.corrections
            tally.added += merged.added


def _ours(store: LakeStore, window: Window) -> tuple[pa.Table, list[int]]:
    """Return our rows of a window, and the days whose files cannot be read."""
    market, symbol, interval = window.series
    days = PartitionFilter(
        (market,), (symbol,), (interval,), day_of(window.start_ms), day_of(window.stop_ms - 1)
    )
    tables, unreadable = [SCHEMA.empty_table()], []
    for _, places in series_places(store, days):
        for place in places:
            contents = read_contents(store, place)
            if contents.readable:
                tables.append(contents.rows)
            else:
                unreadable.append(place.partition.start_ms)
    return _between(pa.concat_tables(tables), window, []), unreadable


def _between(rows: pa.Table, window: Window, without_days: list[int]) -> pa.Table:
    begins = int_column(rows, "candle_begin_time")
    inside = (begins >= window.start_ms) & (begins < window.stop_ms)
    return rows.filter(pa.array(inside & ~np.isin(begins // DAY_MS * DAY_MS, without_days)))


def _by_day(series: Series, rows: pa.Table) -> Iterator[tuple[Partition, pa.Table]]:
    days = int_column(rows, "candle_begin_time") // DAY_MS
    for day in np.unique(days).tolist():
        yield Partition(*series, day_of(day * DAY_MS)), rows.filter(pa.array(days == day))
