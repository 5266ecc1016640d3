"""Select the relevant columns of a file, each once, under usable names. Pure."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.errors import LakewriterError
from lakewriter.evidence.columns import normal_name, plain_name
from lakewriter.importer.column_names import field_of, is_begin, is_number, is_time, is_unnamed, stray_letters

# The maximum bytes of a text, such as a symbol or an interval.
_TEXT_BYTES_MAX = 200

# The range of days that are written as numbers, like 20240131. As seconds, such numbers
# would be in 1970.
DAY_NUMBERS = (20_000_101, 21_001_231)


def chosen_columns(table: pa.Table) -> pa.Table:
    """Return the columns of a table that may hold values, times or series.

    Raises:
        LakewriterError: if two columns with the same meaning have different values.
    """
    table = _without_repeated(_renamed(table))
    return table.select([name for name in table.column_names if not _is_prose(name, table[name])])


def _renamed(table: pa.Table) -> pa.Table:
    """Return the table with usable names. An unnamed index may hold the begin times."""
    names = [plain_name(name) for name in table.column_names]
    if not any(is_begin(name) for name in names):
        for at, name in enumerate(names):
            if is_unnamed(name) and _may_be_times(table.column(at)):
                names[at] = "timestamp"
                break
    # An empty name belongs to an empty column at the end of each row.
    meaningless = {"", *stray_letters(names)}
    kept = [at for at, name in enumerate(names) if name not in meaningless]
    return table.select(kept).rename_columns([names[at] for at in kept])


def _may_be_times(column: pa.ChunkedArray) -> bool:
    dtype = column.type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        least = pc.min(column).as_py()
        return least is not None and least >= DAY_NUMBERS[0]
    if is_text(column):
        first = next((cell for cell in column.slice(0, 100).to_pylist() if cell), "")
        return len(first) >= len("20240101")
    return bool(pa.types.is_temporal(dtype))


def _without_repeated(table: pa.Table) -> pa.Table:
    """Return the table without columns that repeat another column of the same meaning.

    Raises:
        LakewriterError: if two columns with the same meaning have different values.
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
            raise LakewriterError(f"has two columns for one thing, {first} and {name}, with different values")
    return table.select(kept)


def _meaning(name: str) -> str:
    field = field_of(name)
    # Volumes under two names may count different assets; `columns` decides.
    return field if field is not None and field != "volume" else normal_name(name)


def _is_prose(name: str, column: pa.ChunkedArray) -> bool:
    """Return whether a column holds texts too long for a candle, which are left out to save memory."""
    if is_number(name) or holds_times(name) or not is_text(column):
        return False
    for chunk in column.chunks:
        texts = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        longest = pc.max(pc.binary_length(texts)).as_py()
        if longest is not None and longest > _TEXT_BYTES_MAX:
            return True
    return False


def is_text(array: Any) -> bool:
    """Return whether an array or column holds plain or dictionary-encoded text."""
    dtype = array.type
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return bool(
        pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
    )


def holds_times(name: str) -> bool:
    """Return whether a column of this name holds times of any kind."""
    return is_time(name) or normal_name(name) in ("event_time", "recv_time")
