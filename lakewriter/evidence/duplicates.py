"""Keep one row for each candle of a file. Pure.

Rule: the row with more trades is the later one. If trades are unknown, the row with more
volume is later. If neither decides, or if many rows contradict each other, the file is
refused.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import VALUE_COLUMNS, FloatArray, IntArray
from lakewriter.evidence.claims import RowsError, time_text

# The maximum share of contradicting rows. Pages of a download overlap in one of a hundred rows.
CONTRADICTIONS_SHARE_MAX = 0.01


class Duplicates(NamedTuple):
    """The rows to keep, one for each candle, and counts of the others.

    Args:
        kept: positions of the rows to keep, by begin time.
        equal: the number of rows that repeat another row.
        contradictions: the number of rows that differ from the kept row of their candle.
    """

    kept: IntArray
    equal: int = 0
    contradictions: int = 0


def without_duplicates(begins: IntArray, values: Sequence[pa.Array]) -> Duplicates:
    """Return the rows to keep, one for each candle: the row with the most trades or volume.

    Args:
        values: the columns VALUE_COLUMNS, in that order.

    Raises:
        RowsError: if two rows differ and the later one is unknown, or if many rows differ.
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
            f"two rows of the candle at {time_text(begins[order][at])} differ, and neither is the later one by "
            "its trades or its volume",
            "remove the wrong one",
        )
    contradictions = int(differs.sum())
    if contradictions > max(1, CONTRADICTIONS_SHARE_MAX * len(begins)):
        raise RowsError(
            f"{contradictions:,} of {len(begins):,} rows contradict another row of their candle, the first at "
            f"{time_text(begins[order][int(np.argmax(differs))])}",
            "a file of several series needs a column that tells them apart",
        )
    last = np.append(~same, True)
    return Duplicates(order[last], int(same.sum()) - contradictions, contradictions)


def _numbers(column: pa.Array) -> FloatArray:
    """Return a column as doubles. A null becomes -1, which no candle has."""
    numbers: FloatArray = np.nan_to_num(
        column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False), nan=-1.0
    )
    return numbers
