"""Candles as arrays, and the grid of an interval for many begin times at once. Pure."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakewriter.candle import IntArray, int_column
from lakewriter.interval import Interval

Numbers = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PRICES = ("open", "high", "low", "close")
VOLUMES = ("volume", "quote_volume", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume")


class Columns(NamedTuple):
    """Candles of one series, an array a column; what is null is NaN, or the smallest integer."""

    begin: IntArray
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    quote_volume: Floats
    trade_num: IntArray
    taker_buy_base_asset_volume: Floats
    taker_buy_quote_asset_volume: Floats

    def where(self, chosen: Bools | IntArray | slice) -> "Columns":
        """Return the chosen candles."""
        return Columns._make(column[chosen] for column in self)


def columns_of(table: pa.Table) -> Columns:
    """Return the rows of a table of SCHEMA as arrays."""
    doubles = {name: table[name].to_numpy() for name in (*PRICES, *VOLUMES)}
    return Columns(
        begin=int_column(table, "candle_begin_time"), trade_num=int_column(table, "trade_num"), **doubles
    )


def joined(parts: list[Columns]) -> Columns:
    """Return candles one part after the other."""
    return parts[0] if len(parts) == 1 else Columns._make(map(np.concatenate, zip(*parts, strict=True)))


def floors(grid: Interval, times_ms: IntArray) -> IntArray:
    """Return the begin time of the candle that contains each time."""
    if grid.length_ms:
        return times_ms - (times_ms - grid.anchor_ms) % grid.length_ms
    return _from_months(_months(times_ms))


def ends(grid: Interval, begins_ms: IntArray) -> IntArray:
    """Return the end (exclusive) of the candle that begins at each time."""
    if grid.length_ms:
        return begins_ms + grid.length_ms
    return _from_months(_months(begins_ms) + 1)


def _months(times_ms: IntArray) -> npt.NDArray[np.datetime64]:
    return times_ms.astype("datetime64[ms]").astype("datetime64[M]")


def _from_months(months: npt.NDArray[np.datetime64]) -> IntArray:
    return months.astype("datetime64[ms]").astype(np.int64)
