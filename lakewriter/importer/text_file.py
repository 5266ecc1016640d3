"""Read a text file of candles, in any dialect, into columns of text.

`dialect` detects the dialect, and Arrow reads the rows. Comments, blank lines and
repeated headers between the rows are ignored. Each row keeps its line number.
"""

import codecs
import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.candle import IntArray
from lakewriter.errors import LakewriterError
from lakewriter.importer.dialect import Dialect, sniff

# The maximum number of columns. Tables of candles have fewer.
COLUMNS_MAX = 500

BAD_ROWS_MAX = 1_000_000
SKIP_HINT = "--skip-bad-rows"

# Spellings of a null in other tools.
NULLS = (
    "", "nan", "NaN", "NAN", "-nan", "-NaN", "null", "NULL", "Null", "none", "None", "NA", "N/A", "n/a",
    "#N/A", "<NA>", "NaT",
)  # fmt: skip

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The first bytes of other files with a wrong text suffix.
_MAGICS = {
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"ARROW1": "a Feather file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"\x89HDF": "an HDF5 file",
}
# A line that begins with # is a comment, unless the # begins an error value of a spreadsheet.
_COMMENT = re.compile(rb"^[ \t]*#(?!N/A|VALUE!|REF!|DIV/0!|NAME\?|NUM!|NULL!)[^\n]*", re.MULTILINE)
_BLANK = re.compile(rb"^[ \t]+$", re.MULTILINE)
_SPACES = re.compile(rb" {2,}")
_SPACES_AROUND = re.compile(rb"^ +| +$", re.MULTILINE)
_SHOWN_MAX = 80
_HEAD_BYTES = 1 << 16
_PART_BYTES = 1 << 20


class TextTable(NamedTuple):
    """The rows of a text file.

    Args:
        table: columns of text or null, under the file's names; under lakewriter's names
            without a header.
        lines: the line number of each row, from 1.
        separator: the separator of the values.
        named: whether it has a header.
        bad_rows: the number of skipped rows with too many or too few values.
        bad: the first of these rows, with its line number; "" without such rows.
    """

    table: pa.Table
    lines: IntArray
    separator: str
    named: bool
    bad_rows: int
    bad: str


def decode_text(data: bytes) -> bytes:
    """Return a text in UTF-8, without a byte order mark, with line feeds as line ends.

    Raises:
        LakewriterError: if the data is not text, or is damaged UTF-16 or UTF-32.
    """
    for magic, kind in _MAGICS.items():
        if data.startswith(magic):
            raise LakewriterError(f"is not a text file but {kind}", "give it the matching suffix")
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    if not encoding and data[:1] and data[1:4:2] == b"\0\0":
        encoding = "utf-16-le"
    elif not encoding and data[0:3:2] == b"\0\0":
        encoding = "utf-16-be"
    if encoding:
        try:
            data = data.decode(encoding).encode()
        except UnicodeError as error:
            raise LakewriterError(f"is not valid {encoding.upper()}: {error}", "download it again") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data[:_HEAD_BYTES]:
        raise LakewriterError("is not a text file: it has null bytes")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def check_utf8(data: bytes) -> None:
    """Check that a text is UTF-8.

    Raises:
        LakewriterError: if the text is not UTF-8.
    """
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(data), _PART_BYTES):
            decoder.decode(data[at : at + _PART_BYTES], final=at + _PART_BYTES >= len(data))
    except UnicodeDecodeError:
        raise LakewriterError("is not valid UTF-8", "iconv -f LATIN1 -t UTF-8 FILE") from None


def read_text(data: bytes, *, skip_bad_rows: bool) -> TextTable:
    """Return the rows of a text in the form of `decode_text`.

    Args:
        skip_bad_rows: whether to skip and count rows with too many or too few values.
            Otherwise such a row refuses the file.

    Raises:
        LakewriterError: if the text is not a table of candles, or is refused.
    """
    dialect = sniff(data)
    if len(dialect.names) > COLUMNS_MAX:
        raise LakewriterError(f"has {len(dialect.names)} columns, more than {COLUMNS_MAX}")
    body = _cleaned(data[dialect.body_at :], dialect)
    if not body.strip():
        raise LakewriterError("has no rows")
    check_utf8(body)
    bad = _WrongWidthRows(BAD_ROWS_MAX if skip_bad_rows else 0)
    table = _read(body, dialect, bad)
    lines = _lines(body, dialect.first_line)
    if bad.numbers and not skip_bad_rows:
        raise LakewriterError(f"row {lines[bad.numbers[0]]}: {bad.first}", SKIP_HINT)
    kept = np.delete(lines, bad.numbers)
    if table is None or len(kept) != table.num_rows:
        raise LakewriterError("has a value on several lines, or an unclosed quote")
    first = f"row {lines[bad.numbers[0]]}: {bad.first}" if bad.numbers else ""
    named = table.rename_columns(dialect.names)
    return TextTable(named, kept, dialect.separator, bool(dialect.header), len(bad.numbers), first)


class _WrongWidthRows:
    """The rows with too many or too few values, collected while Arrow reads.

    Args:
        rows_max: the maximum number of such rows; reading stops at the next one.
    """

    def __init__(self, rows_max: int) -> None:
        self.numbers: list[int] = []
        self.first = ""
        self._rows_max = rows_max

    def add(self, row: arrow_csv.InvalidRow) -> str:
        """Add a row; return "skip", or "error" to stop reading."""
        self.first = self.first or f"has {_values(row.actual_columns)}, not {row.expected_columns}"
        self.numbers.append(row.number - 1)
        return "error" if self.is_full else "skip"

    @property
    def is_full(self) -> bool:
        """Whether the number of rows exceeds the maximum."""
        return len(self.numbers) > self._rows_max


def _values(count: int) -> str:
    return f"{count} value{'s' * (count != 1)}"


def _cleaned(body: bytes, dialect: Dialect) -> bytes:
    """Return the body with all lines but rows emptied, so each row keeps its line number."""
    if b"#" in body:
        body = _COMMENT.sub(b"", body)
    header = dialect.header
    if header and (body.startswith(header + b"\n") or b"\n" + header in body):
        body = re.sub(rb"^" + re.escape(header) + rb"$", b"", body, flags=re.MULTILINE)
    if b"\n " in body or b"\n\t" in body:
        body = _BLANK.sub(b"", body)
    if dialect.separator == " ":
        body = _SPACES_AROUND.sub(b"", _SPACES.sub(b" ", body))
    return body


def _read(body: bytes, dialect: Dialect, bad: _WrongWidthRows) -> pa.Table | None:
    """Return the rows with a value for each column; None after a stop at a bad row."""
    # Column names may be duplicate; numbers are unique.
    numbers = [str(number) for number in range(len(dialect.names))]
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(arrow_buffer(body)),
            # Without threads Arrow reports the number of each bad row.
            read_options=arrow_csv.ReadOptions(column_names=numbers, use_threads=False),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.separator, quote_char=dialect.quote, invalid_row_handler=bad.add
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbers, pa.string()),
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowException as error:
        if bad.is_full and len(bad.numbers) > BAD_ROWS_MAX:
            raise LakewriterError(f"has more than {BAD_ROWS_MAX:,} rows of another length") from None
        if bad.is_full:
            return None
        raise LakewriterError(f"not a CSV of candles: {str(error).splitlines()[0][:_SHOWN_MAX]}") from None


def _lines(body: bytes, first_line: int) -> IntArray:
    """Return the numbers of the lines that are not empty."""
    ends = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))
    if not body.endswith(b"\n"):
        ends = np.append(ends, len(body))
    starts = np.append(0, ends[:-1] + 1)
    return np.flatnonzero(ends > starts) + first_line
