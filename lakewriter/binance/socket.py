"""One WebSocket connection to a market: subscribed to what is wanted, or closed.

Contract: while a `StreamSocket` is open, its subscriptions follow `want()`
within the market's limit of control messages, and it closes itself with a
reason when the exchange refuses one, does not answer, or falls silent.
Reading frames, and what to do when it closes, is the caller's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Set
from typing import NamedTuple, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from lakewriter.binance.handshake_errors import TOO_MANY_SUBSCRIPTIONS, TooManyStreamsError, refused
from lakewriter.binance.network import HAPPY_EYEBALLS_S, proxy_of
from lakewriter.binance.wire import Reply, encode_request, quoted
from lakewriter.clock import Clock
from lakewriter.errors import ExchangeError
from lakewriter.market import Market

# Frames above what `wire` reads still arrive, so that they are counted there
# instead of ending the connection.
_FRAME_BYTES_MAX = 16 * 1024 * 1024

# Names in one SUBSCRIBE: 200 were acknowledged on USDⓈ-M; on spot 437 names
# (some 8 kB) failed silently where 436 worked.
SUBSCRIBE_NAMES_MAX = 200
SUBSCRIBE_BYTES_MAX = 4096

# Bytes of ours that may wait for the peer. All names of 1,024 streams have some 30 kB;
# more waits only when the peer sends pings and reads no pong.
WRITE_BYTES_MAX = 128 * 1024

# What goes wrong with a connection: the network, the protocol, the exchange.
CONNECTION_ERRORS = (OSError, TimeoutError, WebSocketException, ExchangeError)


class Timeouts(NamedTuple):
    """How long a connection may take over what, in seconds.

    Args:
        open_s: the handshake.
        reply_s: an answer to a control message.
        ping_after_s: without any frame until we ask whether it still lives.
        pong_s: the answer to that.
        silent_s: without any frame, pings answered or not, until it is given up.
        close_s: the closing handshake.
        prove_s: a successor, until each of its streams has sent something.
    """

    open_s: float = 10.0
    reply_s: float = 10.0
    ping_after_s: float = 20.0
    pong_s: float = 20.0
    silent_s: float = 300.0
    close_s: float = 2.0
    prove_s: float = 120.0


class _Request(NamedTuple):
    """A control message that is not answered yet."""

    method: str
    names: list[str]
    reply: "asyncio.Future[Reply]"


class _Connect(connect):
    """Connects to the address it is given and to no other, as the REST client does."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error: a redirect is not followed."""
        return exc


class _Connection(ClientConnection):
    """Ends when its peer does not read, instead of keeping what it was to be sent."""

    unread = False

    def pause_writing(self) -> None:
        """Abort the connection. Waiting for the peer could hold up its closing for ever."""
        super().pause_writing()
        self.unread = True
        # Not at once: the other pongs of this read are still to be written.
        self.loop.call_soon(self.transport.abort)


class StreamSocket:
    """An open connection. Made by `open_socket`.

    Args:
        connection: the WebSocket connection.
        market: whose limits hold.
        patience: how long to wait for what.
        clock: for waiting.
    """

    def __init__(self, connection: _Connection, market: Market, patience: Timeouts, clock: Clock) -> None:
        self.frames = 0
        self.paused = False
        self._connection = connection
        self._market = market
        self._patience = patience
        self._clock = clock
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._changed = asyncio.Event()
        self._requests = 0
        self._pending: dict[int, _Request] = {}
        self._reason: ExchangeError | None = None

    @property
    def acknowledged(self) -> Set[str]:
        """The streams that the exchange says it sends. It proves nothing."""
        return self._subscribed

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            ExchangeError: if we closed the connection, with the reason.
            ConnectionClosed: if it closed otherwise.
        """
        try:
            frame = await self._connection.recv(decode=False)
        except ConnectionClosed:
            if self._reason is not None:
                raise self._reason from None
            if self._connection.unread:
                raise ExchangeError(f"the server reads nothing: {WRITE_BYTES_MAX} bytes wait") from None
            raise
        self.frames += 1
        return frame

    def want(self, streams: Iterable[str]) -> None:
        """Say what to be subscribed to from now on."""
        self._wanted = set(streams)
        self._changed.set()

    def reply(self, reply: Reply) -> None:
        """Hand back an answer to a control message that was among the frames."""
        if reply.error and reply.code == TOO_MANY_SUBSCRIPTIONS:
            self._end(TooManyStreamsError(reply.error, len(self._subscribed)))
            return
        if reply.id is None and reply.error:
            self._give_up(f"{reply.error} (code {reply.code})")  # it is about the connection
            return
        request = self._pending.get(reply.id or 0)
        if request is None or request.reply.done():
            return
        if not reply.error and request.method == "SUBSCRIBE":
            self._subscribed.update(request.names)
        elif not reply.error:
            self._subscribed.difference_update(request.names)
        request.reply.set_result(reply)

    async def keep_subscribed(self) -> None:
        """Follow what is wanted, one control message at a time; for ever."""
        # Pings and pongs count too: half of the allowance is left to them.
        pause_s = 2.0 / self._market.messages_per_s
        while True:
            self._changed.clear()
            for method, names in self._changes():
                await self._request(method, names)
                await asyncio.sleep(pause_s)
            await self._changed.wait()

    async def keep_watch(self) -> None:
        """Close the connection when it has been silent for too long; for ever."""
        seen, since_s = self.frames, self._clock.monotonic_s()
        patience = self._patience
        while True:
            await asyncio.sleep(patience.ping_after_s)
            now_s = self._clock.monotonic_s()
            if self.frames != seen or self.paused or not self._subscribed:
                seen, since_s = self.frames, now_s
            elif now_s - since_s >= patience.silent_s:
                self._give_up(f"no frame for {now_s - since_s:.0f} s")
            elif not await self._answers_ping():
                self._give_up(f"no pong within {patience.pong_s:.0f} s")

    def keeper_ended(self, keeper: "asyncio.Task[None]") -> None:
        """Close the connection if what keeps it in order ended by an error."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._give_up(f"{type(error).__name__}: {error}")

    async def _answers_ping(self) -> bool:
        seen = self.frames
        try:
            pong = await self._connection.ping()
            async with asyncio.timeout(self._patience.pong_s):
                await pong
        except TimeoutError:
            # While reading is paused no pong can be read either; and frames are as good as one.
            return self.paused or self.frames != seen
        except ConnectionClosed:
            return True  # whoever reads is told
        return True

    def _changes(self) -> list[tuple[str, list[str]]]:
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
            return  # whoever reads is told
        finally:
            del self._pending[request_id]
        if reply is None:
            self._give_up(f"no answer to {method} within {self._patience.reply_s:.0f} s")
        elif reply.error:
            self._give_up(f"{method} refused: {reply.error} (code {reply.code})")

    async def _reply_to(self, waiting: "asyncio.Future[Reply]") -> Reply | None:
        while True:
            # Not `wait_for`, which until Python 3.12 lost a cancellation that came with the answer.
            await asyncio.wait({waiting}, timeout=self._patience.reply_s)
            if waiting.done():
                return waiting.result()
            if not self.paused:
                return None

    def _give_up(self, reason: str) -> None:
        self._end(ExchangeError(reason))

    def _end(self, reason: ExchangeError) -> None:
        if self._reason is None:
            self._reason = reason
            # Whoever reads is told by the exception; a peer that is gone needs no goodbye.
            self._connection.transport.abort()


@contextlib.asynccontextmanager
async def open_socket(market: Market, patience: Timeouts, clock: Clock) -> AsyncIterator[StreamSocket]:
    """Connect to a market's combined streams; closed when left.

    Raises:
        RefusedError: if the handshake is answered with no.
        CONNECTION_ERRORS: if it cannot be had.
    """
    connection = await _connected(market, patience)
    async with connection:
        socket = StreamSocket(connection, market, patience, clock)
        keepers = [
            asyncio.create_task(socket.keep_subscribed()),
            asyncio.create_task(socket.keep_watch()),
        ]
        for keeper in keepers:
            keeper.add_done_callback(socket.keeper_ended)
        try:
            yield socket
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)


async def _connected(market: Market, patience: Timeouts) -> _Connection:
    """Return a new connection; each way in which it can fail is one of CONNECTION_ERRORS."""
    url = market.stream_url
    try:
        proxy = proxy_of(url)
        connection = await _Connect(
            f"{url}/stream",
            proxy=proxy.url if proxy is not None else None,
            happy_eyeballs_delay=HAPPY_EYEBALLS_S,
            open_timeout=patience.open_s,
            close_timeout=patience.close_s,
            ping_interval=None,  # `keep_watch` pings, and knows when we do not read
            max_size=_FRAME_BYTES_MAX,
            write_limit=WRITE_BYTES_MAX,
            compression=None,
            user_agent_header=None,
            create_connection=_Connection,
        )
    except InvalidStatus as error:
        headers = error.response.headers
        raise refused(
            error.response.status_code, headers.get("Retry-After"), headers.get("Location")
        ) from None
    except CONNECTION_ERRORS:
        raise
    except Exception as error:
        # Resolvers, proxies and TLS have errors of their own: of a port, a name, a package, a thread.
        raise ExchangeError(f"{url}: {type(error).__name__}: {quoted(str(error))}") from error
    return cast("_Connection", connection)


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
