"""The writers of the output formats, one function for each entry of `formats`.

Answers are written batch by batch, in constant memory. A table needs the widths of
all rows first, and `spool` keeps its rows meanwhile. Times are UTC, as ISO 8601 with
`Z` in text, and as `2024-06-30 12:34:00` in tables. `destination` opens the file or
the pipe.
"""

import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from lakewriter.query.errors import QueryError
from lakewriter.query.execution import RowStream
from lakewriter.query.output.text import (
    DisplayLimits,
    DisplayRows,
    collect_rows,
    format_rows,
    interval_text,
    markdown_lines,
    table_lines,
    value_lines,
    width_max_for,
)
from lakewriter.query.values import HUGE_INTEGER, python_values

Writer = Callable[[RowStream, BinaryIO, DisplayLimits], None]

# Format name → writer.
WRITERS: dict[str, Writer] = {}


def writes(format_name: str) -> Callable[[Writer], Writer]:
    """Return a decorator that registers a function as the writer of a format."""

    def register(write: Writer) -> Writer:
        WRITERS[format_name] = write
        return write

    return register


def write_answer(format_name: str, answer: RowStream, out: BinaryIO, limits: DisplayLimits) -> None:
    """Write an answer in a format.

    Args:
        limits: the maximum size of a table, of lines or of Markdown.

    Raises:
        QueryError: if the format cannot hold the answer.
    """
    WRITERS[format_name](answer, out, limits)


@writes("table")
def _write_table(answer: RowStream, out: BinaryIO, limits: DisplayLimits) -> None:
    with _shown(answer, out, limits) as rows:
        if rows is not None:
            lines = table_lines(answer.schema, rows, width_max_for(rows, limits), limits.remedy)
            _write_lines(lines, out)


@writes("line")
def _write_line(answer: RowStream, out: BinaryIO, limits: DisplayLimits) -> None:
    with _shown(answer, out, limits) as rows:
        if rows is not None:
            _write_lines(value_lines(answer.schema, rows), out)


@contextlib.contextmanager
def _shown(answer: RowStream, out: BinaryIO, limits: DisplayLimits) -> Iterator[DisplayRows | None]:
    """Yield the rows to show. For a query plan, write the plan and yield None."""
    with contextlib.closing(collect_rows(answer.batches, limits.rows)) as rows:
        if answer.schema.names == ["explain_key", "explain_value"]:
            _write_lines(_plans(rows), out)
            yield None
        else:
            yield rows


def _plans(rows: DisplayRows) -> Iterator[str]:
    # A query plan is a drawing of many lines, which is unreadable in a cell.
    for _key, plan in rows.shown():
        yield plan.replace("\\n", "\n")


@writes("markdown")
def _write_markdown(answer: RowStream, out: BinaryIO, limits: DisplayLimits) -> None:
    if limits.rows is None:
        rows = (row for batch in answer.batches for row in format_rows(batch))
        return _write_lines(markdown_lines(answer.schema, rows), out)
    shown = collect_rows(answer.batches, limits.rows)
    cut = shown.total > shown.shown_count
    return _write_lines(markdown_lines(answer.schema, shown.head, shown.tail, cut=cut), out)


def _write_lines(lines: Iterator[str], out: BinaryIO) -> None:
    for line in lines:
        out.write(line.encode() + b"\n")


@writes("csv")
def _write_csv(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    _write_separated(answer, out, ",")


@writes("tsv")
def _write_tsv(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    _write_separated(answer, out, "\t")


def _write_separated(answer: RowStream, out: BinaryIO, separator: str) -> None:
    import pyarrow.csv as arrow_csv  # noqa: PLC0415 - for these formats alone

    header = io.StringIO()
    csv.writer(header, delimiter=separator, lineterminator="\n").writerow(answer.schema.names)
    out.write(header.getvalue().encode())
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="needed", delimiter=separator)
    for batch in answer.batches:
        columns = [_csv_column(column) for column in batch.columns]
        lines = pa.BufferOutputStream()
        arrow_csv.write_csv(pa.table(columns, names=answer.schema.names), lines, options)
        out.write(lines.getvalue().to_pybytes())


def _csv_column(column: Any) -> Any:
    """Return the column in a type that Arrow's CSV writer supports."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _iso_texts(column)
    if pa.types.is_date(kind):
        return _spelled(column.cast(pa.string()))
    if pa.types.is_nested(kind):
        texts = [None if value is None else _encode_json(value).decode() for value in python_values(column)]
    elif pa.types.is_decimal(kind):
        texts = [None if value is None else format(value, "f") for value in column.to_pylist()]
    elif (
        pa.types.is_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    ):
        return column
    else:
        texts = [None if value is None else str(value) for value in json_values(column)]
    return pa.array(texts, pa.string())


def _iso_texts(column: Any) -> Any:
    """Return times as an Arrow column of ISO 8601 texts, with a fraction if it is not 0.

    Arrow's own loops convert the values. A datetime object for each value would take
    longer than all other work.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - slow to import, and not needed for a table

    naive = column.cast(pa.timestamp(column.type.unit))  # the same instants in UTC
    try:
        text = naive.cast(pa.timestamp("s")).cast(pa.string())
    except pa.ArrowInvalid:  # some have a fraction
        text = naive.cast(pa.string())
        text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
        text = pc.replace_substring_regex(text, r"\.$", "")
    text = pc.replace_substring_regex(text, r"^(\d[^ ]*) ", r"\1T")
    return _spelled(pc.binary_join_element_wise(text, "Z" if column.type.tz else "", ""))


def _spelled(text: Any) -> Any:
    """Return the texts of times or days with DuckDB's spelling of the infinities."""
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    infinity = pc.if_else(pc.match_substring(text, ": -"), "-infinity", "infinity")
    return pc.if_else(pc.starts_with(text, "<"), infinity, text)


# Numbers stay numbers with all digits. NaN and the infinities become null in JSON.
_encode_json = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


def _json_rows(answer: RowStream) -> Iterator[bytes]:
    names = answer.schema.names
    for batch in answer.batches:
        for row in zip(*(json_values(column) for column in batch.columns), strict=True):
            yield _encode_json(dict(zip(names, row, strict=True)))


def json_values(column: Any) -> list[Any]:
    """Return a column's values as JSON can hold them, with times as ISO 8601."""
    # 128-bit integers stay Decimal, because the encoder writes Decimal numbers of any size.
    kind = column.type
    if pa.types.is_timestamp(kind):
        texts: list[Any] = _iso_texts(column).to_pylist()
        return texts
    values = column.to_pylist() if pa.types.is_decimal(kind) else python_values(column)
    if pa.types.is_interval(kind):
        return [None if value is None else interval_text(value) for value in values]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else value.hex() for value in values]
    return values


@writes("ndjson")
def _write_ndjson(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    for row in _json_rows(answer):
        out.write(row + b"\n")


@writes("json")
def _write_json(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    before = b"[\n"
    for row in _json_rows(answer):
        out.write(before + row)
        before = b",\n"
    out.write(b"[]\n" if before == b"[\n" else b"\n]\n")


@writes("parquet")
def _write_parquet(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and for this format alone

    try:
        schema = _with_whole_numbers(answer.schema)
        with pq.ParquetWriter(_Counted(out), schema, compression="zstd") as writer:
            for batch in answer.batches:
                writer.write_batch(_cast(batch, schema))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise _cannot_hold("Parquet", error) from None


@writes("arrow")
def _write_arrow(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    try:
        schema = _with_whole_numbers(answer.schema)
        with pa.ipc.new_stream(_Counted(out), schema) as writer:
            for batch in answer.batches:
                writer.write_batch(_cast(batch, schema))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise _cannot_hold("Arrow", error) from None


@writes("xlsx")
def _write_xlsx(answer: RowStream, out: BinaryIO, _limits: DisplayLimits) -> None:
    from lakewriter.query.output.excel import write_workbook  # noqa: PLC0415 - for this format alone

    write_workbook(answer.schema, answer.batches, out)


def _with_whole_numbers(schema: pa.Schema) -> pa.Schema:
    """Return the schema with int64 for DuckDB's 128-bit integers, which sums of counts are."""
    fields = [field.with_type(pa.int64()) if field.type == HUGE_INTEGER else field for field in schema]
    return pa.schema(fields, schema.metadata)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with whole numbers of 64 bits.

    Raises:
        QueryError: if a number has more than 64 bits. Other formats hold it.
    """
    if batch.schema.equals(schema):
        return batch
    try:
        return batch.cast(schema)
    except pa.ArrowInvalid:
        raise QueryError(
            "output: a whole number has more than 64 bits", "cast the column: x::DOUBLE, or x::VARCHAR"
        ) from None


def _cannot_hold(name: str, error: Exception) -> QueryError:
    reason = str(error).splitlines()[0]
    return QueryError(f"output: {name} cannot hold this answer: {reason}", "cast the column: x::VARCHAR")


class _Counted(io.RawIOBase):
    """A writer that counts its bytes, because a pipe has no position."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self._out = out
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._at += self._out.write(data)
        return len(data)

    def tell(self) -> int:
        return self._at
