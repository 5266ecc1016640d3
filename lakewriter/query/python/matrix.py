"""One column of several symbols side by side: the wide table from which backtests start."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import VALUE_COLUMNS, IntArray, int_column
from lakewriter.candle_arrays import ends
from lakewriter.errors import UsageError
from lakewriter.interval import INTERVALS
from lakewriter.query.python.series_rows import CandleGrid, time_array


def check_column(column: str) -> None:
    """Raise UsageError unless a matrix can have the values of a column."""
    if column not in VALUE_COLUMNS:
        raise UsageError(
            f"column: {column!r} is no value of a candle", f"choose from: {' '.join(VALUE_COLUMNS)}"
        )


def matrix_table(
    rows: Mapping[str, pa.Table], column: str, index: str, interval: str, grid: CandleGrid | None
) -> pa.Table:
    """Return a table with a time and one column for each symbol; null is a missing candle.

    Args:
        rows: the rows of each symbol, ascending by begin time.
        column: the name of the values' column.
        index: the name of the time's column.
        interval: the interval's name on disk.
        grid: the grid whose times have a row even if no symbol has a candle.
    """
    begins = {symbol: int_column(table, "candle_begin_time") for symbol, table in rows.items()}
    all_begins = _union(begins)
    if grid is not None:
        all_begins = grid.times(all_begins)
    times = all_begins if index == "candle_begin_time" else ends(INTERVALS[interval], all_begins)
    values = [_on_rows(rows[symbol][column], begins[symbol], all_begins) for symbol in rows]
    return pa.table([time_array(times), *values], names=[index, *rows])


def _union(begins: Mapping[str, IntArray]) -> IntArray:
    """Return all begin times, ascending. Most symbols have the same ones."""
    union = np.empty(0, np.int64)
    for each in begins.values():
        if not len(union):
            union = each
        elif not np.array_equal(union, each):
            union = np.union1d(union, each)
    return union


def _on_rows(values: pa.ChunkedArray, begins: IntArray, all_begins: IntArray) -> pa.ChunkedArray:
    """Return one value for each of all begin times; null where the symbol has no candle."""
    if len(begins) == len(all_begins):
        return values
    taken = np.zeros(len(all_begins), bool)
    taken[np.searchsorted(all_begins, begins)] = True
    positions = np.cumsum(taken) - 1
    return values.take(pc.if_else(pa.array(taken), pa.array(positions), pa.scalar(None, pa.int64())))
