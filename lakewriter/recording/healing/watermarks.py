"""Watermarks: up to where each series is accounted for, and who is late. Pure.

Rule 1: everything before a series' watermark was seen here, or was handed out
as missing. Rule 2: a closed candle that begins after the watermark shows that
those between are missing. Rule 3: a candle whose end is longer past than its
grace is missing, whatever else is silent.

Nothing here asks what time it is; times are the exchange's, in milliseconds.
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
    """Candles of a series that should have come by now; they begin in [start_ms, stop_ms)."""

    series: Series
    start_ms: int
    stop_ms: int


class _SeriesWatermark(msgspec.Struct):
    """One series: its grid, since when it is owed, and the begin time that comes next.

    `next_ms` is None while the grid is not known: of `3d` any candle tells it.
    """

    grid: Interval
    since_ms: int
    next_ms: int | None


class Watermarks:
    """The watermarks of all series of a recorder.

    Args:
        grace_ms: how long after its end a series' closed candle may take.
    """

    def __init__(self, grace_ms: Callable[[Series], int]) -> None:
        self._grace_ms = grace_ms
        self._marks: dict[Series, _SeriesWatermark] = {}
        # By market: (deadline, next begin, series); what does not fit its mark any more is passed over.
        self._deadlines: dict[str, list[tuple[int, int, Series]]] = {}

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, series: object) -> bool:
        return series in self._marks

    @property
    def series(self) -> Iterable[Series]:
        """The series that are owed."""
        return self._marks.keys()

    @property
    def markets(self) -> list[str]:
        """The markets of the series."""
        return list(self._deadlines)

    def since_ms(self, series: Series) -> int | None:
        """Return from when on a series is owed; None if it is not."""
        mark = self._marks.get(series)
        return None if mark is None else mark.since_ms

    def next_ms(self, series: Series) -> int | None:
        """Return the begin time that comes next; None if the series is not owed, or its grid not known."""
        mark = self._marks.get(series)
        return None if mark is None else mark.next_ms

    def expect(self, series: Series, from_ms: int) -> None:
        """Owe every candle of a series from the one on that contains `from_ms`."""
        grid = series.grid
        known = series.interval != "3d"
        self._marks[series] = _SeriesWatermark(grid, from_ms, grid.floor(from_ms) if known else None)
        self._await_next(series)

    def anchor(self, series: Series, begin_ms: int) -> None:
        """Learn from the begin of any of its candles where a series' grid lies, if that is not known."""
        mark = self._marks.get(series)
        if mark is not None and mark.next_ms is None:
            mark.grid = mark.grid.anchored(begin_ms)
            mark.next_ms = mark.grid.floor(mark.since_ms)
            self._await_next(series)

    def forget(self, series: Series) -> int | None:
        """Owe a series no more; return the begin time that would have come next."""
        mark = self._marks.pop(series, None)
        return None if mark is None else mark.next_ms

    def restart(self, series: Series, from_ms: int) -> int | None:
        """Owe a series from the candle on that contains `from_ms`; return the begin time that came next."""
        mark = self._marks[series]
        next_ms, mark.since_ms = mark.next_ms, from_ms
        if next_ms is not None:
            mark.next_ms = mark.grid.floor(from_ms)
            self._await_next(series)
        return next_ms

    def seen(self, candle: Candle) -> Range | None:
        """Take note of a closed candle; return the range of those missing before it."""
        series = candle.series
        mark = self._marks.get(series)
        if mark is None or (mark.next_ms is not None and candle.begin_ms < mark.next_ms):
            return None
        if mark.next_ms is None:
            mark.grid = mark.grid.anchored(candle.begin_ms)
            skipped = None
        else:
            skipped = (mark.next_ms, candle.begin_ms) if candle.begin_ms > mark.next_ms else None
        mark.next_ms = candle.end_ms
        self._await_next(series)
        return skipped

    def overdue(self, market: str, now_ms: int) -> Iterator[Overdue]:
        """Yield what is late in a market by now; each candle once."""
        deadlines = self._deadlines.get(market, [])
        while deadlines and deadlines[0][0] <= now_ms:
            _, next_ms, series = heapq.heappop(deadlines)
            mark = self._marks.get(series)
            if mark is None or mark.next_ms != next_ms:
                continue
            mark.next_ms = max(mark.grid.end(next_ms), mark.grid.floor(now_ms - self._grace_ms(series)))
            self._await_next(series)
            yield Overdue(series, next_ms, mark.next_ms)

    def _await_next(self, series: Series) -> None:
        mark = self._marks[series]
        deadlines = self._deadlines.setdefault(series.market, [])
        if mark.next_ms is not None:
            deadline_ms = mark.grid.end(mark.next_ms) + self._grace_ms(series)
            heapq.heappush(deadlines, (deadline_ms, mark.next_ms, series))
