"""Who publishes candles, to compare ours with: the archive's files, and REST.

Both answer for a range of one series with a table, as `verify` asks for it.
"""

import asyncio
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.backfill.market_info import MarketInfo, ask_with_retry
from lakewriter.backfill.plan import days_between
from lakewriter.backfill.rest_fill import YOUNG_MS
from lakewriter.binance.archive import ArchiveError
from lakewriter.binance.archive_csv import parse_csv, unzip
from lakewriter.binance.archive_files import DAILY_INTERVALS, ArchiveFile, Period
from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import INVALID_SYMBOL, RestError
from lakewriter.candle import Candle, to_table
from lakewriter.clock import Clock
from lakewriter.series import Series

# Files fetched at once for one range.
_DOWNLOADS = 8


class ArchivePublisher:
    """The archive: a day's file where there are such, for it is the more truthful one.

    Args:
        clients: the markets.
        clock: stamps the candles.
    """

    def __init__(self, clients: MarketClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._listed: dict[Series, dict[date, int]] = {}
        self._free = asyncio.Semaphore(_DOWNLOADS)

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        """Return what files hold of the candles that begin in a range; None if there is no file of it.

        Raises:
            ArchiveError, CsvError: if a file cannot be had or read.
        """
        period: Period = "daily" if series.interval in DAILY_INTERVALS else "monthly"
        if series not in self._listed:
            archive = self._clients[series.market].archive
            self._listed = {series: await ask_with_retry(lambda: archive.files(series, period))}
        wanted = {day if period == "daily" else day.replace(day=1) for day in days_between(start_ms, stop_ms)}
        files = [ArchiveFile(series, period, day) for day in sorted(wanted & self._listed[series].keys())]
        tables = [table for table in await asyncio.gather(*map(self._read, files)) if table is not None]
        if not tables:
            return None
        table = pa.concat_tables(tables)
        begins = table["candle_begin_time"].cast(pa.int64())
        return table.filter(pc.and_(pc.greater_equal(begins, start_ms), pc.less(begins, stop_ms)))

    async def _read(self, file: ArchiveFile) -> pa.Table | None:
        archive = self._clients[file.series.market].archive
        async with self._free:
            try:
                data = await ask_with_retry(lambda: archive.fetch(file))
            except ArchiveError as error:
                if error.fault == "absent":
                    return None  # listed, and taken away
                raise
            return await asyncio.to_thread(self._parse, data, file)

    def _parse(self, data: bytes, file: ArchiveFile) -> pa.Table:
        text = unzip(data, file.name, file.csv_bytes_max)
        return parse_csv(text, file.series, self._clock.wall_us(), file.name)


class RestPublisher:
    """REST.

    Args:
        clients: the markets.
        clock: for waiting.
    """

    def __init__(self, clients: MarketClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._views: dict[str, MarketInfo] = {}

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        """Return what REST has of the candles that begin in a range and have settled; None if it has none.

        Raises:
            RestError: if it does not answer.
        """
        view = self._views.get(series.market)
        if view is None:
            view = self._views[series.market] = MarketInfo(self._clients[series.market], self._clock)
        await view.sync_time()
        rest, settled_ms = view.client.rest, view.client.time.now_ms() - YOUNG_MS
        found: list[Candle] = []
        while start_ms < stop_ms:
            try:
                page = await ask_with_retry(partial(rest.oldest, series, start_ms, stop_ms, background=True))
            except RestError as error:
                if error.code != INVALID_SYMBOL:
                    raise
                break  # the market does not list it any more: nothing is published
            found += [candle for candle in page.candles if candle.end_ms <= settled_ms]
            start_ms = page.answered_ms
        return to_table(found) if found else None
