"""Candles as NumPy arrays, and an interval's grid computed for arrays of times. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakewriter.candle import UNKNOWN, VALUE_COLUMNS, IntArray, int_column
from lakewriter.interval import DAY_MS, INTERVALS, Interval

Numbers = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PRICES = ("open", "high", "low", "close")
VOLUMES = ("volume", "quote_volume", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume")

# Columns that may be unknown, as null. Many tools store only prices and the volume.
OPTIONAL = ("quote_volume", "trade_num", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume")


class Columns(NamedTuple):
    """Candles of one series, with one array per column. A null is NaN, or UNKNOWN in an integer column.

    Args:
        unknown: whether a value is null, with one row per candle and one column per name in OPTIONAL.
    """

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
    unknown: Bools

    def where(self, chosen: Bools | IntArray | slice) -> "Columns":
        """Return the chosen candles, given by a mask, indices or a slice."""
        return Columns._make(column[chosen] for column in self)

    def is_unknown(self, name: str) -> Bools:
        """Return for each candle whether a column of OPTIONAL is null."""
        column: Bools = self.unknown[:, OPTIONAL.index(name)]
        return column


def columns_of(table: pa.Table) -> Columns:
    """Return the rows of a table of SCHEMA as arrays."""
    return columns_from_arrays(
        int_column(table, "candle_begin_time"), [_one(table[name]) for name in VALUE_COLUMNS]
    )


def columns_from_arrays(begins: IntArray, values: Sequence[pa.Array]) -> Columns:
    """Return the candles with these begin times and values.

    Args:
        values: one array per column, in the order of VALUE_COLUMNS.
    """
    arrays: dict[str, Numbers] = {}
    unknown = np.zeros((len(begins), len(OPTIONAL)), np.bool_)
    for name, array in zip(VALUE_COLUMNS, values, strict=True):
        if array.null_count and name in OPTIONAL:
            unknown[:, OPTIONAL.index(name)] = array.is_null().to_numpy(zero_copy_only=False)
        if array.null_count and name == "trade_num":
            array = array.fill_null(UNKNOWN)
        arrays[name] = array.to_numpy(zero_copy_only=False)
    return Columns(begin=begins, unknown=unknown, **arrays)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def concatenated(parts: list[Columns]) -> Columns:
    """Return the candles of all parts, in order."""
    return parts[0] if len(parts) == 1 else Columns._make(map(np.concatenate, zip(*parts, strict=True)))


def by_day(candles: Columns) -> list[Columns]:
    """Split candles by the UTC day on which they begin; return the days ascending, without empty ones.

    Args:
        candles: sorted by begin time.
    """
    days = candles.begin // DAY_MS
    if not len(days) or days[0] == days[-1]:
        return [candles] if len(days) else []
    firsts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    return [candles.where(slice(first, stop)) for first, stop in pairwise(firsts)]


def floors(grid: Interval, times_ms: IntArray) -> IntArray:
    """Return the begin time of the candle that contains each time."""
    if grid.length_ms:
        return times_ms - (times_ms - grid.anchor_ms) % grid.length_ms
    return _from_months(_months(times_ms))


def off_grid(grid: Interval, begins_ms: IntArray) -> Bools:
    """Return for each begin time whether it is off the interval's grid."""
    if grid.name == "3d":
        grid = INTERVALS["1d"]  # the anchor of 3d is not documented, so any midnight is accepted
    return np.not_equal(floors(grid, begins_ms), begins_ms)


def ends(grid: Interval, begins_ms: IntArray) -> IntArray:
    """Return the end (exclusive) of the candle that begins at each time."""
    if grid.length_ms:
        return begins_ms + grid.length_ms
    return _from_months(_months(begins_ms) + 1)


def _months(times_ms: IntArray) -> npt.NDArray[np.datetime64]:
    return times_ms.astype("datetime64[ms]").astype("datetime64[M]")


def _from_months(months: npt.NDArray[np.datetime64]) -> IntArray:
    return months.astype("datetime64[ms]").astype(np.int64)
