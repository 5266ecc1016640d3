"""Comparison of the lake's candles with published ones, and repair of the lake.

A `Publisher` returns published candles, window by window. A repair merges those that win,
and deletes nothing. A published candle wins as in any merge:

- a candle of the archive wins, because the archive is final;
- a candle of REST wins if it has at least as many trades, because a candle only gains
  trades. A candle with fewer is only reported, because REST then lags.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, deduplicate, int_column
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import presence_of
from lakewriter.partition import Partition, day_of, split_by_partition
from lakewriter.ranges import Range
from lakewriter.series import Series
from lakewriter.verify.aggregates import sources_of
from lakewriter.verify.differences import defects_of, differences, winning_rows
from lakewriter.verify.findings import VerifyReport
from lakewriter.verify.partition_contents import read_contents, series_partitions

# The minimum age of a compared candle. A younger one may still change at its publisher, and
# may still be in the journal. Source: python-binance#1246; --flush-every is 5m.
SETTLED_AFTER_MS = 10 * 60 * 1000

# The minimum age of a month that is requested whole. Later days are requested one by one,
# because the published candles of a month may end on any day.
WHOLE_MONTHS_AFTER_MS = 40 * DAY_MS


class Publisher(Protocol):
    """A source of published candles: the archive or REST."""

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        """Return the published rows of a range, in SCHEMA; None if none is published yet.

        The call may be cancelled at any time.
        """


class Window(NamedTuple):
    """A range to request, and the number of its partitions that no earlier window counts."""

    series: Series
    start_ms: int
    stop_ms: int
    partitions: int


async def compare_published(
    store: LakeStore,
    publisher: Publisher,
    selection: PartitionFilter,
    report: VerifyReport,
    *,
    now_ms: int,
    repair: bool = False,
) -> AsyncIterator[Window]:
    """Compare each series with its published candles; yield each finished window.

    A series is compared from its first candle in the lake to its last one. Earlier
    candles are not missing.

    Args:
        report: receives the findings.
        now_ms: the time at the exchange.
        repair: whether to merge published rows that win or that the lake lacks.

    Raises:
        LakeError: if a merge fails.

    Crash: merged rows stay; the next run finds the rest.
    """
    for window in windows(store, selection, now_ms):
        published = await publisher.rows(window.series, window.start_ms, window.stop_ms)
        if published is not None:
            _compare_window(store, window, published, report, repair=repair)
        await asyncio.sleep(0)  # a publisher that never waits must not block Ctrl-C
        yield window


def windows(store: LakeStore, selection: PartitionFilter, now_ms: int) -> Iterator[Window]:
    """Yield the ranges to request, series by series, ascending."""
    for series, partitions in series_partitions(store, selection):
        found = [dirs.partition for dirs in partitions]
        start_ms, stop_ms = _span(store, series, found, selection, now_ms)
        starts = [partition.start_ms for partition in found]
        counted = bisect_left([partition.stop_ms for partition in found], start_ms + 1)
        while start_ms < stop_ms:
            end_ms = min(_window_end(series, start_ms, now_ms), stop_ms)
            begun = bisect_left(starts, end_ms)
            yield Window(series, start_ms, end_ms, begun - counted)
            start_ms, counted = end_ms, begun


def _span(
    store: LakeStore, series: Series, partitions: list[Partition], selection: PartitionFilter, now_ms: int
) -> Range:
    """Return the range from the first to the last settled candle of the series in the selected days."""
    start_ms, stop_ms = selection.clipped(partitions[0].start_ms, partitions[-1].stop_ms)
    grid = series.grid
    try:
        presence = presence_of(store, series)
        if presence.first_ms is not None and presence.last_ms is not None:
            start_ms, stop_ms = max(start_ms, presence.first_ms), min(stop_ms, presence.last_ms + 1)
            grid = presence.grid
    except LakeError:
        pass  # the first or last file is unreadable, so its whole period is requested
    return start_ms, min(stop_ms, grid.floor(now_ms - SETTLED_AFTER_MS))


def _window_end(series: Series, start_ms: int, now_ms: int) -> int:
    """Return the end of the window that begins at `start_ms`: the end of its month or day.

    A day of 1s candles has as many rows as two months of 1m candles.
    """
    day_end_ms, month_end_ms = (
        INTERVALS[name].end(INTERVALS[name].floor(start_ms)) for name in ("1d", "1mo")
    )
    if sources_of(series.interval) == ["1d"]:
        return month_end_ms  # the archive has only monthly files
    long_past = month_end_ms <= now_ms - WHOLE_MONTHS_AFTER_MS
    return month_end_ms if long_past and series.interval != "1s" else day_end_ms


def _compare_window(
    store: LakeStore, window: Window, published: pa.Table, report: VerifyReport, *, repair: bool
) -> None:
    series = window.series
    ours, unreadable = _ours(store, window)
    published = _rows_in_window(deduplicate(published), window, without=unreadable)
    found = differences(ours, published)
    published_wins = winning_rows(ours.take(pa.array(found.ours)), published.take(pa.array(found.differs)))
    counts = report.counts_of(series, "against")
    counts.checked += len(np.union1d(*(int_column(each, "candle_begin_time") for each in (ours, published))))
    report.add(series, defects_of(ours, published, found, published_wins, repair=repair))
    if repair:
        better = np.sort(np.concatenate([found.missing, found.differs[published_wins]]))
        for partition, rows in split_by_partition(series, published.take(pa.array(better))):
            merged = store.merge(partition, rows)
            counts.corrected += merged.corrections
            counts.added += merged.added


def _ours(store: LakeStore, window: Window) -> tuple[pa.Table, list[Partition]]:
    """Return the lake's rows of a window, and the partitions with unreadable files."""
    market, symbol, interval = window.series
    days = PartitionFilter(
        (market,), (symbol,), (interval,), day_of(window.start_ms), day_of(window.stop_ms - 1)
    )
    tables, unreadable = [SCHEMA.empty_table()], []
    for _, partitions in series_partitions(store, days):
        for dirs in partitions:
            contents = read_contents(store, dirs)
            if contents.readable:
                tables.append(contents.rows)
            else:
                unreadable.append(dirs.partition)
    return _rows_in_window(pa.concat_tables(tables), window), unreadable


def _rows_in_window(rows: pa.Table, window: Window, without: Iterable[Partition] = ()) -> pa.Table:
    begins = int_column(rows, "candle_begin_time")
    inside = (begins >= window.start_ms) & (begins < window.stop_ms)
    for partition in without:
        inside &= (begins < partition.start_ms) | (begins >= partition.stop_ms)
    return rows.filter(pa.array(inside))
