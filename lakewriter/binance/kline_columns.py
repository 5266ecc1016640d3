"""Columns of kline values → a table of candles, or the row that cannot be one. Pure.

What `rows` is for an answer of REST this is for a whole file: the same demands,
made of all rows at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.binance.wire import BEGIN_MS_MAX, BEGIN_MS_MIN
from lakewriter.candle import SCHEMA, VALUE_COLUMNS, IntArray, Source, settle
from lakewriter.errors import ExchangeError
from lakewriter.interval import DAY_MS, SECOND_MS, Interval
from lakewriter.series import Series

_TRADES_MAX = 2**53

Array = np.ndarray[tuple[int], np.dtype[Any]]


class RowError(ExchangeError):
    """A row that cannot be a candle.

    Args:
        kind: one word for the counter ("number", "time", "order").
        row: which, counted from 0.
    """

    def __init__(self, kind: str, what: str, row: int) -> None:
        super().__init__(what)
        self.kind = kind
        self.row = row


class Stamp(NamedTuple):
    """What all rows of a file have in common.

    Args:
        series: whose candles they are.
        source: who said so.
        recv_us: our clock when we received it, microseconds since the epoch.
    """

    series: Series
    source: Source
    recv_us: int


def candles_of(begins: IntArray, values: Sequence[pa.Array], stamp: Stamp) -> pa.Table:
    """Return a table of SCHEMA, sorted by begin time, one row for each.

    Args:
        begins: begin times, milliseconds since the epoch.
        values: of VALUE_COLUMNS, in that order: doubles, and int64 for `trade_num`.
            One that the file does not have is all nulls; in the others are none.

    Raises:
        RowError: if a row begins where no candle can, has a number that is not
            finite, or below 0, or an open or close beyond its low or high.
    """
    grid = stamp.series.grid
    _check_begins(begins, grid)
    numbers = [column.to_numpy(zero_copy_only=False) for column in values]
    for name, column, each in zip(VALUE_COLUMNS, values, numbers, strict=True):
        if not column.null_count:
            _check_numbers(name, each)
    _check_order(*numbers[:4])
    rows = len(begins)
    columns = [
        pa.array(begins),
        pa.array(ends_of(begins, grid)),
        *values,
        pa.nulls(rows, pa.int64()),
        pa.array(np.full(rows, stamp.recv_us)),
        pa.repeat(stamp.source, rows),
    ]
    # A time is its integer, looked at otherwise: nothing is copied.
    table = pa.Table.from_arrays(
        [column.view(field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    return table if bool((begins[1:] > begins[:-1]).all()) else settle(table)


def ends_of(begins: IntArray, grid: Interval) -> IntArray:
    """Return the end (exclusive) of each candle; the begin times are on the grid."""
    if grid.length_ms:
        return begins + grid.length_ms
    return _month_begins(_months(begins) + np.timedelta64(1, "M"))


def begins_before(ends: IntArray, grid: Interval) -> IntArray:
    """Return the begin time of each candle by its end, exclusive or the last millisecond of it."""
    exclusive: IntArray = np.where(ends % SECOND_MS == SECOND_MS - 1, ends + 1, ends)
    if grid.length_ms:
        return exclusive - grid.length_ms
    months = _months(exclusive)
    # What is no first of a month stays as far off the grid as it is.
    return _month_begins(months - np.timedelta64(1, "M")) + exclusive - _month_begins(months)


def _check_begins(begins: IntArray, grid: Interval) -> None:
    if (row := _first((begins < BEGIN_MS_MIN) | (begins >= BEGIN_MS_MAX))) is not None:
        raise RowError("time", f"no candle begins at {begins[row]}", row)
    if (row := _first(~_on_grid(begins, grid))) is not None:
        off_ms = begins[row] - grid.floor(int(begins[row]))
        raise RowError(
            "time", f"begins {off_ms / 1000:g} s off the grid of {grid.name}, at {begins[row]}", row
        )


def _on_grid(begins: IntArray, grid: Interval) -> Array:
    if not grid.length_ms:
        return np.equal(_month_begins(_months(begins)), begins)
    # Where 3d is anchored is not documented: any midnight is taken.
    length_ms = DAY_MS if grid.name == "3d" else grid.length_ms
    return np.equal((begins - grid.anchor_ms) % length_ms, 0)


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
    # The two ends tell of all in between; NaN is neither, and told by either.
    if len(numbers) and numbers.min() >= 0 and numbers.max() <= _number_max(numbers):
        return
    row = _first(~((numbers >= 0) & (numbers <= _number_max(numbers))))
    if row is not None:
        raise RowError("number", f"{name} is {numbers[row]}", row)


def _number_max(numbers: Array) -> float:
    return _TRADES_MAX if numbers.dtype == np.int64 else np.finfo(np.float64).max


def _first(bad: Array) -> int | None:
    return int(bad.argmax()) if bad.any() else None
