"""Read a file of another tool into one table with its own columns, and detect its layout.

Only this module, `text_file`, `json_file` and `arrow_file` read the bytes of such files.
They do not interpret rows. `columns` maps the columns, and `file_candles` makes candles.
"""

import hashlib
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.binance.archive_csv import (
    CSV_BYTES_MAX,
    CsvError,
    ZippedCsv,
    gunzip,
    inflated_bytes_max,
    is_archive_csv,
    read_columns,
    unzip,
)
from lakewriter.binance.archive_files import csv_bytes_max_of
from lakewriter.candle import SCHEMA, BoolArray, IntArray
from lakewriter.errors import LakewriterError
from lakewriter.importer.arrow_file import read_feather, read_parquet
from lakewriter.importer.file_names import partition_at
from lakewriter.importer.json_file import read_json
from lakewriter.importer.text_file import SKIP_HINT, decode_text, read_text
from lakewriter.importer.typed_columns import typed_columns
from lakewriter.regular_file import TooLargeError, read_regular

PARQUET_SUFFIXES = (".parquet", ".pqt", ".pq")
FEATHER_SUFFIXES = (".feather", ".arrow")
JSON_SUFFIXES = (".json", ".json.gz", ".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")
TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".zip")
SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, *PARQUET_SUFFIXES, *FEATHER_SUFFIXES)
# The suffixes of files that are found in directories. A .txt file is read only if the user
# names it.
FOUND_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".txt")

# sha256sum writes `<digits>  <name>`, BSD's tool writes `SHA256 (<name>) = <digits>`.
_CHECKSUM = re.compile(rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_CHECKSUM_BYTES_MAX = 1 << 16

# A number, followed by at least eleven values.
_TWELVE = re.compile(rb"\d+(?:,[^,\n]*){11}")

Layout = Literal["archive", "rest", "named", "partition"]


class FileTable(NamedTuple):
    """The rows of a file.

    Args:
        table: the file's columns, typed; under lakewriter's names if the file has no names.
        layout: "archive": the archive's header, or rows of 12 values without one;
            "rest": rows without names, as in a REST answer or ccxt; "named": columns
            with their own names or types; "partition": all columns of a lake's partition.
        first_row: the line number of the first row, from 1.
        numbers: the line number of each row; None if they are consecutive.
        member: the name of the CSV in a zip; "" for other files.
        checked: whether the checksum beside the file matches.
        bad_rows: the number of skipped unreadable rows.
        bad: the first unreadable row, with its line number; "" without such rows.
        empty_rows: the number of skipped rows without values.
    """

    table: pa.Table
    layout: Layout
    first_row: int = 1
    numbers: IntArray | None = None
    member: str = ""
    checked: bool = False
    bad_rows: int = 0
    bad: str = ""
    empty_rows: int = 0

    def number(self, row: int) -> int:
        """Return the line number of a row."""
        return row + self.first_row if self.numbers is None else int(self.numbers[row])

    def without(self, rows: BoolArray, what: str) -> "FileTable":
        """Return the file without these bad rows.

        Args:
            what: the fault of the first of these rows.
        """
        numbers = np.arange(len(rows)) + self.first_row if self.numbers is None else self.numbers
        first = self.bad or f"row {numbers[int(np.argmax(rows))]}: {what}"
        return self._replace(
            table=self.table.filter(pa.array(~rows)),
            layout="rest" if self.layout == "archive" else self.layout,  # the archive has no bad rows
            numbers=numbers[~rows],
            bad_rows=self.bad_rows + int(rows.sum()),
            bad=first,
        )


def read_table(path: Path, *, skip_bad_rows: bool = False) -> FileTable:
    """Return the rows of a file.

    Args:
        skip_bad_rows: whether to skip and count unreadable rows. Otherwise such a row
            refuses the file.

    Raises:
        LakewriterError: if the file is unreadable.
        OSError: if the disk fails.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise LakewriterError(f"{path}: cannot be imported", f"these can: {' '.join(SUFFIXES)}")
    try:
        data = read_regular(path, CSV_BYTES_MAX)
    except TooLargeError as error:
        raise LakewriterError(f"{path}: {error.strerror}", "import it in parts") from None
    try:
        checked = _check_checksum(data, path)
        return _read(data, path, skip_bad_rows=skip_bad_rows)._replace(checked=checked)
    except CsvError:
        raise  # the error's message names the file
    except LakewriterError as error:
        raise LakewriterError(f"{path}: {error.what}", error.hint) from None


def _read(data: bytes, path: Path, *, skip_bad_rows: bool) -> FileTable:
    file_name = path.name.lower()
    if file_name.endswith(PARQUET_SUFFIXES):
        file = FileTable(read_parquet(data), "named")
        if partition_at(path) is not None and set(SCHEMA.names) <= set(file.table.column_names):
            return file._replace(layout="partition")
    elif file_name.endswith(FEATHER_SUFFIXES):
        file = FileTable(read_feather(data), "named")
    elif file_name.endswith(JSON_SUFFIXES):
        table, named = read_json(_inflated(data, path))
        file = FileTable(table, "named" if named else "rest")
    else:
        return _read_text(data, path, skip_bad_rows=skip_bad_rows)
    return _typed(file, skip_bad_rows=skip_bad_rows)


def _read_text(data: bytes, path: Path, *, skip_bad_rows: bool) -> FileTable:
    is_zip = path.suffix.lower() == ".zip"
    member, content = _unzipped(data, path) if is_zip else ("", _inflated(data, path))
    text = decode_text(content)
    if _is_archive(text):
        try:
            table, header_rows = read_columns(text, str(path))
        except CsvError:
            if not skip_bad_rows:
                raise
        else:
            return FileTable(table, "archive", header_rows + 1, None, member)
    read = read_text(text, skip_bad_rows=skip_bad_rows)
    layout: Layout = "named" if read.named else "rest"
    file = FileTable(
        read.table, layout, numbers=read.lines, member=member, bad_rows=read.bad_rows, bad=read.bad
    )
    return _typed(file, read.separator, skip_bad_rows=skip_bad_rows)


def _is_archive(text: bytes) -> bool:
    """Return whether a text has the archive's layout, with or without a header."""
    if not is_archive_csv(text) or _has_second_header(text):
        return False
    return not text[:1].isdigit() or _TWELVE.match(text) is not None


def _has_second_header(text: bytes) -> bool:
    first_end = text.find(b"\n")
    # The search for one byte, which no row has, is much faster.
    return first_end >= 0 and text.find(b"o", first_end) >= 0 and b"\nopen_time" in text


def _typed(file: FileTable, separator: str = "", *, skip_bad_rows: bool) -> FileTable:
    typed = typed_columns(file.table, separator)
    if typed.first is not None and not skip_bad_rows:
        raise LakewriterError(f"row {file.number(typed.first.row)}: {typed.first.what}", SKIP_HINT)
    file = file._replace(table=typed.table)
    if typed.first is not None:
        file = file.without(typed.bad, typed.first.what)
    empty = typed.empty[~typed.bad]
    if not empty.any():
        return file
    numbers = np.array([file.number(row) for row in np.flatnonzero(~empty).tolist()], np.int64)
    rows = file.table.filter(pa.array(~empty))
    return file._replace(table=rows, numbers=numbers, empty_rows=int(empty.sum()))


def _check_checksum(data: bytes, path: Path) -> bool:
    """Return whether the file has a checksum beside it that matches.

    Raises:
        LakewriterError: if the checksum does not match.
    """
    try:
        digests = _CHECKSUM.findall(
            read_regular(path.with_name(path.name + ".CHECKSUM"), _CHECKSUM_BYTES_MAX)
        )
    except OSError:
        return False  # a checksum is optional
    if [digest.lower().decode() for digest in digests[:1]] != [hashlib.sha256(data).hexdigest()]:
        raise LakewriterError(f"does not match {path.name}.CHECKSUM beside it", "download it again")
    return True


def _inflated(data: bytes, path: Path) -> bytes:
    if path.suffix.lower() == ".gz":
        return gunzip(data, str(path), inflated_bytes_max(len(data)))
    return data


def _unzipped(data: bytes, path: Path) -> ZippedCsv:
    bytes_max = inflated_bytes_max(len(data))
    return unzip(data, str(path), min(bytes_max, csv_bytes_max_of(path.name) or bytes_max))
