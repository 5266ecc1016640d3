"""Connections by the library websockets, directly or through a proxy."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.uri import parse_uri

from lakewriter.binance.frame_connection import FRAME_BYTES_MAX, WRITE_BYTES_MAX, unread_error
from lakewriter.binance.handshake_errors import handshake_error
from lakewriter.binance.network import HAPPY_EYEBALLS_S, Proxy, connected_socket
from lakewriter.errors import ExchangeError


class _Connect(connect):
    """A connection attempt that follows no redirect, like the REST client."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error, because a redirect is not followed."""
        return exc


class _Connection(ClientConnection):
    """A connection that aborts if its peer does not read, instead of buffering without a limit."""

    unread = False

    def pause_writing(self) -> None:
        """Abort the connection; a wait for the peer could delay its close indefinitely."""
        super().pause_writing()
        self.unread = True
        # Abort later, because the other pongs of this read are not written yet.
        self.loop.call_soon(self.transport.abort)


class WebsocketsConnection:
    """A `FrameConnection`. `connect_websockets` creates it."""

    def __init__(self, connection: _Connection) -> None:
        self.frames = 0
        self.skip: Callable[[bytes], bool] | None = None
        self._connection = connection
        self._reason: ExchangeError | None = None

    async def receive(self) -> bytes:
        """Return the next message."""
        try:
            while True:
                frame = await self._connection.recv(decode=False)
                self.frames += 1
                if self.skip is None or not self.skip(frame):
                    return frame
        except ConnectionClosed:
            if self._reason is not None:
                raise self._reason from None
            if self._connection.unread:
                raise unread_error() from None
            raise

    async def send(self, message: str) -> None:
        """Send a message."""
        await self._connection.send(message)

    async def ping(self) -> "asyncio.Future[Any]":
        """Send a ping; return the future of its pong."""
        return cast("asyncio.Future[Any]", await self._connection.ping())

    def abort(self, reason: ExchangeError) -> None:
        """Give the connection up without a closing handshake."""
        if self._reason is None:
            self._reason = reason
            self._connection.transport.abort()

    async def close(self, code: int) -> None:
        """Close the connection with a code."""
        await self._connection.close(code)


async def connect_websockets(
    url: str, proxy: Proxy | None, open_s: float, close_s: float
) -> WebsocketsConnection:
    """Open a connection.

    Raises:
        HandshakeRefusedError: if the server refuses the handshake.
        Exception: if the connection fails for another reason.
    """
    try:
        connection = await _Connect(
            url,
            **await _way(url, proxy, open_s),
            open_timeout=open_s,
            close_timeout=close_s,
            ping_interval=None,  # `close_when_silent` pings, and knows when reading is paused
            max_size=FRAME_BYTES_MAX,
            write_limit=WRITE_BYTES_MAX,
            compression=None,
            user_agent_header=None,
            create_connection=_Connection,
        )
    except InvalidStatus as error:
        status, headers = error.response.status_code, error.response.headers
        raise handshake_error(status, _first(headers, "Retry-After"), _first(headers, "Location")) from None
    return WebsocketsConnection(cast("_Connection", connection))


def _first(headers: Headers, name: str) -> str | None:
    """Return the value of a header, or the first of several, for which `Headers.get` would raise."""
    return next(iter(headers.get_all(name)), None)


async def _way(url: str, proxy: Proxy | None, open_s: float) -> dict[str, Any]:
    """Return the arguments of `connect` for the way to a server: a connected socket, or a proxy."""
    if proxy is not None:
        # uvloop has no such argument. A recorder does not use it behind a proxy.
        is_asyncio = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
        return {"proxy": proxy.url, **({"happy_eyeballs_delay": HAPPY_EYEBALLS_S} if is_asyncio else {})}
    server = parse_uri(url)
    try:
        async with asyncio.timeout(open_s):
            return {"sock": await connected_socket(server.host, server.port)}
    except TimeoutError:
        raise TimeoutError("timed out during opening handshake") from None
