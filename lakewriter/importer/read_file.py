"""A file of candles that somebody else made → a table, by what it is. Reads, writes nothing.

A zip, CSV or gzipped CSV of the archive's layout; any other CSV with a header;
any Parquet file. Each is refused whole, in one line that names the row, or
taken whole.
"""

import codecs
import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from lakewriter.binance.archive_csv import CSV_BYTES_MAX, is_archive_csv, parse_csv, unzip
from lakewriter.binance.columns import RowError, Stamp
from lakewriter.candle import SCHEMA, settle
from lakewriter.errors import LakewriterError
from lakewriter.importer.columns import candles_in, double_columns
from lakewriter.importer.file_names import Told, partition_at, series_of
from lakewriter.lake.parquet import decode, read_rows
from lakewriter.series import Series

CSV_SUFFIXES = (".csv", ".csv.gz", ".zip")
PARQUET_SUFFIXES = (".parquet", ".pqt", ".pq")
# A year of 1s candles is 31.6 million.
ROWS_MAX = 1 << 25

SUFFIXES = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)


class ReadFile(NamedTuple):
    """A file's candles.

    Args:
        series: whose they are.
        rows: in SCHEMA, sorted by begin time, one for each.
    """

    series: Series
    rows: pa.Table


def read_file(path: Path, told: Told) -> ReadFile:
    """Return the candles in a file.

    The time they were received is when the file was last changed, so that
    importing it again changes nothing.

    Raises:
        LakewriterError: if it cannot be read, or holds a row that cannot be a candle.
        OSError: if the disk does not give it.
    """
    series = series_of(path, told)
    recv_us = path.stat().st_mtime_ns // 1000
    if path.stat().st_size > CSV_BYTES_MAX:
        raise LakewriterError(f"{path}: larger than {CSV_BYTES_MAX} bytes", "import it in parts")
    data = path.read_bytes()
    kind = path.name.lower()
    if kind.endswith(PARQUET_SUFFIXES):
        return ReadFile(
            series, _read_parquet(data, path, told, Stamp(series, told.source or "rest", recv_us))
        )
    if not kind.endswith(CSV_SUFFIXES):
        raise LakewriterError(f"{path}: cannot be imported", f"these can: {' '.join(SUFFIXES)}")
    _check_checksum(data, path)
    text = _inflated(data, path).removeprefix(codecs.BOM_UTF8)
    if is_archive_csv(text):
        rows = parse_csv(text, series, recv_us, str(path))
        return ReadFile(series, rows if told.source in (None, "archive") else _said_by(rows, told.source))
    return ReadFile(series, _read_csv(text, path, Stamp(series, told.source or "rest", recv_us)))


def _said_by(rows: pa.Table, source: str) -> pa.Table:
    place = SCHEMA.get_field_index("source")
    return rows.set_column(place, SCHEMA.field(place), pa.repeat(source, rows.num_rows))


def _check_checksum(data: bytes, path: Path) -> None:
    try:
        said = path.with_name(path.name + ".CHECKSUM").read_text().split()[:1]
    except (OSError, UnicodeDecodeError):
        return  # nobody has to keep it
    if said != [hashlib.sha256(data).hexdigest()]:
        raise LakewriterError(f"{path}: is not what {path.name}.CHECKSUM beside it says", "download it again")


def _inflated(data: bytes, path: Path) -> bytes:
    if path.suffix.lower() == ".zip":
        return unzip(data, str(path), CSV_BYTES_MAX)
    if path.suffix.lower() != ".gz":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(CSV_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LakewriterError(f"{path}: not a whole gzip file: {error}", "download it again") from None
    if len(text) > CSV_BYTES_MAX:
        raise LakewriterError(f"{path}: more than {CSV_BYTES_MAX} bytes in it", "import it in parts")
    return text


def _read_csv(text: bytes, path: Path, stamp: Stamp) -> pa.Table:
    try:
        names = arrow_csv.open_csv(pa.BufferReader(text)).schema.names
        table = arrow_csv.read_csv(
            pa.BufferReader(text),
            read_options=arrow_csv.ReadOptions(use_threads=False),
            convert_options=arrow_csv.ConvertOptions(column_types=double_columns(names)),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise LakewriterError(f"{path}: not a CSV of candles: {str(error).splitlines()[0]}") from None
    return _candles_in(table, path, stamp, rows_before=2)


def _read_parquet(data: bytes, path: Path, told: Told, stamp: Stamp) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if file.metadata.num_rows > ROWS_MAX:
            raise LakewriterError(f"{path}: has more than {ROWS_MAX} rows", "import it in parts")
        table = read_rows(file)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise LakewriterError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    candles = _candles_in(table, path, stamp, rows_before=1)
    if (
        told.source is None
        and partition_at(path) is not None
        and set(SCHEMA.names) <= set(table.column_names)
    ):
        # A partition of another lake knows itself who said what, and when.
        return settle(decode(data, str(path)))
    return candles


def _candles_in(table: pa.Table, path: Path, stamp: Stamp, rows_before: int) -> pa.Table:
    try:
        return candles_in(table, stamp)
    except RowError as error:
        raise LakewriterError(f"{path}: row {error.row + rows_before}: {error.what}") from None
    except LakewriterError as error:
        raise LakewriterError(f"{path}: {error.what}", error.hint) from None
