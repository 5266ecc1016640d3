"""Read the candles of a file, using the claims of its name, its columns and the options.

`evidence` chooses the series of its rows, and `series_candles` makes their candles. This
module calls both, and skips bad rows if `skip_bad_rows` is set.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.binance.kline_columns import RowError
from lakewriter.errors import LakewriterError
from lakewriter.evidence.choice import check_name_claims, choose_series
from lakewriter.evidence.claims import Claim, ImportOptions
from lakewriter.evidence.columns import metadata_claims
from lakewriter.evidence.row_groups import RowGroup, group_rows
from lakewriter.importer.columns import FileColumns, read_file_columns
from lakewriter.importer.file_names import FileName, parse_file_name
from lakewriter.importer.file_table import FileTable, read_table
from lakewriter.importer.series_candles import FileContext, SeriesCandles, mask_of, series_candles
from lakewriter.importer.text_file import SKIP_HINT
from lakewriter.market import is_symbol
from lakewriter.series import Series

# The maximum rounds. Each round skips all rows with one kind of fault.
BAD_KINDS_MAX = 50


class LeftOut(NamedTuple):
    """Counts of a file's rows that are not imported, by reason.

    Args:
        other_series: rows of series that the options do not select.
        open: rows whose candle is not closed.
        equal: rows that repeat another row.
        contradictions: rows that differ from a later row of their candle.
        empty: rows without values.
        bad: rows that are unreadable or cannot be candles.
    """

    other_series: int = 0
    open: int = 0
    equal: int = 0
    contradictions: int = 0
    empty: int = 0
    bad: int = 0


class FileCandles(NamedTuple):
    """The candles of a file.

    Args:
        parts: one table for each series, in SCHEMA, sorted by begin time, with one row for
            each candle.
        left_out: counts of the other rows.
        notes: remarks for the user on the reading of the file.
    """

    parts: list[tuple[Series, pa.Table]]
    left_out: LeftOut = LeftOut()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The number of candles."""
        return sum(table.num_rows for _, table in self.parts)


def read_candles(path: Path, options: ImportOptions, now_ms: int, *, doubt_last: bool = False) -> FileCandles:
    """Return the candles in a file.

    Their receive time is the file's modification time, so importing the file again changes nothing.

    Args:
        now_ms: the present; a candle that ends later is not closed.
        doubt_last: whether to skip the last row of a file that is not proven to be the archive's.

    Raises:
        LakewriterError: if the file is unreadable, its evidence contradicts itself, or a
            row cannot be a candle.
        OSError: if the disk fails.
    """
    name = file_name_of(path, options)
    check_name_claims(name.claims, options, str(path))
    written_us = path.stat().st_mtime_ns // 1000
    file = read_table(path, skip_bad_rows=options.skip_bad_rows)
    context = FileContext(path, name, options, now_ms, written_us, doubt_last)
    for _ in range(BAD_KINDS_MAX):
        try:
            return _candles_of_table(file, context)
        except RowError as error:
            has_others = len(error.rows) < file.table.num_rows
            hint = error.hint or (SKIP_HINT if has_others else "")
            refusal = LakewriterError(f"{path}: row {file.number(error.row)}: {error.what}", hint)
            if not options.skip_bad_rows or not has_others:
                break
            file = file.without(mask_of(error.rows, file.table.num_rows), error.what)
    raise refusal


def _candles_of_table(file: FileTable, context: FileContext) -> FileCandles:
    path, options = context.path, context.options
    try:
        columns = read_file_columns(file.table)
        groups = group_rows(columns.claims, str(path), _symbol_test(columns))
        claims = [*context.name.claims, *_member_claims(file, options), *metadata_claims(file.table)]
        chosen = choose_series(groups, claims, options, str(path), file.table.num_rows)
        parts = [series_candles(part, file, columns, context) for part in chosen.parts]
    except RowError:
        raise
    except LakewriterError as error:
        named = error.what.startswith(str(path))
        raise type(error)(error.what if named else f"{path}: {error.what}", error.hint) from None
    left_out = LeftOut(
        chosen.other_rows,
        sum(part.open for part in parts),
        sum(part.equal for part in parts),
        sum(part.contradictions for part in parts),
        file.empty_rows,
        file.bad_rows,
    )
    result = FileCandles(
        [(part.series, part.table) for part in parts], left_out, _notes(file, parts, context)
    )
    unwritten = sum(part.unwritten for part in parts)
    if unwritten and not result.rows and unwritten == left_out.open:
        written = np.datetime64(context.written_us, "us").astype("datetime64[s]")
        raise LakewriterError(
            f"{path}: all its candles end after it was written, at {written}", f"touch {path}"
        )
    return result


def _symbol_test(columns: FileColumns) -> Callable[[str], bool]:
    """Return a test for texts that are a symbol in the exchange's spelling, as in a lake's export."""
    return is_symbol if columns.own is not None else lambda _: False


def file_name_of(path: Path, options: ImportOptions) -> FileName:
    """Return the claims of a file's name and directories, unless the options overrule all of them.

    Raises:
        UsageError: if the claims contradict each other, or name other data than trades of Binance.
    """
    if options.relabel and None not in (options.market, options.symbol, options.interval):
        return FileName(())
    return parse_file_name(path)


def _member_claims(file: FileTable, options: ImportOptions) -> list[Claim]:
    """Return the claims of the name of the CSV in a zip."""
    if not file.member:
        return []
    claims = file_name_of(Path(file.member), options).claims
    return [claim._replace(by=f"its {file.member}") for claim in claims]


def series_by_name(path: Path, options: ImportOptions) -> Series:
    """Return the series of a file from only its name, its directories and the options.

    Raises:
        LakewriterError: if the series stays unknown, or the claims contradict each other.
    """
    name = file_name_of(path, options)
    return choose_series([RowGroup((), None)], name.claims, options, str(path), 0).parts[0].series


def _notes(file: FileTable, parts: list[SeriesCandles], context: FileContext) -> tuple[str, ...]:
    read_as = (f"read as {context.name.read_as}",) if context.name.read_as else ()
    bad = (f"{file.bad_rows:,} bad rows left out, the first is {file.bad}",) if file.bad else ()
    return (*read_as, *bad, *dict.fromkeys(part.note for part in parts if part.note))
