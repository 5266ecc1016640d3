"""One WebSocket connection to the sandbox: what was subscribed, and what is sent when.

Strategy: three tasks. The reader counts and answers what the client sends;
the pump sends frames, each when the schedule says it is due; the pinger
pings. The pump may be late, but skips no closed candle. It awaits every send,
so a client that reads slowly is served late, and nobody else is.

It knows nothing of URLs, prices or files.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import WSMessage, WSMsgType, web

from lakewriter.market import MARKETS
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.caller_limits import Messages
from lakewriter.sandbox.faults.table import Faults
from lakewriter.sandbox.streams.feed import Feeds
from lakewriter.sandbox.streams.protocol import (
    ACCENTS,
    CONTROL_BYTES_MAX,
    TOO_MANY_SUBSCRIPTIONS,
    Refusal,
    Request,
    answer_property,
    parse_request,
    refusal,
    result,
    shutdown_notice,
)
from lakewriter.sandbox.streams.schedule import Schedule
from lakewriter.sandbox.streams.subscriptions import Subscriptions
from lakewriter.sandbox.truth.catalogue import Catalogue

# The exchange's close codes: a server that leaves, a cut without a word, a broken limit.
GOING_AWAY, ABNORMAL, POLICY_VIOLATION = 1001, 1006, 1008

# How often a stalled connection looks whether its client is still there.
_LOOK_EVERY_S = 0.1

# Frames sent before everybody else gets a turn.
_TURN = 32


class MarketContext(NamedTuple):
    """What all connections of one market share.

    Args:
        feeds: its streams.
        catalogue: which candles exist.
        faults: what goes wrong.
        open_gate: set while anything may be sent.
        violations: broken limits, by kind.
        push_every_ms: real time between frames of an open candle; 0 for none.
        ping_every_s: real time between pings.
        recording: (real seconds, frame) to send instead of candles; None for candles.
    """

    market: str
    feeds: Feeds
    catalogue: Catalogue
    faults: Faults
    clock: SimClock
    open_gate: asyncio.Event
    violations: Counter[str]
    push_every_ms: float
    ping_every_s: float
    recording: list[tuple[float, bytes]] | None


class Connection:
    """Serve one client until it goes, or breaks a limit.

    Args:
        silent: accept everything and send no candle, as on a wrong route.
        names: the streams of the URL.

    Attributes:
        ended: set when it is over.
        opened_ms: when it began, in simulated time.
        leaving: whether it will be closed soon anyway.
        replayed: recorded frames sent.
        stalled: whether it is half open.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        shared: MarketContext,
        *,
        combined: bool,
        silent: bool,
        names: list[str],
    ) -> None:
        self.ended = asyncio.Event()
        self.market = shared.market
        self.opened_ms = shared.clock.now_ms()
        self.leaving = False
        self.replayed = 0
        self._socket = socket
        self._transport = transport
        self._shared = shared
        self._combined = combined
        self._names = names
        self.stalled = False
        every_ms = shared.push_every_ms * shared.clock.speed
        push_ms = max(1, round(every_ms)) if every_ms else 0
        self._schedule = Schedule(shared.catalogue, shared.faults, push_ms)
        self._subscribed = Subscriptions(
            shared.market,
            shared.feeds,
            shared.faults,
            self._schedule,
            silent=silent,
            opened_ms=self.opened_ms,
        )
        self._changed = asyncio.Event()
        self._messages = Messages()
        self._pinged: tuple[float, bytes] | None = None

    async def run(self) -> None:
        """Serve until the connection ends, for whatever reason."""
        pump = self._pump if self._shared.recording is None else self._replay
        tasks = [asyncio.create_task(job()) for job in (self._serve, pump, self._ping)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self.ended.set()
        for end in ends:
            # A client that is gone needs no answer; anything else is a bug of ours.
            if isinstance(end, Exception) and not isinstance(end, ConnectionResetError):
                raise end

    @property
    def streams(self) -> int:
        """How many streams are subscribed to and sent."""
        return len(self._subscribed)

    async def send(self, data: str | bytes) -> None:
        """Send one text frame now, or when sending is allowed again."""
        await self._allowed()
        await self._socket.send_frame(data.encode() if isinstance(data, str) else data, WSMsgType.TEXT)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._transport.abort()

    def stall(self) -> None:
        """Turn half open: stay, and never send anything again."""
        self.stalled = True

    async def announce_shutdown(self) -> None:
        """Say that the server will shut down."""
        await self.send(shutdown_notice(self._shared.clock.now_ms(), wrapped=self._combined))

    async def close(self, code: int, reason: str) -> None:
        """End the connection in order, with a close code; a half open one hears nothing of it."""
        if not self.stalled:
            await self._socket.close(code=code, message=reason.encode())

    async def _allowed(self) -> None:
        # Whoever leaves during a stall is noticed soon, not when it is over.
        while self.stalled or not self._shared.open_gate.is_set():
            await self._stay()
            await _within(self._shared.open_gate.wait, _LOOK_EVERY_S)

    async def _stay(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError
        if self.stalled:
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _serve(self) -> None:
        if not await self._subscribe(self._names):
            return
        while True:
            message = await self._socket.receive()
            while self.stalled:
                await self._stay()
            if message.type == WSMsgType.CLOSE:
                await self._socket.close(drain=False)
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if not (await self._within_rate() and await self._answer(message)):
                return

    async def _within_rate(self) -> bool:
        clock, most = self._shared.clock, MARKETS[self.market].messages_per_s
        arrived = self._messages.arrive(clock.real_s())
        fewer = self._shared.faults.active("fewer_messages", self.market, now_ms=clock.now_ms())
        if arrived <= (most if fewer is None else min(most, fewer.value)):
            return True
        await self._expel("messages" if arrived > most else "", "Too many requests")
        return False

    async def _answer(self, message: WSMessage) -> bool:
        if message.type == WSMsgType.PING:
            await self._allowed()
            await self._socket.pong(message.data)
        elif message.type == WSMsgType.PONG:
            if self._pinged and bytes(message.data) == self._pinged[1]:
                self._pinged = None
        else:
            return await self._answer_text(message.data)
        return True

    async def _answer_text(self, data: str | bytes) -> bool:
        content = data.encode(errors="replace") if isinstance(data, str) else data
        request = parse_request(content.decode(errors="replace"), self.market)
        if isinstance(request, Refusal):
            await self._refuse(request)
            return True
        return await self._obey(request, oversized=len(content) > CONTROL_BYTES_MAX)

    async def _obey(self, request: Request, *, oversized: bool) -> bool:
        if request.method == "SUBSCRIBE":
            lost = oversized or len(request.params) > ACCENTS[self.market].names_max
            if lost:
                self._shared.violations["subscribe_size"] += 1
            count = self._subscribed.count_with(request.params)
            if count <= self._subscribed.streams_max(self._shared.clock.now_ms()):
                await self.send(result(request.id))
            return await self._subscribe(request.params, lost=lost)
        if request.method == "UNSUBSCRIBE":
            self._subscribed.remove(request.params)
            await self.send(result(request.id))
        elif request.method == "LIST_SUBSCRIPTIONS":
            await self.send(result(request.id, self._subscribed.names()))
        else:
            text, self._combined = answer_property(self.market, request, combined=self._combined)
            await self.send(text)
        return True

    async def _refuse(self, reason: Refusal) -> None:
        await self.send(refusal(self.market, reason))

    async def _subscribe(self, names: list[str], *, lost: bool = False) -> bool:
        now_ms = self._shared.clock.now_ms()
        count = self._subscribed.count_with(names)
        if count > self._subscribed.streams_max(now_ms):
            await self._refuse(Refusal(TOO_MANY_SUBSCRIPTIONS, "Too many subscriptions", None))
            broken = count > ACCENTS[self.market].streams_max
            await self._expel("streams" if broken else "", "Invalid request")
            return False
        self._subscribed.add(names, now_ms, lost=lost)
        self._changed.set()
        return True

    async def _pump(self) -> None:
        clock = self._shared.clock
        sent = 0
        while True:
            self._changed.clear()
            next_ms = self._schedule.next_ms
            while next_ms is not None and next_ms <= clock.now_ms():
                await self._allowed()
                for frame in self._schedule.take(clock.now_ms()):
                    await self.send(frame.combined if self._combined else frame.raw)
                next_ms = self._schedule.next_ms
                sent += 1
                if sent % _TURN == 0:
                    await asyncio.sleep(0)
            wait_s = None if next_ms is None else clock.real_s_until(next_ms)
            await _within(self._changed.wait, wait_s)

    async def _replay(self) -> None:
        while not len(self._subscribed):
            self._changed.clear()
            await self._changed.wait()
        begun_s = self._shared.clock.real_s()
        for offset_s, frame in self._shared.recording or ():
            wait_s = begun_s + offset_s - self._shared.clock.real_s()
            await asyncio.sleep(max(0.0, wait_s))
            await self.send(frame)
            self.replayed += 1
        await asyncio.Event().wait()  # silent, but open

    async def _ping(self) -> None:
        pong_within_s = ACCENTS[self.market].pong_within_s
        while True:
            await asyncio.sleep(self._shared.ping_every_s)
            await self._allowed()
            now_s = self._shared.clock.real_s()
            if self._pinged is None:
                self._pinged = (now_s, str(self._shared.clock.now_ms()).encode())
            elif now_s - self._pinged[0] >= pong_within_s:
                self._shared.violations["pongs"] += 1
                await self.close(POLICY_VIOLATION, "Pong timeout")
                return
            await self._socket.ping(self._pinged[1])

    async def _expel(self, kind: str, reason: str) -> None:
        if kind:
            self._shared.violations[kind] += 1
        await self.close(POLICY_VIOLATION, reason)


async def _within(wait: Callable[[], Awaitable[object]], seconds: float | None) -> None:
    """Wait, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await wait()
    except TimeoutError:
        pass
