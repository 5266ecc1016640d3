"""The REST client of one market: klines, server time and exchangeInfo, within its weight budget.

Contract: a request is sent when the budget has room for it, and never during a
block. Each failure is a `RestError`, which knows whether a retry makes sense. The
client retries no request, because only the caller knows whether it is still needed.

Source: `GET <rest_path>/klines`, `/time`, `/exchangeInfo` of each market.
"""

import asyncio
from typing import NamedTuple

import aiohttp
import msgspec

from lakewriter.binance.instruments import ANSWER_BYTES_MAX, parse_instruments
from lakewriter.binance.kline_rows import decode_klines
from lakewriter.binance.network import Network
from lakewriter.binance.retry_after import retry_after_s
from lakewriter.binance.weight_pool import WeightPool
from lakewriter.binance.wire import quoted
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import ExchangeError
from lakewriter.instrument import Instrument
from lakewriter.market import Market
from lakewriter.series import Series
from lakewriter.timeline import Moment

TIMEOUT_S = 20.0

# spot's exchangeInfo has 17 MB.
_INSTRUMENTS_TIMEOUT_S = 60.0

# A page of 1,500 rows has about 250 kB.
_PAGE_BYTES_MAX = 4 * 1024 * 1024

# Seconds of the block after each status, unless Retry-After has a number.
# Source: 429 and 418 carry Retry-After. Bans last from 2 minutes to 3 days. The
# firewall sends 403; 451 is about the region.
BLOCK_S = {429: 60.0, 418: 120.0, 403: 60.0, 451: 300.0}

# The status of an answer whose rows cannot be candles.
_UNREADABLE = 200

# "Invalid symbol": the market does not list the symbol now.
INVALID_SYMBOL = -1121


class RestError(ExchangeError):
    """A request that failed.

    Args:
        what: the line to log.
        status: the HTTP status; 0 without an answer.
        code: the exchange's error code; 0 without a code.
    """

    def __init__(self, what: str, status: int = 0, code: int = 0) -> None:
        super().__init__(what)
        self.status = status
        self.code = code

    @property
    def is_unreadable(self) -> bool:
        """Whether the exchange answered with rows that cannot be read."""
        return self.status == _UNREADABLE

    @property
    def is_final(self) -> bool:
        """Whether a retry would get the same answer."""
        return 400 <= self.status < 500 and self.status not in (*BLOCK_S, 408) and self.code != -1003


class Page(NamedTuple):
    """The oldest candles of a range, ascending, and the begin time up to which they are complete."""

    candles: list[Candle]
    answered_ms: int


class _Time(msgspec.Struct):
    serverTime: int


class _RestErrorBody(msgspec.Struct):
    code: int = 0
    msg: str = ""


class RestClient:
    """The REST API of one market.

    Args:
        market: the market, with its endpoints and weights.
        session: the open HTTP session.
        pool: the market's weight pool, which all its users share.
        clock: stamps `recv_us` and the times of requests.

    Attributes:
        asked: number of requests so far.
    """

    def __init__(self, market: Market, session: Network, pool: WeightPool, clock: Clock) -> None:
        self.market = market
        self.asked = 0
        self._session = session
        self._pool = pool
        self._clock = clock

    async def klines(
        self, series: Series, start_ms: int, stop_ms: int, *, background: bool = False
    ) -> list[Candle]:
        """Fetch the exchange's candles that begin in the range, ascending; the last may be open.

        Args:
            start_ms, stop_ms: the range, of at most `market.klines_page` candles. Both
                bounds are always sent. Without one, coin_futures counts back from now.

        Raises:
            RestError: if the request fails.
        """
        count = series.grid.count(start_ms, stop_ms) + (series.interval == "3d")  # its grid is unknown here
        params = {
            "symbol": series.symbol,
            "interval": series.grid.wire_name,
            "startTime": str(start_ms),
            "endTime": str(stop_ms - 1),
            "limit": str(min(count, self.market.klines_max)),
        }
        weight = self.market.klines_weight(count)
        body = await self._get("klines", params, weight, background=background)
        return self._candles(body, series, start_ms, stop_ms)

    async def oldest(self, series: Series, start_ms: int, stop_ms: int, *, background: bool = False) -> Page:
        """Fetch the first page of a range of any length, at the minimum weight per row.

        If the exchange returns the oldest rows, it skips any number of candles that do
        not exist. If it counts back from the end, the range is shortened to one page.

        Raises:
            RestError: if the request fails.
        """
        grid, rows = series.grid, self.market.klines_page
        if self.market.range_ms_max is not None:
            stop_ms = min(stop_ms, start_ms + self.market.range_ms_max)
        if self.market.counts_back_from_end and grid.length_ms:
            stop_ms = min(stop_ms, start_ms + rows * grid.length_ms)
        params = {
            "symbol": series.symbol,
            "interval": grid.wire_name,
            "startTime": str(start_ms),
            "endTime": str(stop_ms - 1),
            "limit": str(rows),
        }
        body = await self._get("klines", params, self.market.klines_weight(rows), background=background)
        candles = self._candles(body, series, start_ms, stop_ms)
        # A short page does not prove that candles after its last row are absent. The
        # server may have omitted rows.
        onward = candles and not self.market.counts_back_from_end
        return Page(candles, candles[-1].end_ms if onward else stop_ms)

    async def first_begin(self, series: Series) -> int | None:
        """Fetch the begin time of the first candle of a series; return None if the exchange has no candle.

        Raises:
            RestError: if the request fails.
        """
        return await self._one_begin(series, {"startTime": "0"})

    async def last_begin(self, series: Series) -> int | None:
        """Fetch the begin time of the newest candle, open or closed; return None without any candle.

        Raises:
            RestError: if the request fails.
        """
        return await self._one_begin(series, {})

    async def _one_begin(self, series: Series, bound: dict[str, str]) -> int | None:
        params = {"symbol": series.symbol, "interval": series.grid.wire_name, "limit": "1", **bound}
        body = await self._get("klines", params, self.market.klines_weight(1))
        candles = self._candles(body, series, 0, 2**62)
        return candles[0].begin_ms if candles else None

    async def server_time(self) -> Moment:
        """Fetch the exchange's time.

        Raises:
            RestError: if the request fails.
        """
        await self._pool.acquire(1, background=False)
        asked_s = self._clock.monotonic_s()
        body = await self._ask("time", {}, TIMEOUT_S, _PAGE_BYTES_MAX)
        answered_s = self._clock.monotonic_s()
        try:
            return Moment(msgspec.json.decode(body, type=_Time).serverTime, asked_s, answered_s)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RestError(f"{self._url('time')}: {error}") from None

    async def instruments(self) -> list[Instrument]:
        """Fetch the market's instruments in order, without symbols that cannot be a directory.

        Raises:
            RestError: if the request fails.
        """
        await self._pool.acquire(self.market.exchange_info_weight, background=False)
        params = self.market.exchange_info_params
        body = await self._ask("exchangeInfo", params, _INSTRUMENTS_TIMEOUT_S, ANSWER_BYTES_MAX)
        try:
            return await asyncio.to_thread(parse_instruments, body, self.market)
        except ExchangeError as error:
            raise RestError(error.what) from None

    def _candles(self, body: bytes, series: Series, start_ms: int, stop_ms: int) -> list[Candle]:
        try:
            return decode_klines(body, series, start_ms, stop_ms, self._clock.wall_us())
        except ExchangeError as error:
            raise RestError(f"{series}: {error}", _UNREADABLE) from None

    def _url(self, call: str) -> str:
        return f"{self.market.rest_url}{self.market.rest_path}/{call}"

    async def _get(
        self, call: str, params: dict[str, str], weight: int, *, background: bool = False
    ) -> bytes:
        await self._pool.acquire(weight, background=background)
        return await self._ask(call, params, TIMEOUT_S, _PAGE_BYTES_MAX)

    async def _ask(self, call: str, params: dict[str, str], timeout_s: float, bytes_max: int) -> bytes:
        url = self._url(call)
        self.asked += 1
        asked_s = self._clock.monotonic_s()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.get(
                url, params=params, timeout=timeout, allow_redirects=False
            ) as answer:
                await self._note_answer(answer, asked_s)
                body = await _read(answer, bytes_max)
                if answer.status != 200:
                    raise _http_error(url, answer.status, body)
                return body
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise RestError(f"{url}: {quoted(str(error) or type(error).__name__)}") from None

    async def _note_answer(self, answer: aiohttp.ClientResponse, asked_s: float) -> None:
        used = answer.headers.get("x-mbx-used-weight-1m", "")
        is_number = used.isascii() and used.isdigit() and len(used) < 10
        block_s = BLOCK_S.get(answer.status)
        if block_s is not None:
            block_s = retry_after_s(answer.status, answer.headers.get("Retry-After")) or block_s
        await self._pool.note_answer(asked_s, int(used) if is_number else None, block_s)


async def _read(answer: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    parts = []
    size = 0
    async for part in answer.content.iter_chunked(1 << 16):
        size += len(part)
        if size > bytes_max:
            raise ValueError(f"an answer of more than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)


def _http_error(url: str, status: int, body: bytes) -> RestError:
    try:
        error = msgspec.json.decode(body, type=_RestErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = _RestErrorBody()
    words = f": {quoted(error.msg)} (code {error.code})" if error.code else ""
    return RestError(f"{url}: HTTP {status}{words}", status, error.code)
