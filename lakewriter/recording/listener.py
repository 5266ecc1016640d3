"""Listening: from a market's sockets to a queue of closed candles.

Contract: every closed candle of the wanted series that arrives on a socket is
put on the queue, in the order of its connection, and none is dropped: when
the queue is full, the sockets are not read. A connection that fails is made
again, for ever. What arrives while there is no connection is not seen here;
finding such gaps is not this module's.
"""

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Iterable

import msgspec

from lakewriter.binance import wire
from lakewriter.binance.socket import CONNECTION_ERRORS, Patience, StreamSocket, open_socket
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import ExchangeError, FrameError, UsageError
from lakewriter.interval import Interval, parse_interval
from lakewriter.market import Market, parse_market, parse_symbol

log = logging.getLogger(__name__)

# Reconnecting: full jitter under a doubling ceiling. At the ceiling of 30 s a
# connection tries 20 times in 5 minutes; spot allows 300 for all of them.
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0

# A connection that lived this long was a good one: start over gently.
GOOD_AFTER_S = 30.0

# A full queue is said once, and again only if it is full that much later.
FULL_LOG_EVERY_S = 60.0

# Of one kind of bad frame the first is logged, then every so many.
BAD_FRAME_LOG_EVERY = 1000


class ListenerStats(msgspec.Struct):
    """What a listener has seen since it was made.

    Args:
        candles: closed candles put on the queue.
        connections: sockets open now.
        reconnects: connections that ended and were made again.
        bad_frames: frames that could not be read, by kind.
        frames_closed: frames of connections that have ended.
    """

    candles: int = 0
    connections: int = 0
    reconnects: int = 0
    bad_frames: Counter[str] = msgspec.field(default_factory=Counter)
    frames_closed: int = 0


class _Shard:
    """The symbols that share one connection."""

    def __init__(self) -> None:
        self.symbols: set[str] = set()
        self.socket: StreamSocket | None = None


class CandleListener:
    """Listens to closed candles of some symbols of one market and interval.

    Args:
        market: a market or its name.
        symbols: symbols to begin with.
        interval: the interval's name.
        queue: bounded; where the candles go.
        patience: how long a connection may take over what.
        clock: stamps `recv_us`.
        backoff_max_s: the longest wait before a reconnect.

    Raises:
        UsageError: if the exchange has no such market, interval or symbol.
    """

    def __init__(
        self,
        market: Market | str,
        symbols: Iterable[str],
        interval: str,
        queue: "asyncio.Queue[Candle]",
        *,
        patience: Patience | None = None,
        clock: Clock | None = None,
        backoff_max_s: float = BACKOFF_MAX_S,
    ) -> None:
        self.market = parse_market(market) if isinstance(market, str) else market
        self.interval: Interval = parse_interval(interval)
        if self.interval.name not in self.market.intervals:
            raise UsageError(f"interval: {self.market.name} has no {self.interval.name} candles")
        self.stats = ListenerStats()
        # Read from a socket when `run` was cancelled, and no room on the queue: at
        # most one a connection. Whoever cancels puts them there.
        self.unsent: list[Candle] = []
        self._queue = queue
        self._patience = patience or Patience()
        self._clock = clock or Clock()
        self._backoff_max_s = backoff_max_s
        self._told_full_s = -math.inf
        self._shards: list[_Shard] = []
        self._grown = asyncio.Event()
        self.add_symbols(*symbols)

    @property
    def symbols(self) -> list[str]:
        """The symbols listened to now, sorted."""
        return sorted(symbol for shard in self._shards for symbol in shard.symbols)

    @property
    def frames(self) -> int:
        """Frames received so far."""
        return self.stats.frames_closed + sum(shard.socket.frames for shard in self._shards if shard.socket)

    def add_symbols(self, *symbols: str) -> None:
        """Listen to these too, from now on; other streams are not touched.

        Raises:
            UsageError: if one of them cannot be a symbol; none is added.
        """
        checked = [parse_symbol(symbol) for symbol in symbols]
        present = set(self.symbols)
        for symbol in checked:
            if symbol not in present:
                present.add(symbol)
                self._roomy_shard().symbols.add(symbol)
        self._tell_sockets()
        self._grown.set()

    def remove_symbols(self, *symbols: str) -> None:
        """Stop listening to these; those that nobody listens to are passed over."""
        gone = {parse_symbol(symbol) for symbol in symbols}
        for shard in self._shards:
            shard.symbols -= gone
        self._tell_sockets()

    async def run(self) -> None:
        """Listen until cancelled."""
        tasks: set[asyncio.Task[None]] = set()
        started = 0
        try:
            while True:
                self._grown.clear()
                for shard in self._shards[started:]:
                    tasks.add(asyncio.create_task(self._listen(shard)))
                started = len(self._shards)
                grown = asyncio.create_task(self._grown.wait())
                try:
                    done, _ = await asyncio.wait({grown, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    grown.cancel()
                for task in done - {grown}:
                    task.result()  # a shard ends only by a bug: let it be seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _roomy_shard(self) -> _Shard:
        for shard in self._shards:
            if len(shard.symbols) < self.market.streams_max:
                return shard
        self._shards.append(_Shard())
        return self._shards[-1]

    def _streams(self, shard: _Shard) -> list[str]:
        return [wire.stream_name(symbol, self.interval) for symbol in shard.symbols]

    def _tell_sockets(self) -> None:
        for shard in self._shards:
            if shard.socket is not None:
                shard.socket.want(self._streams(shard))

    async def _listen(self, shard: _Shard) -> None:
        """Keep one connection for the shard's streams, for ever."""
        failures = 0
        while True:
            opened_s = self._clock.monotonic_s()
            try:
                await self._listen_once(shard)
            except CONNECTION_ERRORS as error:
                if self._clock.monotonic_s() - opened_s > GOOD_AFTER_S:
                    failures = 0
                ceiling_s = min(self._backoff_max_s, BACKOFF_FIRST_S * 2 ** min(failures, 16))
                delay_s = random.uniform(0.1, 1.0) * ceiling_s  # noqa: S311 - jitter
                failures += 1
                self.stats.reconnects += 1
                log.warning(
                    "%s %s: connection ended: %s; next try in %.1f s",
                    self.market.name,
                    self.interval.name,
                    wire.quoted(str(error) or type(error).__name__),
                    delay_s,
                )
                await asyncio.sleep(delay_s)

    async def _listen_once(self, shard: _Shard) -> None:
        async with open_socket(self.market, self._patience, self._clock) as socket:
            socket.want(self._streams(shard))
            shard.socket = socket
            self.stats.connections += 1
            log.info("%s %s: connected, %d streams", self.market.name, self.interval.name, len(shard.symbols))
            try:
                await self._receive(shard, socket)
            finally:
                shard.socket = None
                self.stats.connections -= 1
                self.stats.frames_closed += socket.frames

    async def _receive(self, shard: _Shard, socket: StreamSocket) -> None:
        # Nearly all frames are open candles: this loop is what a frame costs.
        receive, is_open_candle = socket.receive, wire.is_open_candle
        while True:
            frame = await receive()
            if not is_open_candle(frame):
                await self._take(frame, shard, socket)

    async def _take(self, frame: bytes, shard: _Shard, socket: StreamSocket) -> None:
        try:
            message = wire.decode(frame, self.market.name, self._clock.wall_us())
        except FrameError as error:
            self._count_bad(error.kind, str(error))
            return
        if isinstance(message, Candle):
            if message.symbol in shard.symbols and message.interval == self.interval.name:
                await self._put(message, socket)
            else:
                self._count_bad("stray", f"{message.symbol} {message.interval}, which nobody asked for")
        elif isinstance(message, wire.Reply):
            socket.reply(message)
        elif isinstance(message, wire.Shutdown):
            raise ExchangeError("the server announced its shutdown")

    async def _put(self, candle: Candle, socket: StreamSocket) -> None:
        try:
            self._queue.put_nowait(candle)
        except asyncio.QueueFull:
            socket.paused = True
            self._tell_full()
            try:
                await self._queue.put(candle)
            except asyncio.CancelledError:
                self.unsent.append(candle)
                raise
            finally:
                socket.paused = False
        self.stats.candles += 1

    def _tell_full(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._told_full_s >= FULL_LOG_EVERY_S:
            self._told_full_s = now_s
            log.warning(
                "%s %s: the journal is behind and the queue full; sockets are not read until it has caught up",
                self.market.name,
                self.interval.name,
            )

    def _count_bad(self, kind: str, what: str) -> None:
        self.stats.bad_frames[kind] += 1
        count = self.stats.bad_frames[kind]
        if count == 1 or count % BAD_FRAME_LOG_EVERY == 0:
            log.warning(
                "%s: passed over a bad frame (%s, %d so far): %s", self.market.name, kind, count, what
            )
