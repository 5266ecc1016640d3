"""The listener: it puts closed candles from a market's sockets on a queue.

Contract: every closed candle of its series that arrives is put on the queue, in
the order of its connection. No candle is dropped: if the queue is full, the
sockets are not read. A connection that fails is always reopened. A connection
that has to be replaced stays open until its successor delivers. Candles that
close while no connection is open are not delivered; `recording.healing` finds them.
"""

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from lakewriter.binance.connect_limiter import ConnectGate
from lakewriter.binance.socket import Timeouts
from lakewriter.candle import Candle
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.errors import UsageError
from lakewriter.interval import HOUR_MS, Interval, parse_interval
from lakewriter.market import Market, parse_market, parse_symbol, served_at
from lakewriter.recording.listening.backoff import BACKOFF_MAX_S
from lakewriter.recording.listening.candle_sink import CandleSink, ListenerStats
from lakewriter.recording.listening.connection import ConnectionSettings
from lakewriter.recording.listening.shard import Shard
from lakewriter.series import Series

log = logging.getLogger(__name__)

# The exchange ends every connection at 24 hours.
ROTATE_AFTER_MS = 23 * HOUR_MS


class CandleListener:
    """A listener to closed candles of one market.

    Args:
        market: a market or its name.
        symbols: the first symbols.
        interval: the interval of these symbols, and of symbols added without an interval.
        queue: bounded; receives the candles.
        timeouts: the timeouts of a connection.
        clock: stamps `recv_us`.
        backoff_max_s: the maximum delay before a reconnect, unless the exchange requests a longer one.
        gate: limits connection attempts; all listeners to the same host share it.
        time: the exchange's time; it observes event times.
        rotate_after_ms: the maximum age of a connection, by the exchange's clock.
        exchange: URL of one server that offers all three markets, such as the sandbox.

    Raises:
        UsageError: if the exchange has no such market, interval or symbol, or
            `exchange` is not an http(s) URL.
    """

    def __init__(
        self,
        market: Market | str,
        symbols: Iterable[str],
        interval: str,
        queue: "asyncio.Queue[Candle]",
        *,
        timeouts: Timeouts | None = None,
        clock: Clock | None = None,
        backoff_max_s: float = BACKOFF_MAX_S,
        gate: ConnectGate | None = None,
        time: ExchangeTime | None = None,
        rotate_after_ms: float = ROTATE_AFTER_MS,
        exchange: str | None = None,
    ) -> None:
        clock = clock or Clock()
        self.market = parse_market(market) if isinstance(market, str) else market
        if exchange is not None:
            self.market = served_at(self.market, exchange)
        self.interval = self._interval(interval)
        self._settings = ConnectionSettings(
            market=self.market,
            timeouts=timeouts or Timeouts(),
            clock=clock,
            time=time or ExchangeTime(clock),
            gate=gate or ConnectGate(clock=clock),
            backoff_max_s=backoff_max_s,
            rotate_after_ms=rotate_after_ms,
        )
        self._sink = CandleSink(self.market.name, queue, clock, time)
        # Maximum streams of a connection: below the market's limit if the exchange refused some.
        self._streams_max = self.market.streams_max
        self._shards: list[Shard] = []
        self._shards_made = 0
        self._frames = 0
        self._shard_of: dict[Series, Shard] = {}
        self._changed = asyncio.Event()
        self.add_symbols(*symbols)

    @property
    def symbols(self) -> list[str]:
        """The symbols that are listened to, of any interval, sorted."""
        return sorted({series.symbol for series in self._sink.streams})

    @property
    def series(self) -> frozenset[Series]:
        """The series that are listened to."""
        return frozenset(self._sink.streams)

    @property
    def polled(self) -> frozenset[Series]:
        """The series whose stream is silent, and whose candles have to be fetched from REST."""
        return frozenset(series for series, stream in self._sink.streams.items() if stream.polled)

    @property
    def stats(self) -> ListenerStats:
        """The present counts."""
        connections = [connection for shard in self._shards for connection in shard.connections]
        return msgspec.structs.replace(
            self._sink.stats,
            bad_frames=self._sink.stats.bad_frames.copy(),
            frames=self._sink.stats.frames.copy(),
            reopened=self._sink.stats.reopened.copy(),
            connections=sum(connection.socket is not None for connection in connections),
            connected_streams=sum(shard.acknowledged for shard in self._shards),
        )

    @property
    def frames(self) -> int:
        """The number of frames received so far. It never decreases."""
        open_frames = sum(connection.frames for shard in self._shards for connection in shard.connections)
        # A shard without streams is removed before its connection is closed.
        self._frames = max(self._frames, self._sink.stats.frames_closed + open_frames)
        return self._frames

    @property
    def unsent(self) -> list[Candle]:
        """Candles that were read, but had no room on the queue when `run` was cancelled.

        They are those of one read of each connection. The caller of `cancel` puts them on the queue.
        """
        return self._sink.unsent

    def add_symbols(self, *symbols: str, interval: str | None = None) -> None:
        """Add symbols to listen to; other streams are not touched.

        Args:
            interval: the interval of the symbols; None for the listener's own.

        Raises:
            UsageError: if a name cannot be a symbol, or the market has no such
                interval. In this case no symbol is added.
        """
        named = dict.fromkeys(self._series(symbols, interval))
        self._spread(series for series in named if series not in self._shard_of)

    def remove_symbols(self, *symbols: str, interval: str | None = None) -> None:
        """Stop listening to symbols; symbols that are not listened to are ignored."""
        for series in self._series(symbols, interval):
            stream = self._sink.remove(series)
            if stream is not None:
                self._shard_of.pop(series).remove(stream)
        self._shards = [shard for shard in self._shards if shard.streams]

    def missed(self, series: Series) -> None:
        """Count a candle with trades that its stream did not deliver in time.

        After two missed candles the connection is replaced. After four the series is
        in `polled`, until the stream delivers a closed candle again.
        """
        shard = self._shard_of.get(series)
        if shard is not None:
            shard.missed(self._sink.streams[series])

    async def run(self) -> None:
        """Listen until cancelled."""
        tasks: dict[Shard, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                self._lower_streams_max()
                for shard in self._shards:
                    if shard not in tasks:
                        tasks[shard] = asyncio.create_task(shard.run())
                await self._wait_for_change(tasks)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _wait_for_change(self, tasks: dict[Shard, "asyncio.Task[None]"]) -> None:
        """Wait for a change; remove the shards that have ended."""
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({changed, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        for shard in [shard for shard, task in tasks.items() if task.done()]:
            tasks.pop(shard).result()  # a shard ends when it has no streams, or raises a bug

    def _interval(self, text: str) -> Interval:
        interval = parse_interval(text)
        if interval.name not in self.market.intervals:
            raise UsageError(f"interval: {self.market.name} has no {interval.name} candles")
        return interval

    def _series(self, symbols: Iterable[str], interval: str | None) -> list[Series]:
        name = (self.interval if interval is None else self._interval(interval)).name
        return [Series(self.market.name, parse_symbol(symbol), name) for symbol in symbols]

    def _spread(self, added: Iterable[Series]) -> None:
        """Add each series to a shard with room, or to a new one."""
        roomy = iter([shard for shard in self._shards if len(shard.streams) < self._streams_max])
        shard = next(roomy, None)
        for series in added:
            while shard is not None and len(shard.streams) >= self._streams_max:
                shard = next(roomy, None)
            if shard is None:
                shard = self._new_shard()
            shard.add(self._sink.streams.get(series) or self._sink.add(series))
            self._shard_of[series] = shard
        self._changed.set()

    def _new_shard(self) -> Shard:
        self._shards_made += 1
        shard = Shard(self._shards_made, self._settings, self._sink, self._changed)
        self._shards.append(shard)
        return shard

    def _lower_streams_max(self) -> None:
        """Reduce the maximum streams of a connection, after the exchange refused some."""
        refused = [shard.refused_above for shard in self._shards if shard.refused_above is not None]
        if not refused:
            return
        self._streams_max = min(self._streams_max, *refused)
        log.warning("%s: from now on at most %d streams on a connection", self.market.name, self._streams_max)
        surplus = []
        for shard in self._shards:
            shard.refused_above = None
            for stream in shard.surplus(self._streams_max):
                shard.remove(stream)
                surplus.append(stream.series)
        self._spread(surplus)
