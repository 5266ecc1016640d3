"""The Python interface for SQL, and for reading candles directly from their files.

    lake = lakewriter.open_lake("data")
    lake.query("SELECT symbol, max(high) FROM candles GROUP BY symbol").df()
    lake.candles("spot", "BTCUSDT", "1m", start="2024-06-30")
    lake.candles("spot", "BTCUSDT", "1m", start="2024-06-30", fill="gaps")  # NaN for missing candles
    lake.candles("spot", ["BTCUSDT", "ETHUSDT"], "1h")  # with a column `symbol`
    lake.candles("spot", "*USDT", "1d", columns="ohlcv", tz=None)  # Open, High, Low, Close, Volume
    lake.matrix("close", "spot", "*USDT", "1h")  # time × symbol
    lake.series()  # the series that the lake has
    lake.follow("spot:BTCUSDT:1m", since="1d")  # each candle as soon as it is durable

Prices are in the quote asset; docs/reference/on-disk.md lists the units of volumes. Times
are UTC. Many threads may use one Lake, because it never changes.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lakewriter.candle import SCHEMA
from lakewriter.clock import present_ms
from lakewriter.errors import UsageError
from lakewriter.follow.follower import Follower, follow
from lakewriter.lake.open import open_to_read
from lakewriter.query.empty_answer import warn_of_empty_answer
from lakewriter.query.execution import RowStream
from lakewriter.query.python.candle_request import (
    CandleRequest,
    Symbols,
    check_found,
    parse_request,
    parse_selection,
    raise_absence,
)
from lakewriter.query.python.frames import (
    Columns,
    IndexTime,
    candle_frame,
    check_index,
    check_zone,
    frame_shape,
    in_zone,
    to_frame,
)
from lakewriter.query.python.matrix import check_column, matrix_table
from lakewriter.query.python.notebook_progress import notebook_progress
from lakewriter.query.python.result import Result
from lakewriter.query.python.series_list import series_table
from lakewriter.query.python.series_rows import CandleGrid, columns_schema, filled, long_table, read_rows
from lakewriter.query.python.short_traceback import short_traceback
from lakewriter.query.saved import SavedQuery, resolved, saved_queries
from lakewriter.query.session import run, stream
from lakewriter.written_time import Time, moment_ms

if TYPE_CHECKING:
    import pandas as pd

Fill = Literal["gaps"]


class Lake:
    """A lake to read.

    Args:
        uri: the root directory, or s3://, gs:// or az:// with bucket and prefix. The
            lake must exist.
        queries: the directory of the user's own saved queries; None has the shipped ones.
        cache_dir, cache_size: as in `open_lake`.

    Raises:
        LakeError: if the lake does not exist, or has a newer format.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        queries: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: str | int | None = None,
    ) -> None:
        self._store = open_to_read(
            os.fspath(uri), keep_listings=True, cache_dir=cache_dir, cache_size=cache_size
        )
        self._queries = None if queries is None else Path(queries)

    def __repr__(self) -> str:
        return f"Lake({self._store.name!r})"

    @short_traceback
    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> Result:
        """Return the whole answer to one statement that reads, or to a saved query.

        Args:
            sql: the statement, or the name of a saved query such as "vwap". A statement
                may read the tables `candles`, `partitions`, `gaps`, `coverage`,
                `instruments`, `subscriptions` and `forgotten`, and the macros of
                `lakewriter.query.macros`. Times are UTC.
            params: a value for each $name in the statement. A saved query has defaults.
                `since` and `until` may be ages such as "7d".
            tables: frames that the statement may read too, by name: of pandas, Polars or
                Arrow, or with `__arrow_c_stream__`. A named index of pandas is a column.

        Returns:
            a Result: `.df()` is a pandas.DataFrame, `.arrow()` a pyarrow.Table, `.pl()`
            a polars.DataFrame, `.rows()` a list of tuples.

        Raises:
            QueryError: if the SQL is invalid, does more than read, or fails.
            UsageError: if a parameter is missing or unknown, or a table cannot be used.
            LakeError: if the lake cannot be read.

        Warns:
            EmptyAnswerWarning: if the answer has no candles, with the reason if it is known.
        """
        sql, params = resolved(sql, params, self._queries)
        with notebook_progress() as limits:
            table = run(self._store, sql, params, limits, tables, explain=warn_of_empty_answer)
        return Result(table)

    @contextlib.contextmanager
    def stream(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> Iterator[RowStream]:
        """Yield an answer with its `.schema`, and with `.batches` that are fetched on demand.

        The errors are those of `query`, also while the batches are fetched.
        """
        sql, params = resolved(sql, params, self._queries)
        with stream(self._store, sql, params, tables=tables) as answer:
            yield answer

    def saved_queries(self) -> list[SavedQuery]:
        """Return the saved queries, each with its name, title and parameters.

        Raises:
            UsageError: if the user's directory or a file of it cannot be read.
        """
        return saved_queries(self._queries)

    @short_traceback
    def candles(
        self,
        market: str,
        symbol: Symbols,
        interval: str,
        start: Time | None = None,
        stop: Time | None = None,
        *,
        fill: Fill | None = None,
        columns: Columns | None = None,
        index: IndexTime = "candle_end_time",
        tz: str | None = "UTC",
    ) -> "pd.DataFrame":
        """Return candles as a pandas.DataFrame indexed by candle_end_time, ascending.

        Args:
            market: "spot", "usdt_futures" or "coin_futures".
            symbol: a symbol, in upper or lower case; a glob, such as "*USDT"; or a list
                of both. "BTCUSDT,ETHUSDT" is a list too.
            interval: the interval, such as "1m". A month is "1mo" or "1M".
            start, stop: the range [start, stop) of begin times, as ISO 8601 text, an age
                such as "7d", "now", date or datetime. Times are UTC unless they name
                another zone. None is open.
            fill: "gaps" adds a row with times and NaN for each missing candle from
                `start` to `stop`. With `fill`, None is the first or the last candle of
                each symbol.
            columns: "ohlcv" for Open, High, Low, Close and Volume, as vectorbt,
                backtesting.py and mplfinance name them; or a list of columns. None is
                candle_begin_time, prices, volumes and trade_num.
            index: "candle_end_time" or "candle_begin_time". At its end a candle is
                known. pandas' `resample` needs begin times.
            tz: the time zone of all times, such as "Asia/Shanghai". None is UTC without
                a zone.

        Returns:
            prices and volumes as float64, trade_num as int64. With `fill` trade_num is
            always float64. A list or a glob adds the column symbol; its rows are sorted
            by time, then by symbol. Times have pandas' own unit, so `merge_asof` works.

        Raises:
            UsageError: if an argument is invalid, or the lake has no series of a name.
            LakeError: if a file cannot be read.

        Warns:
            EmptyAnswerWarning: if a symbol has no candles from `start` to `stop`.
        """
        request = _request(market, symbol, interval, start, stop)
        shape = frame_shape(columns, index, tz)
        frame = candle_frame(self._table(request, fill, shape.columns), shape)
        if fill is None or "trade_num" not in frame:
            return frame
        return frame.astype({"trade_num": "float64"})

    @short_traceback
    def candles_arrow(
        self,
        market: str,
        symbol: Symbols,
        interval: str,
        start: Time | None = None,
        stop: Time | None = None,
        *,
        fill: Fill | None = None,
    ) -> pa.Table:
        """Return candles as a pyarrow.Table of all columns of the files, ascending.

        The arguments, errors and warnings are those of `candles`. A list or a glob adds
        the column symbol. With `fill`, missing values are null.
        """
        return self._table(_request(market, symbol, interval, start, stop), fill, SCHEMA.names)

    def _table(self, request: CandleRequest, fill: Fill | None, columns: Sequence[str]) -> pa.Table:
        grid = _grid(request, fill)
        rows = self._rows(request, columns)
        if grid is not None:
            rows = {name: filled(table, grid._replace(symbols=len(rows))) for name, table in rows.items()}
        return long_table(rows) if request.several else rows[request.symbols[0]]

    @short_traceback
    def matrix(
        self,
        column: str,
        market: str,
        symbols: Symbols,
        interval: str,
        start: Time | None = None,
        stop: Time | None = None,
        *,
        fill: Fill | None = None,
        index: IndexTime = "candle_end_time",
        tz: str | None = "UTC",
    ) -> "pd.DataFrame":
        """Return one column of several symbols as a pandas.DataFrame of time × symbol, with NaN for gaps.

        Args:
            column: the column of the values, such as "close".
            symbols: as `symbol` of `candles`. The columns are in this order; the symbols
                of a glob are sorted.
            fill: "gaps" adds a row for each time of the grid at which no symbol has a
                candle. Other missing candles are NaN without it.

        The other arguments, errors and warnings are those of `candles`. Each name has a
        column, even if it has no candles from `start` to `stop`.
        """
        check_zone(tz)
        table = self._matrix(column, _request(market, symbols, interval, start, stop), fill, index)
        frame = to_frame(table.set_column(0, index, in_zone(table[index], tz))).set_index(index)
        return frame.rename_axis(columns="symbol")

    @short_traceback
    def matrix_arrow(
        self,
        column: str,
        market: str,
        symbols: Symbols,
        interval: str,
        start: Time | None = None,
        stop: Time | None = None,
        *,
        fill: Fill | None = None,
        index: IndexTime = "candle_end_time",
    ) -> pa.Table:
        """Return one column of several symbols as a pyarrow.Table: a time, then one column for each symbol.

        The arguments, errors and warnings are those of `matrix`. Missing candles are null.
        """
        return self._matrix(column, _request(market, symbols, interval, start, stop), fill, index)

    def _matrix(self, column: str, request: CandleRequest, fill: Fill | None, index: str) -> pa.Table:
        check_column(column)
        check_index(index)
        grid = _grid(request, fill)
        return matrix_table(self._rows(request, [column]), column, index, request.interval, grid)

    @short_traceback
    def series(
        self, market: str | None = None, symbol: Symbols | None = None, interval: str | None = None
    ) -> "pd.DataFrame":
        """Return the series in the lake as a pandas.DataFrame.

        Args:
            market, symbol, interval: filters, as for `candles`; None is all. The footer of
                each matching file is read, which takes some 0.3 ms.

        Returns:
            market, symbol, interval, first, last and candles: the begin times of the first
            and the last candle, and the number of candles. The rows are sorted.

        Raises:
            UsageError: if a filter is invalid, or no series matches.
            LakeError: if a file cannot be read.
        """
        wanted = parse_selection(market, symbol, interval)
        table = series_table(self._store, wanted)
        if not table.num_rows and (market, symbol, interval) != (None, None, None):
            raise_absence(self._store, wanted)
        return to_frame(table)

    @short_traceback
    def follow(
        self,
        subscriptions: str | Sequence[str],
        *,
        since: Time | None = None,
        until: Time | None = None,
        corrections: bool = False,
        resume: str | os.PathLike[str] | None = None,
        after: str | None = None,
    ) -> Follower:
        """Return an iterator, plain and async, over candles: those of the lake, then each new one.

        A candle comes as soon as it is durable, and each key comes once. The candles of
        a series come in order; one that was healed or backfilled after a later one has
        `late` set. All candles that were known at the start come in the order of their end.

        Args:
            subscriptions: such as "spot:BTCUSDT,ETHUSDT:1m,1h" or "usdt_futures:*USDT:1m".
                A glob includes series that the lake gets later.
            since: the first begin time, as for `candles`. None is only new candles. With
                a resumed position it counts for further series alone.
            until: the iterator ends when each series has reached this begin time.
            corrections: whether a candle comes again, with `correction` set, if its values
                changed after it was handed out.
            resume: a file for the position. A candle counts as handled when the next one
                is asked for. At a kill the last second may be repeated.
            after: the `position` of an earlier follower, if the program stores it.

        Raises:
            UsageError: if an argument is invalid, the lake is on an object store, or the
                system is not Linux.
            LakeError: if a file cannot be read, also while iterating.
        """
        return follow(
            self._store,
            subscriptions,
            since=since,
            until=until,
            corrections=corrections,
            resume=resume,
            after=after,
        )

    def _rows(self, request: CandleRequest, columns: Sequence[str]) -> dict[str, pa.Table]:
        """Return the begin times and some columns of each symbol, in the caller's order."""
        start_ms, stop_ms = request.range_ms
        found = {}
        if request.start_ms is not None and start_ms > stop_ms:
            warn_of_empty_answer("no candles: start is later than stop")
        elif start_ms < stop_ms:
            found = read_rows(self._store, request.selection(), (start_ms, stop_ms), columns)
            check_found(self._store, request, found)
        return request.ordered(found, columns_schema(columns))


@short_traceback
def open_lake(
    uri: str | os.PathLike[str],
    *,
    queries: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_size: str | int | None = None,
) -> Lake:
    """Return the lake at `uri`, to read.

    Args:
        queries: the directory of your own saved queries, NAME.sql.
        cache_dir: the directory of the cache, if the lake is on an object store; None is
            LAKEWRITER_CACHE_DIR, or ~/.cache/lakewriter.
        cache_size: its limit in bytes, or text such as "500MB"; None is
            LAKEWRITER_CACHE_SIZE, or 2GB. 0 switches the cache off.

    Raises:
        LakeError: if the lake does not exist, or has a newer format.
    """
    return Lake(uri, queries=queries, cache_dir=cache_dir, cache_size=cache_size)


def _request(
    market: str, symbol: Symbols, interval: str, start: Time | None, stop: Time | None
) -> CandleRequest:
    now_ms = present_ms()
    return parse_request(
        market,
        symbol,
        interval,
        None if start is None else moment_ms(start, "start", now_ms),
        None if stop is None else moment_ms(stop, "stop", now_ms),
    )


def _grid(request: CandleRequest, fill: Fill | None) -> CandleGrid | None:
    """Return the grid to fill, or None without `fill`."""
    if fill is None:
        return None
    if fill != "gaps":
        raise UsageError(f"fill: {fill!r} is unknown", 'fill="gaps", or leave it out')
    return CandleGrid(request.interval, request.start_ms, request.stop_ms)
