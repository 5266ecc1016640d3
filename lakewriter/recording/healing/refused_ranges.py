"""Ranges that the exchange refused, kept until they are retried. Pure.

A refusal that should be final may have been temporary. The range is retried an
hour later by the exchange's time, and at each start.
"""

from collections.abc import Callable
from typing import NamedTuple

from lakewriter.ranges import Range, added
from lakewriter.series import Series

REFUSED_AGAIN_MS = 3_600_000


class _Refused(NamedTuple):
    again_ms: int
    ranges: list[Range]


class RefusedRanges:
    """The refused ranges of all series."""

    def __init__(self) -> None:
        self._refused: dict[Series, _Refused] = {}

    def add(self, series: Series, ranges: list[Range], now_ms: int) -> None:
        """Add ranges, which are kept until an hour after the first refusal of their series."""
        again_ms, refused = self._refused.get(series, _Refused(now_ms + REFUSED_AGAIN_MS, []))
        for start_ms, stop_ms in ranges:
            refused = added(refused, start_ms, stop_ms)
        self._refused[series] = _Refused(again_ms, refused)

    def take_due(self, now_ms: Callable[[str], int]) -> list[tuple[Series, list[Range]]]:
        """Remove and return the ranges to retry.

        Args:
            now_ms: returns the time at a market.
        """
        due = [
            series for series, refused in self._refused.items() if now_ms(series.market) >= refused.again_ms
        ]
        return [(series, self._refused.pop(series).ranges) for series in due]
