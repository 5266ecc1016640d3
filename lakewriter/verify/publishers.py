"""The publishers of candles: the archive and REST.

Both implement `compare_published.Publisher`.
"""

import asyncio
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.backfill.market_info import MarketInfo, ask_with_retry
from lakewriter.backfill.plan import YOUNG_MS, days_between
from lakewriter.binance.archive import ArchiveError
from lakewriter.binance.archive_csv import parse_csv, unzip
from lakewriter.binance.archive_files import DAILY_INTERVALS, ArchiveFile, Period
from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import INVALID_SYMBOL, RestError
from lakewriter.candle import Candle, to_table
from lakewriter.clock import Clock
from lakewriter.series import Series

# The number of concurrent downloads.
_DOWNLOADS = 8


class ArchivePublisher:
    """Publishes the archive's candles, preferably from daily files, which have fewer errors.

    Args:
        clients: the clients of the markets.
        clock: the source of the candles' receive time.
    """

    def __init__(self, clients: MarketClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._listed: dict[Series, dict[date, int]] = {}
        self._downloads = asyncio.Semaphore(_DOWNLOADS)

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        """Return the files' candles that begin in a range; None for a range without files.

        Raises:
            ArchiveError, CsvError: if a file cannot be fetched or read.
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
        async with self._downloads:
            try:
                data = await ask_with_retry(lambda: archive.fetch(file))
            except ArchiveError as error:
                if error.fault == "absent":
                    return None  # removed after it was listed
                raise
            return await asyncio.to_thread(self._parse, data, file)

    def _parse(self, data: bytes, file: ArchiveFile) -> pa.Table:
        text = unzip(data, file.name, file.csv_bytes_max).text
        return parse_csv(text, file.series, self._clock.wall_us(), file.name)


class RestPublisher:
    """Publishes REST's candles.

    Args:
        clients: the clients of the markets.
        clock: the clock for the age of the exchange's time.
    """

    def __init__(self, clients: MarketClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._market_infos: dict[str, MarketInfo] = {}

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        """Return REST's settled candles that begin in a range; None without candles.

        Raises:
            RestError: if REST does not answer.
        """
        market_info = self._market_infos.get(series.market)
        if market_info is None:
            market_info = self._market_infos[series.market] = MarketInfo(
                self._clients[series.market], self._clock
            )
        await market_info.sync_time()
        rest, settled_ms = market_info.client.rest, market_info.client.time.now_ms() - YOUNG_MS
        candles: list[Candle] = []
        while start_ms < stop_ms:
            try:
                page = await ask_with_retry(partial(rest.oldest, series, start_ms, stop_ms, background=True))
            except RestError as error:
                if error.code != INVALID_SYMBOL:
                    raise
                break  # the market no longer lists it, so REST has no candles
            candles += [candle for candle in page.candles if candle.end_ms <= settled_ms]
            start_ms = page.answered_ms
        return to_table(candles) if candles else None
