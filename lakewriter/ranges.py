"""Sets of times as sorted, disjoint, half-open ranges of milliseconds. Pure.

Every function takes and returns ascending lists of `(start_ms, stop_ms)` with
start < stop. The ranges of a list neither overlap nor touch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Range = tuple[int, int]


def union(ranges: Iterable[Range]) -> list[Range]:
    """Return any ranges as a set: sorted, merged, without empty ranges."""
    joined: list[Range] = []
    for start_ms, stop_ms in sorted(ranges):
        if start_ms >= stop_ms:
            continue
        if joined and start_ms <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop_ms))
        else:
            joined.append((start_ms, stop_ms))
    return joined


def added(ranges: list[Range], start_ms: int, stop_ms: int) -> list[Range]:
    """Return the set with one more range."""
    if start_ms >= stop_ms:
        return ranges
    first = bisect_left(ranges, start_ms, key=lambda item: item[1])
    last = bisect_right(ranges, stop_ms, key=lambda item: item[0])
    if first < last:
        start_ms, stop_ms = min(start_ms, ranges[first][0]), max(stop_ms, ranges[last - 1][1])
    return [*ranges[:first], (start_ms, stop_ms), *ranges[last:]]


def without(ranges: list[Range], start_ms: int, stop_ms: int) -> list[Range]:
    """Return the set without one range."""
    first = bisect_right(ranges, start_ms, key=lambda item: item[1])
    last = bisect_left(ranges, stop_ms, key=lambda item: item[0])
    if start_ms >= stop_ms or first >= last:
        return ranges
    rest = []
    if ranges[first][0] < start_ms:
        rest.append((ranges[first][0], start_ms))
    if ranges[last - 1][1] > stop_ms:
        rest.append((stop_ms, ranges[last - 1][1]))
    return [*ranges[:first], *rest, *ranges[last:]]


def minus(ranges: list[Range], others: Iterable[Range]) -> list[Range]:
    """Return the set without all the other ranges."""
    for start_ms, stop_ms in others:
        ranges = without(ranges, start_ms, stop_ms)
    return ranges


def within(ranges: list[Range], start_ms: int, stop_ms: int) -> list[Range]:
    """Return the part of the set within one range."""
    first = bisect_right(ranges, start_ms, key=lambda item: item[1])
    last = bisect_left(ranges, stop_ms, key=lambda item: item[0])
    if start_ms >= stop_ms:
        return []
    return [(max(start_ms, low), min(stop_ms, high)) for low, high in ranges[first:last]]


def contains(ranges: list[Range], moment_ms: int) -> bool:
    """Return whether a time is in the set."""
    at = bisect_right(ranges, moment_ms, key=lambda item: item[0])
    return at > 0 and moment_ms < ranges[at - 1][1]
