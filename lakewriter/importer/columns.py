"""Map the columns of a typed table to those of a candle. Pure.

Columns are recognized by the names that recorders, exchange libraries and tutorials
use. An ambiguous table is refused.
"""

import re
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import SCHEMA, VALUE_COLUMNS, FloatArray, IntArray, Source
from lakewriter.errors import LakewriterError
from lakewriter.evidence.closed import marked_closed
from lakewriter.evidence.columns import (
    are_swapped,
    cells_as_text,
    column_claims,
    normal_name,
    volume_and_quote,
)
from lakewriter.evidence.row_groups import ColumnClaim
from lakewriter.importer.column_names import ASSET_VOLUME, VALUES
from lakewriter.importer.row_times import begin_times, empty_cells, end_times

# The number of rows that prove which of two columns is the volume.
_ORDER_ROWS = 10_000

# A lone column with such a name may be the volume or the quote volume.
_EITHER_VOLUME = re.compile(r"(?:volume|vol)_(?:usd|usdt|usdc|busd|fdusd|tusd)|amount|volumeto")

# The required columns. Other missing columns are null.
_REQUIRED = ("open", "high", "low", "close", "volume")


class OwnColumns(NamedTuple):
    """The source and the times of rows. Only a lake's export has these columns.

    Args:
        event_ms, recv_us: the event times and receive times as integers or null.
        source: the names of the sources.
    """

    event_ms: pa.Array
    recv_us: pa.Array
    source: pa.Array


class FileColumns(NamedTuple):
    """The columns of a file, one entry for each row.

    Args:
        begins: begin times, milliseconds since the epoch; None if the file has only ends.
        ends: end times, exclusive or the last millisecond; None without such a column. They
            may be invalid if the file also has begins.
        values: the columns VALUE_COLUMNS, in that order; a null is an unknown value.
        claims: the columns that identify the series.
        closed: whether each row is marked closed; None without such marks.
        days: the name of the column of begin times, if it holds only days; else "".
        own: the columns of a lake's export; None for other files.
    """

    begins: IntArray | None
    ends: IntArray | None
    values: list[pa.Array]
    claims: tuple[ColumnClaim, ...] = ()
    closed: npt.NDArray[np.bool_] | None = None
    days: str = ""
    own: OwnColumns | None = None


def read_file_columns(table: pa.Table) -> FileColumns:
    """Return the columns of a table.

    Raises:
        LakewriterError: if a required column is absent or ambiguous.
        RowError: if a required cell is empty.
    """
    columns = {
        normal_name(name): table[place] for place, name in reversed(list(enumerate(table.column_names)))
    }
    begins, days = begin_times(columns)
    ends = end_times(columns, needed=begins is None)
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


def _find(columns: dict[str, pa.ChunkedArray], names: tuple[str, ...]) -> tuple[str, pa.Array] | None:
    name = next((name for name in names if name in columns), None)
    return None if name is None else (name, columns[name].combine_chunks())


def _own(columns: dict[str, pa.ChunkedArray]) -> OwnColumns | None:
    if not set(SCHEMA.names) <= set(columns):
        return None
    event, received = (columns[name].combine_chunks() for name in ("event_time", "recv_time"))
    sources = cells_as_text(columns["source"])
    unknown = set(sources.unique().to_pylist()) - {*get_args(Source), None}
    if unknown:
        raise LakewriterError(f"its column source says {min(map(str, unknown))!r}, which no lake writes")
    return OwnColumns(_moments("event_time", event, 1000), _moments("recv_time", received, 1), sources)


def _moments(name: str, array: pa.Array, divisor: int) -> pa.Array:
    """Return times as integers, in microseconds divided by `divisor`; nulls stay null."""
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.int64())
    try:
        if not pa.types.is_timestamp(array.type):
            raise LakewriterError(f"{name} holds no times")
        return pc.divide(array.cast(pa.timestamp("us", tz=array.type.tz)).cast(pa.int64()), divisor)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{name} holds no times: {str(error).splitlines()[0]}") from None


def _volumes(columns: dict[str, pa.ChunkedArray], values: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Return the volume and the quote volume. Prices decide between ambiguous columns."""
    names = [name for name in columns if name in VALUES["volume"] or ASSET_VOLUME.fullmatch(name)]
    if len(names) == 1 and _EITHER_VOLUME.fullmatch(names[0]):
        names = []  # a lone column may be the quote volume
    quote = _values(columns, "quote_volume")
    if len(names) == 1:
        volume = _number(names[0], columns[names[0]], "volume")
        _check_order(names[0], [column.slice(0, _ORDER_ROWS) for column in (volume, quote, *_range(values))])
        return volume, quote
    if not names:
        return _values(columns, "volume"), quote
    found = [_number(name, columns[name], "volume") for name in names]
    if all(column.equals(found[0]) for column in found):
        return found[0], quote
    low, high = (column.to_numpy(zero_copy_only=False) for column in _range(values))
    if quote.null_count == len(quote):
        if len(found) == 2 and (order := _in_order(found[0], found[1], low, high)) is not None:
            return found[order[0]], found[order[1]]
    else:
        proven = [column for column in found if _in_order(column, quote, low, high) == (0, 1)]
        if len(proven) == 1:
            return proven[0], quote
    raise LakewriterError(
        f"{' and '.join(names)} could each be the volume, and no mean price of theirs is between low and high",
        "remove the columns that are not",
    )


def _range(values: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    return values["low"], values["high"]


def _check_order(name: str, columns: list[pa.Array]) -> None:
    """Check that volume and quote volume are not swapped.

    Raises:
        LakewriterError: if the prices prove the swap.
    """
    volume, quote, low, high = columns
    prices = [column.to_numpy(zero_copy_only=False) for column in (low, high)]
    numbers = [column.to_numpy(zero_copy_only=False) for column in (volume, quote)]
    if quote.null_count < len(quote) and are_swapped(*numbers, *prices):
        raise LakewriterError(
            f"{name} and the quote volume are swapped: only then their mean prices are between low and high",
            "rename the two columns",
        )


def _in_order(one: pa.Array, other: pa.Array, low: FloatArray, high: FloatArray) -> tuple[int, int] | None:
    return volume_and_quote(
        one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False), low, high
    )


def _values(columns: dict[str, pa.ChunkedArray], name: str) -> pa.Array:
    found = _find(columns, VALUES[name])
    if found is None:
        if name in _REQUIRED:
            raise LakewriterError(f"has no column {name}", f"a candle needs {', '.join(_REQUIRED)}")
        return pa.nulls(len(next(iter(columns.values()))), SCHEMA.field(name).type)
    return _number(found[0], columns[found[0]], name)


def _number(theirs: str, column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return a column's numbers in the type of SCHEMA.

    Args:
        theirs: the column's name in the file.
        name: the column's name in SCHEMA.
    """
    dtype: Any = SCHEMA.field(name).type
    array = column.combine_chunks()
    if array.null_count and name in _REQUIRED:
        raise empty_cells("number", theirs, array)
    try:
        return array.cast(dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LakewriterError(f"{theirs} holds no numbers: {str(error).splitlines()[0]}") from None
