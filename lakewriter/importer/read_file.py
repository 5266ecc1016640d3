"""Read a file of others into one table with its own columns, and say which layout it has.

Only this module reads the bytes of such files. It decides nothing about their
rows: `columns` reads the columns, `file_candles` makes candles of them.
"""

import codecs
import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from lakewriter.binance.archive_csv import (
    CSV_BYTES_MAX,
    gunzip,
    inflated_bytes_max,
    is_archive_csv,
    read_columns,
    unzip,
)
from lakewriter.candle import SCHEMA
from lakewriter.errors import LakewriterError
from lakewriter.importer.columns import double_columns
from lakewriter.importer.file_names import partition_at
from lakewriter.lake.parquet import read_rows
from lakewriter.regular_file import TooLargeError, read_regular

CSV_SUFFIXES = (".csv", ".csv.gz", ".zip")
PARQUET_SUFFIXES = (".parquet", ".pqt", ".pq")
# A year of 1s candles is 31.6 million.
ROWS_MAX = 1 << 25

SUFFIXES = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)


# `<digits>  <name>` as sha256sum writes it, `SHA256 (<name>) = <digits>` as BSD's does.
_CHECKSUM = re.compile(rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_CHECKSUM_BYTES_MAX = 4096

Layout = Literal["archive", "rest", "named", "partition"]


class FileTable(NamedTuple):
    """The rows of a file.

    Args:
        table: with the file's own columns; of the layouts without names with ours.
        layout: "archive": the archive's header, or rows of 12 values without one;
            "rest": rows of a REST answer; "named": columns with names or types of
            their own; "partition": all columns of a partition of a lake.
        first_row: the number of the first row, as a text editor counts.
        packed: whether it came as the archive ships it: alone in a zip, under the zip's name.
        checked: whether a checksum beside it is its own.
    """

    table: pa.Table
    layout: Layout
    first_row: int = 1
    packed: bool = False
    checked: bool = False


def read_table(path: Path) -> FileTable:
    """Return the rows of a file.

    Raises:
        LakewriterError: if it cannot be read.
        OSError: if the disk does not give it.
    """
    try:
        data = read_regular(path, CSV_BYTES_MAX)
    except TooLargeError as error:
        raise LakewriterError(f"{path}: {error.strerror}", "import it in parts") from None
    kind = path.name.lower()
    if kind.endswith(PARQUET_SUFFIXES):
        return _read_parquet(data, path)
    if not kind.endswith(CSV_SUFFIXES):
        raise LakewriterError(f"{path}: cannot be imported", f"these can: {' '.join(SUFFIXES)}")
    checked = _check_checksum(data, path)
    text = _inflated(data, path).removeprefix(codecs.BOM_UTF8)
    if is_archive_csv(text):
        table, header_rows = read_columns(text, str(path))
        return FileTable(table, "archive", header_rows + 1, _is_packed(data, path), checked)
    return FileTable(_read_csv(text, path), "named", 2)


def _is_packed(data: bytes, path: Path) -> bool:
    if path.suffix.lower() != ".zip":
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return f"{path.stem}.csv" in archive.namelist()  # to the letter


def _check_checksum(data: bytes, path: Path) -> bool:
    """Return whether a checksum lies beside the file, and is its own."""
    try:
        checksum = path.with_name(path.name + ".CHECKSUM")
        said = _CHECKSUM.findall(read_regular(checksum, _CHECKSUM_BYTES_MAX))
    except OSError:
        return False  # it need not be kept
    if [digits.lower().decode() for digits in said[:1]] != [hashlib.sha256(data).hexdigest()]:
        raise LakewriterError(f"{path}: is not what {path.name}.CHECKSUM beside it says", "download it again")
    return True


def _inflated(data: bytes, path: Path) -> bytes:
    if path.suffix.lower() == ".zip":
        return unzip(data, str(path), inflated_bytes_max(len(data)))
    if path.suffix.lower() == ".gz":
        return gunzip(data, str(path), inflated_bytes_max(len(data)))
    return data


def _read_csv(text: bytes, path: Path) -> pa.Table:
    try:
        names = arrow_csv.open_csv(pa.BufferReader(text)).schema.names
        return arrow_csv.read_csv(
            pa.BufferReader(text),
            read_options=arrow_csv.ReadOptions(use_threads=False),
            convert_options=arrow_csv.ConvertOptions(column_types=double_columns(names)),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise LakewriterError(f"{path}: not a CSV of candles: {str(error).splitlines()[0]}") from None


def _read_parquet(data: bytes, path: Path) -> FileTable:
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if file.metadata.num_rows > ROWS_MAX:
            raise LakewriterError(f"{path}: has more than {ROWS_MAX} rows", "import it in parts")
        table = read_rows(file)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise LakewriterError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    ours = partition_at(path) is not None and set(SCHEMA.names) <= set(table.column_names)
    return FileTable(table, "partition" if ours else "named")
