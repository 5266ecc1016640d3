"""The sink of all connections of a listener. It puts their candles on its queue.

Rule 1: a closed candle of a subscribed stream is put on the queue. If the queue
is full, the candle waits for room and its socket is not read. Rule 2: a duplicate
is dropped, unless it has more trades. Rule 3: a candle of an unsubscribed stream
is dropped and counted. A frame from the future is dropped and counted too; its
candle is healed after its end.
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

# The first bad frame of each kind is logged, and then one of this many.
BAD_FRAME_LOG_EVERY = 1000

# Late candles of a removed series are no bad frames for this long.
REMOVED_S = 60.0


class ListenerStats(msgspec.Struct):
    """Counts since a listener was created.

    Args:
        candles: closed candles put on the queue.
        duplicates: closed candles that were dropped as duplicates.
        strays: closed candles of recently removed series.
        bad_frames: frames that could not be read, by kind.
        connections: open sockets.
        connected_streams: acknowledged streams of open sockets.
        frames: frames by kind, except open candles, which are not counted here: "closed_candle",
            "reply", "shutdown", "unreadable" and "other".
        reconnects: connections that ended and were reopened.
        reopened: connections that were reopened or replaced, by reason (see `reopening`).
        rotations: connections replaced because of their age or their server's shutdown.
        replaced: connections replaced because streams were silent on them.
        frames_closed: frames of closed connections.
    """

    candles: int = 0
    duplicates: int = 0
    strays: int = 0
    bad_frames: Counter[str] = msgspec.field(default_factory=Counter)
    frames: Counter[str] = msgspec.field(default_factory=Counter)
    reopened: Counter[str] = msgspec.field(default_factory=Counter)
    connections: int = 0
    connected_streams: int = 0
    reconnects: int = 0
    rotations: int = 0
    replaced: int = 0
    frames_closed: int = 0


class CandleSink:
    """The receiver of all connections' closed candles.

    Args:
        market: the market's name.
        queue: bounded; receives the candles.
        clock: measures pauses between log lines and the age of removed series.
        time: receives event times; None to ignore them.

    Attributes:
        streams: the health of each accepted series' stream.
        stats: the counts so far.
        unsent: candles that were read, but not queued when their task was cancelled.
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
        """Start accepting candles of a series; return the health of its stream."""
        self._removed.pop(series, None)
        self.streams[series] = StreamHealth(series)
        return self.streams[series]

    def remove(self, series: Series) -> StreamHealth | None:
        """Stop accepting candles of a series; return the health of its stream, or None if it has no stream."""
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
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self.unsent.append(candle)
                return
            await self._wait_for_room(candle, socket)
        self.stats.candles += 1

    def _is_timely(self, series: Series, candle: Candle) -> bool:
        """Return whether a frame's time is plausible; count the frame if its time is in the future."""
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
        """Count a dropped frame; log the first of its kind, then one of `BAD_FRAME_LOG_EVERY`."""
        self.stats.bad_frames[kind] += 1
        count = self.stats.bad_frames[kind]
        if count == 1 or count % BAD_FRAME_LOG_EVERY == 0:
            log.warning("%s: dropped a bad frame (%s, %d so far): %s", self.market, kind, count, what)

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
