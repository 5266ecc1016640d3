"""What the rows of a file prove: their spacing, which are closed, duplicates, volumes, standing. Pure.

Rule 1: rows from three on tell their interval; one that is claimed has to agree.
Rule 2: a candle is closed if it ended before now and before the file was
written, and is not marked open. Rule 3: of two rows of one candle the one with
more trades, or without trades more volume, is the later one; if neither tells,
or many rows contradict, the file is refused. Rule 4: `archive` is a standing
that a file proves: by its name, and by holding all of a finished period.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import VALUE_COLUMNS, BoolArray, FloatArray, IntArray
from lakewriter.candle_checks import may_be_quotes
from lakewriter.errors import LakewriterError
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS, SECOND_MS, Interval

# Fewer rows cannot tell how far apart a file's candles are.
SPACED_ROWS_MIN = 3

# Of the rows this share begins on the grid of the interval that they are of; the rest are strays.
_ON_GRID_SHARE = 0.9

# Contradicting rows of one candle: pages of a download overlap in one row of a hundred or more.
CONTRADICTIONS_SHARE_MAX = 0.01

_PRICES = 4


class RowsError(LakewriterError):
    """Rows that cannot be of the series that is claimed."""


def check_spacing(begins: IntArray, grid: Interval, by: str) -> None:
    """Raise RowsError if the rows are of another interval than the claimed one.

    Args:
        begins: begin times, milliseconds, in any order.
        by: the source that claims the interval.
    """
    times = np.unique(begins)
    if len(times) < SPACED_ROWS_MIN:
        return
    for other in sorted(INTERVALS.values(), key=_longest_ms, reverse=True):
        if _longest_ms(other) <= _longest_ms(grid):
            break
        if _on_grid(times, other).mean() >= _ON_GRID_SHARE:
            raise _spaced(f"are {other.name}", grid, by, other)
    steps_ms = np.diff(times)
    if steps_ms.min() > _longest_ms(grid):
        raise _spaced(f"are {length_text(int(steps_ms.min()))} apart or more", grid, by)
    usual_ms = float(np.median(steps_ms))
    if usual_ms < _shortest_ms(grid):
        finer = next((each for each in INTERVALS.values() if each.length_ms == usual_ms), None)
        if finer is not None:
            raise _spaced(f"are {finer.name}", grid, by, finer)


def _spaced(what: str, grid: Interval, by: str, other: Interval | None = None) -> RowsError:
    hint = "--sparse if rows are missing in between"
    if other is not None:
        # An option chooses; only with --relabel does it overrule what a file says.
        relabel = "" if by == "--interval" else "--relabel "
        hint = f"{relabel}--interval {other.name}, or {hint}"
    return RowsError(f"these rows {what}, {by} says {grid.name}", hint)


def _longest_ms(interval: Interval) -> int:
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
        ends: exclusive, or the last millisecond or second; what cannot be an end is passed over.

    Raises:
        RowsError: if they prove another interval.
    """
    lengths = _rounded(ends - begins)
    if not len(lengths):
        return False
    for interval in sorted(INTERVALS.values(), key=lambda each: each != grid):
        if _is_length(lengths, interval).mean() >= _ON_GRID_SHARE:
            if interval == grid:
                return True
            raise RowsError(
                f"these rows end {interval.name} after they begin, {by} says {grid.name}",
                f"--interval {interval.name}",
            )
    return False


def _rounded(lengths: IntArray) -> IntArray:
    """Return lengths to the exclusive end: some files write the last millisecond, some the last second."""
    for short in (1, SECOND_MS):
        lengths = np.where((lengths + short) % MINUTE_MS == 0, lengths + short, lengths)
    return np.where((lengths + 1) % SECOND_MS == 0, lengths + 1, lengths)


def _is_length(lengths: IntArray, interval: Interval) -> BoolArray:
    if not interval.length_ms:
        return np.isin(lengths, np.arange(28, 32) * DAY_MS)
    return np.equal(lengths, interval.length_ms)


def closed_rows(ends: IntArray, marked: BoolArray | None, now_ms: int, written_ms: int) -> BoolArray:
    """Return which candles are closed.

    Args:
        ends: exclusive.
        marked: what the file marks closed; None if it marks nothing.
        written_ms: the time the file was written.
    """
    closed: BoolArray = ends <= min(now_ms, written_ms)
    return closed if marked is None else closed & marked


class Duplicates(NamedTuple):
    """Rows of one candle each.

    Args:
        kept: positions of the rows to keep, by begin time.
        equal: rows that repeat another one.
        contradictions: rows that differ from the kept one of their candle.
    """

    kept: IntArray
    equal: int = 0
    contradictions: int = 0


def without_duplicates(begins: IntArray, values: Sequence[pa.Array]) -> Duplicates:
    """Return one row for each candle: of several that with most trades, or most volume if trades are unknown.

    Args:
        values: of VALUE_COLUMNS, in that order.

    Raises:
        RowsError: if two rows differ and neither tells that it is the later one, or many rows differ.
    """
    if bool(np.all(begins[1:] > begins[:-1])):
        return Duplicates(np.arange(len(begins)))
    numbers = [_numbers(column) for column in values]
    trades, volume = numbers[VALUE_COLUMNS.index("trade_num")], numbers[VALUE_COLUMNS.index("volume")]
    order = np.lexsort((np.where(trades < 0, volume, 0), trades, begins))
    same = begins[order][1:] == begins[order][:-1]
    differs = np.zeros(len(same), np.bool_)
    for column in numbers:
        differs |= same & (column[order][1:] != column[order][:-1])
    deciding = np.where(trades < 0, volume, trades)[order]
    tied = differs & (trades[order][1:] == trades[order][:-1]) & (deciding[1:] == deciding[:-1])
    if tied.any():
        at = int(np.argmax(tied))
        raise RowsError(
            f"two rows of the candle at {_time_text(begins[order][at])} differ, and neither is the later one by "
            "its trades or its volume",
            "remove the wrong one",
        )
    contradictions = int(differs.sum())
    if contradictions > max(1, CONTRADICTIONS_SHARE_MAX * len(begins)):
        raise RowsError(
            f"{contradictions:,} of {len(begins):,} rows contradict another row of their candle, the first at "
            f"{_time_text(begins[order][int(np.argmax(differs))])}",
            "a file of several series needs a column that tells them apart",
        )
    last = np.append(~same, True)
    return Duplicates(order[last], int(same.sum()) - contradictions, contradictions)


def _numbers(column: pa.Array) -> FloatArray:
    """Return a column as doubles; a null is -1, as no number of a candle is."""
    numbers: FloatArray = np.nan_to_num(
        column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False), nan=-1.0
    )
    return numbers


def quote_of_two(
    one: FloatArray, other: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[int, int] | None:
    """Return which of two columns is the volume and which the quote volume, as (0, 1) or (1, 0).

    Quote ÷ volume is the mean price of a candle's trades, which lies within its low and high.

    Returns:
        None if neither order proves right, or both do.
    """
    traded = (one > 0) & (other > 0) & (low > 0)
    if not traded.any():
        return None
    first, second, low, high = one[traded], other[traded], low[traded], high[traded]
    straight = bool(may_be_quotes("spot", low, high, first, second).all())
    crossed = bool(may_be_quotes("spot", low, high, second, first).all())
    if straight == crossed:
        return None
    return (0, 1) if straight else (1, 0)


class Period(NamedTuple):
    """The day or month that a file's name says it is of, in milliseconds; its candles begin in it."""

    start_ms: int
    stop_ms: int


def not_archive(
    begins: IntArray, grid: Interval, period: Period | None, now_ms: int, *, checked: bool
) -> str:
    """Return why a file of the archive's layout is not proven to be one of the archive's; "" if it is.

    Args:
        begins: of all its rows, also those that are not closed.
        period: by its name; None if that is no name of the archive's.
        checked: a checksum of the archive's beside it is right.
    """
    if period is None:
        return "its name is none of the archive's"
    if period.stop_ms > now_ms:
        return "its period is not over"
    if not len(begins) or begins.min() < period.start_ms or begins.max() >= period.stop_ms:
        return "it has rows of another time than its name says"
    last_ms = int(begins.max())
    if not checked and last_ms + _longest_ms(grid) < period.stop_ms:
        return f"it ends at {_time_text(last_ms)}, before its period"
    return ""


def length_text(length_ms: int) -> str:
    """Return a length of time in the largest unit that it is a whole number of."""
    for unit, unit_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS)):
        if length_ms % unit_ms == 0:
            return f"{length_ms // unit_ms} {unit}"
    return f"{length_ms} ms"


def _time_text(time_ms: int) -> str:
    return str(np.datetime64(int(time_ms), "ms")).replace("T", " ").removesuffix(".000")
