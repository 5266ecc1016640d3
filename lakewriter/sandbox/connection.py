"""One WebSocket connection to the sandbox: what was subscribed, and what is sent when.

Strategy: three tasks. The reader counts and answers what the client sends;
the pump sends frames, each when its stream says it is due; the pinger pings.
The pump walks each stream's grid candle by candle: it may be late, but skips
no closed candle. It awaits every send, so a client that reads slowly is
served late, and nobody else is.

It knows nothing of URLs, prices or files.
"""

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import WSMessage, WSMsgType, web

from lakewriter.market import MARKETS
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.cursor import Cursor
from lakewriter.sandbox.feed import Feeds
from lakewriter.sandbox.protocol import (
    ACCENTS,
    INVALID_REQUEST,
    NOT_BOOLEAN,
    TOO_MANY_SUBSCRIPTIONS,
    UNKNOWN_PROPERTY,
    Refusal,
    Request,
    parse_request,
    refusal,
    result,
)

# The exchange's close code for whoever breaks a limit.
POLICY_VIOLATION = 1008

# How often a stalled connection looks whether its client is still there.
_LOOK_EVERY_S = 0.1

# Frames sent before everybody else gets a turn.
_TURN = 32


class Shared(NamedTuple):
    """What all connections of one market share.

    Args:
        feeds: its streams.
        open_gate: set while anything may be sent.
        violations: broken limits, by kind.
        muted: symbols whose frames are lost.
        push_every_ms: real time between frames of an open candle; 0 for none.
        ping_every_s: real time between pings.
        recording: (real seconds, frame) to send instead of candles; None for candles.
    """

    market: str
    feeds: Feeds
    clock: SimClock
    open_gate: asyncio.Event
    violations: Counter[str]
    muted: set[str]
    push_every_ms: float
    ping_every_s: float
    recording: list[tuple[float, bytes]] | None


class Connection:
    """Serve one client until it goes, or breaks a limit.

    Args:
        silent: accept everything and send no candle, as on a wrong route.
        names: the streams of the URL.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        shared: Shared,
        *,
        combined: bool,
        silent: bool,
        names: list[str],
    ) -> None:
        self.ended = asyncio.Event()
        self.replayed = 0
        self._socket = socket
        self._transport = transport
        self._shared = shared
        self._combined = combined
        self._silent = silent
        self._names = names
        self._cursors: dict[str, Cursor | None] = {}
        self._due: list[tuple[int, int, Cursor]] = []
        self._planned = 0
        self._changed = asyncio.Event()
        self._arrivals: deque[float] = deque()
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
        return len(self._cursors)

    async def send(self, data: str | bytes) -> None:
        """Send one text frame now, or when sending is allowed again."""
        await self._allowed()
        await self._socket.send_frame(data.encode() if isinstance(data, str) else data, WSMsgType.TEXT)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """End the connection in order, with a close code."""
        await self._socket.close(code=code, message=reason.encode())

    async def _allowed(self) -> None:
        # Whoever leaves during a stall is noticed soon, not when it is over.
        while not self._shared.open_gate.is_set():
            if self._transport.is_closing():
                raise ConnectionResetError
            await _within(self._shared.open_gate.wait, _LOOK_EVERY_S)

    async def _serve(self) -> None:
        if not await self._subscribe(self._names):
            return
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if not self._within_rate():
                await self._expel("messages", "Too many requests")
                return
            if not await self._answer(message):
                return

    async def _answer(self, message: WSMessage) -> bool:
        if message.type == WSMsgType.PING:
            await self._allowed()
            await self._socket.pong(message.data)
        elif message.type == WSMsgType.PONG:
            if self._pinged and bytes(message.data) == self._pinged[1]:
                self._pinged = None
        else:
            text = message.data if message.type == WSMsgType.TEXT else message.data.decode(errors="replace")
            request = parse_request(text, self._shared.market)
            if isinstance(request, Refusal):
                await self._refuse(request)
                return True
            return await self._obey(request)
        return True

    async def _obey(self, request: Request) -> bool:
        if request.method == "SUBSCRIBE":
            fitting = self._fits(request.params)
            if fitting:
                await self.send(result(request.id))
            return await self._subscribe(request.params)
        if request.method == "UNSUBSCRIBE":
            for name in request.params:
                cursor = self._cursors.pop(name, None)
                if cursor is not None:
                    cursor.live = False
            await self.send(result(request.id))
        elif request.method == "LIST_SUBSCRIPTIONS":
            await self.send(result(request.id, list(self._cursors)))
        else:
            await self._property(request)
        return True

    async def _property(self, request: Request) -> None:
        setting = request.method == "SET_PROPERTY"
        if len(request.params) != 1 + setting:
            await self._refuse(
                Refusal(INVALID_REQUEST, "Invalid request: wrong number of params", request.id)
            )
        elif request.params[0] != "combined":
            await self._refuse(Refusal(UNKNOWN_PROPERTY, "Unknown property", request.id))
        elif setting and not isinstance(request.params[1], bool):
            await self._refuse(Refusal(NOT_BOOLEAN, "Invalid value type: expected Boolean", request.id))
        elif setting:
            self._combined = request.params[1]
            await self.send(result(request.id))
        else:
            await self.send(result(request.id, self._combined))

    async def _refuse(self, reason: Refusal) -> None:
        await self.send(refusal(self._shared.market, reason))

    def _fits(self, names: list[str]) -> bool:
        return len({*self._cursors, *names}) <= ACCENTS[self._shared.market].streams_max

    async def _subscribe(self, names: list[str]) -> bool:
        if not self._fits(names):
            await self._refuse(Refusal(TOO_MANY_SUBSCRIPTIONS, "Too many subscriptions", None))
            await self._expel("streams", "Invalid request")
            return False
        now_ms = self._shared.clock.now_ms()
        for name in names:
            if name not in self._cursors:
                feed = None if self._silent else self._shared.feeds.find(name)
                self._cursors[name] = None if feed is None else Cursor(feed, now_ms)
                self._plan(self._cursors[name], now_ms)
        self._changed.set()
        return True

    def _plan(self, cursor: Cursor | None, now_ms: int) -> None:
        if cursor is not None:
            every_ms = self._shared.push_every_ms * self._shared.clock.speed
            push_ms = max(1, round(every_ms)) if every_ms else 0
            self._planned += 1
            heapq.heappush(self._due, (cursor.plan(now_ms, push_ms), self._planned, cursor))

    async def _pump(self) -> None:
        clock = self._shared.clock
        sent = 0
        while True:
            self._changed.clear()
            while self._due and self._due[0][0] <= clock.now_ms():
                await self._allowed()
                cursor = heapq.heappop(self._due)[2]
                if not cursor.live:
                    continue
                frame = cursor.take()
                self._plan(cursor, clock.now_ms())
                if cursor.feed.spec.symbol in self._shared.muted:
                    continue
                await self.send(frame.combined if self._combined else frame.raw)
                sent += 1
                if sent % _TURN == 0:
                    await asyncio.sleep(0)
            wait_s = clock.real_s_until(self._due[0][0]) if self._due else None
            await _within(self._changed.wait, wait_s)

    async def _replay(self) -> None:
        while not self._cursors:
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
        pong_within_s = ACCENTS[self._shared.market].pong_within_s
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

    def _within_rate(self) -> bool:
        now_s = self._shared.clock.real_s()
        self._arrivals.append(now_s)
        while self._arrivals[0] <= now_s - 1:
            self._arrivals.popleft()
        return len(self._arrivals) <= MARKETS[self._shared.market].messages_per_s

    async def _expel(self, kind: str, reason: str) -> None:
        self._shared.violations[kind] += 1
        await self.close(POLICY_VIOLATION, reason)


async def _within(wait: Callable[[], Awaitable[object]], seconds: float | None) -> None:
    """Wait, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await wait()
    except TimeoutError:
        pass
