"""Read a JSON file of candles into a table.

The file may hold rows of values, objects, columns, or one object on each line.
"""

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json as arrow_json

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.errors import LakewriterError
from lakewriter.importer.column_names import is_header
from lakewriter.importer.dialect import OHLCV, REST
from lakewriter.importer.text_file import check_utf8

# The maximum bytes of a document. Python's objects take about ten times the memory of their
# JSON text.
DOCUMENT_BYTES_MAX = 1 << 28

_SHOWN_MAX = 100
_BLOCK_BYTES = 1 << 22


def read_json(data: bytes) -> tuple[pa.Table, bool]:
    """Return the rows of a JSON text, and whether its columns have names.

    Raises:
        LakewriterError: if the text is not a JSON document of candles.
    """
    check_utf8(data)
    text = data.lstrip()
    if text.startswith(b"{") and _has_lines(text):
        return _read_lines(text), True
    if len(text) > DOCUMENT_BYTES_MAX:
        raise LakewriterError(
            f"more than {DOCUMENT_BYTES_MAX:,} bytes of JSON in one value",
            "write one object on each line: .ndjson",
        )
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise LakewriterError(f"is no JSON: {str(error)[:_SHOWN_MAX]}") from None
    return _table(document)


def _has_lines(text: bytes) -> bool:
    """Return whether a text has one object on each line, instead of one object on several lines."""
    first, _, rest = text.partition(b"\n")
    return first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")


def _read_lines(text: bytes) -> pa.Table:
    try:
        return arrow_json.read_json(
            pa.BufferReader(arrow_buffer(text)),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        )
    except pa.ArrowException as error:
        raise LakewriterError(f"is no JSON of candles: {str(error).splitlines()[0][:_SHOWN_MAX]}") from None


def _table(document: Any) -> tuple[pa.Table, bool]:
    if isinstance(document, list) and document and isinstance(document[0], list):
        return _rows(document), False
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return _objects(document), True
    if isinstance(document, dict):
        lists = {name: each for name, each in document.items() if isinstance(each, list)}
        if is_header(lists) and len({len(each) for each in lists.values()}) == 1:
            return pa.table({name: _column(name, each) for name, each in lists.items()}), True
        if is_header(document):
            return _objects([document]), True
        shown = msgspec.json.encode(document).decode()[:_SHOWN_MAX]
        raise LakewriterError(f"is no JSON of candles: it has no rows, but {shown}")
    raise LakewriterError("is no JSON of candles: it has no rows")


def _rows(rows: list[list[Any]]) -> pa.Table:
    width = len(rows[0])
    names = {len(OHLCV): OHLCV, len(REST): REST}.get(width)
    if names is None:
        raise LakewriterError(f"has rows of {width} values, not 6 or 12")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != width:
            raise LakewriterError(f"row {number} is not a list of {width} values")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return pa.table({name: _column(name, values) for name, values in columns})


def _objects(rows: list[dict[str, Any]]) -> pa.Table:
    names: dict[str, None] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise LakewriterError(f"row {number} is not an object")
        names.update(dict.fromkeys(row))
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: Any) -> pa.Array:
    types = {type(value) for value in values} - {type(None)}
    if not types <= {int, float} and not types <= {bool}:
        # Numbers with and without quotes are mixed, so all are read as text.
        values = [
            None if value is None else value if isinstance(value, str) else repr(value) for value in values
        ]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, OverflowError):
        raise LakewriterError(f"{name} has a number that is too large") from None
