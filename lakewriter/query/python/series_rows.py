"""The rows of some symbols of one market and interval, read from their files without SQL.

All files of an answer come from one listing. The rows of each symbol are ascending and
unique.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from lakewriter.candle import SCHEMA, Candle, IntArray, deduplicate, int_column, to_table
from lakewriter.candle_arrays import ends
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter, PartitionSelection
from lakewriter.partition import day_of, parse_partition
from lakewriter.query.errors import as_lakewriter_error
from lakewriter.query.retry import RetryHints, retry_while_files_move
from lakewriter.query.scan.snapshot import read_files, read_foreign, take_snapshot
from lakewriter.query.schema import FILLED_ROWS_MAX
from lakewriter.ranges import Range
from lakewriter.series import Series
from lakewriter.subscription import chosen, is_glob

# The columns of a table of several symbols.
LONG_SCHEMA = pa.schema([("symbol", pa.string()), *SCHEMA])


class SymbolSelection:
    """A `PartitionSelection` of symbols by names and globs, in one market and interval.

    Args:
        market: the market's name; "" selects all.
        symbols: names in upper case, and globs; empty selects all.
        interval: the interval's name on disk; "" selects all.
        range_ms: the half-open range of begin times; None selects all.
    """

    newest: ClassVar[bool] = False

    def __init__(
        self, market: str, symbols: Sequence[str], interval: str, range_ms: Range | None = None
    ) -> None:
        self._symbols = tuple(symbols)
        self._has_globs = any(map(is_glob, symbols))
        names = () if self._has_globs else self._symbols
        self._filter = PartitionFilter((market,) if market else (), names, (interval,) if interval else ())
        if range_ms is not None:
            since, until = day_of(range_ms[0]), day_of(range_ms[1] - 1)
            self._filter = replace(self._filter, since=since, until=until)
        self._written = {"market": [market], "symbol": symbols, "interval": [interval]}

    def single_name(self, level: str) -> str:
        """Return the only name or glob of a level; "" for all or several."""
        written = self._written[level]
        return written[0] if len(written) == 1 else ""

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the wanted names of a level."""
        if level != "symbol" or not self._has_globs:
            return self._filter.keep(level, names)
        return chosen(self._symbols, names)

    def names(self, level: str) -> list[str] | None:
        """Return all wanted names of a level, or None if a glob selects them."""
        return self._filter.names(level)

    def keep_days(self, interval: str, names: list[str]) -> list[str]:
        """Return the periods that have a day of the range."""
        return self._filter.keep_days(interval, names)

    def few_days(self, interval: str) -> list[str] | None:
        """Return the days of the range, or None if they are not few."""
        return self._filter.few_days(interval)


def columns_schema(columns: Iterable[str]) -> pa.Schema:
    """Return the fields of the begin time and of some other columns, in the files' order."""
    chosen = {"candle_begin_time", *columns}
    return pa.schema([field for field in SCHEMA if field.name in chosen])


def read_rows(
    store: LakeStore, wanted: PartitionSelection, range_ms: Range, columns: Iterable[str] = SCHEMA.names
) -> dict[str, pa.Table]:
    """Return the candles of each selected symbol that begin in a range, sorted by symbol.

    Symbols without such candles are left out.

    Args:
        columns: the columns to return beside the begin time.

    Raises:
        LakeError: if a file cannot be read.
    """
    schema = columns_schema(columns)
    found = {}
    for series, tables in sorted(_read_parts(store, wanted, schema).items()):
        table = pa.concat_tables(tables)
        if table.schema != SCHEMA and not _is_ascending(table):
            # Another tool wrote duplicates into an own file. Only all columns tell which one wins.
            return {
                symbol: rows.select(schema.names)
                for symbol, rows in read_rows(store, wanted, range_ms).items()
            }
        rows = _between(table if table.schema != SCHEMA else deduplicate(table), range_ms)
        if rows.num_rows:
            found[series.symbol] = rows.select(schema.names)
    return found


def _is_ascending(table: pa.Table) -> bool:
    begins = int_column(table, "candle_begin_time")
    return bool(np.all(begins[1:] > begins[:-1]))


def _read_parts(
    store: LakeStore, wanted: PartitionSelection, schema: pa.Schema
) -> dict[Series, list[pa.Table]]:
    """Return the rows of each selected series from its files and the journal, including duplicates.

    Series with unmerged rows have all columns, which tell the winner of two duplicates.

    Args:
        schema: the columns of other series.
    """

    def attempt(_hints: RetryHints) -> dict[Series, list[pa.Table]]:
        parts: dict[Series, list[pa.Table]] = {}
        try:
            snapshot = take_snapshot(store, (wanted,))
            series_of = _series_of(snapshot.own)
            unflushed = _by_series(snapshot.journal)
            unmerged = unflushed.keys() | {file.partition.series for file in snapshot.foreign}
            for names, fields in (
                ([name for name in snapshot.own if series_of[name] not in unmerged], schema),
                ([name for name in snapshot.own if series_of[name] in unmerged], SCHEMA),
            ):
                for name, table in zip(
                    names, read_files(store, names, fields, snapshot.versions), strict=True
                ):
                    parts.setdefault(series_of[name], []).append(table)
            foreign = read_foreign(store, snapshot.foreign)
        except OSError as error:
            raise as_lakewriter_error(error, store.state_dir) from None
        for file, table in zip(snapshot.foreign, foreign, strict=True):
            parts.setdefault(file.partition.series, []).append(table)
        for series, candles in unflushed.items():
            parts.setdefault(series, []).append(to_table(candles))
        return parts

    return retry_while_files_move(attempt)


def _series_of(names: Sequence[str]) -> dict[str, Series]:
    """Return the series of each file. The path of a series is parsed once."""
    parsed: dict[str, Series] = {}
    found = {}
    for name in names:
        directory = name.rpartition("/")[0]
        path_of_series = directory.rpartition("/")[0]
        if path_of_series not in parsed:
            parsed[path_of_series] = parse_partition(directory).series
        found[name] = parsed[path_of_series]
    return found


def _by_series(candles: Sequence[Candle]) -> dict[Series, list[Candle]]:
    found: dict[Series, list[Candle]] = {}
    for candle in candles:
        found.setdefault(candle.series, []).append(candle)
    return found


def _between(table: pa.Table, range_ms: Range) -> pa.Table:
    """Return the rows of an ascending table that begin in a half-open range."""
    first, stop = np.searchsorted(int_column(table, "candle_begin_time"), range_ms)
    return table.slice(int(first), int(stop - first))


def long_table(rows: Mapping[str, pa.Table]) -> pa.Table:
    """Return the rows of several symbols in one table, ascending by begin time, then by symbol."""
    tables = [
        table.add_column(0, "symbol", [pa.repeat(symbol, table.num_rows)])
        for symbol, table in sorted(rows.items(), key=itemgetter(0))
    ]
    table = pa.concat_tables(tables) if tables else LONG_SCHEMA.empty_table()
    begins = int_column(table, "candle_begin_time")
    if bool(np.all(begins[1:] >= begins[:-1])):
        return table
    return table.take(pa.array(np.argsort(begins, kind="stable")))


class CandleGrid(NamedTuple):
    """The grid of an interval in a range.

    Args:
        interval: the interval's name on disk.
        start_ms, stop_ms: the half-open range; None is the first or the last candle.
        symbols: the number of symbols with this grid. FILLED_ROWS_MAX limits their sum.
    """

    interval: str
    start_ms: int | None
    stop_ms: int | None
    symbols: int = 1

    def times(self, begins: IntArray) -> IntArray:
        """Return the ascending begin times of the grid and of the given candles.

        Args:
            begins: begin times in ascending order.

        Raises:
            UsageError: if all symbols together would have more than FILLED_ROWS_MAX rows.
        """
        grid, start_ms, stop_ms = INTERVALS[self.interval], self.start_ms, self.stop_ms
        if len(begins):
            first_ms, last_ms = int(begins[0]), int(begins[-1])
            grid = grid.anchored(first_ms)
            start_ms = first_ms if start_ms is None else start_ms
            stop_ms = grid.end(last_ms) if stop_ms is None else stop_ms
        if start_ms is None or stop_ms is None:
            return begins
        rows = (stop_ms - start_ms) // (grid.length_ms or DAY_MS) * self.symbols
        if rows > FILLED_ROWS_MAX:
            raise UsageError(
                f"fill: from start to stop there are {rows:,} candles, and {FILLED_ROWS_MAX:,} at most are filled",
                "give a later start, an earlier stop, or neither",
            )
        length_ms = grid.length_ms
        on_grid = (
            range(grid.ceil(start_ms), stop_ms, length_ms) if length_ms else grid.grid(start_ms, stop_ms)
        )
        return np.union1d(np.fromiter(on_grid, np.int64), begins)


def filled(table: pa.Table, grid: CandleGrid) -> pa.Table:
    """Return the table with a row for each candle of the grid. Missing candles have only times.

    Args:
        table: candles in ascending order. Those that are not on the grid stay.
    """
    begins = int_column(table, "candle_begin_time")
    wanted = grid.times(begins)
    rows = table.take(pc.index_in(pa.array(wanted), value_set=pa.array(begins)))
    times = {"candle_begin_time": wanted, "candle_end_time": ends(INTERVALS[grid.interval], wanted)}
    for name, values in times.items():
        if name not in rows.column_names:
            continue
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), time_array(values))
    return rows


def time_array(times_ms: IntArray) -> pa.Array:
    """Return milliseconds since the epoch as an array of the type of the files' times."""
    return pa.array(times_ms).cast(SCHEMA.field("candle_begin_time").type)
