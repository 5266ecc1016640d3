"""The writer of Excel workbooks: one sheet, with the names of the columns above the rows.

A cell holds a double, a text, a boolean or a time without a zone. Whole numbers that a
double cannot hold are text, so no digit is lost. Times are UTC. The rows are in a
temporary file until the workbook is complete, so memory is constant.
"""

import math
import tempfile
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa

from lakewriter.errors import LakewriterError
from lakewriter.query.errors import QueryError
from lakewriter.query.output.text import format_value
from lakewriter.query.values import python_values

# Excel's own limits.
ROWS_MAX = 1_048_576
COLUMNS_MAX = 16_384
TEXT_CHARS_MAX = 32_767

# A double holds every whole number up to this one.
_WHOLE_MAX = 2**53

# Excel's calendar has a day in 1900 that never was, and ends with the year 9999.
_FIRST_TIME = datetime(1900, 3, 1)
_TIME_FORMAT = "yyyy-mm-dd hh:mm:ss"
_DAY_FORMAT = "yyyy-mm-dd"
_TIME_WIDTH = 19

_SHORTER = "fewer rows or columns, or -o FILE.parquet"


def write_workbook(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    """Write an answer as a workbook.

    Raises:
        LakewriterError: if XlsxWriter is not installed.
        QueryError: if a sheet cannot hold the answer.
    """
    try:
        import xlsxwriter  # noqa: PLC0415 - optional
    except ImportError:
        raise LakewriterError(
            "output: XlsxWriter is not installed", "pip install 'lakewriter[excel]', or -o FILE.csv"
        ) from None
    if len(schema) > COLUMNS_MAX:
        raise QueryError(f"output: a sheet holds {COLUMNS_MAX:,} columns, not {len(schema):,}", _SHORTER)
    with tempfile.TemporaryDirectory(prefix="lakewriter-xlsx-") as directory:
        workbook = xlsxwriter.Workbook(out, {"constant_memory": True, "tmpdir": directory})
        workbook.use_zip64()
        sheet = workbook.add_worksheet("answer")
        try:
            _write_sheet(workbook, sheet, schema, batches)
        except BaseException:
            sheet._opt_close()  # closes the sheet's temporary file
            raise
        try:
            workbook.close()
        except xlsxwriter.exceptions.FileCreateError as error:
            raise error.args[0] from None  # the OSError that it wraps


def _write_sheet(workbook: Any, sheet: Any, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    formats = {kind: workbook.add_format({"num_format": kind}) for kind in (_TIME_FORMAT, _DAY_FORMAT)}
    bold = workbook.add_format({"bold": True})
    for at, field in enumerate(schema):
        is_time = pa.types.is_timestamp(field.type)
        sheet.set_column(at, at, max(len(field.name) + 2, _TIME_WIDTH if is_time else 10))
    sheet.freeze_panes(1, 0)
    for at, name in enumerate(schema.names):
        sheet.write_string(0, at, _text(name), bold)
    row = 0
    for batch in batches:
        if row + batch.num_rows >= ROWS_MAX:
            raise QueryError(f"output: a sheet holds {ROWS_MAX - 1:,} rows, and there are more", _SHORTER)
        columns = [python_values(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            row += 1
            for at, value in enumerate(values):
                _write_cell(sheet, row, at, value, formats)


def _write_cell(sheet: Any, row: int, at: int, value: Any, formats: dict[str, Any]) -> None:
    if isinstance(value, datetime):
        value = value.replace(tzinfo=None)  # the engine's times are UTC
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, at, value)
    elif (isinstance(value, float | Decimal) and math.isfinite(value)) or (
        isinstance(value, int) and abs(value) <= _WHOLE_MAX
    ):
        sheet.write_number(row, at, value)
    elif isinstance(value, datetime) and value >= _FIRST_TIME:
        sheet.write_datetime(row, at, value, formats[_TIME_FORMAT])
    elif isinstance(value, date) and not isinstance(value, datetime) and value >= _FIRST_TIME.date():
        sheet.write_datetime(row, at, value, formats[_DAY_FORMAT])
    else:
        sheet.write_string(row, at, _text(value if isinstance(value, str) else format_value(value)))


def _text(value: str) -> str:
    # Excel counts UTF-16 units. No text has more than two of them for a character.
    if 2 * len(value) > TEXT_CHARS_MAX and len(value.encode("utf-16-le")) // 2 > TEXT_CHARS_MAX:
        raise QueryError(
            f"output: a cell holds {TEXT_CHARS_MAX:,} characters, not {len(value):,}",
            "left(x, 10000), or -o FILE.csv",
        )
    return value
