"""The Parquet file of a partition: a table is encoded as bytes, and bytes are decoded to a table.

Only this module knows the encodings, the file's metadata, and how to read a
foreign file. It works on bytes and does no I/O.

The encodings were measured on real days of the exchange (see benchmarks/encoding.py).
Doubles are PLAIN without a dictionary. Times and counts are DELTA_BINARY_PACKED. The
source has a dictionary. All columns are compressed by zstd at level 3.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter import __version__
from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.candle_arrays import off_grid
from lakewriter.errors import LakeError, UnreadableError
from lakewriter.interval import INTERVALS
from lakewriter.lake.footer_crc import FOOTER_CRC_KEY, NO_CRC, has_whole_footer, with_footer_crc
from lakewriter.lake.storage import FILE_BYTES_MAX
from lakewriter.partition import LEVELS, Partition

ROW_GROUP_ROWS = 122_880

# Keys in the metadata of our files; foreign files lack them.
WRITER_KEY = "lakewriter.version"
ROWS_KEY = "lakewriter.rows"

# The number of rows that begin off their interval's grid, if any do. The exchange
# has no such rows, but a folded foreign file may have had some.
OFF_GRID_KEY = "lakewriter.off_grid"

# DuckDB, Polars and pandas open a file twice: first for the footer, then for the pages. A flush
# may replace the file in between. If a page began at the same offset in both files, the reader
# would apply the old row count to the new rows and silently lose the last rows. So the pages of
# each next file begin at other offsets, after another number of zeros. An old offset then leads
# to no page, and the reader fails instead.
_MAGIC_BYTES = 4
_PADDING_BYTES = 8
# Any page of times with its header is longer than this. So the second page of one file never
# begins at the offset of another file's first page. A delayed reader that missed some files
# therefore reads no end times as begin times. Eleven paddings take turns: the number of flushes
# in an hour or a day is seldom a multiple of eleven. So a reader that keeps a footer and reads
# again an hour later does not meet the same padding.
_PADDING_BYTES_MAX = 80

_ENCODINGS = {
    name: "PLAIN" if pa.types.is_floating(SCHEMA.field(name).type) else "DELTA_BINARY_PACKED"
    for name in SCHEMA.names
    if name != "source"
}

# A day has at most 86,400 candles; foreign files may have duplicates.
ROWS_MAX = 1 << 20

# Arrow's exceptions for a damaged file, or one that is not Parquet.
_BROKEN = (pa.ArrowException, OSError, UnicodeError, KeyError, OverflowError)

# The required columns. Other columns may be missing, and are null then.
_BEGIN = "candle_begin_time"
REQUIRED = (_BEGIN, "open", "high", "low", "close", "volume")


def import_parquet() -> Any:
    """Return Arrow's Parquet module. It is imported at the first use: some statements read no file.

    A recorder imports it at the start: later it may have no file descriptor left for the import.
    """
    import pyarrow.parquet  # noqa: PLC0415

    return pyarrow.parquet


def encode(table: pa.Table, partition: Partition, padding: int = 0) -> bytes:
    """Return a partition's file as bytes.

    Args:
        table: rows of SCHEMA, sorted by begin time, one for each key.
        padding: number of zeros before the pages; see `encode_next`.
    """
    return _encode(table, partition, padding)[0]


def _encode(table: pa.Table, partition: Partition, padding: int) -> tuple[bytes, Any]:
    """Return a partition's file as bytes, and its metadata, which the writer has: parsing it takes longer."""
    sink = pa.BufferOutputStream()
    collected: list[Any] = []
    # The Arrow schema is left out: it only repeats the types and takes 600 bytes a file.
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
        metadata_collector=collected,
    ) as writer:
        sink.write(bytes(padding))  # after the magic bytes, which the writer has already written
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(
            {
                FOOTER_CRC_KEY: NO_CRC.decode(),
                WRITER_KEY: __version__,
                ROWS_KEY: str(table.num_rows),
                **{level: str(getattr(partition, level)) for level in LEVELS},
            }
        )
        off = np.count_nonzero(off_grid(INTERVALS[partition.interval], int_column(table, _BEGIN)))
        if off:
            writer.add_key_value_metadata({OFF_GRID_KEY: str(off)})
    return with_footer_crc(sink.getvalue().to_pybytes()), collected[0]


class Layout(NamedTuple):
    """The places of a file's pages, which the next file does not use again.

    Args:
        padding: number of zeros before the pages.
        page_starts: the offset of each column's first data page and dictionary page.
    """

    padding: int
    page_starts: set[int]


def encode_next(table: pa.Table, partition: Partition, replaced: bytes | Layout | None) -> bytes:
    """Return a partition's file as bytes. Its pages have other offsets than those of the replaced file.

    The first of ten paddings nearly always suffices. If no padding does, the last one is used.

    Args:
        table: as for `encode`.
        replaced: the replaced file, own or foreign, or its layout; None if the partition had no file.
    """
    if replaced is None:
        return encode(table, partition)
    if not isinstance(replaced, Layout):
        replaced = _layout(replaced, import_parquet().read_metadata(pa.BufferReader(replaced)))
    last, taken = replaced
    for further in range(_PADDING_BYTES, _PADDING_BYTES_MAX + 1, _PADDING_BYTES):
        data, metadata = _encode(table, partition, (last + further) % (_PADDING_BYTES_MAX + _PADDING_BYTES))
        if taken.isdisjoint(_page_starts(metadata)):
            break
    return data


def leading_padding(data: bytes) -> int:
    """Return the number of zeros before a file's pages. Foreign files seldom have zeros there."""
    behind = data[_MAGIC_BYTES : _MAGIC_BYTES + _PADDING_BYTES_MAX]
    return len(behind) - len(behind.lstrip(b"\0"))


def _layout(data: bytes, metadata: Any) -> Layout:
    return Layout(leading_padding(data), _page_starts(metadata))


def _page_starts(metadata: Any) -> set[int]:
    """Return the offsets of each column's first data page and dictionary page."""
    starts: set[int] = set()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for at in range(group.num_columns):
            column = group.column(at)
            starts.add(column.data_page_offset)
            if column.has_dictionary_page:
                starts.add(column.dictionary_page_offset)
    return starts


def _open(data: bytes) -> Any:
    """Open a file, after a check of the numbers of rows and bytes in its footer.

    Arrow allocates memory by the footer before it reads a page.

    Raises:
        pa.ArrowInvalid: if the footer claims more than a partition can have, or a negative number.
    """
    # A prefetch of bytes that are in memory costs more than it saves.
    file = import_parquet().ParquetFile(
        pa.BufferReader(data), page_checksum_verification=True, pre_buffer=False
    )
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for rows in (metadata.num_rows, *(group.num_rows for group in groups)):
        if not 0 <= rows <= ROWS_MAX:
            raise pa.ArrowInvalid(f"it claims {rows:,} rows, more than {ROWS_MAX:,}")
    if (size := sum(group.total_byte_size for group in groups)) > FILE_BYTES_MAX:
        raise pa.ArrowInvalid(f"it claims {size:,} bytes of rows, more than {FILE_BYTES_MAX:,}")
    return file


def decode(data: bytes, name: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Return the rows of an own or foreign file in SCHEMA, or in a part of it.

    Times of other units, decimals and other numbers are cast. Columns of the
    partition's path are dropped. Missing optional columns become null.

    Args:
        data: the whole file.
        name: the file's name in errors.
        schema: some columns of SCHEMA, with the begin time, in its order. Other columns
            of our files are not decoded.

    Raises:
        UnreadableError: if the data is not a whole Parquet file of candles.
        LakeError: if memory runs out.
    """
    if len(schema) < len(SCHEMA):
        try:
            file = _open(data)
            if file.schema_arrow.remove_metadata() == SCHEMA:
                return _with_begins(read_rows(file, schema.names).replace_schema_metadata(None), name)
        except _BROKEN as error:
            raise _unreadable(name, error) from None
    return conform(read_table(data, name), name).select(schema.names)


def decode_with_layout(data: bytes, name: str) -> tuple[pa.Table, Layout]:
    """Return the rows of a file, as for `decode`, and its layout for `encode_next`."""
    try:
        file = _open(data)
        rows = read_rows(file)
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    return conform(rows, name), _layout(data, file.metadata)


def read_table(data: bytes, name: str) -> pa.Table:
    """Return a file's rows with the file's own columns. Their schema has the file's metadata.

    Raises:
        UnreadableError: if the data is not a whole Parquet file.
        LakeError: if memory runs out.
    """
    return read_file(data, name)[0]


def read_file(data: bytes, name: str) -> tuple[pa.Table, bool]:
    """Return a file's rows as `read_table` does, and whether the file is ours; see `written_by_us`."""
    try:
        file = _open(data)
        return read_rows(file), _is_ours(file.metadata)
    except _BROKEN as error:
        raise _unreadable(name, error) from None


def conform(table: pa.Table, name: str) -> pa.Table:
    """Return the table of a foreign file in SCHEMA.

    Args:
        name: the file's name in errors.

    Raises:
        UnreadableError: if the table's rows are not candles.
    """
    try:
        # Rows do not need the file's metadata, so drop it.
        table = table.replace_schema_metadata(None) if table.schema.equals(SCHEMA) else _conform(table)
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    except LakeError as error:
        raise UnreadableError(f"{name}: {error.what}", error.hint) from None
    return _with_begins(table, name)


def _with_begins(table: pa.Table, name: str) -> pa.Table:
    if table[_BEGIN].null_count:
        raise UnreadableError(f"{name}: has a row without candle_begin_time", "nothing was changed")
    return table


def read_rows(file: Any, columns: list[str] | None = None) -> pa.Table:
    """Return all rows of an open file.

    Raises:
        pa.ArrowInvalid: if the number of rows differs from that in the footer.
    """
    # A thread pool costs more than it saves on a file this small.
    table = file.read(columns=columns, use_threads=False)
    if table.num_rows != file.metadata.num_rows:  # damaged footers cause this; Arrow does not check it
        raise pa.ArrowInvalid(f"it has {table.num_rows} of its {file.metadata.num_rows} rows")
    return table


class Footer(NamedTuple):
    """The number and range of the rows in one of our files, from its footer.

    The rows of our files are sorted and unique.

    Args:
        rows: number of rows.
        first_ms, last_ms: the first and last begin time, or 0 without rows.
    """

    rows: int
    first_ms: int
    last_ms: int


class Statistics(NamedTuple):
    """The statistics of one column, from the footer. Readers skip whole files by them.

    Args:
        least, greatest: the minimum and maximum as stored: a number, or the bytes of
            a text. None if the footer lacks them.
        nulls: number of nulls, or None if the footer lacks it.
    """

    least: Any
    greatest: Any
    nulls: int | None


class FileHeader(NamedTuple):
    """The schema, metadata and number of rows in a file's footer. They are not compared with the rows.

    Args:
        schema: names and types of the columns, in order.
        metadata: keys and values of the footer, without the Arrow schema.
        rows: number of rows.
    """

    schema: pa.Schema
    metadata: dict[str, str]
    rows: int


def read_header(data: bytes, name: str) -> FileHeader:
    """Return the header of an own or foreign file.

    Raises:
        UnreadableError: if the data has no footer of a Parquet file.
    """
    try:
        file = _open(data)
        schema, metadata = file.schema_arrow.remove_metadata(), file.metadata
        pairs = {key.decode(): text.decode() for key, text in (metadata.metadata or {}).items()}
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    return FileHeader(schema, pairs, metadata.num_rows)


def read_statistics(data: bytes) -> dict[str, Statistics]:
    """Return the statistics of each column, from the footer.

    A damaged footer may abort the process with an uncaught C++ exception. So call
    this in a process whose crash does no harm.
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
    """Return whether a file's metadata has the key of our version and the right number of rows."""
    return _is_ours(import_parquet().read_metadata(pa.BufferReader(data)))


def read_footer(data: bytes, name: str) -> Footer | None:
    """Return the footer of our own file. None for a foreign file, rows off the grid, or no statistics.

    If the footer does not match its checksum, the rows are read instead.

    Raises:
        UnreadableError: if the data is not a whole Parquet file.
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
    """Return the begin times in an own or foreign file, sorted and unique.

    Raises:
        UnreadableError: if the data is not a whole Parquet file of candles.
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
    """Return the begin times in a file with our metadata, sorted and unique."""
    try:
        file = _open(data)
        if file.schema_arrow.field(_BEGIN).type == SCHEMA.field(_BEGIN).type:
            rows = read_rows(file, [_BEGIN])
        else:  # another writer rewrote our file and kept its metadata
            rows = decode(data, name)
    except _BROKEN as error:
        raise _unreadable(name, error) from None
    return np.unique(int_column(rows, _BEGIN))


def _is_ours(metadata: Any) -> bool:
    pairs = metadata.metadata or {}
    return WRITER_KEY.encode() in pairs and pairs.get(ROWS_KEY.encode()) == str(metadata.num_rows).encode()


def _unreadable(name: str, error: Exception) -> LakeError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError):
        return LakeError(f"{name}: cannot be read now: {reason}", "nothing was changed; run again")
    return UnreadableError(
        f"{name}: not a readable Parquet file of candles: {reason}",
        "nothing was changed; move the file out of the lake, then run again",
    )


def _conform(table: pa.Table) -> pa.Table:
    missing = [column for column in REQUIRED if column not in table.column_names]
    if missing:
        raise LakeError(f"has no column {missing[0]}", "a candle file needs " + ", ".join(REQUIRED))
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
        import pyarrow.compute as pc  # noqa: PLC0415 - slow, and only for foreign files

        column = pc.assume_timezone(column, "UTC")
    # A receive time may lose its nanoseconds, and a decimal may lose its last digits.
    # A begin time that is not a whole number of milliseconds is an error.
    inexact = field.name == "recv_time" or pa.types.is_decimal(column.type)
    return column.cast(field.type, safe=not inexact)
