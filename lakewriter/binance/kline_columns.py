"""The parser of kline columns: values → a table of candles, or an error with the bad row. Pure.

It makes the same checks as `kline_rows`, on all rows of a file at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.binance.wire import BEGIN_MS_MAX, BEGIN_MS_MIN
from lakewriter.candle import SCHEMA, VALUE_COLUMNS, IntArray, Source, deduplicate
from lakewriter.candle_arrays import columns_from_arrays, ends, off_grid
from lakewriter.candle_checks import TRADES_MAX, refused_violations
from lakewriter.errors import ExchangeError
from lakewriter.interval import SECOND_MS, Interval
from lakewriter.series import Series

Array = np.ndarray[tuple[int], np.dtype[Any]]


class RowError(ExchangeError):
    """A row that cannot be a candle.

    Args:
        kind: one word for the counter ("number", "time", "order", or a kind of `candle_checks`).
        row: the number of the row, counted from 0.
        rows: all rows that are known to be bad; None if only this row is.
    """

    def __init__(self, kind: str, what: str, row: int, rows: IntArray | None = None) -> None:
        super().__init__(what)
        self.kind = kind
        self.row = row
        self.rows = np.array([row]) if rows is None else rows


class RowOrigin(NamedTuple):
    """The origin of all rows of a file.

    Args:
        series: the series of the candles.
        source: the source of the candles.
        recv_us: time at which the file was received, in microseconds since the epoch.
    """

    series: Series
    source: Source
    recv_us: int


def candle_table(
    begins: IntArray, values: Sequence[pa.Array], origin: RowOrigin, *, foreign: bool = False
) -> pa.Table:
    """Return a table of SCHEMA, sorted by begin time, without duplicates.

    Args:
        begins: begin times, in milliseconds since the epoch.
        values: the VALUE_COLUMNS in order: doubles, and int64 for `trade_num`.
            A null in an optional column is unknown.
        foreign: whether the rows are from another tool. Such rows are refused if
            `candle_checks` finds a violation. The exchange's own rows pass fewer
            checks, to lose no candle by a rule of lakewriter.

    Raises:
        RowError: if a row begins off the grid, or a number is below 0 or not finite. It
            is also raised if an open or close is outside of low and high.
    """
    grid = origin.series.grid
    _check_begins(begins, grid)
    if foreign:
        _check_candles(begins, values, origin.series.market)
    else:
        _check_published(values)
    rows = len(begins)
    columns = [
        pa.array(begins),
        pa.array(ends(grid, begins)),
        *values,
        pa.nulls(rows, pa.int64()),
        pa.array(np.full(rows, origin.recv_us)),
        pa.repeat(origin.source, rows),
    ]
    # A time column is a view of its integers, without a copy.
    table = pa.Table.from_arrays(
        [column.view(field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    return table if bool((begins[1:] > begins[:-1]).all()) else deduplicate(table)


def begins_from_ends(end_times: IntArray, grid: Interval) -> IntArray:
    """Return the begin time of each candle from its exclusive end or its last millisecond."""
    exclusive: IntArray = np.where(end_times % SECOND_MS == SECOND_MS - 1, end_times + 1, end_times)
    if grid.length_ms:
        return exclusive - grid.length_ms
    months = _months(exclusive)
    # An end that is not the first of a month keeps its distance from the grid.
    return _month_begins(months - np.timedelta64(1, "M")) + exclusive - _month_begins(months)


def _check_candles(begins: IntArray, values: Sequence[pa.Array], market: str) -> None:
    found = refused_violations(columns_from_arrays(begins, values), market)
    if found:
        first = min(found, key=lambda each: int(each.rows[0]))
        row, rows = int(first.rows[0]), np.unique(np.concatenate([each.rows for each in found]))
        raise RowError(first.kind, f"{first.kind}: {first.describe(row)}", row, rows)


def _check_published(values: Sequence[pa.Array]) -> None:
    numbers = [column.to_numpy(zero_copy_only=False) for column in values]
    for name, column, each in zip(VALUE_COLUMNS, values, numbers, strict=True):
        if not column.null_count:
            _check_numbers(name, each)
    _check_order(*numbers[:4])


def _check_begins(begins: IntArray, grid: Interval) -> None:
    outside = (begins < BEGIN_MS_MIN) | (begins >= BEGIN_MS_MAX)
    if (row := _first(outside)) is not None:
        raise RowError("time", f"no candle begins at {begins[row]}", row, np.flatnonzero(outside))
    off = off_grid(grid, begins)
    if (row := _first(off)) is not None:
        off_ms = begins[row] - grid.floor(int(begins[row]))
        what = f"begins {off_ms / 1000:g} s off the grid of {grid.name}, at {begins[row]}"
        raise RowError("time", what, row, np.flatnonzero(off))


def _check_order(opened: Array, high: Array, low: Array, close: Array) -> None:
    beyond = (low > opened) | (low > close) | (high < opened) | (high < close)
    if (row := _first(beyond)) is not None:
        prices = f"{opened[row]} {high[row]} {low[row]} {close[row]}"
        raise RowError("order", f"open high low close are {prices}", row)


def _months(begins: IntArray) -> Array:
    return begins.astype("datetime64[ms]").astype("datetime64[M]")


def _month_begins(months: Array) -> IntArray:
    return months.astype("datetime64[ms]").astype(np.int64)


def _check_numbers(name: str, numbers: Array) -> None:
    # Checks of minimum and maximum are enough, because a NaN makes both of them NaN.
    if len(numbers) and numbers.min() >= 0 and numbers.max() <= _number_max(numbers):
        return
    row = _first(~((numbers >= 0) & (numbers <= _number_max(numbers))))
    if row is not None:
        raise RowError("number", f"{name} is {numbers[row]}", row)


def _number_max(numbers: Array) -> float:
    return TRADES_MAX if numbers.dtype == np.int64 else np.finfo(np.float64).max


def _first(bad: Array) -> int | None:
    return int(bad.argmax()) if bad.any() else None
