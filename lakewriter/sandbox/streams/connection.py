"""One WebSocket connection to the sandbox: its subscriptions, and the time of each frame.

Strategy: a connection has three tasks. The reader counts and answers messages of the
client. The pump sends each frame at its due time. The pinger sends pings. The pump may be
late, but never skips a closed candle. It awaits each send, so a slow client delays only its
own frames. The connection does not depend on URLs, prices or files.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import WSMessage, WSMsgType, web

from lakewriter.market import MARKETS
from lakewriter.sandbox.faults.caller_limits import MessageRate
from lakewriter.sandbox.streams.market_context import MarketContext
from lakewriter.sandbox.streams.protocol import (
    CONTROL_BYTES_MAX,
    DIALECTS,
    TOO_MANY_SUBSCRIPTIONS,
    Refusal,
    Request,
    answer_property,
    parse_request,
    refusal_text,
    result_text,
    shutdown_notice,
)
from lakewriter.sandbox.streams.schedule import Schedule
from lakewriter.sandbox.streams.subscriptions import Subscriptions

# The exchange's close codes for a leaving server, a cut without a close frame, and a broken limit.
GOING_AWAY, ABNORMAL, POLICY_VIOLATION = 1001, 1006, 1008

# The seconds between a stalled connection's checks that its client is still connected.
_CHECK_CLIENT_EVERY_S = 0.1

# The maximum frames that are sent before other tasks run.
_FRAMES_IN_A_TURN = 32


class Connection:
    """A connection, which ends when the client disconnects or breaks a limit.

    Args:
        socket, transport: the open WebSocket, and the TCP connection below it.
        context: the state that all connections of its market share.
        combined: whether each payload is sent with its stream's name.
        silent: whether to accept all subscriptions and send no candles, as on a wrong route.
        names: the names of the streams in the URL.

    Attributes:
        ended: set when the connection has ended.
        opened_ms: the simulated time of its opening.
        leaving: whether the connection will close soon.
        replayed: the number of recorded frames that were sent.
        stalled: whether the connection is half open.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        context: MarketContext,
        *,
        combined: bool,
        silent: bool,
        names: list[str],
    ) -> None:
        self.ended = asyncio.Event()
        self.market = context.market
        self.opened_ms = context.exchange.clock.now_ms()
        self.leaving = False
        self.replayed = 0
        self._socket = socket
        self._transport = transport
        self._context = context
        self._exchange = context.exchange
        self._combined = combined
        self._names = names
        self.stalled = False
        every_ms = context.push_every_ms * context.exchange.clock.speed
        push_ms = max(1, round(every_ms)) if every_ms else 0
        self._schedule = Schedule(context.catalogue, context.exchange.faults, push_ms)
        self._subscriptions = Subscriptions(
            context.market,
            context.feeds,
            context.exchange.faults,
            self._schedule,
            silent=silent,
            opened_ms=self.opened_ms,
        )
        self._changed = asyncio.Event()
        self._message_rate = MessageRate()
        self._unanswered_ping: tuple[float, bytes] | None = None

    async def run(self) -> None:
        """Serve the client until the connection ends."""
        pump = self._pump if self._context.recording is None else self._replay
        tasks = [asyncio.create_task(job()) for job in (self._read, pump, self._ping)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self.ended.set()
        for end in ends:
            # A disconnected client is no error. All other exceptions are bugs of the sandbox.
            if isinstance(end, Exception) and not isinstance(end, ConnectionResetError):
                raise end

    @property
    def streams(self) -> int:
        """The number of subscribed streams."""
        return len(self._subscriptions)

    async def send(self, data: str | bytes) -> None:
        """Send one text frame. Wait while sending is stopped."""
        await self._wait_for_gate()
        await self._socket.send_frame(data.encode() if isinstance(data, str) else data, WSMsgType.TEXT)

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        self._transport.abort()

    def stall(self) -> None:
        """Stop all sending, and keep the connection half open."""
        self.stalled = True

    async def announce_shutdown(self) -> None:
        """Send the notice that the server will shut down."""
        await self.send(shutdown_notice(self._exchange.clock.now_ms(), wrapped=self._combined))

    async def close(self, code: int, reason: str) -> None:
        """Close the connection with a close code. A half open connection sends nothing."""
        if not self.stalled:
            await self._socket.close(code=code, message=reason.encode())

    async def _wait_for_gate(self) -> None:
        # A client that disconnects during a stall must be detected before the stall ends.
        while self.stalled or not self._context.open_gate.is_set():
            await self._check_client()
            await _wait_at_most(self._context.open_gate.wait, _CHECK_CLIENT_EVERY_S)

    async def _check_client(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError
        if self.stalled:
            await asyncio.sleep(_CHECK_CLIENT_EVERY_S)

    async def _read(self) -> None:
        if not await self._subscribe(self._names):
            return
        while True:
            message = await self._socket.receive()
            while self.stalled:
                await self._check_client()
            if message.type == WSMsgType.CLOSE:
                await self._socket.close(drain=False)
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if not (await self._within_rate() and await self._answer(message)):
                return

    async def _within_rate(self) -> bool:
        clock, most = self._exchange.clock, MARKETS[self.market].messages_per_s
        arrived = self._message_rate.count(clock.real_s())
        fewer = self._exchange.faults.active("fewer_messages", self.market, now_ms=clock.now_ms())
        if arrived <= (most if fewer is None else min(most, fewer.value)):
            return True
        await self._close_for("messages" if arrived > most else "", "Too many requests")
        return False

    async def _answer(self, message: WSMessage) -> bool:
        if message.type == WSMsgType.PING:
            await self._wait_for_gate()
            await self._socket.pong(message.data)
        elif message.type == WSMsgType.PONG:
            if self._unanswered_ping and bytes(message.data) == self._unanswered_ping[1]:
                self._unanswered_ping = None
        else:
            return await self._answer_text(message.data)
        return True

    async def _answer_text(self, data: str | bytes) -> bool:
        content = data.encode(errors="replace") if isinstance(data, str) else data
        request = parse_request(content.decode(errors="replace"), self.market)
        if isinstance(request, Refusal):
            await self._refuse(request)
            return True
        return await self._answer_request(request, oversized=len(content) > CONTROL_BYTES_MAX)

    async def _answer_request(self, request: Request, *, oversized: bool) -> bool:
        if request.method == "SUBSCRIBE":
            silent = oversized or len(request.params) > DIALECTS[self.market].names_max
            if silent:
                self._exchange.violations["subscribe_size"] += 1
            count = self._subscriptions.count_with(request.params)
            if count <= self._subscriptions.streams_max(self._exchange.clock.now_ms()):
                await self.send(result_text(request.id))
            return await self._subscribe(request.params, silent=silent)
        if request.method == "UNSUBSCRIBE":
            self._subscriptions.remove(request.params)
            await self.send(result_text(request.id))
        elif request.method == "LIST_SUBSCRIPTIONS":
            await self.send(result_text(request.id, self._subscriptions.names()))
        else:
            text, self._combined = answer_property(self.market, request, combined=self._combined)
            await self.send(text)
        return True

    async def _refuse(self, reason: Refusal) -> None:
        await self.send(refusal_text(self.market, reason))

    async def _subscribe(self, names: list[str], *, silent: bool = False) -> bool:
        now_ms = self._exchange.clock.now_ms()
        count = self._subscriptions.count_with(names)
        if count > self._subscriptions.streams_max(now_ms):
            await self._refuse(Refusal(TOO_MANY_SUBSCRIPTIONS, "Too many subscriptions", None))
            broken = count > DIALECTS[self.market].streams_max
            await self._close_for("streams" if broken else "", "Invalid request")
            return False
        self._subscriptions.add(names, now_ms, silent=silent)
        self._changed.set()
        return True

    async def _pump(self) -> None:
        clock = self._exchange.clock
        sent = 0
        while True:
            self._changed.clear()
            next_ms = self._schedule.next_ms
            while next_ms is not None and next_ms <= clock.now_ms():
                await self._wait_for_gate()
                for frame in self._schedule.take(clock.now_ms()):
                    await self.send(frame.combined if self._combined else frame.raw)
                next_ms = self._schedule.next_ms
                sent += 1
                if sent % _FRAMES_IN_A_TURN == 0:
                    await asyncio.sleep(0)
            wait_s = None if next_ms is None else clock.real_s_until(next_ms)
            await _wait_at_most(self._changed.wait, wait_s)

    async def _replay(self) -> None:
        while not len(self._subscriptions):
            self._changed.clear()
            await self._changed.wait()
        begun_s = self._exchange.clock.real_s()
        for offset_s, frame in self._context.recording or ():
            wait_s = begun_s + offset_s - self._exchange.clock.real_s()
            await asyncio.sleep(max(0.0, wait_s))
            await self.send(frame)
            self.replayed += 1
        await asyncio.Event().wait()  # keep the connection open

    async def _ping(self) -> None:
        pong_within_s = DIALECTS[self.market].pong_within_s
        while True:
            await asyncio.sleep(self._context.ping_every_s)
            await self._wait_for_gate()
            now_s = self._exchange.clock.real_s()
            if self._unanswered_ping is None:
                self._unanswered_ping = (now_s, str(self._exchange.clock.now_ms()).encode())
            elif now_s - self._unanswered_ping[0] >= pong_within_s:
                self._exchange.violations["pongs"] += 1
                await self.close(POLICY_VIOLATION, "Pong timeout")
                return
            await self._socket.ping(self._unanswered_ping[1])

    async def _close_for(self, violation: str, reason: str) -> None:
        if violation:
            self._exchange.violations[violation] += 1
        await self.close(POLICY_VIOLATION, reason)


async def _wait_at_most(wait: Callable[[], Awaitable[object]], seconds: float | None) -> None:
    """Wait for at most these seconds; None waits without a limit."""
    try:
        async with asyncio.timeout(seconds):
            await wait()
    except TimeoutError:
        pass
