"""Find the times of a typed table's rows, and convert them to milliseconds. Pure.

The size of a number determines its unit. A time without a zone is UTC. Days and
times of day in two columns are combined.
"""

import numpy as np
import pyarrow as pa

from lakewriter.binance.kline_columns import RowError
from lakewriter.candle import IntArray
from lakewriter.errors import LakewriterError
from lakewriter.importer.column_names import BEGINS, ENDS

# Each bound is the first number in the next smaller unit. It is after the year 5000 in the
# larger unit, and before 1974 in the smaller one.
_UNITS = ((10**11, 1000, 1), (10**14, 1, 1), (10**17, 1, 1000), (2**63, 1, 10**6))

# The factor and the divisor for milliseconds.
_LENGTHS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 10**6)}

Columns = dict[str, pa.ChunkedArray]


def begin_times(columns: Columns) -> tuple[IntArray | None, str]:
    """Return the begin times, and the name of their column if it holds only days.

    Without begin times the first is None; without such a column the second is "".
    """
    if (parts := _date_and_time(columns)) is not None:
        return parts, ""
    found = [
        (name, columns[name].combine_chunks())
        for name in BEGINS
        if name in columns and not _is_clock(columns[name].type)
    ]
    if not found:
        return None, ""
    # A column of times is preferred to a column of days.
    name, array = next((item for item in found if not _is_days(item[1])), found[0])
    return _milliseconds(name, array), name if _is_days(array) else ""


def _date_and_time(columns: Columns) -> IntArray | None:
    """Return the begin times of a table with separate columns for day and time of day."""
    if "date" not in columns or not _is_days(date := columns["date"].combine_chunks()):
        return None
    clock = columns.get("time")
    if clock is not None and _is_clock(clock.type):
        times = clock.combine_chunks()
        if times.null_count:
            raise empty_cells("time", "time", times)
        of_day: IntArray = times.cast(pa.int64() if times.type.bit_width == 64 else pa.int32()).to_numpy()
        return _milliseconds("date", date) + _whole(
            of_day.astype(np.int64), *_LENGTHS[times.type.unit], exact=True
        )
    if "hour" not in columns:
        return None
    result = _milliseconds("date", date)
    for name, unit_ms, units in (("hour", 3_600_000, 24), ("minute", 60_000, 60), ("second", 1000, 60)):
        if name in columns:
            result = result + _parts(name, columns[name].combine_chunks(), units) * unit_ms
    return result


def end_times(columns: Columns, *, needed: bool) -> IntArray | None:
    """Return the end times, exclusive or the last millisecond; None without end times.

    Args:
        needed: whether to raise LakewriterError for unreadable end times.
    """
    name = next((name for name in ENDS if name in columns), None)
    if name is None:
        return None
    try:
        return _milliseconds(name, columns[name].combine_chunks(), exact=False)
    except LakewriterError:
        if needed:
            raise
        return None  # some close times of the archive are invalid


def _parts(name: str, array: pa.Array, units: int) -> IntArray:
    """Return a column's whole numbers, which must be below `units`. Hours from 1 to 24 are refused."""
    if array.null_count:
        raise empty_cells("time", name, array)
    try:
        numbers: IntArray = array.cast(pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{name} holds no numbers: {str(error).splitlines()[0]}") from None
    beyond = (numbers < 0) | (numbers >= units)
    if beyond.any():
        row = int(np.argmax(beyond))
        raise LakewriterError(f"{name} is {numbers[row]}, not one of 0 to {units - 1}")
    return numbers


def _is_clock(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_time32(dtype) or pa.types.is_time64(dtype))


def _is_days(array: pa.Array) -> bool:
    return bool(pa.types.is_date(array.type))


def _milliseconds(name: str, array: pa.Array, *, exact: bool = True) -> IntArray:
    """Return times in milliseconds.

    Args:
        exact: whether a time with a fraction of a millisecond becomes -1, at which no
            candle begins. Otherwise the fraction is truncated.
    """
    if array.null_count:
        raise empty_cells("time", name, array)
    try:
        if pa.types.is_date(array.type):
            array = array.cast(pa.timestamp("ms"))
        if pa.types.is_timestamp(array.type):
            return _whole(array.cast(pa.int64()).to_numpy(), *_LENGTHS[array.type.unit], exact)
        numbers: IntArray = array.cast(pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{name} holds no times: {str(error).splitlines()[0]}") from None
    result: IntArray = np.zeros_like(numbers)
    least, greatest = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    below = 0
    for bound, times, divisor in _UNITS:
        if below <= least and greatest < bound:
            return _whole(numbers, times, divisor, exact)
        chosen = (numbers >= below) & (numbers < bound)
        result[chosen] = _whole(numbers[chosen], times, divisor, exact)
        below = bound
    return result


def _whole(numbers: IntArray, times: int, divisor: int, exact: bool) -> IntArray:
    if divisor == 1:
        return numbers * times
    whole: IntArray = numbers * times // divisor
    return np.where(numbers % divisor == 0, whole, -1) if exact else whole


def empty_cells(kind: str, name: str, array: pa.Array) -> RowError:
    """Return the error of a required column with nulls."""
    rows = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
    return RowError(kind, f"{name} is empty", int(rows[0]), rows)
