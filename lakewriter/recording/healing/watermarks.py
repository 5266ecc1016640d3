"""Watermarks: the begin time of each series' next candle. Pure.

Rule 1: every candle before a series' watermark was seen here, or was returned
as missing. Rule 2: a closed candle that begins after the watermark shows that
the candles between are missing. Rule 3: a candle is missing when its end is
further past than its grace period, even if no other candle arrives.

The time is passed in; times are the exchange's, in milliseconds.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from lakewriter.candle import Candle
from lakewriter.interval import Interval
from lakewriter.ranges import Range
from lakewriter.series import Series


class Overdue(NamedTuple):
    """Candles of a series that missed their deadline; they begin in [start_ms, stop_ms)."""

    series: Series
    start_ms: int
    stop_ms: int


class _SeriesWatermark(msgspec.Struct):
    """The watermark of one series, with its grid and the time from which it is expected.

    `next_ms` is None while the grid is unknown, which only happens for `3d`. Any
    candle of the series shows its grid.
    """

    grid: Interval
    since_ms: int
    next_ms: int | None


class Watermarks:
    """The watermarks of all expected series of a recorder.

    Args:
        grace_ms: returns the grace period of a series, from a candle's end to its deadline.
    """

    def __init__(self, grace_ms: Callable[[Series], int]) -> None:
        self._grace_ms = grace_ms
        self._watermarks: dict[Series, _SeriesWatermark] = {}
        # (deadline, next begin time, series) by market. An entry is stale if its begin time is not the watermark.
        self._deadlines: dict[str, list[tuple[int, int, Series]]] = {}

    def __len__(self) -> int:
        return len(self._watermarks)

    def __contains__(self, series: object) -> bool:
        return series in self._watermarks

    @property
    def series(self) -> Iterable[Series]:
        """The expected series."""
        return self._watermarks.keys()

    @property
    def markets(self) -> list[str]:
        """The markets of the expected series."""
        return list(self._deadlines)

    def since_ms(self, series: Series) -> int | None:
        """Return the time from which a series is expected, or None if it is not expected."""
        watermark = self._watermarks.get(series)
        return None if watermark is None else watermark.since_ms

    def next_ms(self, series: Series) -> int | None:
        """Return a series' next begin time, or None if it is not expected or its grid is unknown."""
        watermark = self._watermarks.get(series)
        return None if watermark is None else watermark.next_ms

    def expect(self, series: Series, from_ms: int) -> None:
        """Add a series, whose candles are expected from the one that contains `from_ms`."""
        grid = series.grid
        known = series.interval != "3d"
        self._watermarks[series] = _SeriesWatermark(grid, from_ms, grid.floor(from_ms) if known else None)
        self._push_deadline(series)

    def anchor(self, series: Series, begin_ms: int) -> None:
        """Set a series' grid by the begin time of any of its candles, if the grid is unknown."""
        watermark = self._watermarks.get(series)
        if watermark is not None and watermark.next_ms is None:
            watermark.grid = watermark.grid.anchored(begin_ms)
            watermark.next_ms = watermark.grid.floor(watermark.since_ms)
            self._push_deadline(series)

    def forget(self, series: Series) -> int | None:
        """Remove a series; return its next begin time, or None if that is unknown."""
        watermark = self._watermarks.pop(series, None)
        return None if watermark is None else watermark.next_ms

    def restart(self, series: Series, from_ms: int) -> int | None:
        """Reset a series to the candle that contains `from_ms`; return the old next begin time."""
        watermark = self._watermarks[series]
        next_ms, watermark.since_ms = watermark.next_ms, from_ms
        if next_ms is not None:
            watermark.next_ms = watermark.grid.floor(from_ms)
            self._push_deadline(series)
        return next_ms

    def advance(self, candle: Candle) -> Range | None:
        """Move the watermark past a closed candle; return the range of candles missing before it, if any."""
        series = candle.series
        watermark = self._watermarks.get(series)
        if watermark is None or (watermark.next_ms is not None and candle.begin_ms < watermark.next_ms):
            return None
        if watermark.next_ms is None:
            watermark.grid = watermark.grid.anchored(candle.begin_ms)
            skipped = None
        else:
            skipped = (watermark.next_ms, candle.begin_ms) if candle.begin_ms > watermark.next_ms else None
        watermark.next_ms = candle.end_ms
        self._push_deadline(series)
        return skipped

    def overdue(self, market: str, now_ms: int) -> Iterator[Overdue]:
        """Yield each candle of a market that missed its deadline, once."""
        deadlines = self._deadlines.get(market, [])
        while deadlines and deadlines[0][0] <= now_ms:
            _, next_ms, series = heapq.heappop(deadlines)
            watermark = self._watermarks.get(series)
            if watermark is None or watermark.next_ms != next_ms:
                continue
            watermark.next_ms = max(
                watermark.grid.end(next_ms), watermark.grid.floor(now_ms - self._grace_ms(series))
            )
            self._push_deadline(series)
            yield Overdue(series, next_ms, watermark.next_ms)

    def _push_deadline(self, series: Series) -> None:
        watermark = self._watermarks[series]
        deadlines = self._deadlines.setdefault(series.market, [])
        if watermark.next_ms is not None:
            deadline_ms = watermark.grid.end(watermark.next_ms) + self._grace_ms(series)
            heapq.heappush(deadlines, (deadline_ms, watermark.next_ms, series))
