"""Somebody's table → candles: which column is which, and what its numbers count. Pure.

Columns are known by the names that recorders, exchanges' libraries and
tutorials give them, in either case but for single letters; times by their type or, as numbers,
by their size. A time without a zone is UTC. What cannot be told is refused,
never guessed.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.binance.kline_columns import RowError, Stamp, begins_before, candles_of
from lakewriter.candle import SCHEMA, VALUE_COLUMNS, IntArray
from lakewriter.errors import LakewriterError
from lakewriter.interval import Interval

# Our names first: a table that has several of one line is read by the leftmost.
_BEGINS = (
    "candle_begin_time", "open_time", "opentime", "begin_time", "start_time", "timestamp", "datetime",
    "time", "date", "ts", "t",
)  # fmt: skip
_ENDS = ("candle_end_time", "close_time", "closetime", "end_time", "T")
_NAMES = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "base_volume", "base_asset_volume"),
    "quote_volume": ("quote_volume", "quote_asset_volume", "quotevolume", "quote_av", "turnover", "q"),
    "trade_num": (
        "trade_num", "number_of_trades", "num_trades", "trades", "trade_count", "trades_count", "count", "n",
    ),
    "taker_buy_base_asset_volume": (
        "taker_buy_base_asset_volume", "taker_buy_base_volume", "taker_buy_volume", "taker_buy_base",
        "tb_base_av", "V",
    ),
    "taker_buy_quote_asset_volume": (
        "taker_buy_quote_asset_volume", "taker_buy_quote_volume", "taker_buy_quote", "tb_quote_av", "Q",
    ),
}  # fmt: skip

Level = Literal["market", "symbol", "interval"]

# Columns that say which series a row is of. `s` and `i` are the exchange's own.
_CLAIMS: dict[Level, tuple[str, ...]] = {
    "market": ("market", "exchange", "venue"),
    "symbol": ("symbol", "ticker", "pair", "instrument", "s"),
    "interval": ("interval", "timeframe", "i"),
}

# Columns that say whether a candle is over, and those that say the opposite.
_CLOSED = (
    "x", "is_closed", "isclosed", "closed", "is_final", "isfinal", "final", "complete", "completed",
    "is_complete", "confirm", "confirmed", "finished",
)  # fmt: skip
_OPEN = ("is_open", "isopen", "in_progress", "partial", "is_partial", "unfinished")
_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}

# A table without one of the others has nulls for it.
_REQUIRED = ("open", "high", "low", "close", "volume")

# From this size on a number counts the next smaller unit: each bound lies
# beyond the year 5000 in the one and before 1974 in the other.
_UNITS = ((10**11, 1000, 1), (10**14, 1, 1), (10**17, 1, 1000), (2**63, 1, 10**6))


class ColumnClaim(NamedTuple):
    """A column that says which market, symbol or interval each row is of.

    Args:
        level: which of the three.
        name: the column's name, as the file spells it.
        values: a text for each row, or null.
    """

    level: Level
    name: str
    values: pa.Array


class FileColumns(NamedTuple):
    """What the columns of a file say, row by row.

    Args:
        begins: begin times, milliseconds since the epoch; None if there are ends only.
        ends: end times, exclusive or the last millisecond; None without such a column.
        values: of VALUE_COLUMNS, in that order; a null is unknown.
        claims: which series the rows are of.
        closed: whether each row's candle is over; None without such a column.
        days: the name of the column of begin times if it holds days only, else "".
    """

    begins: IntArray | None
    ends: IntArray | None
    values: list[pa.Array]
    claims: tuple[ColumnClaim, ...] = ()
    closed: npt.NDArray[np.bool_] | None = None
    days: str = ""


def columns_in(table: pa.Table) -> FileColumns:
    """Return what the columns of a table say.

    Raises:
        LakewriterError: if it has no column for what a candle needs.
        RowError: if a cell that a candle needs is empty.
    """
    columns = {_normal(name): table[place] for place, name in reversed(list(enumerate(table.column_names)))}
    begins, ends = _find(columns, _BEGINS), _find(columns, _ENDS)
    if begins is None and ends is None:
        raise LakewriterError("has no column of begin times", f"name it one of: {', '.join(_BEGINS)}")
    return FileColumns(
        None if begins is None else _milliseconds(*begins),
        # An end is looked at only where there is no begin: a halt cuts some short.
        _milliseconds(*ends, exact=False) if ends is not None and begins is None else None,
        [_values(columns, name) for name in VALUE_COLUMNS],
        _claims(table),
        _closed(columns),
        begins[0] if begins is not None and _is_days(begins[1]) else "",
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


def double_columns(names: list[str]) -> dict[str, pa.DataType]:
    """Return which of a CSV's columns are to be read as doubles, whatever their first rows look like."""
    known = {each for name in VALUE_COLUMNS if name != "trade_num" for each in _NAMES[name]}
    return {name: pa.float64() for name in names if _normal(name) in known}


def _normal(name: str) -> str:
    if len(name) == 1:
        return name  # the exchange's: `v` is not `V`
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _find(columns: dict[str, pa.ChunkedArray], names: tuple[str, ...]) -> tuple[str, pa.Array] | None:
    name = next((name for name in names if name in columns), None)
    return None if name is None else (name, columns[name].combine_chunks())


def _claims(table: pa.Table) -> tuple[ColumnClaim, ...]:
    return tuple(
        ColumnClaim(level, name, _text(table[place]))
        for place, name in enumerate(table.column_names)
        for level, names in _CLAIMS.items()
        if _normal(name) in names
    )


def _text(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pa.array([None if each is None else repr(each) for each in array.to_pylist()])
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([str(each) for each in array.to_pylist()])


def _closed(columns: dict[str, pa.ChunkedArray]) -> npt.NDArray[np.bool_] | None:
    """Return whether each candle is over; what a row leaves open counts as over."""
    results = []
    for names, over in ((_CLOSED, True), (_OPEN, False)):
        for name in names:
            if name in columns:
                cells = _text(columns[name]).dictionary_encode(null_encoding="encode")
                said = [_word(name, each) for each in cells.dictionary.to_pylist()]
                holds = np.array([each is None or each is over for each in said], np.bool_)
                results.append(holds[cells.indices.to_numpy()])
    return np.logical_and.reduce(results) if results else None


def _word(name: str, text: str | None) -> bool | None:
    if text is None or not text.strip():
        return None
    if (said := _WORDS.get(text.strip().lower())) is None:
        raise LakewriterError(f"{name} says {text!r}, which is neither true nor false")
    return said


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
        raise RowError("time", f"{name} is empty", _first_null(array))
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
    wanted: Any = SCHEMA.field(name).type
    found = _find(columns, _NAMES[name])
    if found is None:
        if name in _REQUIRED:
            raise LakewriterError(f"has no column {name}", f"a candle needs {', '.join(_REQUIRED)}")
        rows = len(next(iter(columns.values())))
        return pa.nulls(rows, wanted)
    theirs, array = found
    if array.null_count:
        raise RowError("number", f"{theirs} is empty", _first_null(array))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # only of a text Arrow finds the nearest double
    try:
        return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{theirs} holds no numbers: {str(error).splitlines()[0]}") from None


def _first_null(array: pa.Array) -> int:
    return int(pc.index(array.is_null(), value=True).as_py())
