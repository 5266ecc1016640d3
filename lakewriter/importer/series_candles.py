"""Make the candles of one series from the rows of a file.

`evidence` defines the checks. This module applies them to the rows of a series, and makes
candles from the rows that pass.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.binance.archive_files import parse_name
from lakewriter.binance.kline_columns import RowError, RowOrigin, begins_from_ends, candle_table
from lakewriter.candle import SCHEMA, BoolArray, IntArray, Source
from lakewriter.candle_arrays import columns_of, ends
from lakewriter.candle_checks import NAMED_ONLY, violations
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.archive_proof import ArchivePeriod, why_not_archive
from lakewriter.evidence.choice import SeriesRows
from lakewriter.evidence.claims import ImportOptions
from lakewriter.evidence.closed import closed_rows
from lakewriter.evidence.duplicates import without_duplicates
from lakewriter.evidence.spacing import check_lengths, check_spacing
from lakewriter.importer.columns import FileColumns, OwnColumns
from lakewriter.importer.file_names import FileName
from lakewriter.importer.file_table import FileTable
from lakewriter.interval import DAY_MS, Interval
from lakewriter.series import Series


class FileContext(NamedTuple):
    """Facts about a file that apply to all of its rows.

    Args:
        path: the file.
        name: the claims of its name and directories.
        options: the options of the import.
        now_ms: the present; candles that end later are not closed.
        written_us: the file's modification time in microseconds.
        doubt_last: whether the last row may be open, unless the file is proven to be the archive's.
    """

    path: Path
    name: FileName
    options: ImportOptions
    now_ms: int
    written_us: int
    doubt_last: bool


class SeriesCandles(NamedTuple):
    """The candles of one series of a file.

    Args:
        series: the series.
        table: its candles, in SCHEMA.
        open: the number of open candles.
        unwritten: the number of open candles that ended before now, but after the file was written.
        equal, contradictions: as in `evidence.duplicates.Duplicates`.
        note: a remark for the user, or "".
    """

    series: Series
    table: pa.Table
    open: int
    unwritten: int
    equal: int
    contradictions: int
    note: str


def series_candles(
    part: SeriesRows, file: FileTable, columns: FileColumns, context: FileContext
) -> SeriesCandles:
    """Return the candles of one series of a file.

    Raises:
        LakewriterError: if the rows contradict the claimed interval or source, or each other.
        RowError: if a row cannot be a candle.
    """
    grid = part.series.grid
    rows = np.arange(file.table.num_rows) if part.rows is None else part.rows
    begins = _checked_begins(columns, rows, part, context.options)
    source, note = _source(begins, part.series, file, columns, context)
    end_ms = ends(grid, begins)
    marked = None if columns.closed is None else columns.closed[rows]
    closed = closed_rows(end_ms, marked, context.now_ms, context.written_us // 1000)
    unwritten = int((closed_rows(end_ms, marked, context.now_ms, context.now_ms) & ~closed).sum())
    if context.doubt_last and source != "archive" and len(begins):
        closed &= begins < begins.max()
    values = _taken(columns.values, rows[closed])
    unique = without_duplicates(begins[closed], values)
    kept_rows = rows[closed][unique.kept]
    # Rows that the exchange published pass fewer checks, because the lake keeps all of them.
    published = columns.own is not None or source == "archive" or file.member == f"{context.path.stem}.csv"
    origin = RowOrigin(part.series, source, context.written_us)
    try:
        table = candle_table(
            begins[closed][unique.kept],
            _taken(values, unique.kept),
            origin,
            foreign=not published,
        )
    except RowError as error:
        raise RowError(error.kind, error.what, int(kept_rows[error.row]), kept_rows[error.rows]) from None
    if columns.own is not None:
        table = _with_own_columns(table, columns.own, kept_rows, context.options)
    notes = [note, "" if published else _named_violations(table, part.series)]
    return SeriesCandles(
        part.series,
        table,
        int(len(closed) - closed.sum()),
        unwritten,
        unique.equal,
        unique.contradictions,
        "; ".join(text for text in notes if text),
    )


def _taken(columns: list[pa.Array], rows: IntArray) -> list[pa.Array]:
    """Return the values of each column at these positions."""
    if len(rows) == len(columns[0]) and bool((rows == np.arange(len(rows))).all()):
        return columns
    taken = pa.array(rows)
    return [column.take(taken) for column in columns]


def mask_of(rows: IntArray, length: int) -> BoolArray:
    """Return an array of this length that is true at these positions."""
    mask: BoolArray = np.zeros(length, np.bool_)
    mask[rows] = True
    return mask


def _named_violations(table: pa.Table, series: Series) -> str:
    """Return a note on imported candles that `verify` will report; "" without such candles."""
    found = [
        violation
        for violation in violations(columns_of(table), series.market)
        if violation.kind in NAMED_ONLY
    ]
    return "; ".join(
        f"{len(violation.rows)} of {table.num_rows} candles: {violation.kind}: {violation.describe(int(violation.rows[0]))}"
        for violation in found
    )


def _checked_begins(
    columns: FileColumns, rows: IntArray, part: SeriesRows, options: ImportOptions
) -> IntArray:
    """Return the begin times of a series' rows after a check of their spacing and lengths."""
    grid: Interval = part.series.grid
    by = part.interval_by
    if columns.begins is None:
        assert columns.ends is not None
        begins, proven = begins_from_ends(columns.ends[rows], grid), False
    else:
        begins = columns.begins[rows]
        proven = columns.ends is not None and check_lengths(begins, columns.ends[rows], grid, by)
    if columns.days and 0 < grid.length_ms < DAY_MS:
        raise LakewriterError(
            f"{columns.days} has days only, and candles of {grid.name} need the time of day", "--interval 1d"
        )
    if not proven and not options.sparse:
        check_spacing(begins, grid, by)
    return begins


def _source(
    begins: IntArray, series: Series, file: FileTable, columns: FileColumns, context: FileContext
) -> tuple[Source, str]:
    """Return the source of a series' rows, and a note on an unproven claim to be the archive's."""
    options = context.options
    reason = "it does not have the archive's layout"
    if file.layout == "archive":
        period = _archive_period(series, context.name)
        reason = why_not_archive(begins, series.grid, period, context.now_ms, checked=file.checked)
    if not reason:
        return options.source or "archive", ""
    if options.source == "archive" and columns.own is None:
        raise UsageError(f"--source says archive, but {reason}", "leave --source out")
    claimed = context.name.archive_name and columns.own is None and options.source is None
    return options.source or "rest", f"ranks as rest: {reason}" if claimed else ""


def _archive_period(series: Series, name: FileName) -> ArchivePeriod | None:
    """Return the day or month of the archive's file with this name; None for other names."""
    for period in ("daily", "monthly"):
        file = parse_name(series, period, f"{name.archive_name}.zip") if name.archive_name else None
        if file is not None:
            return ArchivePeriod(file.start_ms, file.stop_ms)
    return None


def _with_own_columns(table: pa.Table, own: OwnColumns, rows: IntArray, options: ImportOptions) -> pa.Table:
    """Return candles with the source and times of a lake's export."""
    taken = pa.array(rows)
    stored = {
        name: column.take(taken)
        for name, column in (("event_time", own.event_ms), ("recv_time", own.recv_us), ("source", own.source))
    }
    if options.source is not None and options.relabel:
        stored["source"] = pa.repeat(options.source, len(rows))
    elif options.source is not None and (
        others := set(stored["source"].unique().to_pylist()) - {options.source}
    ):
        raise UsageError(
            f"its column source says {min(map(str, others))}, --source says {options.source}",
            "leave --source out, or --relabel",
        )
    for name, column in stored.items():
        place = SCHEMA.get_field_index(name)
        table = table.set_column(place, SCHEMA.field(place), column.cast(SCHEMA.field(place).type))
    return table
