"""Check that the rows of a file have the claimed interval. Pure.

Rule: three or more rows prove their interval, and so do end times. A contradicting claim
refuses the file.
"""

import numpy as np

from lakewriter.candle import BoolArray, IntArray
from lakewriter.evidence.claims import RowsError
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS, SECOND_MS, Interval

# The minimum number of rows that prove the distance between a file's candles.
SPACED_ROWS_MIN = 3

# The minimum share of rows that begin on the grid of their interval. Others are outliers.
_ON_GRID_SHARE = 0.9


def check_spacing(begins: IntArray, grid: Interval, by: str) -> None:
    """Check that the distances between rows fit the claimed interval.

    Args:
        begins: begin times, milliseconds, in any order.
        by: the source that claims the interval.

    Raises:
        RowsError: if the rows have another interval.
    """
    steps_ms = np.diff(begins)
    if len(steps_ms) >= SPACED_ROWS_MIN and bool((steps_ms == grid.length_ms).all()):
        return  # at most every second row is on the grid of a longer interval
    times = np.unique(begins)
    if len(times) < SPACED_ROWS_MIN:
        return
    for other in sorted(INTERVALS.values(), key=longest_ms, reverse=True):
        if longest_ms(other) <= longest_ms(grid):
            break
        if _on_grid(times, other).mean() >= _ON_GRID_SHARE:
            raise _wrong_spacing(f"are {other.name}", grid, by, other)
    steps_ms = np.diff(times)
    if steps_ms.min() > longest_ms(grid):
        raise _wrong_spacing(f"are {length_text(int(steps_ms.min()))} apart or more", grid, by)
    usual_ms = float(np.median(steps_ms))
    if usual_ms < _shortest_ms(grid):
        finer = next((interval for interval in INTERVALS.values() if interval.length_ms == usual_ms), None)
        if finer is not None:
            raise _wrong_spacing(f"are {finer.name}", grid, by, finer)


def _wrong_spacing(what: str, grid: Interval, by: str, other: Interval | None = None) -> RowsError:
    hint = "--sparse if rows are missing in between"
    if other is not None:
        # An option selects rows. It overrules the file only with --relabel.
        relabel = "" if by == "--interval" else "--relabel "
        hint = f"{relabel}--interval {other.name}, or {hint}"
    return RowsError(f"these rows {what}, {by} says {grid.name}", hint)


def longest_ms(interval: Interval) -> int:
    """Return the length of the interval's longest candle."""
    return interval.length_ms or 31 * DAY_MS


def _shortest_ms(interval: Interval) -> int:
    return interval.length_ms or 28 * DAY_MS


def _on_grid(times: IntArray, interval: Interval) -> BoolArray:
    if not interval.length_ms:
        days = times.astype("datetime64[ms]").astype("datetime64[M]").astype("datetime64[ms]")
        first_days: BoolArray = days.astype(np.int64) == times
        return first_days
    anchor_ms = int(times[0]) if interval.name == "3d" else interval.anchor_ms
    on_grid: BoolArray = (times - anchor_ms) % interval.length_ms == 0
    return on_grid


def check_lengths(begins: IntArray, ends: IntArray, grid: Interval, by: str) -> bool:
    """Return whether the rows' own ends prove the claimed interval.

    Args:
        ends: end times, exclusive or the last millisecond or second; impossible ones are ignored.

    Raises:
        RowsError: if the end times prove another interval.
    """
    lengths = _rounded(ends - begins)
    if not len(lengths):
        return False
    for interval in sorted(INTERVALS.values(), key=lambda candidate: candidate != grid):
        if _is_length(lengths, interval).mean() >= _ON_GRID_SHARE:
            if interval == grid:
                return True
            raise RowsError(
                f"these rows end {interval.name} after they begin, {by} says {grid.name}",
                f"--interval {interval.name}",
            )
    return False


def have_length(begins: IntArray, ends: IntArray, grid: Interval) -> BoolArray:
    """Return for each row whether its own end proves the interval; see `check_lengths`."""
    return _is_length(_rounded(ends - begins), grid)


def _rounded(lengths: IntArray) -> IntArray:
    """Correct lengths that end with the candle's last millisecond or second, not with its exclusive end."""
    for short in (1, SECOND_MS):
        lengths = np.where((lengths + short) % MINUTE_MS == 0, lengths + short, lengths)
    return np.where((lengths + 1) % SECOND_MS == 0, lengths + 1, lengths)


def _is_length(lengths: IntArray, interval: Interval) -> BoolArray:
    if not interval.length_ms:
        return np.isin(lengths, np.arange(28, 32) * DAY_MS)
    return np.equal(lengths, interval.length_ms)


def length_text(length_ms: int) -> str:
    """Return a length of time as text, in its largest whole unit."""
    for unit, unit_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS)):
        if length_ms % unit_ms == 0:
            return f"{length_ms // unit_ms} {unit}"
    return f"{length_ms} ms"
