"""Probes of a market's endpoints: REST, the stream, the archive's list and its files.

Each probe uses the client that a recorder uses, with its proxy and its limits, and ends
within its time. It asks REST for the time, the stream for one frame, the list for one
series, and the archive for one small file.
"""

import asyncio
import socket
from contextlib import suppress
from datetime import date
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.binance.connection_cause import Place, cause_of, status_cause
from lakewriter.binance.market_clients import MarketClient
from lakewriter.binance.network import Network, proxy_of
from lakewriter.binance.socket import CONNECTION_ERRORS, Timeouts, open_socket
from lakewriter.binance.wire import Other, decode, stream_name
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import LakewriterError, UsageError, without_passwords
from lakewriter.interval import INTERVALS
from lakewriter.series import Series

# Probed first of an archive: a month that each market has had for years.
_MONTH = date(2024, 6, 1)

_FAULTS = (*CONNECTION_ERRORS, LakewriterError, aiohttp.ClientError, ValueError)


class Reached(NamedTuple):
    """The result of a probe.

    Args:
        url: the endpoint.
        via: the proxy as scheme://host:port, or "" without one.
        what: what answered, or the fault.
        place: the place of the fault; None if the endpoint answered.
        seconds: the duration until the answer or the fault.
        ahead_ms: how far the exchange's time is ahead of the host's; None if it is unknown.
    """

    url: str
    via: str
    what: str
    place: Place | None = None
    seconds: float = 0.0
    ahead_ms: float | None = None


async def probe_rest(client: MarketClient, clock: Clock, timeout_s: float) -> Reached:
    """Ask REST for its time. During a block by the exchange nothing is asked."""
    url = client.market.rest_url
    blocked_s = await client.pool.blocked_s()
    if blocked_s > 0:
        return Reached(url, via(url), f"the exchange wants a pause of {blocked_s:.0f} s more", "http")
    began_s = clock.monotonic_s()
    try:
        async with asyncio.timeout(timeout_s):
            await _resolve(url, timeout_s)
            moment = await client.rest.server_time()
    except _FAULTS as error:
        return _failed(url, error, clock.monotonic_s() - began_s)
    now_s, wall_ms = clock.monotonic_s(), clock.wall_us() / 1000
    middle_s = (moment.asked_s + moment.answered_s) / 2
    ahead_ms = moment.server_ms - (wall_ms - (now_s - middle_s) * 1000)
    return Reached(url, via(url), "answers", None, moment.answered_s - moment.asked_s, ahead_ms)


async def probe_stream(client: MarketClient, symbol: str, clock: Clock, timeout_s: float) -> Reached:
    """Open a connection, subscribe to one series, and wait for a frame of it."""
    url = client.market.stream_url
    began_s = clock.monotonic_s()
    connected_s: float | None = None
    try:
        async with asyncio.timeout(timeout_s):
            await _resolve(url, timeout_s)
            await client.gate.acquire()
            async with open_socket(client.market, Timeouts(open_s=timeout_s), clock) as connection:
                connected_s = clock.monotonic_s() - began_s
                connection.set_streams({stream_name(symbol, INTERVALS["1m"])})
                while True:
                    message = decode(await connection.receive(), client.market.name, clock.wall_us())
                    if isinstance(message, Candle | Other):
                        return Reached(url, via(url), f"sends {symbol} 1m", None, connected_s)
    except _FAULTS as error:
        if connected_s is not None and isinstance(error, TimeoutError):
            words = f"connected, but sent nothing of {symbol} 1m within {timeout_s:.0f} s"
            return Reached(url, via(url), words, "silent", timeout_s)
        return _failed(url, error, clock.monotonic_s() - began_s)


async def probe_archive_list(client: MarketClient, symbol: str, clock: Clock, timeout_s: float) -> Reached:
    """Fetch the list of one series' monthly files."""
    url = client.market.archive_list_url
    began_s = clock.monotonic_s()
    try:
        async with asyncio.timeout(timeout_s):
            await _resolve(url, timeout_s)
            sizes = await client.archive.files(Series(client.market.name, symbol, "1d"), "monthly")
    except _FAULTS as error:
        return _failed(url, error, clock.monotonic_s() - began_s)
    words = f"lists {len(sizes)} months of {symbol} 1d"
    return Reached(url, via(url), words, None, clock.monotonic_s() - began_s)


async def probe_archive(
    client: MarketClient, network: Network, symbol: str, clock: Clock, timeout_s: float
) -> Reached:
    """Ask for the checksum of one file. That the archive does not have the file is an answer, too."""
    market = client.market
    path = ArchiveFile(Series(market.name, symbol, "1d"), "monthly", _MONTH).path
    began_s = clock.monotonic_s()
    try:
        async with asyncio.timeout(timeout_s):
            await _resolve(market.archive_url, timeout_s)
            url = f"{market.archive_url}{path}.CHECKSUM"
            async with network.get(url, allow_redirects=False) as answer:
                status = answer.status
    except _FAULTS as error:
        return _failed(market.archive_url, error, clock.monotonic_s() - began_s)
    took_s = clock.monotonic_s() - began_s
    if status in (200, 404):
        return Reached(market.archive_url, via(market.archive_url), "answers", None, took_s)
    cause = status_cause(status)
    return Reached(market.archive_url, via(market.archive_url), cause.what, cause.place, took_s)


async def _resolve(url: str, timeout_s: float) -> None:
    """Resolve the host of a URL, or of its proxy, to tell a silent resolver from a silent host.

    Raises:
        socket.gaierror: if the name is not known, or the resolver does not answer.
    """
    proxy = proxy_of(url)
    host = proxy.host if proxy is not None else host_of(url)
    try:
        async with asyncio.timeout(timeout_s / 2):
            await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "no resolver answers") from None


def via(url: str) -> str:
    """Return the proxy of a URL as scheme://host:port; "" without one, or with an invalid one."""
    with suppress(UsageError):
        proxy = proxy_of(url)
        return "" if proxy is None else f"{proxy.scheme}://{proxy.host}:{proxy.port}"
    return ""


def _failed(url: str, error: BaseException, seconds: float) -> Reached:
    status = getattr(error, "status", 0)
    if isinstance(status, int) and status >= 300:
        place, what = status_cause(status)
    elif isinstance(error, UsageError):
        place, what = "proxy", f"{error.what}; {error.hint}"
    else:
        place, what = cause_of(error)
    return Reached(url, via(url), without_passwords(what), place, seconds)


def host_of(url: str) -> str:
    """Return the host of a URL."""
    return urlsplit(url).hostname or ""
