"""The Parquet file of a partition: bytes out, a table in.

What only this module knows: the encodings, the file's metadata, and how to
read a file that somebody else wrote. Pure but for the bytes it is given.

Encodings, measured on real days of the exchange (see benchmarks/encoding.py):
doubles without dictionary, PLAIN + zstd 3; DELTA_BINARY_PACKED for times and
counts; a dictionary for the source.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakewriter import __version__
from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.errors import LakeError
from lakewriter.partition import LEVELS, Partition

ROW_GROUP_ROWS = 122_880

# In the file's metadata; a reader can tell our files from anybody's.
WRITER_KEY = "lakewriter.version"
ROWS_KEY = "lakewriter.rows"

_ENCODINGS = {
    name: "PLAIN" if pa.types.is_floating(SCHEMA.field(name).type) else "DELTA_BINARY_PACKED"
    for name in SCHEMA.names
    if name != "source"
}

# Without these a file holds no candles; what else is missing becomes null.
_REQUIRED = ("candle_begin_time", "open", "high", "low", "close", "volume")


def encode(table: pa.Table, partition: Partition) -> bytes:
    """Return the partition's file as bytes.

    Args:
        table: rows of SCHEMA, sorted by begin time, one per key.
    """
    sink = pa.BufferOutputStream()
    # Written without the Arrow schema, which only repeats the types, at 600 bytes a file.
    with pq.ParquetWriter(
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
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(
            {
                WRITER_KEY: __version__,
                ROWS_KEY: str(table.num_rows),
                **{level: str(getattr(partition, level)) for level in LEVELS},
            }
        )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes, name: str) -> pa.Table:
    """Return a file's rows in SCHEMA, whoever wrote it.

    Times of other units, decimals and other numbers are cast; columns that the
    path repeats are dropped; optional columns that are missing become null.

    Args:
        data: the whole file.
        name: what to call it in an error.

    Raises:
        LakeError: if it is not a whole Parquet file of candles.
    """
    try:
        # A thread pool costs more than it gives on a file this small.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
        # The metadata is the file's own, which no row needs.
        table = table.replace_schema_metadata(None) if table.schema.equals(SCHEMA) else _conform(table)
    except (pa.ArrowException, OSError, UnicodeError, KeyError) as error:
        raise _unreadable(name, error) from None
    except LakeError as error:
        raise LakeError(f"{name}: {error.what}", error.hint) from None
    if table["candle_begin_time"].null_count:
        raise LakeError(f"{name}: has a row without candle_begin_time", "nothing was changed")
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


def written_by_us(data: bytes) -> bool:
    """Tell whether the file says that `encode` wrote it, and has the rows it says."""
    return _is_ours(pq.read_metadata(pa.BufferReader(data)))


def read_footer(data: bytes, name: str) -> Footer | None:
    """Return what our file's end says of its rows; None if somebody else wrote it.

    Raises:
        LakeError: if it is not a whole Parquet file.
    """
    try:
        metadata = pq.read_metadata(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(name, error) from None
    if not _is_ours(metadata):
        return None
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
        LakeError: if it is not a whole Parquet file of candles.
    """
    if read_footer(data, name) is None:
        begins = int_column(decode(data, name), "candle_begin_time")
    else:
        try:
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            begins = int_column(
                file.read(columns=["candle_begin_time"], use_threads=False), "candle_begin_time"
            )
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _unreadable(name, error) from None
    return np.unique(begins)


def _is_ours(metadata: Any) -> bool:
    said = metadata.metadata or {}
    return WRITER_KEY.encode() in said and said.get(ROWS_KEY.encode()) == str(metadata.num_rows).encode()


def _unreadable(name: str, error: Exception) -> LakeError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return LakeError(
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
