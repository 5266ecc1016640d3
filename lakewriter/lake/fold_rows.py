"""The rows of a partition's files that compaction folds, with all checks of foreign files. No I/O.

Strategy: many small files of one schema are checked together, in one pass over all their
rows. The files after the first `TOGETHER_ROWS_MAX` rows are checked alone, which takes less
memory. The pass decides only that each row of each file is a closed candle of the partition. If one row
may not be, each file is checked alone: those checks find the file and the reason.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.candle_arrays import Columns, columns_of, ends, off_grid
from lakewriter.candle_checks import first_violation
from lakewriter.errors import LakeError
from lakewriter.evidence.claims import time_text
from lakewriter.evidence.closed import closed_rows
from lakewriter.evidence.spacing import have_length
from lakewriter.interval import INTERVALS
from lakewriter.lake.foreign_rows import (
    MEND,
    decode_foreign_table,
    has_only_candle_columns,
    is_possible_series,
)
from lakewriter.lake.lake import check_rows_inside
from lakewriter.lake.parquet import conform, read_file
from lakewriter.lake.storage import StoredBytes
from lakewriter.partition import Partition

# The clock that dates files may be behind the exchange's by so much.
_SLACK_MS = 60_000

# Fewer files are checked one by one.
TOGETHER_MIN = 2

# Two days of 1s. A pass over the rows takes several copies of them.
TOGETHER_ROWS_MAX = 2 * 86_400

_END = SCHEMA.get_field_index("candle_end_time")


class NamedBytes(NamedTuple):
    """A file of a partition, as read.

    Args:
        name: its name in errors.
        found: its bytes.
        is_own: whether it is the partition's own file. Others are foreign.
    """

    name: str
    found: StoredBytes
    is_own: bool


class RowsToFold(NamedTuple):
    """The closed rows of a file.

    Args:
        rows: the rows, in SCHEMA.
        not_closed: the number of other rows, which are left out.
        may_close: whether some of these have not ended yet. If this host's clock is behind, they
            may be closed. So the file stays until they have ended.
        is_ours: whether its metadata is ours, with the right number of rows.
    """

    rows: pa.Table
    not_closed: int
    may_close: bool
    is_ours: bool


def rows_of_file(partition: Partition, file: NamedBytes, now_ms: int) -> RowsToFold:
    """Return the closed rows of a file. Foreign rows get their end times from the grid.

    Raises:
        LakeError: if the file cannot be read, or has rows of another period or series. Each
            foreign row must also be a possible candle, and begin before the file was written.
    """
    return _rows_of(partition, file, *read_file(file.found.data, file.name), now_ms)


def rows_of_files(
    partition: Partition, files: Sequence[NamedBytes], now_ms: int
) -> list[RowsToFold | LakeError]:
    """Return the closed rows of each file, or its error; see `rows_of_file`."""
    results: dict[int, RowsToFold | LakeError] = {}
    plain: dict[int, pa.Table] = {}
    plain_rows = 0
    for place, file in enumerate(files):
        try:
            table, is_ours = read_file(file.found.data, file.name)
            is_small = plain_rows + table.num_rows <= TOGETHER_ROWS_MAX
            if not is_ours and is_small and has_only_candle_columns(table):
                plain[place] = table  # other tables are not kept: they may be large
                plain_rows += table.num_rows
            else:
                results[place] = _rows_of(partition, file, table, is_ours, now_ms)
        except LakeError as error:
            results[place] = _without_frames(error)
    results.update(_rows_together(partition, files, plain, now_ms))
    for place in plain.keys() - results.keys():
        try:
            results[place] = _rows_of(partition, files[place], plain[place], False, now_ms)
        except LakeError as error:
            results[place] = _without_frames(error)
    return [results[place] for place in range(len(files))]


def _without_frames(error: LakeError) -> LakeError:
    """Return an error without its traceback. The frames have the files' bytes and tables."""
    error.__context__ = None
    return error.with_traceback(None)


def _rows_together(
    partition: Partition, files: Sequence[NamedBytes], tables: dict[int, pa.Table], now_ms: int
) -> dict[int, RowsToFold]:
    """Return the rows of all tables if each is a closed candle; otherwise nothing."""
    schemas = [table.schema for table in tables.values()]
    if len(schemas) < TOGETHER_MIN or not all(schema.equals(schemas[0]) for schema in schemas):
        return {}
    grid = INTERVALS[partition.interval]
    try:
        rows = conform(pa.concat_tables(tables.values()), partition.path).combine_chunks()
    except LakeError:
        return {}
    begins = int_column(rows, "candle_begin_time")
    counts = [table.num_rows for table in tables.values()]
    written_ms = np.repeat([files[place].found.modified_ms for place in tables], counts)
    stops = ends(grid, begins)
    sound = (
        is_possible_series(partition.market, partition.symbol, partition.interval)
        and bool(np.all(have_length(begins, int_column(rows, "candle_end_time"), grid)))
        and bool(np.all(begins <= written_ms + _SLACK_MS))
        and bool(np.all(stops <= np.minimum(written_ms, now_ms)))
        and _first_impossible_row(partition, columns_of(rows)) is None
    )
    if not sound:
        return {}
    rows = _with_ends(rows, stops)
    firsts = np.cumsum([0, *counts]).tolist()
    return {
        place: RowsToFold(rows.slice(first, count), 0, may_close=False, is_ours=False)
        for place, first, count in zip(tables, firsts, counts, strict=False)
    }


def _rows_of(
    partition: Partition, file: NamedBytes, table: pa.Table, is_ours: bool, now_ms: int
) -> RowsToFold:
    """Return the closed rows of one file from its table; see `rows_of_file`."""
    name, modified_ms = file.name, file.found.modified_ms
    if is_ours:
        rows = conform(table, name) if file.is_own else decode_foreign_table(table, name, partition).rows
        check_rows_inside(partition, int_column(rows, "candle_begin_time"))
        return RowsToFold(rows, 0, may_close=False, is_ours=True)
    rows, not_closed = decode_foreign_table(table, name, partition)
    candles, grid = columns_of(rows), INTERVALS[partition.interval]
    if (why := _first_impossible_row(partition, candles)) is not None:
        raise LakeError(f"{name}: {why}", MEND)
    if len(candles.begin) and (last_ms := int(candles.begin.max())) > modified_ms + _SLACK_MS:
        what = f"it was written at {time_text(modified_ms)}, and has a candle that begins at {time_text(last_ms)}"
        raise LakeError(f"{name}: {what}; touch it if its date is wrong", MEND)
    stops = ends(grid, candles.begin)
    closed = closed_rows(stops, None, now_ms, modified_ms)
    return RowsToFold(
        _with_ends(rows, stops).filter(pa.array(closed)),
        not_closed + int((~closed).sum()),
        may_close=bool(np.any(stops > now_ms)),
        is_ours=False,
    )


def _with_ends(rows: pa.Table, stops: IntArray) -> pa.Table:
    field = SCHEMA.field(_END)
    return rows.set_column(_END, field, pa.array(stops).view(field.type))


def _first_impossible_row(partition: Partition, candles: Columns) -> str | None:
    """Return the number and error of the first row that cannot be a candle of the partition.

    The error has the text that `verify` uses. None means that every row can be one.
    """
    outside = (candles.begin < partition.start_ms) | (candles.begin >= partition.stop_ms)
    off = off_grid(INTERVALS[partition.interval], candles.begin)
    rows = [
        (row, f"{kind}: {what}")
        for kind, wrong, what in (
            ("day", outside, f"is a candle of another {partition.period} than {partition.date}"),
            ("grid", off, f"no candle of {partition.interval} begins then"),
        )
        for row in np.flatnonzero(wrong)[:1].tolist()
    ]
    if (found := first_violation(candles, partition.market)) is not None:
        row, violation = found
        rows.append((row, f"{violation.kind}: {violation.describe(row)}"))
    if not rows:
        return None
    row, why = min(rows)
    return f"row {row + 1}: {why}"
