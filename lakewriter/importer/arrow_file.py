"""Read a Parquet, Feather or Arrow file of candles into a table, within size limits."""

from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.errors import LakewriterError
from lakewriter.importer.arrow_inflation import inflated_bytes
from lakewriter.lake.parquet import read_rows

# The maximum number of rows. A year has 31.6 million 1s candles.
ROWS_MAX = 1 << 25
COLUMNS_MAX = 500

# The maximum number of values in memory. A year of 1s candles with all columns has 0.4 billion.
CELLS_MAX = 1 << 29
TABLE_BYTES_MAX = 1 << 33

# The maximum ratio of inflated to compressed bytes. Feather's ratio is 3 for candles, and
# 30 for candles without trades.
_INFLATION_MAX = 300
_INFLATED_BYTES_MIN = 1 << 26

_FEATHER_1 = b"FEA1"
_FILE_HEAD_BYTES = 8  # "ARROW1" and two zero bytes precede the stream
_STREAM = b"\xff\xff\xff\xff"  # precedes each message


def read_parquet(data: bytes) -> pa.Table:
    """Return the rows of a Parquet file, without columns of lists and structs.

    Raises:
        LakewriterError: if it cannot be read, or is too large.
    """
    try:
        schema = pq.read_schema(pa.BufferReader(data))
        texts = [field.name for field in schema if _is_text(field.type)]
        # A dictionary keeps repeated text in memory as small as in the file.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, read_dictionary=texts)
        _check_size(file.metadata.num_rows, len(schema))
        size = sum(_group_bytes(file.metadata, at) for at in range(file.metadata.num_row_groups))
        if size > TABLE_BYTES_MAX:
            raise LakewriterError(f"holds more than {TABLE_BYTES_MAX:,} bytes", "import it in parts")
        table = read_rows(file, [field.name for field in schema if not pa.types.is_nested(field.type)])
        table.validate(full=True)
        return _flat(table)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise LakewriterError(f"not a readable Parquet file: {str(error).splitlines()[0]}") from None


def read_feather(data: bytes) -> pa.Table:
    """Return the rows of a Feather file, Arrow file or Arrow stream, without columns of lists and structs.

    Raises:
        LakewriterError: if it cannot be read, or is too large.
    """
    if data.startswith(_FEATHER_1):
        # Arrow's reader of version 1 is unmaintained. A damaged file aborts its process.
        raise LakewriterError(
            "is Feather of version 1, from before 2020", "write it again as Feather 2 or Parquet"
        )
    buffer = arrow_buffer(data)
    try:
        if data.startswith(_STREAM):
            return _flat(_read_stream(buffer))
        batches = pa.ipc.open_file(pa.BufferReader(buffer)).num_record_batches
        return _flat(_read_stream(buffer.slice(_FILE_HEAD_BYTES), batches))
    except (pa.ArrowException, OSError, UnicodeError, ValueError) as error:
        raise LakewriterError(f"not a readable Feather file: {str(error).splitlines()[0]}") from None


def _read_stream(stream: pa.Buffer, batches: int | None = None) -> pa.Table:
    """Return the rows of a stream.

    Args:
        batches: the number of batches in the file's footer; None without a footer.
    """
    bytes_max = min(TABLE_BYTES_MAX, max(_INFLATED_BYTES_MIN, _INFLATION_MAX * stream.size))
    for size in accumulate(inflated_bytes(stream)):
        if size > bytes_max:
            raise LakewriterError(f"holds more than {bytes_max:,} bytes", "import it in parts")
    with pa.ipc.open_stream(
        pa.BufferReader(stream), options=pa.ipc.IpcReadOptions(use_threads=False)
    ) as reader:
        kept = []
        for batch in reader:
            # Arrow trusts a file's offsets and codes. With a wrong one it reads beyond its memory.
            batch.validate(full=True)
            kept.append(batch)
        if batches is not None and len(kept) != batches:
            raise pa.ArrowInvalid(f"it has {len(kept)} of its {batches} batches")
        table = pa.Table.from_batches(kept, reader.schema)
    _check_size(table.num_rows, table.num_columns)
    return table


def _group_bytes(metadata: Any, at: int) -> int:
    size: int = metadata.row_group(at).total_byte_size
    return size


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def _flat(table: pa.Table) -> pa.Table:
    return table.select([field.name for field in table.schema if not pa.types.is_nested(field.type)])


def _check_size(rows: int, columns: int) -> None:
    if rows > ROWS_MAX:
        raise LakewriterError(f"has more than {ROWS_MAX} rows", "import it in parts")
    if columns > COLUMNS_MAX:
        raise LakewriterError(f"has {columns} columns, more than {COLUMNS_MAX}")
    if rows * columns > CELLS_MAX:
        raise LakewriterError(f"has more than {CELLS_MAX:,} values", "import it in parts")
