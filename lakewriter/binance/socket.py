"""One WebSocket connection to a market, and its subscriptions.

Contract: while a `StreamSocket` is open, its subscriptions follow
`set_streams` within the market's limit of control messages. It closes itself
with a reason if the exchange refuses a subscription, does not answer, or falls
silent. The caller reads the frames, and decides whether to reconnect.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Set
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidUpgrade, WebSocketException
from websockets.frames import CloseCode

from lakewriter.binance.frame_connection import FrameConnection, StreamError
from lakewriter.binance.handshake_errors import TOO_MANY_SUBSCRIPTIONS, TooManyStreamsError
from lakewriter.binance.network import proxy_of
from lakewriter.binance.websockets_connection import connect_websockets
from lakewriter.binance.wire import Reply, encode_request, quoted
from lakewriter.clock import Clock
from lakewriter.errors import ExchangeError
from lakewriter.fast_packages import fast_package
from lakewriter.market import Market

# Maximum names in one SUBSCRIBE. USDⓈ-M acknowledged 200. spot accepted 436 names, but
# 437 names (about 8 kB) failed silently.
SUBSCRIBE_NAMES_MAX = 200
SUBSCRIBE_BYTES_MAX = 4096

# The errors of a connection: from the network, the protocol or the exchange.
CONNECTION_ERRORS = (OSError, TimeoutError, WebSocketException, ExchangeError)


class Timeouts(NamedTuple):
    """The timeouts of a connection, in seconds.

    Args:
        open_s: maximum duration of the handshake.
        reply_s: maximum wait for the answer to a control message.
        ping_after_s: time without a frame after which a ping is sent.
        pong_s: maximum wait for the answer to a ping.
        silent_s: maximum time without a frame, even if pings are answered.
        close_s: maximum duration of the closing handshake.
        prove_s: maximum time until each stream of a successor has sent a frame.
    """

    open_s: float = 10.0
    reply_s: float = 10.0
    ping_after_s: float = 20.0
    pong_s: float = 20.0
    silent_s: float = 300.0
    close_s: float = 2.0
    prove_s: float = 120.0


class _Request(NamedTuple):
    """A pending control message."""

    method: str
    names: list[str]
    reply: "asyncio.Future[Reply]"


class StreamSocket:
    """An open connection. `open_socket` creates it.

    Args:
        connection: the WebSocket connection.
        market: the market, with its limits.
        timeouts: the timeouts of the connection.
        clock: measures waits.

    Attributes:
        receive: coroutine function that returns the next frame, of the connection itself,
            because it is called for each frame. See `FrameConnection` for its errors.
        paused: whether reading is paused, because the queue is full.
    """

    def __init__(self, connection: FrameConnection, market: Market, timeouts: Timeouts, clock: Clock) -> None:
        self.receive = connection.receive
        self.paused = False
        self._connection = connection
        self._market = market
        self._timeouts = timeouts
        self._clock = clock
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._changed = asyncio.Event()
        self._requests = 0
        self._pending: dict[int, _Request] = {}

    @property
    def acknowledged(self) -> Set[str]:
        """The streams that the exchange acknowledged; they may be silent nevertheless."""
        return self._subscribed

    @property
    def frames(self) -> int:
        """The number of frames received so far."""
        return self._connection.frames

    def skip(self, skip: Callable[[bytes], bool]) -> None:
        """Count frames for which a function returns true, without returning them from `receive`."""
        self._connection.skip = skip

    def set_streams(self, streams: Iterable[str]) -> None:
        """Replace the wanted streams, which `sync_subscriptions` applies."""
        self._wanted = set(streams)
        self._changed.set()

    def take_reply(self, reply: Reply) -> None:
        """Match an answer with the pending control message that it answers."""
        if reply.error and reply.code == TOO_MANY_SUBSCRIPTIONS:
            self._connection.abort(TooManyStreamsError(reply.error, len(self._subscribed)))
            return
        if reply.id is None and reply.error:
            # An error without an id is about the connection.
            self._close("refused_streams", f"{reply.error} (code {reply.code})")
            return
        request = self._pending.get(reply.id or 0)
        if request is None or request.reply.done():
            return
        if not reply.error and request.method == "SUBSCRIBE":
            self._subscribed.update(request.names)
        elif not reply.error:
            self._subscribed.difference_update(request.names)
        request.reply.set_result(reply)

    async def sync_subscriptions(self) -> None:
        """Send control messages one by one until the subscriptions match; run until cancelled."""
        # Pings and pongs count too, so half of the limit is left to them.
        pause_s = 2.0 / self._market.messages_per_s
        while True:
            self._changed.clear()
            for method, names in self._pending_changes():
                await self._request(method, names)
                await asyncio.sleep(pause_s)
            await self._changed.wait()

    async def close_when_silent(self) -> None:
        """Close the connection when it is silent for too long; run until cancelled."""
        seen, since_s = self.frames, self._clock.monotonic_s()
        timeouts = self._timeouts
        while True:
            await asyncio.sleep(timeouts.ping_after_s)
            now_s = self._clock.monotonic_s()
            if self.frames != seen or self.paused or not self._subscribed:
                seen, since_s = self.frames, now_s
            elif now_s - since_s >= timeouts.silent_s:
                self._close("silent", f"no frame for {now_s - since_s:.0f} s")
            elif not await self._answers_ping():
                self._close("silent", f"no pong within {timeouts.pong_s:.0f} s")

    def on_keeper_end(self, keeper: "asyncio.Task[None]") -> None:
        """Close the connection if one of its background tasks ended by an error."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._close("broken", f"{type(error).__name__}: {error}")

    async def _answers_ping(self) -> bool:
        seen = self.frames
        try:
            pong = await self._connection.ping()
            async with asyncio.timeout(self._timeouts.pong_s):
                await pong
        except TimeoutError:
            # While reading is paused, pongs are not read either. A frame proves as much as a pong.
            return self.paused or self.frames != seen
        except ConnectionClosed:
            return True  # `receive` raises it
        return True

    def _pending_changes(self) -> list[tuple[str, list[str]]]:
        changes = [("UNSUBSCRIBE", batch) for batch in _batches(sorted(self._subscribed - self._wanted))]
        changes += [("SUBSCRIBE", batch) for batch in _batches(sorted(self._wanted - self._subscribed))]
        return changes

    async def _request(self, method: str, names: list[str]) -> None:
        self._requests += 1
        request_id = self._requests
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = _Request(method, names, waiting)
        try:
            await self._connection.send(encode_request(method, names, request_id))
            reply = await self._reply_to(waiting)
        except ConnectionClosed:
            return  # `receive` raises it
        finally:
            del self._pending[request_id]
        if reply is None:
            self._close("no_reply", f"no answer to {method} within {self._timeouts.reply_s:.0f} s")
        elif reply.error:
            self._close("refused_streams", f"{method} refused: {reply.error} (code {reply.code})")

    async def _reply_to(self, waiting: "asyncio.Future[Reply]") -> Reply | None:
        while True:
            # Not `wait_for`: before Python 3.12 it lost a cancellation that arrived with the answer.
            await asyncio.wait({waiting}, timeout=self._timeouts.reply_s)
            if waiting.done():
                return waiting.result()
            if not self.paused:
                return None

    def _close(self, kind: str, reason: str) -> None:
        # `receive` raises the reason. A dead peer needs no closing handshake.
        self._connection.abort(StreamError(kind, reason))


@contextlib.asynccontextmanager
async def open_socket(market: Market, timeouts: Timeouts, clock: Clock) -> AsyncIterator[StreamSocket]:
    """Open a connection to a market's combined streams; close it at the end of the context.

    Raises:
        HandshakeRefusedError: if the server refuses the handshake.
        CONNECTION_ERRORS: if the connection fails for another reason.
    """
    connection = await _connect(market, timeouts)
    code = CloseCode.INTERNAL_ERROR
    try:
        socket = StreamSocket(connection, market, timeouts, clock)
        keepers = [
            asyncio.create_task(socket.sync_subscriptions()),
            asyncio.create_task(socket.close_when_silent()),
        ]
        for keeper in keepers:
            keeper.add_done_callback(socket.on_keeper_end)
        try:
            yield socket
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        code = CloseCode.NORMAL_CLOSURE
    finally:
        await connection.close(code)


async def _connect(market: Market, timeouts: Timeouts) -> FrameConnection:
    """Open a connection; each failure is one of CONNECTION_ERRORS."""
    url, open_s, close_s = market.stream_url, timeouts.open_s, timeouts.close_s
    try:
        proxy = proxy_of(url)
        # picows knows no socks5h, so each proxy is left to websockets.
        if proxy is None and fast_package("picows") is not None:
            from lakewriter.binance.picows_connection import connect_picows  # noqa: PLC0415 - of an extra

            # picows refuses `Connection: keep-alive, Upgrade`, which is allowed. websockets accepts it.
            with contextlib.suppress(InvalidUpgrade):
                return await connect_picows(f"{url}/stream", open_s, close_s)
        return await connect_websockets(f"{url}/stream", proxy, open_s, close_s)
    except CONNECTION_ERRORS:
        raise
    except Exception as error:
        # Resolvers, proxies and TLS raise their own errors: about a port, a name, a package or a thread.
        raise ExchangeError(f"{url}: {type(error).__name__}: {quoted(str(error))}") from error


def _batches(names: list[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    batch_bytes = 0
    for name in names:
        name_bytes = len(name.encode()) + 3
        if batch and (len(batch) == SUBSCRIBE_NAMES_MAX or batch_bytes + name_bytes > SUBSCRIBE_BYTES_MAX):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(name)
        batch_bytes += name_bytes
    if batch:
        yield batch
