"""A file of others → its candles. Puts together what its name, its columns and the user say.

The decisions are `evidence`'s: this module asks it about each series of a file,
and makes candles of the rows that are left.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.binance.archive_files import parse_name
from lakewriter.binance.kline_columns import RowError, RowOrigin, begins_before, candles_of
from lakewriter.candle import SCHEMA, BoolArray, IntArray, Source
from lakewriter.candle_arrays import columns_of, ends
from lakewriter.candle_checks import NAMED_ONLY, violations
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.archive_proof import ArchivePeriod, why_not_archive
from lakewriter.evidence.choice import SeriesRows, check_name_claims, choose_series
from lakewriter.evidence.claims import Claim, ImportOptions
from lakewriter.evidence.closed import closed_rows
from lakewriter.evidence.columns import metadata_claims
from lakewriter.evidence.duplicates import without_duplicates
from lakewriter.evidence.row_groups import RowGroup, group_rows
from lakewriter.evidence.spacing import check_lengths, check_spacing
from lakewriter.importer.columns import FileColumns, OwnColumns, columns_in
from lakewriter.importer.file_names import FileName, name_says
from lakewriter.importer.read_file import FileTable, read_table
from lakewriter.importer.text_file import SKIP_HINT
from lakewriter.interval import DAY_MS, Interval
from lakewriter.market import is_symbol
from lakewriter.series import Series

# Rounds in which bad rows are left out; each removes all that are bad in one way.
BAD_KINDS_MAX = 50


class LeftOut(NamedTuple):
    """Rows of a file that are not imported, and why.

    Args:
        other_series: rows of series that the options do not choose.
        open: rows whose candle is not closed.
        equal: rows that repeat another row.
        contradictions: rows that differ from a later row of their candle.
        empty: rows without values.
        bad: rows that cannot be read, or cannot be candles.
    """

    other_series: int = 0
    open: int = 0
    equal: int = 0
    contradictions: int = 0
    empty: int = 0
    bad: int = 0


class ReadFile(NamedTuple):
    """A file's candles.

    Args:
        parts: a table for each series: in SCHEMA, sorted by begin time, one row for each candle.
        left_out: rows that are not in them.
        notes: how the file was understood, where that is not plain.
    """

    parts: list[tuple[Series, pa.Table]]
    left_out: LeftOut = LeftOut()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many candles."""
        return sum(table.num_rows for _, table in self.parts)


class _Work(NamedTuple):
    """A file's name, and what bounds its candles.

    Args:
        written_us: the time the file was last changed, microseconds.
        doubt_last: whether the last row of what is not proven to be the archive's may be open.
    """

    path: Path
    name: FileName
    options: ImportOptions
    now_ms: int
    written_us: int
    doubt_last: bool


class _Context(NamedTuple):
    """A file's rows beside what `_Work` has."""

    file: FileTable
    columns: FileColumns
    path: Path
    name: FileName
    options: ImportOptions
    now_ms: int
    written_us: int
    doubt_last: bool


class _Candles(NamedTuple):
    """One series of a file: its candles, and what was left out."""

    series: Series
    table: pa.Table
    open: int
    unwritten: int
    equal: int
    contradictions: int
    note: str


def read_file(path: Path, options: ImportOptions, now_ms: int, *, doubt_last: bool = False) -> ReadFile:
    """Return the candles in a file.

    The time they were received is when the file was last changed, so that
    importing it again changes nothing.

    Args:
        now_ms: the present: a candle that ends later is not closed.
        doubt_last: leave out the last row of a file that is not proven to be one of
            the archive's.

    Raises:
        LakewriterError: if it cannot be read, its evidence disagrees, or one of
            its rows cannot be a candle.
        OSError: if the disk does not give it.
    """
    name = read_name(path, options)
    check_name_claims(name.claims, options, str(path))
    written_us = path.stat().st_mtime_ns // 1000
    file = read_table(path, skip_bad_rows=options.skip_bad_rows)
    work = _Work(path, name, options, now_ms, written_us, doubt_last)
    for _ in range(BAD_KINDS_MAX):
        try:
            return _read_candles(file, work)
        except RowError as error:
            some = len(error.rows) < file.table.num_rows
            hint = error.hint or (SKIP_HINT if some else "")
            refusal = LakewriterError(f"{path}: row {file.number(error.row)}: {error.what}", hint)
            if not options.skip_bad_rows or not some:
                break
            file = file.without(_mask(error.rows, file.table.num_rows), error.what)
    raise refusal


def _read_candles(file: FileTable, work: _Work) -> ReadFile:
    path, options, written_us = work.path, work.options, work.written_us
    try:
        columns = columns_in(file.table)
        groups = group_rows(columns.claims, str(path), _is_exact(columns))
        place = [*work.name.claims, *_member_claims(file, options), *metadata_claims(file.table)]
        chosen = choose_series(groups, place, options, str(path), file.table.num_rows)
        context = _Context(file, columns, *work)
        done = [_candles(part, context) for part in chosen.parts]
    except RowError:
        raise
    except LakewriterError as error:
        named = error.what.startswith(str(path))
        raise type(error)(error.what if named else f"{path}: {error.what}", error.hint) from None
    result = ReadFile(
        [(each.series, each.table) for each in done],
        LeftOut(
            chosen.other_rows,
            sum(each.open for each in done),
            sum(each.equal for each in done),
            sum(each.contradictions for each in done),
            file.empty_rows,
            file.bad_rows,
        ),
        _notes(work.name, file, done),
    )
    unwritten = sum(each.unwritten for each in done)
    if unwritten and not result.rows and unwritten == result.left_out.open:
        moment = np.datetime64(written_us, "us").astype("datetime64[s]")
        raise LakewriterError(
            f"{path}: all its candles end after it was written, at {moment}", f"touch {path}"
        )
    return result


def _is_exact(columns: FileColumns) -> Callable[[str], bool]:
    """Return which texts are symbols as they stand: in a lake's export all that can be one."""
    return is_symbol if columns.own is not None else lambda _: False


def read_name(path: Path, options: ImportOptions) -> FileName:
    """Return what a file's name and place say, as far as the user lets them.

    Raises:
        UsageError: if they say two different things, or that it holds no trades of Binance.
    """
    if options.relabel and None not in (options.market, options.symbol, options.interval):
        return FileName(())
    return name_says(path)


def _member_claims(file: FileTable, options: ImportOptions) -> list[Claim]:
    """Return what the name of the CSV in a zip says."""
    if not file.member:
        return []
    claims = read_name(Path(file.member), options).claims
    return [each._replace(by=f"its {file.member}") for each in claims]


def named_series(path: Path, options: ImportOptions) -> Series:
    """Return the series that a file is of by its name, its place and the options alone.

    Raises:
        LakewriterError: if they do not tell it, or disagree.
    """
    name = read_name(path, options)
    return choose_series([RowGroup((), None)], name.claims, options, str(path), 0).parts[0].series


def _candles(part: SeriesRows, context: _Context) -> _Candles:
    columns, options, grid = context.columns, context.options, part.series.grid
    rows = np.arange(context.file.table.num_rows) if part.rows is None else part.rows
    begins = _begins(columns, rows, part, context)
    source, note = _source(begins, part.series, context)
    over_ms = ends(grid, begins)
    marked = None if columns.closed is None else columns.closed[rows]
    closed = closed_rows(over_ms, marked, context.now_ms, context.written_us // 1000)
    unwritten = int((closed_rows(over_ms, marked, context.now_ms, context.now_ms) & ~closed).sum())
    if context.doubt_last and source != "archive" and len(begins):
        closed &= begins < begins.max()
    values = [column.filter(pa.array(_mask(rows[closed], len(column)))) for column in columns.values]
    found = without_duplicates(begins[closed], values)
    kept = rows[closed][found.kept]
    taken = pa.array(found.kept)
    # The exchange's own rows are held against less: what it publishes enters the lake.
    published = (
        columns.own is not None or source == "archive" or context.file.member == f"{context.path.stem}.csv"
    )
    stamp = RowOrigin(part.series, source, context.written_us)
    try:
        table = candles_of(
            begins[closed][found.kept],
            [each.take(taken) for each in values],
            stamp,
            foreign=not published,
        )
    except RowError as error:
        raise RowError(error.kind, error.what, int(kept[error.row]), kept[error.rows]) from None
    if columns.own is not None:
        table = _with_own(table, columns.own, kept, options)
    notes = [each for each in (note, "" if published else _named_only(table, part.series)) if each]
    left = int(len(closed) - closed.sum())
    return _Candles(
        part.series,
        table,
        left,
        unwritten,
        found.equal,
        found.contradictions,
        "; ".join(notes),
    )


def _named_only(table: pa.Table, series: Series) -> str:
    """Return which candles are taken although verify will name them; "" for none."""
    found = [each for each in violations(columns_of(table), series.market) if each.kind in NAMED_ONLY]
    return "; ".join(
        f"{len(each.rows)} of {table.num_rows} candles: {each.kind}: {each.describe(int(each.rows[0]))}"
        for each in found
    )


def _mask(rows: IntArray, length: int) -> BoolArray:
    mask: BoolArray = np.zeros(length, np.bool_)
    mask[rows] = True
    return mask


def _begins(columns: FileColumns, rows: IntArray, part: SeriesRows, context: _Context) -> IntArray:
    """Return the begin times of a series' rows, after their spacing and lengths were checked."""
    grid: Interval = part.series.grid
    by = part.interval_by
    if columns.begins is None:
        assert columns.ends is not None
        begins, proven = begins_before(columns.ends[rows], grid), False
    else:
        begins = columns.begins[rows]
        proven = columns.ends is not None and check_lengths(begins, columns.ends[rows], grid, by)
    if columns.days and 0 < grid.length_ms < DAY_MS:
        raise LakewriterError(
            f"{columns.days} has days only, and candles of {grid.name} need the time of day", "--interval 1d"
        )
    if not proven and not context.options.sparse:
        check_spacing(begins, grid, by)
    return begins


def _source(begins: IntArray, series: Series, context: _Context) -> tuple[Source, str]:
    """Return the standing of a series' rows, and a note if it is lower than the file's name claims."""
    options, file = context.options, context.file
    reason = "it has not the archive's layout"
    if file.layout == "archive":
        period = _period(series, context.name)
        reason = why_not_archive(begins, series.grid, period, context.now_ms, checked=file.checked)
    if not reason:
        return options.source or "archive", ""
    if options.source == "archive" and context.columns.own is None:
        raise UsageError(f"--source says archive, but {reason}", "leave --source out")
    claimed = context.name.archive_name and context.columns.own is None and options.source is None
    return options.source or "rest", f"ranks as rest: {reason}" if claimed else ""


def _period(series: Series, name: FileName) -> ArchivePeriod | None:
    """Return the day or month of the archive's file of this name."""
    for period in ("daily", "monthly"):
        file = parse_name(series, period, f"{name.archive_name}.zip") if name.archive_name else None
        if file is not None:
            return ArchivePeriod(file.start_ms, file.stop_ms)
    return None


def _with_own(table: pa.Table, own: OwnColumns, kept: IntArray, options: ImportOptions) -> pa.Table:
    """Return candles with the source and the times that a lake's export keeps of them."""
    taken = pa.array(kept)
    columns = {"event_time": own.event_ms, "recv_time": own.recv_us, "source": own.source}
    said = {name: column.take(taken) for name, column in columns.items()}
    if options.source is not None and options.relabel:
        said["source"] = pa.repeat(options.source, len(kept))
    elif options.source is not None and (
        others := set(said["source"].unique().to_pylist()) - {options.source}
    ):
        raise UsageError(
            f"its column source says {min(map(str, others))}, --source says {options.source}",
            "leave --source out, or --relabel",
        )
    for name, column in said.items():
        place = SCHEMA.get_field_index(name)
        table = table.set_column(place, SCHEMA.field(place), column.cast(SCHEMA.field(place).type))
    return table


def _notes(name: FileName, file: FileTable, done: list[_Candles]) -> tuple[str, ...]:
    read_as = (f"read as {name.read_as}",) if name.read_as else ()
    bad = (f"{file.bad_rows:,} bad rows left out, the first is {file.bad}",) if file.bad else ()
    return (*read_as, *bad, *dict.fromkeys(each.note for each in done if each.note))
