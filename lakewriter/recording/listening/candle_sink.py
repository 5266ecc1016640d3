"""The sink of all connections of a listener: it puts their candles on its queue.

Rule 1: a closed candle of a subscribed stream goes on the queue. If the queue
is full, it waits for room and its socket is not read. Rule 2: a duplicate is dropped, unless it has
more trades. Rule 3: a candle that was not subscribed to is counted. So is a frame
from the future: its candle is healed when it has ended.
"""

import asyncio
import logging
import math
from collections import Counter

import msgspec

from lakewriter.binance.socket import StreamSocket
from lakewriter.candle import Candle
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.recording.listening.stream import StreamHealth
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Pause between log lines about a full queue.
FULL_LOG_EVERY_S = 60.0

# The first bad frame of a kind is logged, then one of this many.
BAD_FRAME_LOG_EVERY = 1000

# Candles of a removed series are expected for this long.
REMOVED_S = 60.0


class ListenerStats(msgspec.Struct):
    """Counts since a listener was made.

    Args:
        candles: closed candles put on the queue.
        duplicates: closed candles that had been put there before.
        strays: closed candles of series that were removed just before.
        bad_frames: frames that could not be read, by kind.
        connections: sockets open now.
        connected_streams: streams acknowledged now.
        reconnects: connections that ended and were opened again.
        rotations: connections replaced because of their age, or their server's shutdown.
        replaced: connections replaced because streams were silent on them.
        frames_closed: frames of connections that have ended.
    """

    candles: int = 0
    duplicates: int = 0
    strays: int = 0
    bad_frames: Counter[str] = msgspec.field(default_factory=Counter)
    connections: int = 0
    connected_streams: int = 0
    reconnects: int = 0
    rotations: int = 0
    replaced: int = 0
    frames_closed: int = 0


class CandleSink:
    """Takes the closed candles of all connections.

    Args:
        market: the market's name.
        queue: bounded; where the candles go.
        clock: for waiting.
        time: observes event times; None to observe none.
    """

    def __init__(
        self, market: str, queue: "asyncio.Queue[Candle]", clock: Clock, time: ExchangeTime | None
    ) -> None:
        self.market = market
        self.streams: dict[Series, StreamHealth] = {}
        self.stats = ListenerStats()
        self.unsent: list[Candle] = []
        self._queue = queue
        self._clock = clock
        self._time = time
        self._removed: dict[Series, float] = {}
        self._logged_full_s = -math.inf

    def add(self, series: Series) -> StreamHealth:
        """Accept candles of a series."""
        self._removed.pop(series, None)
        self.streams[series] = StreamHealth(series)
        return self.streams[series]

    def remove(self, series: Series) -> StreamHealth | None:
        """Stop accepting candles of a series; return its stream, or None if it has none."""
        stream = self.streams.pop(series, None)
        if stream is not None:
            now_s = self._clock.monotonic_s()
            while self._removed and now_s - next(iter(self._removed.values())) > REMOVED_S:
                del self._removed[next(iter(self._removed))]
            self._removed[series] = now_s
        return stream

    async def put(self, candle: Candle, socket: StreamSocket) -> None:
        """Put a closed candle from a socket on the queue."""
        series = candle.series
        stream = self.streams.get(series)
        if stream is None:
            self._count_stray(series)
            return
        if not self._is_timely(series, candle):
            return
        stream.reset_misses()
        if not stream.is_news(candle.begin_ms, candle.trade_num):
            self.stats.duplicates += 1
            return
        try:
            self._queue.put_nowait(candle)
        except asyncio.QueueFull:
            await self._wait_for_room(candle, socket)
        self.stats.candles += 1

    def _is_timely(self, series: Series, candle: Candle) -> bool:
        """Observe the time of a frame; count the frame and return False if that lies in the future."""
        if (
            self._time is None
            or candle.event_ms is None
            or self._time.observe_event_time(series, candle.event_ms)
        ):
            return True
        ahead_s = (candle.event_ms - self._time.now_ms()) / 1000
        self.count_bad("ahead", f"{series}: it is stamped {ahead_s:.0f} s ahead of the exchange's time")
        return False

    def count_bad(self, kind: str, what: str) -> None:
        """Count a frame that is dropped, and log the first of its kind."""
        self.stats.bad_frames[kind] += 1
        count = self.stats.bad_frames[kind]
        if count == 1 or count % BAD_FRAME_LOG_EVERY == 0:
            log.warning("%s: passed over a bad frame (%s, %d so far): %s", self.market, kind, count, what)

    async def _wait_for_room(self, candle: Candle, socket: StreamSocket) -> None:
        socket.paused = True
        self._log_queue_full()
        try:
            await self._queue.put(candle)
        except asyncio.CancelledError:
            self.unsent.append(candle)
            raise
        finally:
            socket.paused = False

    def _count_stray(self, series: Series) -> None:
        if self._clock.monotonic_s() - self._removed.get(series, -math.inf) <= REMOVED_S:
            self.stats.strays += 1
        else:
            self.count_bad("stray", f"{series.symbol} {series.interval}, which was not subscribed to")

    def _log_queue_full(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_full_s >= FULL_LOG_EVERY_S:
            self._logged_full_s = now_s
            log.warning(
                "%s: the journal is behind and the queue full; sockets are not read until it has caught up",
                self.market,
            )
