"""Files that the user names as tables of a statement.

This module opens the file, never the engine. So SQL cannot reach a path. A text file
needs a header, and Arrow infers the columns' types.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.regular_file import TooLargeError, read_regular

# Suffix → format. Text files may also be compressed: .csv.gz.
_FORMATS = {
    ".csv": "text", ".tsv": "text", ".tab": "text", ".txt": "text",
    ".ndjson": "json", ".jsonl": "json", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet", ".pqt": "parquet",
    ".arrow": "arrow", ".arrows": "arrow", ".feather": "arrow",
}  # fmt: skip
_COMPRESSIBLE = ("text", "json")
_SHOWN = ".csv .tsv .ndjson .json (also .gz) .parquet .arrow"

# Maximum size of a file, and of a text file's content. The content is in memory.
FILE_BYTES_MAX = 2 << 30

# Maximum number of columns of a text file.
COLUMNS_MAX = 1_000

_SEPARATORS = (",", ";", "\t", "|")
_NO_NAME = re.compile(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?|true|false|nan|", re.IGNORECASE)

# A time with a zone, as our own JSON has it. Arrow's JSON reader leaves it a text.
_ZONED_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)$"

_EXAMPLE = "--table trades=trades.csv"


def read_table_files(written: Iterable[str]) -> dict[str, pa.Table]:
    """Return the tables of `--table` options, by lower-case name.

    Raises:
        UsageError: if an option is not NAME=FILE, a name is not possible, or a file
            cannot be read as a table.
    """
    tables: dict[str, pa.Table] = {}
    for text in written:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise UsageError(f"--table {text!r} is not NAME=FILE", _EXAMPLE)
        if name.lower() in tables:
            raise UsageError(f"table {name}: given twice", _EXAMPLE)
        tables[name.lower()] = read_table_file(name, file)
    return tables


def read_table_file(name: str, file: str) -> pa.Table:
    """Return the rows of a file that a statement reads under a name.

    Args:
        name: the table's name, which is checked before the file is read.
        file: the path, as the user typed it.

    Raises:
        UsageError: if the name is not possible, or the file cannot be read as a table.
    """
    from lakewriter.query.own_tables import arrow_tables, check_table_name

    check_table_name(name)
    try:
        path = Path(file).expanduser()
        table = _read(path)
    except TooLargeError as error:
        raise UsageError(
            f"table {name}: {file}: {error.strerror}", "write it as Parquet, or in parts"
        ) from None
    except OSError as error:
        raise UsageError(f"table {name}: {file}: {error.strerror or error}", _EXAMPLE) from None
    except LakewriterError as error:
        raise UsageError(
            f"table {name}: {file}: {error.what.removeprefix(f'{file}: ')}", error.hint
        ) from None
    except (RuntimeError, ValueError, MemoryError) as error:  # an unknown ~user, or a null byte
        raise UsageError(f"table {name}: {file}: {str(error) or 'too large for this memory'}") from None
    return arrow_tables({name: table})[name.lower()]


def _read(path: Path) -> pa.Table:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    zipped = suffixes[-1:] == [".gz"]
    kind = _FORMATS.get(suffixes[-2 if zipped and len(suffixes) > 1 else -1] if suffixes else "", "")
    if not kind or (zipped and kind not in _COMPRESSIBLE):
        raise LakewriterError("its suffix is not known", f"these are: {_SHOWN}")
    data = read_regular(path, FILE_BYTES_MAX)
    # Most statements read no file, so they do not import the readers.
    if kind in ("parquet", "arrow"):
        from lakewriter.importer.arrow_file import read_feather, read_parquet

        return read_parquet(data) if kind == "parquet" else read_feather(data)
    from lakewriter.binance.archive_csv import gunzip, inflated_bytes_max
    from lakewriter.importer.text_file import check_utf8, decode_text

    if zipped:
        data = gunzip(data, str(path), min(FILE_BYTES_MAX, inflated_bytes_max(len(data))))
    text = decode_text(data)
    check_utf8(text)
    if not text.strip():
        raise LakewriterError("is empty")
    return _read_text(text, tabs=suffixes[0] in (".tsv", ".tab")) if kind == "text" else _read_json(text)


def _read_text(text: bytes, *, tabs: bool) -> pa.Table:
    import pyarrow.csv as arrow_csv

    from lakewriter.arrow_memory import arrow_buffer

    first = text.split(b"\n", 1)[0].decode()
    separator = "\t" if tabs else _separator(first)
    names = next(csv.reader([first], delimiter=separator), [])
    _check_header(names)
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(arrow_buffer(text)),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=b'"' in text),
            convert_options=arrow_csv.ConvertOptions(
                strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise LakewriterError(f"not a table: {_first_line(error)}") from None
    return table.rename_columns([name.strip() or f"column{at}" for at, name in enumerate(names)])


def _separator(header: str) -> str:
    """Return the separator that occurs most often outside of quotes; the comma if none occurs."""
    counts = Counter(re.sub(r'"[^"]*"', "", header))
    return max(_SEPARATORS, key=lambda separator: counts[separator])


def _check_header(names: list[str]) -> None:
    if all(_NO_NAME.fullmatch(name.strip()) for name in names):
        raise LakewriterError(
            "has no names of columns in its first line", "add a line such as time,symbol,price"
        )
    if len(names) > COLUMNS_MAX:
        raise LakewriterError(f"has {len(names)} columns, more than {COLUMNS_MAX}")


def _read_json(text: bytes) -> pa.Table:
    import pyarrow.json as arrow_json

    from lakewriter.arrow_memory import arrow_buffer
    from lakewriter.importer.json_file import DOCUMENT_BYTES_MAX

    text = text.lstrip()
    if not text.startswith(b"["):
        try:
            table = arrow_json.read_json(pa.BufferReader(arrow_buffer(text)))
        except pa.ArrowException as error:
            raise LakewriterError(f"not one object on each line: {_first_line(error)}") from None
        return _with_times(table)
    if len(text) > DOCUMENT_BYTES_MAX:
        raise LakewriterError(
            f"more than {DOCUMENT_BYTES_MAX:,} bytes in one list", "write one object on each line: .ndjson"
        )
    try:
        rows = msgspec.json.decode(text, type=list[dict[str, Any]])
        names = dict.fromkeys(name for row in rows for name in row)
        return _with_times(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}))
    except (msgspec.MsgspecError, RecursionError, pa.ArrowException, OverflowError, TypeError) as error:
        raise LakewriterError(f"not a list of objects: {_first_line(error)}") from None


def _with_times(table: pa.Table) -> pa.Table:
    """Return the table with each column of times in text as a column of times in UTC."""
    import pyarrow.compute as pc

    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_timestamp(field.type):
            # Arrow's reader drops the Z of times without a fraction.
            table = table.set_column(index, field.name, column.cast(pa.timestamp(field.type.unit, tz="UTC")))
        if not pa.types.is_string(field.type):
            continue
        matches = pc.all(pc.match_substring_regex(column, _ZONED_TIME), min_count=1)
        if matches.as_py():
            try:
                times = pc.cast(column, pa.timestamp("us", tz="UTC"))
            except pa.ArrowInvalid:  # nanoseconds
                times = pc.cast(column, pa.timestamp("ns", tz="UTC"))
            table = table.set_column(index, field.name, times)
    return table


def _first_line(error: Exception) -> str:
    if "straddl" in str(error):  # Arrow's word for a row that is longer than a block
        return "a row has more than a megabyte; is a quote open?"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
