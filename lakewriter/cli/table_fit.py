"""Tables that fit a terminal: shorter columns, then fewer, and long texts below their rows.

A table that fits stays as it is. A table for a pipe or a file does not come here, so
its columns are always complete.
"""

import textwrap
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lakewriter.errors import printable
from lakewriter.query.output.text import DisplayRows, collect_rows, table_lines, text_width

# A width that every table fits, for a pipe.
PIPE_WIDTH = 1_000_000

# A narrower terminal wraps the lines.
WIDTH_MIN = 40

_SERIES = ("market", "symbol", "interval")
_ONE_SERIES = "series"

# Columns of free text, which stand below their rows if they are too wide.
_TEXTS = ("error", "what")

# The columns that are left out, the least important first. Others stay.
_FIRST_TO_GO = (
    "resolved_at", "detected_at", "expected", "present", "bytes", "partitions", "first", "stop", "left_at",
    "weight", "pages", "added", "corrected", "explained", "last", "kind", "files", "candles",
)  # fmt: skip

_INDENT = "    "

# The indent of rows below their series.
_HEADED = "  "


def fitted_lines(table: pa.Table, width: int, *, counts_rows: bool = True) -> Iterator[str]:
    """Yield the lines of a table on a terminal, and the counts of its rows and columns.

    Args:
        table: the rows. Columns named market, symbol and interval are joined if the
            table is too wide.
        width: the terminal's width in characters, taken as WIDTH_MIN at least. If the
            series leaves too little of it, each series has a line of its own.
        counts_rows: whether the last line has the count of rows; columns that are left
            out are named in any case.
    """
    width = max(width, WIDTH_MIN)
    lines = _lines(table)
    if _fits(lines, width):
        yield from lines if counts_rows else lines[:-1]
        return
    narrow = _with_short_times(_with_one_series(table))
    below: list[list[str]] = [[] for _ in range(table.num_rows)]
    lines = _lines(narrow)
    for name in _TEXTS:
        if name in narrow.column_names and not _fits(lines, width):
            for texts, text in zip(below, narrow[name].to_pylist(), strict=True):
                texts += _wrapped(text or "", width)
            narrow = narrow.drop_columns([name])
            lines = _lines(narrow)
    chosen, lines = _with_fewer_columns(narrow, width)
    headings: list[list[str]] = [[] for _ in below]
    if not _fits(lines, width) and _ONE_SERIES in narrow.column_names:
        headings = [[name] for name in narrow[_ONE_SERIES].to_pylist()]
        chosen, lines = _with_fewer_columns(narrow.drop_columns([_ONE_SERIES]), width - len(_HEADED))
        lines = [*(_HEADED + line for line in lines[:-1]), lines[-1]]
    *head, count = lines
    yield from head[:2]
    for heading, row, texts in zip(headings, head[2:], below, strict=True):
        yield from (*heading, row, *texts)
    hidden = _hidden(table, chosen)
    if hidden:
        count = f"{count[:-1]}; left out: {', '.join(hidden)}; | cat shows them)"
    if hidden or counts_rows:
        yield from textwrap.wrap(count, width)


def _hidden(table: pa.Table, chosen: pa.Table) -> list[str]:
    """Return the names of the columns that a narrow table leaves out."""
    shown = {*chosen.column_names, *_SERIES, *_TEXTS}
    return [name for name in table.column_names if name not in shown]


def _with_fewer_columns(table: pa.Table, width: int) -> tuple[pa.Table, list[str]]:
    """Return the table and its lines, with the columns of _FIRST_TO_GO that fit."""
    lines = _lines(table)
    for name in _FIRST_TO_GO:
        if name in table.column_names and not _fits(lines, width):
            table = table.drop_columns([name])
            lines = _lines(table)
    return table, lines


def _lines(table: pa.Table) -> list[str]:
    rows: DisplayRows = collect_rows(table.to_batches(), table.num_rows)
    return list(table_lines(table.schema, rows))


def _fits(lines: list[str], width: int) -> bool:
    return max(map(text_width, lines)) <= width


def _with_one_series(table: pa.Table) -> pa.Table:
    """Return the table with one column for the series, such as "spot:BTCUSDT:1m", in place of three."""
    if not set(_SERIES) <= set(table.column_names):
        return table
    at = table.column_names.index(_SERIES[0])
    series = [":".join(names) for names in zip(*(table[name].to_pylist() for name in _SERIES), strict=True)]
    return table.drop_columns(list(_SERIES)).add_column(at, _ONE_SERIES, pa.array(series, pa.string()))


def _with_short_times(table: pa.Table) -> pa.Table:
    """Return the table with times to the minute, in each column whose times are whole minutes."""
    for at, field in enumerate(table.schema):
        if not pa.types.is_timestamp(field.type):
            continue
        times: list[Any] = table.column(at).to_pylist()
        if all(time is None or not (time.second or time.microsecond) for time in times):
            texts = [None if time is None else f"{time:%Y-%m-%d %H:%M}" for time in times]
            table = table.set_column(at, field.name, pa.array(texts, pa.string()))
    return table


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False
    )
