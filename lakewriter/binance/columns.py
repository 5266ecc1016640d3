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
from lakewriter.interval import DAY_MS, Interval
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
        values: of VALUE_COLUMNS, in that order: doubles, and int64 for `trade_num`;
            without nulls.

    Raises:
        RowError: if a row begins where no candle can, or has a number that is
            not finite, or below 0.
    """
    grid = stamp.series.grid
    _check_begins(begins, grid)
    for name, column in zip(VALUE_COLUMNS, values, strict=True):
        _check_numbers(name, column.to_numpy(zero_copy_only=False))
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


def check_order(values: Sequence[pa.Array]) -> None:
    """Refuse a row whose open or close is not between its low and its high.

    Args:
        values: open, high, low and close first.

    Raises:
        RowError: if there is one.
    """
    prices = [column.to_numpy(zero_copy_only=False) for column in values[:4]]
    opened, high, low, close = prices
    bad = (low > high) | (opened > high) | (opened < low) | (close > high) | (close < low)
    if (row := _first(bad)) is not None:
        told = ", ".join(f"{name} {price[row]}" for name, price in zip(VALUE_COLUMNS, prices, strict=False))
        raise RowError("order", f"{told}: low and high do not enclose them", row)


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
