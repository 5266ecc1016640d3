"""Read a Parquet, Feather or Arrow file of candles into a table, within bounds."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.errors import LakewriterError
from lakewriter.lake.parquet import read_rows

# A year of 1s candles is 31.6 million.
ROWS_MAX = 1 << 25
COLUMNS_MAX = 500

# In memory; a year of 1s candles with all columns takes some 4 GB.
TABLE_BYTES_MAX = 1 << 33


_FEATHER_1 = b"FEA1"
_STREAM = b"\xff\xff\xff\xff"  # ahead of each message


def read_parquet(data: bytes) -> pa.Table:
    """Return the rows of a Parquet file; columns of lists and structs are left out.

    Raises:
        LakewriterError: if it cannot be read, or is too large.
    """
    try:
        schema = pq.read_schema(pa.BufferReader(data))
        texts = [field.name for field in schema if _is_text(field.type)]
        # As codes a text that is repeated takes as little memory as it did in the file.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, read_dictionary=texts)
        _check_size(file.metadata.num_rows, len(schema))
        _check_bytes(sum(_group_bytes(file.metadata, at) for at in range(file.metadata.num_row_groups)))
        return _flat(read_rows(file, [field.name for field in schema if not pa.types.is_nested(field.type)]))
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise LakewriterError(f"not a readable Parquet file: {str(error).splitlines()[0]}") from None


def read_feather(data: bytes) -> pa.Table:
    """Return the rows of a Feather or Arrow file, or of an Arrow stream; columns of lists and structs are left out.

    Raises:
        LakewriterError: if it cannot be read, or is too large.
    """
    source = pa.BufferReader(arrow_buffer(data))
    try:
        if data.startswith(_FEATHER_1):
            table = feather.read_table(source, use_threads=False)
        else:
            table = _bounded(_batches(source, data))
        _check_size(table.num_rows, table.num_columns)
        return _flat(table)
    except (pa.ArrowException, OSError, UnicodeError, ValueError) as error:
        raise LakewriterError(f"not a readable Feather file: {str(error).splitlines()[0]}") from None


def _batches(source: pa.BufferReader, data: bytes) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    options = pa.ipc.IpcReadOptions(use_threads=False)
    if data.startswith(_STREAM):
        stream = pa.ipc.open_stream(source, options=options)
        return stream.schema, iter(stream)
    file = pa.ipc.open_file(source, options=options)
    return file.schema, (file.get_batch(at) for at in range(file.num_record_batches))


def _bounded(read: tuple[pa.Schema, Iterator[pa.RecordBatch]]) -> pa.Table:
    schema, batches = read
    kept, rows, table_bytes = [], 0, 0
    for batch in batches:
        rows += batch.num_rows
        table_bytes += batch.nbytes
        _check_size(rows, len(schema))
        _check_bytes(table_bytes)
        kept.append(batch)
    return pa.Table.from_batches(kept, schema)


def _group_bytes(metadata: Any, at: int) -> int:
    size: int = metadata.row_group(at).total_byte_size
    return size


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _flat(table: pa.Table) -> pa.Table:
    return table.select([field.name for field in table.schema if not pa.types.is_nested(field.type)])


def _check_size(rows: int, columns: int) -> None:
    if rows > ROWS_MAX:
        raise LakewriterError(f"has more than {ROWS_MAX} rows", "import it in parts")
    if columns > COLUMNS_MAX:
        raise LakewriterError(f"has {columns} columns, more than {COLUMNS_MAX}")


def _check_bytes(size: int) -> None:
    if size > TABLE_BYTES_MAX:
        raise LakewriterError(f"holds more than {TABLE_BYTES_MAX:,} bytes", "import it in parts")
