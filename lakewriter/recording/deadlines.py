"""The deadlines of candles. Late candles are healed, and counted as missed by their streams.

A candle is late only if it is still missing when all candles that arrived before
its deadline are durable. After a stalled disk, candles may still be on the queue
or in a socket.
"""

import asyncio
import logging
from collections.abc import Mapping

from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.recording.candle_queue import CandleQueue
from lakewriter.recording.expected_series import ExpectedSeries
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.series_states import SeriesStates
from lakewriter.series import Series

log = logging.getLogger(__name__)

_TICK_S = 0.1

# The grace of a silent stream. REST usually has the candle by then.
POLL_GRACE_MS = 2_000

# Sockets may still hold candles if the journal was behind for this long.
_BEHIND_S = 1.0

# The maximum delay that counts. The journal of a machine that slept was not behind.
_BEHIND_S_MAX = 60.0

# Maximum number of series named in one log line.
_SHOWN = 3


class GracePeriods:
    """The grace period of each series: the time from a candle's end to its deadline.

    Args:
        clients: the clients of the markets, which have their own grace periods.
        grace_ms: the grace period of all markets; None for each market's own.

    Attributes:
        polled: series whose stream is silent, and whose candles REST delivers.
    """

    def __init__(self, clients: MarketClients, grace_ms: int | None) -> None:
        self.polled: frozenset[Series] = frozenset()
        self._clients = clients
        self._grace_ms = grace_ms

    def ms(self, series: Series) -> int:
        """Return the grace period of a series, in milliseconds."""
        if series in self.polled:
            return POLL_GRACE_MS
        return self._clients[series.market].market.grace_ms if self._grace_ms is None else self._grace_ms


class DeadlineWatch:
    """The task that watches the deadlines of all expected series.

    Args:
        expected: the expected series; restarted here when a market's time jumps.
        watermarks: the deadlines of all series.
        grace: the grace periods; their `polled` is set here.
        healer: heals late candles.
        listeners: by market; they replace connections whose streams are silent.
        states: count late candles.
        queue: holds candles until they are durable in the journal.
        clients: know the time at each market.
        clock: measures delays of the journal.
    """

    def __init__(
        self,
        expected: ExpectedSeries,
        watermarks: Watermarks,
        grace: GracePeriods,
        healer: Healer,
        listeners: Mapping[str, CandleListener],
        queue: CandleQueue,
        *,
        states: SeriesStates,
        clients: MarketClients,
        clock: Clock,
    ) -> None:
        self._expected = expected
        self._watermarks = watermarks
        self._grace = grace
        self._healer = healer
        self._listeners = listeners
        self._queue = queue
        self._states = states
        self._clients = clients
        self._clock = clock

    async def run(self) -> None:
        """Watch the deadlines until cancelled."""
        quiet_until_s = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            self._expected.follow_time()
            now_ms = {
                market: self._clients[market].time.now_ms()
                for market in self._watermarks.markets
                if self._clients[market].time.known
            }
            began_s = self._clock.monotonic_s()
            await self._queue.wait_durable()
            now_s = self._clock.monotonic_s()
            behind_s = now_s - began_s
            if behind_s >= _BEHIND_S:
                quiet_until_s = now_s + min(behind_s, _BEHIND_S_MAX)
            if now_s < quiet_until_s:
                continue
            self._update_polled()
            for market, until_ms in now_ms.items():
                for late in self._watermarks.overdue(market, until_ms):
                    self._healer.request_heal(late.series, late.start_ms, late.stop_ms, late=True)
                    self._states.note_late(late.series, late.start_ms)
            for series in self._healer.take_undelivered():
                self._listeners[series.market].missed(series)

    def _update_polled(self) -> None:
        """Update the series of silent streams from the listeners; log changes."""
        before = self._grace.polled
        polled = frozenset().union(*(listener.polled for listener in self._listeners.values()))
        for changed, what in (
            (polled - before, "silent; their candles are fetched"),
            (before - polled, "flowing again"),
        ):
            if changed:
                shown = ", ".join(map(str, sorted(changed)[:_SHOWN]))
                more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
                log.warning("%s%s: %s", shown, more, what)
        self._grace.polled = polled
