"""The text of values, and of rows as a table, as Markdown, or as a line for each value.

Numbers are aligned right, and text left. Times have the form `2024-06-30 12:34:00` in
UTC. Control characters are escaped, so no symbol or comment can move the cursor.
"""

import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from lakewriter.errors import printable
from lakewriter.query.output.column_fit import columns_that_fit, with_omissions
from lakewriter.query.output.spool import Row, RowSpool
from lakewriter.query.values import python_values, utc_text

NULL = "NULL"

# A double always stores 15 decimal digits exactly. The 16th and 17th are noise.
_FLOAT_DIGITS = 15


class DisplayLimits(NamedTuple):
    """The maximum size of a shown answer; None is no limit.

    Args:
        rows: the maximum number of rows, taken from both ends.
        width: the terminal's width in characters. `table_lines` omits columns that do not fit.
        lines: the screen's height in lines. A longer table goes to a pager, with all
            columns, because a pager also scrolls sideways.
        remedy: a hint on how to see all columns, for a table that omits some.
    """

    rows: int | None = None
    width: int | None = None
    lines: int | None = None
    remedy: str = ""


class DisplayRows(NamedTuple):
    """The rows to show, as text. The caller has to close them.

    Args:
        head: the first rows.
        tail: the last rows; empty if no rows are omitted.
        total: the number of rows, including omitted rows.
    """

    head: list[Row] | RowSpool
    tail: list[Row]
    total: int

    def shown(self) -> Iterator[Row]:
        """Yield the rows of head and tail."""
        yield from self.head
        yield from self.tail

    @property
    def shown_count(self) -> int:
        """The number of rows in head and tail."""
        return len(self.head) + len(self.tail)

    def close(self) -> None:
        """Discard the rows."""
        if isinstance(self.head, RowSpool):
            self.head.close()


def format_value(value: Any) -> str:
    """Return a value as text for people."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        return utc_text(value, " ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, pa.MonthDayNano):
        return interval_text(value)
    if isinstance(value, dict | list):
        return printable(msgspec.json.encode(value, enc_hook=str).decode())
    return str(value)


def interval_text(value: Any) -> str:
    """Return a pyarrow.MonthDayNano as text, such as "1 month 2 days 00:05:00"."""
    months, days, nanoseconds = value
    parts = [
        f"{count} {unit}{'s' * (abs(count) != 1)}"
        for count, unit in ((months, "month"), (days, "day"))
        if count
    ]
    if nanoseconds or not parts:
        seconds, rest = divmod(abs(nanoseconds) // 1000, 1_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        fraction = f".{rest:06}".rstrip("0") if rest else ""
        parts.append(f"{'-' * (nanoseconds < 0)}{clock}{fraction}")
    return " ".join(parts)


def format_rows(batch: pa.RecordBatch) -> list[Row]:
    """Return a batch's rows as text."""
    return list(
        zip(
            *([format_value(value) for value in python_values(column)] for column in batch.columns),
            strict=True,
        )
    )


def collect_rows(batches: Iterable[pa.RecordBatch], rows_max: int | None) -> DisplayRows:
    """Read all rows and return the rows to show.

    Args:
        rows_max: the maximum number of rows, taken from both ends. None keeps all rows,
            on disk beyond `spool.MEMORY_BYTES_MAX`.
    """
    if rows_max is None:
        everything = RowSpool()
        for batch in batches:
            everything.extend(format_rows(batch))
        return DisplayRows(everything, [], len(everything))
    head: list[Row] = []
    tail: deque[Row] = deque(maxlen=rows_max)
    total = 0
    head_max = (rows_max + 1) // 2
    for batch in batches:
        total += batch.num_rows
        missing = head_max - len(head)
        if missing > 0:
            head.extend(format_rows(batch.slice(0, missing)))
        last = batch.slice(max(missing, 0)) if missing < batch.num_rows else batch.slice(0, 0)
        tail.extend(format_rows(last.slice(max(0, last.num_rows - rows_max))))
    if total <= rows_max:
        return DisplayRows(head + list(tail), [], total)
    return DisplayRows(head, list(tail)[len(tail) - (rows_max - head_max) :], total)


def width_max_for(rows: DisplayRows, limits: DisplayLimits) -> int | None:
    """Return the maximum width of a table in characters; None if the table goes to a pager."""
    lines = 2 + rows.shown_count + (rows.total > rows.shown_count) + 1
    return None if limits.lines is not None and lines > limits.lines else limits.width


def table_lines(
    schema: pa.Schema, rows: DisplayRows, width_max: int | None = None, remedy: str = ""
) -> Iterator[str]:
    """Yield the lines of an aligned table, and the counts of its rows and columns.

    Args:
        width_max: the maximum width in characters. `column_fit` omits columns that do not fit.
        remedy: a hint on how to see all columns.
    """
    header = tuple(format_value(name) for name in schema.names)
    numeric = [_is_number(field.type) for field in schema]
    widths = list(map(text_width, header))
    for row in rows.shown():
        widths = list(map(max, widths, map(text_width, row)))
    chosen = columns_that_fit(header, widths, width_max)
    places = list(with_omissions(chosen, len(widths)))

    def line(row: Row) -> str:
        format_rows = _padded(row, widths, numeric)
        return "  ".join("…" if at is None else format_rows[at] for at in places).rstrip()

    yield line(header)
    yield line(tuple("─" * width for width in widths))
    yield from map(line, rows.head)
    if rows.total > rows.shown_count:
        yield line(tuple("…" for _ in widths))
    yield from map(line, rows.tail)
    count = _count(rows.total, rows.shown_count)
    if len(chosen) < len(widths):
        count = f"{count[:-1]}; {len(widths)} columns, {len(chosen)} shown{remedy and f'; {remedy}'})"
    yield count


def value_lines(schema: pa.Schema, rows: DisplayRows) -> Iterator[str]:
    """Yield a line for each value, row by row, and the count of rows."""
    names = [format_value(name) for name in schema.names]
    width = max(map(text_width, names), default=0)
    first_of_tail = rows.total - len(rows.tail)

    def lines(numbered: Iterable[tuple[int, Row]]) -> Iterator[str]:
        for number, row in numbered:
            yield f"── row {number:,} ──"
            for name, text in zip(names, row, strict=True):
                yield f"{name}{' ' * (width - text_width(name))}  {text}".rstrip()

    yield from lines(enumerate(rows.head, 1))
    if rows.total > rows.shown_count:
        yield "…"
    yield from lines(enumerate(rows.tail, first_of_tail + 1))
    yield _count(rows.total, rows.shown_count)


def markdown_lines(
    schema: pa.Schema, head: Iterable[Row], tail: Iterable[Row] = (), *, cut: bool = False
) -> Iterator[str]:
    """Yield the lines of a Markdown table.

    Args:
        cut: whether rows between head and tail are omitted.
    """

    def line(row: Iterable[str]) -> str:
        return "| " + " | ".join(text.replace("\\", "\\\\").replace("|", "\\|") for text in row) + " |"

    yield line(format_value(name) for name in schema.names)
    yield line("---:" if _is_number(field.type) else "---" for field in schema)
    yield from map(line, head)
    if cut:
        yield line("…" for _ in schema)
    yield from map(line, tail)


def _padded(row: Row, widths: list[int], numeric: list[bool]) -> Row:
    return tuple(
        " " * (width - text_width(text)) + text if right else text + " " * (width - text_width(text))
        for text, width, right in zip(row, widths, numeric, strict=True)
    )


def _count(total: int, shown: int) -> str:
    rows = f"{total:,} row{'s' * (total != 1)}"
    return f"({rows})" if shown == total else f"({rows}, {shown:,} shown)"


def _float(value: float) -> str:
    text = f"{value:.{_FLOAT_DIGITS}g}"
    # Prices reach down to 1e-8 and volumes up to 1e13. Powers of ten are hard to read.
    if "e" in text and 1e-12 <= abs(value) < 1e18:
        return format(Decimal(text), "f")
    return text


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def text_width(text: str) -> int:
    """Return the width of a text on a terminal, in characters."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
