"""The Parquet file of a partition: bytes out, a table in.

What only this module knows: the encodings, the file's metadata, and how to
read a file that somebody else wrote. Pure but for the bytes it is given.

Encodings, measured on real days of the exchange (see benchmarks/encoding.py):
doubles without dictionary, PLAIN + zstd 3; DELTA_BINARY_PACKED for times and
counts; a dictionary for the source.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter import __version__
from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.candle_arrays import off_grid
from lakewriter.errors import LakeError, UnreadableError
from lakewriter.interval import INTERVALS
from lakewriter.lake.storage import FILE_BYTES_MAX
from lakewriter.partition import LEVELS, Partition

ROW_GROUP_ROWS = 122_880

# In the file's metadata; a reader can tell our files from anybody's.
WRITER_KEY = "lakewriter.version"
ROWS_KEY = "lakewriter.rows"

# How many rows begin off their interval's grid; only there if some do. The exchange
# has none, but a foreign file that was folded in may have had them.
OFF_GRID_KEY = "lakewriter.off_grid"

# The footer's CRC-32 as eight hexadecimal digits, taken with zeros in their place. Nothing in
# Parquet guards a footer, and over some damaged ones pyarrow aborts the whole process: what
# C++ throws while statistics are looked up nobody catches.
FOOTER_CRC_KEY = "lakewriter.footer_crc"
_NO_CRC = b"00000000"
# In Thrift's compact protocol: eight bytes of text follow.
_FOOTER_CRC_MARK = FOOTER_CRC_KEY.encode() + b"\x18\x08"

# DuckDB, Polars and pandas open a file twice: the footer is from the first time, and the pages
# are from the second, maybe of the file that replaced it meanwhile. If a page began there in
# both, as that of the begin times would, an old count of rows would meet new rows, and the last
# of them would silently be missing. So pages begin elsewhere in each next file, behind more zeros
# or fewer: what is read in their place is no page, and the reader fails instead.
_MAGIC_BYTES = 4
_PADDING_BYTES = 8
# Less than any page of times takes, with its header: whatever the shifts of two files are, the
# second page of one does not begin where the first page of the other does. So a reader that was
# held up, and missed some files in between, does not take ends for begins either. Eleven shifts
# take turns, a number of flushes that few hours and days are made of: whoever keeps a footer and
# comes back on the hour does not meet the same one.
_PADDING_BYTES_MAX = 80

_ENCODINGS = {
    name: "PLAIN" if pa.types.is_floating(SCHEMA.field(name).type) else "DELTA_BINARY_PACKED"
    for name in SCHEMA.names
    if name != "source"
}

# A day has at most 86,400 candles; files of others may repeat them.
ROWS_MAX = 1 << 20

# What Arrow raises over a file that is damaged, or none of Parquet's.
_BROKEN = (pa.ArrowException, OSError, UnicodeError, KeyError, OverflowError)

# Without these a file holds no candles; what else is missing becomes null.
_BEGIN = "candle_begin_time"
_REQUIRED = (_BEGIN, "open", "high", "low", "close", "volume")


def import_parquet() -> Any:
    """Return Arrow's module for Parquet, imported with the first file: not every statement has one.

    A recorder imports it before: with its first file there may be no handle left to import it by.
    """
    import pyarrow.parquet  # noqa: PLC0415

    return pyarrow.parquet


def encode(table: pa.Table, partition: Partition, padding: int = 0) -> bytes:
    """Return the partition's file as bytes.

    Args:
        table: rows of SCHEMA, sorted by begin time, one per key.
        shift: how many zeros to put before the pages; see `encode_next`.
    """
    sink = pa.BufferOutputStream()
    # Written without the Arrow schema, which only repeats the types, at 600 bytes a file.
    with import_parquet().ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=3,
        use_dictionary=["source"],
        column_encoding=_ENCODINGS,
        write_statistics=True,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        sink.write(bytes(padding))  # behind the magic, which is there by now
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(
            {
                FOOTER_CRC_KEY: _NO_CRC.decode(),
                WRITER_KEY: __version__,
                ROWS_KEY: str(table.num_rows),
                **{level: str(getattr(partition, level)) for level in LEVELS},
            }
        )
        off = np.count_nonzero(off_grid(INTERVALS[partition.interval], int_column(table, _BEGIN)))
        if off:
            writer.add_key_value_metadata({OFF_GRID_KEY: str(off)})
    return _with_footer_crc(sink.getvalue().to_pybytes())


def encode_next(table: pa.Table, partition: Partition, replaced: bytes | None) -> bytes:
    """Return the partition's file as bytes in which no page begins where one did in the file before.

    Of ten other shifts nearly always the first will do; if none did, the last would be taken.

    Args:
        table: as for `encode`.
        replaced: the file before, whoever wrote it; None if this is the first.
    """
    if replaced is None:
        return encode(table, partition)
    taken = _page_starts(replaced)
    last = leading_padding(replaced)
    for further in range(_PADDING_BYTES, _PADDING_BYTES_MAX + 1, _PADDING_BYTES):
        data = encode(table, partition, (last + further) % (_PADDING_BYTES_MAX + _PADDING_BYTES))
        if taken.isdisjoint(_page_starts(data)):
            break
    return data


def leading_padding(data: bytes) -> int:
    """Return how many zeros are before a file's pages; in files of others there seldom are any."""
    behind = data[_MAGIC_BYTES : _MAGIC_BYTES + _PADDING_BYTES_MAX]
    return len(behind) - len(behind.lstrip(b"\0"))


def _page_starts(data: bytes) -> set[int]:
    """Return where a file's first pages of each kind begin, by its footer."""
    metadata = import_parquet().read_metadata(pa.BufferReader(data))
    starts: set[int] = set()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for at in range(group.num_columns):
            column = group.column(at)
            starts.add(column.data_page_offset)
            if column.has_dictionary_page:
                starts.add(column.dictionary_page_offset)
    return starts


def _with_footer_crc(data: bytes) -> bytes:
    at = _footer_crc_at(data)
    return b"%b%08x%b" % (data[:at], _footer_crc(data, at), data[at + len(_NO_CRC) :])


def has_whole_footer(data: bytes) -> bool:
    """Tell whether a file's footer is the one that `encode` wrote; others' have no seal."""
    at = _footer_crc_at(data)
    return at > 0 and data[at : at + len(_NO_CRC)] == b"%08x" % _footer_crc(data, at)


def _footer_crc_at(data: bytes) -> int:
    """Return where the seal's digits are; -1 if there are none."""
    found = data.rfind(_FOOTER_CRC_MARK, _footer_at(data))
    return found if found < 0 else found + len(_FOOTER_CRC_MARK)


def _footer_crc(data: bytes, at: int) -> int:
    before = zlib.crc32(data[_footer_at(data) : at])
    return zlib.crc32(data[at + len(_NO_CRC) : -8], zlib.crc32(_NO_CRC, before))


def _footer_at(data: bytes) -> int:
    # Its length and the magic are the last eight bytes.
    return max(0, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))


def _open(data: bytes) -> Any:
    """Return an open file whose end claims no more rows and bytes than a partition can have.

    Arrow allocates what the end claims before it reads a page.

    Raises:
        pa.ArrowInvalid: if it claims more, or fewer than none.
    """
    file = import_parquet().ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for rows in (metadata.num_rows, *(group.num_rows for group in groups)):
        if not 0 <= rows <= ROWS_MAX:
            raise pa.ArrowInvalid(f"it claims {rows:,} rows, more than {ROWS_MAX:,}")
    if (size := sum(group.total_byte_size for group in groups)) > FILE_BYTES_MAX:
        raise pa.ArrowInvalid(f"it claims {size:,} bytes of rows, more than {FILE_BYTES_MAX:,}")
    return file


def decode(data: bytes, name: str) -> pa.Table:
    """Return a file's rows in SCHEMA, whoever wrote it.

    Times of other units, decimals and other numbers are cast; columns that the
    path repeats are dropped; optional columns that are missing become null.

    Args:
        data: the whole file.
        name: what to call it in an error.

    Raises:
        UnreadableError: if it is not a whole Parquet file of candles.
        LakeError: if memory does not suffice for it.
    """
    return conform(read_table(data, name), name)


def read_table(data: bytes, name: str) -> pa.Table:
    """Return a file's rows with its own columns, and its metadata in their schema.

    Raises:
        UnreadableError: if it is not a whole Parquet file.
        LakeError: if memory does not suffice for it.
    """
    try:
        return read_rows(_open(data))
    except _BROKEN as error:
        raise _unreadable(name, error) from None


def conform(table: pa.Table, name: str) -> pa.Table:
    """Return a table of others in SCHEMA.

    Args:
        name: what to call its file in an error.

    Raises:
        UnreadableError: if it holds no candles.
    """
    try:
        # The metadata is the file's own, which no row needs.
        table = table.replace_schema_metadata(None) if table.schema.equals(SCHEMA) else _conform(table)
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    except LakeError as error:
        raise UnreadableError(f"{name}: {error.what}", error.hint) from None
    if table[_BEGIN].null_count:
        raise UnreadableError(f"{name}: has a row without candle_begin_time", "nothing was changed")
    return table


def read_rows(file: Any, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of an open file, all of them.

    Raises:
        pa.ArrowInvalid: if it does not have the rows that its end says.
    """
    # A thread pool costs more than it gives on a file this small.
    table = file.read(columns=columns, use_threads=False)
    if table.num_rows != file.metadata.num_rows:  # seen of damaged ends: nobody else minds
        raise pa.ArrowInvalid(f"it has {table.num_rows} of its {file.metadata.num_rows} rows")
    return table


class Footer(NamedTuple):
    """What the end of one of our files says of its rows, which are sorted and unique.

    Args:
        rows: how many.
        first_ms, last_ms: the first and last begin time; 0 without rows.
    """

    rows: int
    first_ms: int
    last_ms: int


class Statistics(NamedTuple):
    """What the end of a file says of one column; readers skip whole files by it.

    Args:
        least, greatest: as stored: numbers, or bytes of text; None if nothing is said.
        nulls: how many; None if nothing is said.
    """

    least: Any
    greatest: Any
    nulls: int | None


class FileHeader(NamedTuple):
    """What a file says of itself, whether or not its rows agree.

    Args:
        schema: names and types of its columns, in order.
        metadata: of its footer, without the Arrow schema.
        rows: how many.
    """

    schema: pa.Schema
    metadata: dict[str, str]
    rows: int


def read_header(data: bytes, name: str) -> FileHeader:
    """Return what a file says of itself, whoever wrote it.

    Raises:
        UnreadableError: if its end is not that of a Parquet file.
    """
    try:
        file = _open(data)
        schema, metadata = file.schema_arrow.remove_metadata(), file.metadata
        said = {key.decode(): text.decode() for key, text in (metadata.metadata or {}).items()}
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    return FileHeader(schema, said, metadata.num_rows)


def read_statistics(data: bytes) -> dict[str, Statistics]:
    """Return what a file's end says of each column.

    Of a damaged end this may abort the process, for nobody catches what C++ throws
    in there: ask in a process that may die.
    """
    metadata = import_parquet().read_metadata(pa.BufferReader(data))
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return {
        metadata.schema.column(at).path: _statistics([group.column(at).statistics for group in groups])
        for at in range(metadata.num_columns)
    }


def _statistics(groups: list[Any]) -> Statistics:
    known = [group for group in groups if group is not None]
    bounded = [group for group in known if group.has_min_max]
    counted = known and all(group.has_null_count for group in known)
    nulls = sum(group.null_count for group in known) if counted else None
    if not bounded or len(known) < len(groups):
        return Statistics(None, None, nulls)
    return Statistics(min(group.min_raw for group in bounded), max(group.max_raw for group in bounded), nulls)


def written_by_us(data: bytes) -> bool:
    """Tell whether the file says that `encode` wrote it, and has the rows it says."""
    return _is_ours(import_parquet().read_metadata(pa.BufferReader(data)))


def read_footer(data: bytes, name: str) -> Footer | None:
    """Return what our file's end says of its rows; None if somebody else wrote it, or a row is off the grid.

    An end that is not the one we wrote, be it damaged, is not asked: the rows themselves are.

    Raises:
        UnreadableError: if it is not a whole Parquet file.
    """
    metadata = _read_metadata(data, name)
    if not _is_ours(metadata) or OFF_GRID_KEY.encode() in (metadata.metadata or {}):
        return None
    if not has_whole_footer(data):
        begins = _read_begins(data, name)
        return Footer(len(begins), int(begins[0]), int(begins[-1])) if len(begins) else Footer(0, 0, 0)
    if not metadata.num_rows:
        return Footer(0, 0, 0)
    groups = [metadata.row_group(number).column(0).statistics for number in range(metadata.num_row_groups)]
    if any(group is None or not group.has_min_max for group in groups):
        return None
    return Footer(
        metadata.num_rows, min(group.min_raw for group in groups), max(group.max_raw for group in groups)
    )


def read_begins(data: bytes, name: str) -> IntArray:
    """Return the begin times in a file, whoever wrote it, sorted, each once.

    Raises:
        UnreadableError: if it is not a whole Parquet file of candles.
    """
    if _is_ours(_read_metadata(data, name)):
        return _read_begins(data, name)
    return np.unique(int_column(decode(data, name), _BEGIN))


def _read_metadata(data: bytes, name: str) -> Any:
    try:
        return import_parquet().read_metadata(pa.BufferReader(data))
    except _BROKEN as error:
        raise _unreadable(name, error) from None


def _read_begins(data: bytes, name: str) -> IntArray:
    """Return the begin times in a file that says it is ours, sorted, each once."""
    try:
        file = _open(data)
        if file.schema_arrow.field(_BEGIN).type == SCHEMA.field(_BEGIN).type:
            rows = read_rows(file, [_BEGIN])
        else:  # somebody wrote our file anew, and kept what it says of itself
            rows = decode(data, name)
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    return np.unique(int_column(rows, _BEGIN))


def _is_ours(metadata: Any) -> bool:
    said = metadata.metadata or {}
    return WRITER_KEY.encode() in said and said.get(ROWS_KEY.encode()) == str(metadata.num_rows).encode()


def _unreadable(name: str, error: Exception) -> LakeError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError):
        return LakeError(f"{name}: cannot be read now: {reason}", "nothing was changed; run again")
    return UnreadableError(
        f"{name}: not a readable Parquet file of candles: {reason}",
        "nothing was changed; move the file out of the lake, then run again",
    )


def _conform(table: pa.Table) -> pa.Table:
    missing = [column for column in _REQUIRED if column not in table.column_names]
    if missing:
        raise LakeError(f"has no column {missing[0]}", "a candle file needs " + ", ".join(_REQUIRED))
    columns = []
    for field in SCHEMA:
        if field.name in table.column_names:
            columns.append(_cast(table[field.name], field))
        else:
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _cast(column: pa.ChunkedArray, field: "pa.Field[Any]") -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(field.type) and pa.types.is_timestamp(column.type) and column.type.tz is None:
        import pyarrow.compute as pc  # noqa: PLC0415 - slow, and only for files of others

        column = pc.assume_timezone(column, "UTC")
    # A receive time may lose its nanoseconds, a decimal its last digits; a begin
    # time that is none of our milliseconds is an error.
    inexact = field.name == "recv_time" or pa.types.is_decimal(column.type)
    return column.cast(field.type, safe=not inexact)
