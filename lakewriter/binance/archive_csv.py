"""The parser of an archive's CSV: bytes → a table of candles. Pure.

A row has the 12 values of a REST row, in the same order. Futures' files of later
years begin with a header. Columns are read by position, because the header's names
mislead: on coin_futures `quote_volume` counts the base asset. spot's times are
microseconds since 2025. Two columns are not read: the close time, which is wrong if
a halt shortened the candle, and the last column, which has arbitrary values.

Source: binance-public-data, README.md; the files themselves.
"""

import gzip
import io
import re
import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.binance.inflate import Claim, inflate
from lakewriter.binance.kline_columns import RowError, RowOrigin, candle_table
from lakewriter.candle import VALUE_COLUMNS, IntArray
from lakewriter.errors import ExchangeError
from lakewriter.series import Series

# A month of 1s candles is about 450 MB.
CSV_BYTES_MAX = 1 << 30

# Maximum inflation of a file whose interval and period are unknown. Candles without
# trades are the most regular ones, and shrink to 1/23.
_INFLATION_MAX = 100
_INFLATED_BYTES_MIN = 1 << 20

# A time from this number on is in microseconds. As milliseconds it would be in the year 33658.
MICROSECONDS_FROM = 10**15

# Up to this size the whole file is one block, so each column is one array.
_BLOCK_BYTES_MAX = 1 << 24

_COLUMNS = ("open_time", *VALUE_COLUMNS[:5], "close_time", *VALUE_COLUMNS[5:], "ignore")
_READ = ("open_time", *VALUE_COLUMNS)
_WHOLE = ("open_time", "trade_num")
_TYPES = {name: pa.int64() if name in _WHOLE else pa.float64() for name in _READ}
_HEADER = b"open_time,open,high,low,close,volume,close_time,"
_WHOLE_HEADER = _HEADER + b"quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"

# The header in front of each member: its signature, and the lengths of its name and its extra.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
# Members with other flags are encrypted or patched. These flags give the compressor's level (1, 2),
# sizes behind the data (3), and names in UTF-8 (11).
_KNOWN_FLAGS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 11

_HEXADECIMAL = re.compile(rb"(?:^|,)[ \t\"]*0[xX]", re.MULTILINE)
_ARROW_ROW = re.compile(r"Row #(\d+): (.*)")
_SHOWN_MAX = 100


class CsvError(ExchangeError):
    """A file that cannot be read as candles.

    Args:
        kind: one word for the counter ("zip", "size", "header", "shape", "number", "time", "order").
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def is_archive_csv(data: bytes) -> bool:
    """Return whether a CSV has the archive's layout: exactly its header, or no header."""
    return data[:1].isdigit() or data.startswith(_WHOLE_HEADER)


def parse_csv(data: bytes, series: Series, recv_us: int, name: str) -> pa.Table:
    """Return a file's candles as a table of `candle.SCHEMA`, sorted, without duplicates.

    Args:
        data: the whole CSV.
        series: the series of the candles.
        recv_us: time at which the file was received, in microseconds since the epoch.
        name: the file's name in errors.

    Raises:
        CsvError: if a row cannot be a candle, or the file has no rows. Rows are
            counted from 1, including the header.
    """
    table, header_rows = read_columns(data, name)
    columns = [_one(column) for column in table.columns]
    times: IntArray = columns[0].to_numpy()
    try:
        return candle_table(_milliseconds(times), columns[1:], RowOrigin(series, "archive", recv_us))
    except RowError as error:
        number = error.row + header_rows + 1
        raise CsvError(error.kind, f"{name}: row {number}: {error.what}") from None


def read_columns(data: bytes, name: str) -> tuple[pa.Table, int]:
    """Return the unchanged columns `open_time` and VALUE_COLUMNS of a file, and its number of header rows.

    Raises:
        CsvError: if the file has no rows, or a row has too few values or an unreadable number.
    """
    header_bytes = _header_bytes(data, name)
    try:
        return _read(data, header_bytes, name), 1 if header_bytes else 0
    except pa.ArrowInvalid as error:
        _refuse_shape(error, 1 if header_bytes else 0, name)


def inflated_bytes_max(packed_bytes: int) -> int:
    """Return the maximum size of a CSV, given only its compressed size."""
    return min(CSV_BYTES_MAX, max(_INFLATED_BYTES_MIN, _INFLATION_MAX * packed_bytes))


def gunzip(data: bytes, name: str, bytes_max: int) -> bytes:
    """Return the content of a gzip file.

    Args:
        data: the whole file.
        name: the file's name in errors.
        bytes_max: the maximum size of the content; more bytes are never inflated.

    Raises:
        CsvError: if the file is broken, or the content is too large.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(bytes_max + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CsvError("zip", f"{name}: not a whole gzip file: {error}") from None
    if len(text) > bytes_max:
        raise CsvError("size", f"{name}: more than {bytes_max:,} bytes in it")
    return text


class ZippedCsv(NamedTuple):
    """The only CSV in a zip: its name and its content."""

    name: str
    text: bytes


def unzip(data: bytes, name: str, bytes_max: int) -> ZippedCsv:
    """Return the only CSV in a zip.

    Args:
        data: the whole zip.
        name: the zip's name in errors.
        bytes_max: the maximum size of the CSV.

    Raises:
        CsvError: if the zip is broken, has no CSV or several ones, or if the CSV is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [item for item in archive.infolist() if _is_csv(item.filename)]
            if len(members) != 1:
                raise CsvError("zip", f"{name}: {len(members)} CSV files in it, not one")
            member = members[0]
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CsvError("zip", f"{name}: compressed by method {member.compress_type}")
            # More bytes than the claimed size are never inflated.
            if member.file_size > bytes_max:
                size = member.file_size
                raise CsvError("size", f"{name}: {size:,} bytes of CSV in it, more than {bytes_max:,}")
            packed = _packed(data, member, archive.start_dir)
            if packed is None:
                return ZippedCsv(member.filename, archive.read(member))
            return ZippedCsv(member.filename, inflate(packed, Claim(member.file_size, member.CRC)))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,  # the zip is encrypted, or of a later version
    ) as error:
        raise CsvError("zip", f"{name}: not a whole zip: {error or type(error).__name__}") from None


def _packed(data: bytes, member: zipfile.ZipInfo, directory_at: int) -> memoryview | None:
    """Return the deflate stream of a member, or None if only `zipfile` can read or refuse the member.

    Args:
        data: the whole zip.
        directory_at: the offset of the zip's directory. Members end before it.
    """
    name_at = member.header_offset + _LOCAL_HEADER.size
    # A damaged directory may have any offset.
    if member.header_offset < 0 or name_at > directory_at:
        return None
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data, member.header_offset)
    start = name_at + name_bytes + extra_bytes
    stop = start + member.compress_size
    is_plain = (
        signature == _LOCAL_SIGNATURE
        and member.compress_type == zipfile.ZIP_DEFLATED
        and member.flag_bits & ~_KNOWN_FLAGS == 0
        and member.orig_filename.isascii()
        and data[name_at : name_at + name_bytes] == member.orig_filename.encode()
        and stop <= directory_at
    )
    return memoryview(data)[start:stop] if is_plain else None


def _is_csv(member: str) -> bool:
    # macOS adds a hidden file for each file, in a separate folder.
    path = PurePosixPath(member)
    hidden = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() == ".csv" and not hidden


def _header_bytes(data: bytes, name: str) -> int:
    """Return the length of the header in bytes, including its end of line; 0 without a header."""
    if data[:1].isdigit():
        return 0
    if not data.startswith(_HEADER):
        shown = data[:_SHOWN_MAX].decode(errors="replace").partition("\n")[0]
        raise CsvError("header", f"{name}: does not begin with a candle or a header: {shown!r}")
    end = data.find(b"\n")
    return end + 1 if end >= 0 else len(data)


def _read(data: bytes, header_bytes: int, name: str) -> pa.Table:
    line_end = data.find(b"\n", header_bytes)
    count = data.count(b",", header_bytes, line_end if line_end >= 0 else len(data)) + 1
    if header_bytes == len(data):
        raise CsvError("shape", f"{name}: has no rows")
    if count < len(_COLUMNS):
        # The last of the 12 values is never read, so a truncated value cannot be misread.
        raise CsvError("shape", f"{name}: rows of {count} values, not {len(_COLUMNS)}")
    # Arrow accepts hexadecimal integers.
    if (b"x" in data or b"X" in data) and _HEXADECIMAL.search(data, header_bytes):
        raise CsvError("number", f"{name}: has a hexadecimal number")
    more = [f"more{number}" for number in range(count - len(_COLUMNS))]
    reader = arrow_csv.open_csv(
        pa.BufferReader(arrow_buffer(memoryview(data)[header_bytes:])),
        read_options=arrow_csv.ReadOptions(
            column_names=[*_COLUMNS, *more],
            use_threads=False,
            block_size=min(len(data), _BLOCK_BYTES_MAX),
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=_TYPES, include_columns=_READ, null_values=[], check_utf8=False
        ),
    )
    return reader.read_all()


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _milliseconds(times: IntArray) -> IntArray:
    micro = times >= MICROSECONDS_FROM
    if not micro.any():
        return times
    milli: IntArray = np.where(micro, times // 1000, times)
    # A time with a fraction of a millisecond stays in microseconds, and is too late for any candle.
    return np.where(micro & (times % 1000 != 0), times, milli)


def _refuse_shape(error: pa.ArrowInvalid, rows_before: int, name: str) -> NoReturn:
    match = _ARROW_ROW.search(str(error))
    kind = "number" if "conversion" in str(error) else "shape"
    if match is None:
        raise CsvError(kind, f"{name}: {str(error).splitlines()[0][:_SHOWN_MAX]}") from None
    row, what = int(match[1]) + rows_before, match[2][:_SHOWN_MAX]
    raise CsvError(kind, f"{name}: row {row}: {what}") from None
