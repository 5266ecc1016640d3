"""The position of a follower: which candles of each series it has handed out. Pure.

A series has ranges of begin times. The first range begins at 0 and ends where the
following begins; what lies in it is not wanted. So a series without missing candles has
one range, and a late candle joins two.

    {"lakewriter_position":1,"from":0,"series":{"spot:BTCUSDT:1m":[[0,1719705660000]]}}
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from lakewriter.errors import UsageError
from lakewriter.interval import CALENDAR_MS_MAX, INTERVALS
from lakewriter.partition import is_series
from lakewriter.ranges import Range, added, contains, union, within
from lakewriter.series import Series

# The oldest gaps of a series are given up beyond this number of ranges.
RANGES_MAX = 1_000

_VERSION = 1


class _Saved(msgspec.Struct, frozen=True):
    lakewriter_position: int
    from_ms: int = msgspec.field(name="from")
    series: dict[str, list[tuple[int, int]]]


class Position:
    """The handed-out candles of all series.

    Args:
        from_ms: the begin time from which other series are followed.
    """

    def __init__(self, from_ms: int = 0) -> None:
        self.from_ms = from_ms
        self._series: dict[tuple[str, str, str], list[Range]] = {}

    def copy(self) -> "Position":
        """Return a position that changes on its own."""
        other = Position(self.from_ms)
        other._series = {series: list(ranges) for series, ranges in self._series.items()}
        return other

    def begin(self, series: Series, from_ms: int) -> None:
        """Follow a series from a begin time on, unless it is followed already."""
        if series not in self._series:
            self._series[series] = [(0, from_ms)]

    def __contains__(self, series: tuple[str, str, str]) -> bool:
        return series in self._series

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Yield the series that are followed."""
        return iter(self._series)

    def first_missing_ms(self, series: tuple[str, str, str]) -> int:
        """Return the first begin time that a candle of the series can still have."""
        ranges = self._series.get(series)
        return ranges[0][1] if ranges else self.from_ms

    def newest_ms(self, series: tuple[str, str, str]) -> int:
        """Return the end of the newest candle, or the time from which the series is followed."""
        ranges = self._series.get(series)
        return ranges[-1][1] if ranges else self.from_ms

    def has(self, series: tuple[str, str, str], begin_ms: int) -> bool:
        """Return whether a candle was handed out, or is not wanted."""
        ranges = self._series.get(series)
        if ranges is None:
            return begin_ms < self.from_ms
        return begin_ms < ranges[-1][1] and contains(ranges, begin_ms)

    def covers(self, series: Series, start_ms: int, stop_ms: int) -> bool:
        """Return whether each begin time of a range was handed out, or is not wanted."""
        ranges = self._series.get(series) or [(0, self.from_ms)]
        return within(ranges, start_ms, stop_ms) == [(start_ms, stop_ms)]

    def add(self, series: tuple[str, str, str], begin_ms: int) -> bool:
        """Add a candle that is not handed out yet; return whether a later one of its series was.

        A candle off its interval's grid counts as the one of the grid before it.
        """
        end_ms = INTERVALS[series[2]].end(begin_ms)
        ranges = self._series.get(series)
        if ranges is None:
            ranges = self._series[series] = [(0, self.from_ms)]
        start_ms, stop_ms = ranges[-1]
        if begin_ms == stop_ms:
            ranges[-1] = (start_ms, end_ms)
            return False
        if begin_ms > stop_ms:
            ranges.append((begin_ms, end_ms))
        else:
            self._series[series] = ranges = added(ranges, begin_ms, end_ms)
        if len(ranges) > RANGES_MAX:
            ranges[:2] = [(ranges[0][0], ranges[1][1])]
        return begin_ms < stop_ms

    def encode(self) -> str:
        """Return the position as one line of JSON."""
        series = {":".join(names): ranges for names, ranges in self._series.items()}
        return msgspec.json.encode(_Saved(_VERSION, self.from_ms, series)).decode()


def parse_position(text: str | bytes, name: str) -> Position:
    """Return the position of a text from `Position.encode`.

    Args:
        name: the thing that has the text, for the error.

    Raises:
        UsageError: if the text is no position, or one of a newer version.
    """
    try:
        saved = msgspec.json.decode(text, type=_Saved)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{name}: is no position of a follower: {error}", "delete it to start anew"
        ) from None
    if saved.lakewriter_position > _VERSION:
        raise UsageError(f"{name}: was written by a newer lakewriter", "pip install --upgrade lakewriter")
    position = Position(saved.from_ms)
    for names, ranges in saved.series.items():
        series: tuple[Any, ...] = tuple(names.split(":"))
        if len(series) != 3 or not is_series(*series) or not _are_times(ranges):
            raise UsageError(f"{name}: {names!r} is no series of a position", "delete it to start anew")
        joined = union(ranges)
        position._series[Series(*series)] = joined if joined and not joined[0][0] else [(0, 0), *joined]
    return position


def _are_times(ranges: list[tuple[int, int]]) -> bool:
    return all(0 <= start_ms <= stop_ms <= CALENDAR_MS_MAX for start_ms, stop_ms in ranges)
