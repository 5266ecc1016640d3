"""Convert the columns of a file to times, numbers or text. Pure.

Strategy: names decide which columns hold times and numbers. An invalid cell in such a
column makes its row a bad row. The caller decides whether a bad row refuses the file. Rows
without any value are not candles. Other tools write them for gaps.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import BoolArray
from lakewriter.errors import LakewriterError
from lakewriter.importer.chosen_columns import DAY_NUMBERS, chosen_columns, holds_times, is_text
from lakewriter.importer.column_names import PRICES, field_of, is_number
from lakewriter.importer.numbers import TextNumbers
from lakewriter.importer.text_file import NULLS
from lakewriter.importer.times import read_times

_SHOWN_MAX = 40

# A float of 32 bits cannot represent all larger whole numbers.
_FLOAT32_WHOLE_MAX = 2**24

# A candle needs a value in each of these columns; the others may be null.
_REQUIRED = (*PRICES, "volume")


class BadRow(NamedTuple):
    """A row that cannot be read.

    Args:
        row: its position, from 0.
        what: the fault of the row, beginning with the column.
    """

    row: int
    what: str


class TypedTable(NamedTuple):
    """A table with types.

    Args:
        table: the file's columns, under usable names.
        bad: whether each row has a cell that is not a time or number.
        first: the first bad row; None without bad rows.
        empty: whether each row has no values.
    """

    table: pa.Table
    bad: BoolArray
    first: BadRow | None
    empty: BoolArray


def typed_columns(table: pa.Table, separator: str = "") -> TypedTable:
    """Return the table with numbers and times instead of text.

    Args:
        separator: the separator of the text file; "" for other files.

    Raises:
        LakewriterError: if a column of numbers or times holds something else, or if two
            columns with the same meaning differ.
    """
    metadata = table.schema.metadata
    table = chosen_columns(table)
    columns = {name: _decoded(table[name]) for name in table.column_names}
    bad_rows = _BadRows(table.num_rows)
    texts = {name: each for name, each in columns.items() if is_number(name) and is_text(each)}
    numbers = TextNumbers(texts, separator)
    for name, array in columns.items():
        if is_number(name):
            columns[name] = _number(name, array, numbers, bad_rows)
        elif holds_times(name):
            columns[name] = _time(name, array, bad_rows)
    empty = _without_values(columns)
    bad_rows.drop(empty)
    typed = pa.table(columns, metadata=metadata) if columns else table
    return TypedTable(typed, bad_rows.rows, bad_rows.first, empty)


class _BadRows:
    def __init__(self, rows: int) -> None:
        self.rows: BoolArray = np.zeros(rows, np.bool_)
        self._found: list[tuple[BoolArray, str, str, pa.Array]] = []

    def add(self, bad: BoolArray, name: str, what: str, cells: pa.Array) -> None:
        """Add cells that are not times or numbers.

        Raises:
            LakewriterError: if all cells of the column are bad.
        """
        if not bad.any():
            return
        if bad.sum() == len(cells) - cells.null_count:
            raise LakewriterError(f"{name} holds {what}s: {_shown(cells, bad)}")
        self._found.append((bad, name, what, cells))
        self.rows |= bad

    def drop(self, rows: BoolArray) -> None:
        """Remove rows that are bad only because they are empty."""
        self.rows &= ~rows

    @property
    def first(self) -> BadRow | None:
        if not self.rows.any():
            return None
        row = int(np.argmax(self.rows))
        name, what, cells = next(each[1:] for each in self._found if each[0][row])
        return BadRow(row, f"{name} is {_shown(cells, np.arange(len(cells)) == row)}, {what}")


def _shown(cells: pa.Array, rows: BoolArray) -> str:
    return repr(str(cells[int(np.argmax(rows))].as_py())[:_SHOWN_MAX])


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # the text is too large for one array
        array = pa.concat_arrays(each.cast(pa.large_string()) for each in array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return _trimmed(array) if is_text(array) else array


def _trimmed(array: pa.Array) -> pa.Array:
    if not pa.types.is_string(array.type):
        array = array.cast(pa.large_string() if array.nbytes > 2**31 - 1 else pa.string())
    # A sample is no proof, and trimming costs more than searching all cells.
    if bool(pc.any(pc.match_substring_regex(array, r"^\s|\s$")).as_py()):
        array = pc.utf8_trim_whitespace(array)
    unknown = pc.is_in(array, value_set=pa.array(NULLS, array.type))
    return pc.if_else(unknown, None, array) if bool(pc.any(unknown).as_py()) else array


def _number(name: str, array: pa.Array, numbers: TextNumbers, bad_rows: _BadRows) -> pa.Array:
    dtype = array.type
    if is_text(array):
        doubles, bad = numbers.doubles(name)
        bad_rows.add(bad, name, "no number", array)
        return doubles
    if pa.types.is_null(dtype):
        return pa.nulls(len(array), pa.float64())
    if pa.types.is_boolean(dtype) or not (
        pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)
    ):
        raise LakewriterError(f"{name} holds no numbers: its type is {dtype}")
    if pa.types.is_decimal(dtype):
        return array.cast(pa.string()).cast(pa.float64())  # Arrow finds the nearest double only from text
    if pa.types.is_floating(dtype) and field_of(name) not in _REQUIRED and _has_nan(array):
        return pc.if_else(pc.is_nan(array), None, array)
    return array


def _has_nan(array: pa.Array) -> bool:
    return bool(pc.any(pc.is_nan(array)).as_py())


def _time(name: str, array: pa.Array, bad_rows: _BadRows) -> pa.Array:
    dtype = array.type
    if pa.types.is_integer(dtype) and len(array) > array.null_count:
        ends = pc.min_max(array).as_py()
        if ends["min"] >= DAY_NUMBERS[0] and ends["max"] <= DAY_NUMBERS[1]:
            array = array.cast(pa.string())
    if pa.types.is_float32(dtype) or pa.types.is_float16(dtype):
        greatest = pc.max(pc.abs(array)).as_py()
        if greatest is not None and greatest > _FLOAT32_WHOLE_MAX:
            raise LakewriterError(f"{name} is a {dtype}, which holds no exact times")
    if not is_text(array):
        return array
    times, bad = read_times(name, array)
    bad_rows.add(bad, name, "no time", array)
    return times


def _without_values(columns: dict[str, pa.Array]) -> BoolArray:
    """Return whether each row has no prices, and a volume of null or 0."""
    prices = [array for name, array in columns.items() if field_of(name) in PRICES]
    rows = len(next(iter(columns.values()))) if columns else 0
    empty: BoolArray = np.full(rows, bool(prices))
    for name, array in columns.items():
        if field_of(name) in PRICES:
            empty &= _unknown(array)
        elif field_of(name) == "volume":
            empty &= _unknown(array) | _is_zero(array)
    return empty


def _is_zero(array: pa.Array) -> BoolArray:
    zero: BoolArray = pc.equal(array, 0).fill_null(True).to_numpy(zero_copy_only=False)
    return zero


def _unknown(array: pa.Array) -> BoolArray:
    unknown: BoolArray = array.is_null(nan_is_null=pa.types.is_floating(array.type)).to_numpy(
        zero_copy_only=False
    )
    return unknown
