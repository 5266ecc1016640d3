"""Somebody's table → candles: which column is which, and what its numbers count. Pure.

Columns are known by the names that recorders, exchanges' libraries and
tutorials give them, in either case but for single letters; times by their type or, as numbers,
by their size. A time without a zone is UTC. What cannot be told is refused,
never guessed.
"""

import re
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.binance.kline_columns import RowError, Stamp, begins_before, candles_of
from lakewriter.candle import SCHEMA, VALUE_COLUMNS, FloatArray, IntArray, Source
from lakewriter.errors import LakewriterError
from lakewriter.evidence.claims import ColumnClaim
from lakewriter.evidence.columns import column_claims, marked_closed, normal, text_of
from lakewriter.evidence.rows import quote_of_two
from lakewriter.importer.column_names import ASSET_VOLUME, BEGINS, ENDS, VALUES
from lakewriter.interval import Interval

# Volumes that alone cannot be told from a quote volume.
_EITHER_VOLUME = re.compile(r"(?:volume|vol)_(?:usd|usdt|usdc|busd|fdusd|tusd)|amount|volumeto")

# A table without one of the others has nulls for it.
_REQUIRED = ("open", "high", "low", "close", "volume")

# From this size on a number counts the next smaller unit: each bound lies
# beyond the year 5000 in the one and before 1974 in the other.
_UNITS = ((10**11, 1000, 1), (10**14, 1, 1), (10**17, 1, 1000), (2**63, 1, 10**6))


class OwnColumns(NamedTuple):
    """Columns that a lake's export has, and no other file: where its rows come from, and when.

    Args:
        event_ms, recv_us: integers, or null.
        source: the sources' names.
    """

    event_ms: pa.Array
    recv_us: pa.Array
    source: pa.Array


class FileColumns(NamedTuple):
    """What the columns of a file say, row by row.

    Args:
        begins: begin times, milliseconds since the epoch; None if there are ends only.
        ends: end times, exclusive or the last millisecond; None without such a column. Beside
            begins they may be anything.
        values: of VALUE_COLUMNS, in that order; a null is unknown.
        claims: which series the rows are of.
        closed: whether each row's candle is over; None without such a column.
        days: the name of the column of begin times if it holds days only, else "".
        own: of a lake's export.
    """

    begins: IntArray | None
    ends: IntArray | None
    values: list[pa.Array]
    claims: tuple[ColumnClaim, ...] = ()
    closed: npt.NDArray[np.bool_] | None = None
    days: str = ""
    own: OwnColumns | None = None


def columns_in(table: pa.Table) -> FileColumns:
    """Return what the columns of a table say.

    Raises:
        LakewriterError: if it has no column for what a candle needs.
        RowError: if a cell that a candle needs is empty.
    """
    columns = {normal(name): table[place] for place, name in reversed(list(enumerate(table.column_names)))}
    begins, days = _begins(columns)
    ends = _ends(columns, needed=begins is None)
    if begins is None and ends is None:
        raise LakewriterError("has no column of begin times", "name it open_time")
    values = {
        name: _values(columns, name) for name in VALUE_COLUMNS if name not in ("volume", "quote_volume")
    }
    values |= zip(("volume", "quote_volume"), _volumes(columns, values), strict=True)
    return FileColumns(
        begins,
        ends,
        [values[name] for name in VALUE_COLUMNS],
        column_claims(table),
        marked_closed(table),
        days,
        _own(columns),
    )


def candles_in(table: pa.Table, stamp: Stamp) -> pa.Table:
    """Return the table's candles in SCHEMA, sorted by begin time, one row for each.

    Raises:
        LakewriterError: if it has no column for what a candle needs.
        RowError: if one of its rows cannot be a candle.
    """
    columns = columns_in(table)
    return candles_of(begins_of(columns, stamp.series.grid), columns.values, stamp, foreign=True)


def begins_of(columns: FileColumns, grid: Interval) -> IntArray:
    """Return the begin times, by the ends where there are no others."""
    if columns.begins is not None:
        return columns.begins
    assert columns.ends is not None
    return begins_before(columns.ends, grid)


def _find(columns: dict[str, pa.ChunkedArray], names: tuple[str, ...]) -> tuple[str, pa.Array] | None:
    name = next((name for name in names if name in columns), None)
    return None if name is None else (name, columns[name].combine_chunks())


def _begins(columns: dict[str, pa.ChunkedArray]) -> tuple[IntArray | None, str]:
    """Return the begin times, and the name of their column if it holds days only."""
    if (parts := _date_and_time(columns)) is not None:
        return parts, ""
    found = [
        (name, columns[name].combine_chunks())
        for name in BEGINS
        if name in columns and not _is_clock(columns[name].type)
    ]
    if not found:
        return None, ""
    # A column of days beside one of times says less.
    name, array = next((each for each in found if not _is_days(each[1])), found[0])
    return _milliseconds(name, array), name if _is_days(array) else ""


def _date_and_time(columns: dict[str, pa.ChunkedArray]) -> IntArray | None:
    """Return the begin times of a table with one column of days, and others of the time of day."""
    if "date" not in columns or not _is_days(date := columns["date"].combine_chunks()):
        return None
    clock = columns.get("time")
    if clock is not None and _is_clock(clock.type):
        times = clock.combine_chunks()
        if times.null_count:
            raise _empty("time", "time", times)
        unit_ms = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 10**6)}[times.type.unit]
        of_day: IntArray = times.cast(pa.int64() if times.type.bit_width == 64 else pa.int32()).to_numpy()
        return _milliseconds("date", date) + _whole(of_day.astype(np.int64), *unit_ms, exact=True)
    if "hour" not in columns:
        return None
    result = _milliseconds("date", date)
    for name, unit in (("hour", 3_600_000), ("minute", 60_000), ("second", 1000)):
        if name in columns:
            result = result + _whole_numbers(name, columns[name].combine_chunks()) * unit
    return result


def _whole_numbers(name: str, array: pa.Array) -> IntArray:
    if array.null_count:
        raise _empty("time", name, array)
    try:
        numbers: IntArray = array.cast(pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{name} holds no numbers: {str(error).splitlines()[0]}") from None
    return numbers


def _ends(columns: dict[str, pa.ChunkedArray], *, needed: bool) -> IntArray | None:
    found = _find(columns, ENDS)
    if found is None:
        return None
    try:
        return _milliseconds(*found, exact=False)
    except LakewriterError:
        if needed:
            raise
        return None  # the archive's close times can be anything


def _own(columns: dict[str, pa.ChunkedArray]) -> OwnColumns | None:
    if not set(SCHEMA.names) <= set(columns):
        return None
    event, received = (columns[name].combine_chunks() for name in ("event_time", "recv_time"))
    sources = text_of(columns["source"])
    unknown = set(sources.unique().to_pylist()) - {*get_args(Source), None}
    if unknown:
        raise LakewriterError(f"its column source says {min(map(str, unknown))!r}, which is none of a lake's")
    return OwnColumns(_moments("event_time", event, 1000), _moments("recv_time", received, 1), sources)


def _moments(name: str, array: pa.Array, divisor: int) -> pa.Array:
    """Return times as integers, in microseconds divided by `divisor`, and nulls where there are none."""
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.int64())
    try:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = pc.if_else(pc.equal(array, ""), None, array)
            zoned = _zoned(array.drop_null())
            array = array.cast(pa.timestamp("us", tz="UTC" if zoned else None))
        if not pa.types.is_timestamp(array.type):
            raise LakewriterError(f"{name} holds no times")
        return pc.divide(array.cast(pa.timestamp("us", tz=array.type.tz)).cast(pa.int64()), divisor)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{name} holds no times: {str(error).splitlines()[0]}") from None


def _volumes(columns: dict[str, pa.ChunkedArray], values: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Return the volume and the quote volume; of columns that could be either, by what they prove."""
    names = [name for name in columns if name in VALUES["volume"] or ASSET_VOLUME.fullmatch(name)]
    if len(names) == 1 and _EITHER_VOLUME.fullmatch(names[0]):
        names = []  # alone it cannot be told from a quote volume
    quote = _values(columns, "quote_volume")
    if len(names) == 1:
        return _number(names[0], columns[names[0]], "volume"), quote
    if not names:
        return _values(columns, "volume"), quote
    found = [_number(name, columns[name], "volume") for name in names]
    if all(each.equals(found[0]) for each in found):
        return found[0], quote
    low, high = (values[name].to_numpy(zero_copy_only=False) for name in ("low", "high"))
    if quote.null_count == len(quote):
        if len(found) == 2 and (order := _in_order(found[0], found[1], low, high)) is not None:
            return found[order[0]], found[order[1]]
    else:
        proven = [each for each in found if _in_order(each, quote, low, high) == (0, 1)]
        if len(proven) == 1:
            return proven[0], quote
    raise LakewriterError(
        f"{' and '.join(names)} could each be the volume, and none of their means lies within low and high",
        "remove the columns that are not",
    )


def _in_order(one: pa.Array, other: pa.Array, low: FloatArray, high: FloatArray) -> tuple[int, int] | None:
    return quote_of_two(one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False), low, high)


def _is_clock(kind: pa.DataType) -> bool:
    return bool(pa.types.is_time32(kind) or pa.types.is_time64(kind))


def _is_days(array: pa.Array) -> bool:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_date(array.type):
        return True
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return False
    return not bool(pc.any(pc.greater(pc.utf8_length(array), _DAY_LENGTH)).as_py())


def _milliseconds(name: str, array: pa.Array, *, exact: bool = True) -> IntArray:
    """Return times in milliseconds.

    Args:
        exact: what is no whole millisecond becomes a time at which no candle
            begins; else the millisecond that contains it.
    """
    if array.null_count:
        raise _empty("time", name, array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = array.cast(pa.timestamp("us", tz="UTC" if _zoned(array) else None))
        if pa.types.is_date(array.type):
            array = array.cast(pa.timestamp("ms"))
        if pa.types.is_timestamp(array.type):
            return _whole(array.cast(pa.int64()).to_numpy(), *_LENGTHS[array.type.unit], exact)
        numbers: IntArray = array.cast(pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{name} holds no times: {str(error).splitlines()[0]}") from None
    result: IntArray = np.zeros_like(numbers)
    below = 0
    for bound, times, divisor in _UNITS:
        chosen = (numbers >= below) & (numbers < bound)
        result[chosen] = _whole(numbers[chosen], times, divisor, exact)
        below = bound
    return result


_DAY_LENGTH = len("2024-01-01")

# By how much to multiply, and by how much to divide, for milliseconds.
_LENGTHS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 10**6)}


def _whole(numbers: IntArray, times: int, divisor: int, exact: bool) -> IntArray:
    whole: IntArray = numbers * times // divisor
    return np.where(numbers % divisor == 0, whole, -1) if exact else whole


def _zoned(array: pa.Array) -> bool:
    return bool(len(array)) and str(array[0]).endswith(("Z", "+00:00", "+0000"))


def _values(columns: dict[str, pa.ChunkedArray], name: str) -> pa.Array:
    found = _find(columns, VALUES[name])
    if found is None:
        if name in _REQUIRED:
            raise LakewriterError(f"has no column {name}", f"a candle needs {', '.join(_REQUIRED)}")
        return pa.nulls(len(next(iter(columns.values()))), SCHEMA.field(name).type)
    return _number(found[0], columns[found[0]], name)


def _number(theirs: str, column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return a column's numbers in the type of ours.

    Args:
        theirs: the column's name in the file.
        name: ours.
    """
    wanted: Any = SCHEMA.field(name).type
    array = column.combine_chunks()
    if array.null_count and name in _REQUIRED:
        raise _empty("number", theirs, array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # only of a text Arrow finds the nearest double
    try:
        return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{theirs} holds no numbers: {str(error).splitlines()[0]}") from None


def _empty(kind: str, name: str, array: pa.Array) -> RowError:
    rows = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
    return RowError(kind, f"{name} is empty", int(rows[0]), rows)
