"""The Python interface for SQL, and for reading one series directly from its files.

    lake = lakewriter.open_lake("data")
    lake.query("SELECT symbol, max(high) FROM candles GROUP BY symbol").df()
    lake.candles("spot", "BTCUSDT", "1m", start="2024-06-30")
    lake.candles("spot", "BTCUSDT", "1m", start="2024-06-30", fill="gaps")  # NaN for missing candles

Prices are in the quote asset; docs/on-disk.md lists the units of volumes. Times
are UTC. Many threads may use one Lake, because it never changes.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import SCHEMA, VALUE_COLUMNS, deduplicate, to_table
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, INTERVALS, parse_interval
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.market import parse_market, parse_symbol
from lakewriter.partition import day_of
from lakewriter.query.errors import as_lakewriter_error
from lakewriter.query.execution import RowStream
from lakewriter.query.result import Result
from lakewriter.query.retry import RetryHints, retry_while_files_move
from lakewriter.query.scan.snapshot import read_files, read_foreign, take_snapshot
from lakewriter.query.session import run, stream

# The columns of a DataFrame without its index, in the original recorder's order.
FRAME_COLUMNS = ("candle_begin_time", *VALUE_COLUMNS)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The limits of `start` and `stop`, both within Python's calendar.
_START_MS_MIN = 0
_STOP_MS_MAX = 253_402_214_400_000

# A year of 1s candles with `fill` has 31.5 million rows of about 120 bytes each.
FILLED_ROWS_MAX = 32_000_000

Moment = str | date | datetime
Fill = Literal["gaps"]


class Lake:
    """A lake to read.

    Args:
        uri: the root directory, or s3://, gs:// or az:// with bucket and prefix. The
            lake must exist.

    Raises:
        LakeError: if the lake does not exist, or has a newer format.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self._store = open_to_read(os.fspath(uri), keep_listings=True)

    def __repr__(self) -> str:
        return f"Lake({self._store.name!r})"

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> Result:
        """Return the whole answer to one statement that reads.

        Args:
            sql: the statement. It may read the tables `candles`, `partitions`, `gaps`,
                `coverage`, `instruments`, `subscriptions` and `forgotten`, and the macros
                of `lakewriter.query.macros`. Times are UTC.
            params: a value for each $name in the statement.
            tables: frames that the statement may read too, by name: of pandas, Polars or
                Arrow, or with `__arrow_c_stream__`. A named index of pandas is a column.

        Returns:
            a Result: `.df()` is a pandas.DataFrame, `.arrow()` a pyarrow.Table, `.pl()`
            a polars.DataFrame, `.rows()` a list of tuples.

        Raises:
            QueryError: if the SQL is invalid, does more than read, or fails.
            UsageError: if a parameter is missing or unknown, or a table cannot be used.
            LakeError: if the lake cannot be read.
        """
        return Result(run(self._store, sql, params, tables=tables))

    @contextlib.contextmanager
    def stream(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> Iterator[RowStream]:
        """Yield an answer with its `.schema`, and with `.batches` that are fetched on demand.

        Raises:
            the errors of `query`, also while the batches are fetched.
        """
        with stream(self._store, sql, params, tables=tables) as answer:
            yield answer

    def candles(
        self,
        market: str,
        symbol: str,
        interval: str,
        start: Moment | None = None,
        stop: Moment | None = None,
        *,
        fill: Fill | None = None,
    ) -> Any:
        """Return one series as a pandas.DataFrame indexed by candle_end_time (UTC), ascending.

        Args:
            market: "spot", "usdt_futures" or "coin_futures".
            symbol: the symbol, in upper or lower case.
            interval: the interval, such as "1m". A month is "1mo" or "1M".
            start, stop: the range [start, stop) of begin times, as ISO 8601 text, date
                or datetime. Times are UTC unless they name another zone. None is open.
            fill: "gaps" adds a row with times and NaN for each missing candle from
                `start` to `stop`. With `fill`, None is the first or the last candle.

        Returns:
            the columns FRAME_COLUMNS: candle_begin_time as datetime64[ms, UTC],
            trade_num as int64, prices and volumes as float64. With `fill`
            trade_num is always float64.

        Raises:
            UsageError: if an argument is invalid.
            LakeError: if a file cannot be read.
        """
        table = self.candles_arrow(market, symbol, interval, start, stop, fill=fill)
        frame = table.select(["candle_end_time", *FRAME_COLUMNS]).to_pandas().set_index("candle_end_time")
        return frame if fill is None else frame.astype({"trade_num": "float64"})

    def candles_arrow(
        self,
        market: str,
        symbol: str,
        interval: str,
        start: Moment | None = None,
        stop: Moment | None = None,
        *,
        fill: Fill | None = None,
    ) -> pa.Table:
        """Return one series as a pyarrow.Table of all columns of the files, ascending.

        The arguments and errors are those of `candles`. With `fill`, missing values
        are null.
        """
        if fill not in (None, "gaps"):
            raise UsageError(f"fill: {fill!r} is unknown", 'fill="gaps", or leave it out')
        series = (parse_market(market).name, parse_symbol(symbol), parse_interval(interval).name)
        start_ms = _START_MS_MIN if start is None else max(_moment_ms("start", start), _START_MS_MIN)
        stop_ms = _STOP_MS_MAX if stop is None else min(_moment_ms("stop", stop), _STOP_MS_MAX)
        if start_ms >= stop_ms:
            return SCHEMA.empty_table()
        wanted = PartitionFilter(
            (series[0],), (series[1],), (series[2],), day_of(start_ms), day_of(stop_ms - 1)
        )
        table = deduplicate(_read(self._store, series, wanted))
        begins = table["candle_begin_time"].cast(pa.int64())
        table = table.filter(pc.and_(pc.greater_equal(begins, start_ms), pc.less(begins, stop_ms)))
        if fill is None:
            return table
        return _filled(
            table, series[2], None if start is None else start_ms, None if stop is None else stop_ms
        )


def open_lake(uri: str | os.PathLike[str]) -> Lake:
    """Return the lake at `uri`, to read.

    Raises:
        LakeError: if the lake does not exist, or has a newer format.
    """
    return Lake(uri)


def _read(store: LakeStore, series: tuple[str, str, str], wanted: PartitionFilter) -> pa.Table:
    """Return the rows of one series from its files and the journal, including duplicates."""

    def attempt(_hints: RetryHints) -> pa.Table:
        try:
            snapshot = take_snapshot(store, (wanted,))
            tables = [*read_files(store, snapshot.own), *read_foreign(store, snapshot.foreign)]
        except OSError as error:
            raise as_lakewriter_error(error, store.state_dir) from None
        unflushed = [candle for candle in snapshot.journal if candle.series == series]
        return pa.concat_tables([SCHEMA.empty_table(), *tables, to_table(unflushed)])

    return retry_while_files_move(attempt)


def _filled(table: pa.Table, interval: str, start_ms: int | None, stop_ms: int | None) -> pa.Table:
    """Return the table with a row for each candle of the grid. Missing candles have only times.

    Args:
        table: candles in ascending order.
        start_ms, stop_ms: the range of the grid; None is the begin or the end of the table.
    """
    begins = table["candle_begin_time"].cast(pa.int64()).combine_chunks()
    grid = INTERVALS[interval]
    if len(begins):
        first_ms, last_ms = begins[0].as_py(), begins[-1].as_py()
        grid = grid.anchored(first_ms)
        start_ms = first_ms if start_ms is None else start_ms
        stop_ms = grid.end(last_ms) if stop_ms is None else stop_ms
    if start_ms is None or stop_ms is None:
        return table
    rows = (stop_ms - start_ms) // (grid.length_ms or DAY_MS)
    if rows > FILLED_ROWS_MAX:
        raise UsageError(
            f"fill: from start to stop there are {rows:,} candles, and {FILLED_ROWS_MAX:,} at most are filled",
            "give a later start, an earlier stop, or neither",
        )
    length_ms = grid.length_ms
    on_grid = range(grid.ceil(start_ms), stop_ms, length_ms) if length_ms else grid.grid(start_ms, stop_ms)
    # Candles that are not on the grid stay in the table.
    wanted = np.union1d(np.fromiter(on_grid, np.int64), begins.to_numpy(zero_copy_only=False))
    ends = wanted + length_ms if length_ms else np.array([grid.end(at) for at in wanted.tolist()], np.int64)
    filled = table.take(pc.index_in(pa.array(wanted), value_set=begins))
    for name, times in (("candle_begin_time", wanted), ("candle_end_time", ends)):
        field = filled.schema.field(name)
        filled = filled.set_column(
            filled.schema.get_field_index(name), field, pa.array(times).cast(field.type)
        )
    return filled


def _moment_ms(name: str, moment: Moment) -> int:
    """Return the moment in milliseconds since the epoch, rounded up."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.strip())
        except ValueError:
            raise UsageError(
                f"{name}: {moment!r} is no time", f'{name}="2024-06-30" or "2024-06-30T12:00:00Z"'
            ) from None
    if not isinstance(moment, datetime):
        if not isinstance(moment, date):
            raise UsageError(f"{name}: {moment!r} is no time", f"{name}=datetime(2024, 6, 30)")
        moment = datetime.combine(moment, time())
    if moment != moment:
        raise UsageError(f"{name}: {moment!r} is no time", f"leave {name} out")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return -((_EPOCH - moment) // timedelta(milliseconds=1))
