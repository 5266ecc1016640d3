"""Give the columns of a file their types: times, numbers, and text for the rest. Pure.

Strategy: names say which columns hold times and numbers. Cells that hold
neither are flaws, each of a row; the caller decides whether a flaw refuses the
file. Rows without any value are no candles: tools write them for gaps.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import BoolArray
from lakewriter.errors import LakewriterError
from lakewriter.evidence.columns import normal, plain
from lakewriter.importer.column_names import (
    PRICES,
    field_of,
    is_begin,
    is_number,
    is_time,
    is_unnamed,
    stray_letters,
)
from lakewriter.importer.numbers import TextNumbers
from lakewriter.importer.text_file import NULLS
from lakewriter.importer.times import read_times

_SHOWN_MAX = 40

# Symbols, intervals and the like are shorter.
_TEXT_BYTES_MAX = 200

# Days as numbers: 20240131. As seconds they would be of 1970.
_DAY_NUMBERS = (20_000_101, 21_001_231)

# From here on a float of 32 bits skips whole numbers.
_FLOAT32_WHOLE_MAX = 2**24

# A file without a value for one of these holds no candles; any other may be unknown.
_REQUIRED = (*PRICES, "volume")


class Flaw(NamedTuple):
    """What is wrong with a row.

    Args:
        row: its position, from 0.
        what: in words, the column first.
    """

    row: int
    what: str


class Typed(NamedTuple):
    """A table with types.

    Args:
        table: with the file's columns, renamed where the name is of no use.
        flawed: which rows have a cell that is no time or number.
        first: the first of these; None if there are none.
        empty: which rows have no values.
    """

    table: pa.Table
    flawed: BoolArray
    first: Flaw | None
    empty: BoolArray


def typed_columns(table: pa.Table, separator: str = "") -> Typed:
    """Return a table with types.

    Args:
        separator: between the values of the text file that it comes from; "" if it is from another.

    Raises:
        LakewriterError: if a column that a candle needs holds nothing of the kind, or is there twice.
    """
    metadata = table.schema.metadata
    table = _without_repeated(_renamed(table))
    columns = {name: _decoded(table[name]) for name in table.column_names if not _is_prose(name, table[name])}
    flaws = _Flaws(table.num_rows)
    texts = {name: each for name, each in columns.items() if is_number(name) and _is_text(each)}
    numbers = TextNumbers(texts, separator)
    for name, array in columns.items():
        if is_number(name):
            columns[name] = _number(name, array, numbers, flaws)
        elif _holds_times(name):
            columns[name] = _time(name, array, flaws)
    empty = _without_values(columns)
    flaws.forgive(empty)
    typed = pa.table(columns, metadata=metadata) if columns else table
    return Typed(typed, flaws.rows, flaws.first, empty)


class _Flaws:
    def __init__(self, rows: int) -> None:
        self.rows: BoolArray = np.zeros(rows, np.bool_)
        self._found: list[tuple[BoolArray, str, str, pa.Array]] = []

    def add(self, bad: BoolArray, name: str, what: str, cells: pa.Array) -> None:
        """Note cells that are not what their column holds.

        Raises:
            LakewriterError: if all that it has are such.
        """
        if not bad.any():
            return
        if bad.sum() == len(cells) - cells.null_count:
            raise LakewriterError(f"{name} holds {what}s: {_shown(cells, bad)}")
        self._found.append((bad, name, what, cells))
        self.rows |= bad

    def forgive(self, rows: BoolArray) -> None:
        """Take back the flaws of some rows."""
        self.rows &= ~rows

    @property
    def first(self) -> Flaw | None:
        if not self.rows.any():
            return None
        row = int(np.argmax(self.rows))
        name, what, cells = next(each[1:] for each in self._found if each[0][row])
        return Flaw(row, f"{name} is {_shown(cells, np.arange(len(cells)) == row)}, {what}")


def _shown(cells: pa.Array, rows: BoolArray) -> str:
    return repr(str(cells[int(np.argmax(rows))].as_py())[:_SHOWN_MAX])


def _holds_times(name: str) -> bool:
    return is_time(name) or normal(name) in ("event_time", "recv_time")


def _renamed(table: pa.Table) -> pa.Table:
    """Return the table with names of use; an index without a name holds begin times if no other column does."""
    names = [plain(name) for name in table.column_names]
    if not any(is_begin(name) for name in names):
        for at, name in enumerate(names):
            if is_unnamed(name) and _may_be_times(table.column(at)):
                names[at] = "timestamp"
                break
    # An empty name is that of an empty column at the end of each row.
    meaningless = {"", *stray_letters(names)}
    kept = [at for at, name in enumerate(names) if name not in meaningless]
    return table.select(kept).rename_columns([names[at] for at in kept])


def _may_be_times(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        least = pc.min(column).as_py()
        return least is not None and least >= _DAY_NUMBERS[0]
    if _is_text(column):
        first = next((each for each in column.slice(0, 100).to_pylist() if each), "")
        return len(first) >= len("20240101")
    return bool(pa.types.is_temporal(kind))


def _without_repeated(table: pa.Table) -> pa.Table:
    """Return the table without columns that repeat another of the same meaning.

    Raises:
        LakewriterError: if two columns of one meaning differ.
    """
    seen: dict[str, int] = {}
    kept = []
    for at, name in enumerate(table.column_names):
        meaning = _meaning(name)
        if meaning not in seen:
            seen[meaning] = at
            kept.append(at)
        elif not table.column(seen[meaning]).equals(table.column(at)):
            first = table.column_names[seen[meaning]]
            raise LakewriterError(f"has two columns that differ for one thing, {first} and {name}")
    return table.select(kept)


def _meaning(name: str) -> str:
    field = field_of(name)
    # Volumes under two names may count different assets: that is decided elsewhere.
    return field if field is not None and field != "volume" else normal(name)


def _is_prose(name: str, column: pa.ChunkedArray) -> bool:
    """Return whether a column holds longer texts than any that a candle needs; decoded they may be huge."""
    if is_number(name) or _holds_times(name) or not _is_text(column):
        return False
    for chunk in column.chunks:
        texts = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        longest = pc.max(pc.binary_length(texts)).as_py()
        if longest is not None and longest > _TEXT_BYTES_MAX:
            return True
    return False


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # more text than one array holds
        array = pa.concat_arrays(each.cast(pa.large_string()) for each in array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return _trimmed(array) if _is_text(array) else array


def _trimmed(array: pa.Array) -> pa.Array:
    if not pa.types.is_string(array.type):
        array = array.cast(pa.large_string() if array.nbytes > 2**31 - 1 else pa.string())
    # Ten cells tell nothing of the rest, but spaces cost more than to look for them.
    if bool(pc.any(pc.match_substring_regex(array, r"^\s|\s$")).as_py()):
        array = pc.utf8_trim_whitespace(array)
    unknown = pc.is_in(array, value_set=pa.array(NULLS, array.type))
    return pc.if_else(unknown, None, array) if bool(pc.any(unknown).as_py()) else array


def _is_text(array: Any) -> bool:
    kind = array.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _number(name: str, array: pa.Array, numbers: TextNumbers, flaws: _Flaws) -> pa.Array:
    kind = array.type
    if _is_text(array):
        doubles, bad = numbers.doubles(name)
        flaws.add(bad, name, "no number", array)
        return doubles
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.float64())
    if pa.types.is_boolean(kind) or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    ):
        raise LakewriterError(f"{name} holds no numbers: its type is {kind}")
    if pa.types.is_decimal(kind):
        return array.cast(pa.string()).cast(pa.float64())  # only of a text Arrow finds the nearest double
    if pa.types.is_floating(kind) and field_of(name) not in _REQUIRED and _has_nan(array):
        return pc.if_else(pc.is_nan(array), None, array)
    return array


def _has_nan(array: pa.Array) -> bool:
    return bool(pc.any(pc.is_nan(array)).as_py())


def _time(name: str, array: pa.Array, flaws: _Flaws) -> pa.Array:
    kind = array.type
    if pa.types.is_integer(kind) and len(array) > array.null_count:
        ends = pc.min_max(array).as_py()
        if ends["min"] >= _DAY_NUMBERS[0] and ends["max"] <= _DAY_NUMBERS[1]:
            array = array.cast(pa.string())
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        greatest = pc.max(pc.abs(array)).as_py()
        if greatest is not None and greatest > _FLOAT32_WHOLE_MAX:
            raise LakewriterError(f"{name} is a {kind}, which holds no exact times")
    if not _is_text(array):
        return array
    times, bad = read_times(name, array)
    flaws.add(bad, name, "no time", array)
    return times


def _without_values(columns: dict[str, pa.Array]) -> BoolArray:
    """Return which rows have no price, and no volume or one of 0."""
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
