"""The healer: it requests missing candles from REST until they arrive or are explained.

Rule 1: a range leaves the healer only when its candles are queued or merged, or
their absence is explained. Rule 2: candles that closed just now are requested
first, and are journaled. Long gaps follow, with a part of the budget; their
candles are merged directly into partitions. Rule 3: a candle that is still open
by the exchange's time is never used. A candle fetched soon after its close is
requested once more.

`schedule` plans the requests, and `timing` decides their times. `explanation`
finds the reasons, and `delivery` delivers candles. Times are the exchange's in
milliseconds; waiting uses the monotonic clock.
"""

import asyncio
import logging

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import INVALID_SYMBOL, RestError
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.interval import TIME_MS_MAX
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.ranges import Range, added, union, within, without
from lakewriter.recording.healing.delivery import Delivery
from lakewriter.recording.healing.explanation import Explainer
from lakewriter.recording.healing.refused_ranges import RefusedRanges
from lakewriter.recording.healing.schedule import HealQueue, HealSchedule, HealTask
from lakewriter.recording.healing.series_bounds import SeriesBounds
from lakewriter.recording.healing.stats import HealerStats
from lakewriter.recording.healing.timing import (
    ERROR_MAX_S,
    UNREADABLE_MAX_S,
    error_delay_s,
    idle_delay_s,
    next_delay_s,
    next_span,
)
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Maximum number of missing candles of a series that are urgent. Such a request has the minimum weight.
URGENT_CANDLES_MAX = 99

# Maximum number of concurrent requests of a pool.
URGENT_WORKERS = 4
BACKGROUND_WORKERS = 1

_ERROR_LOG_EVERY = 50
_REFUSED_CHECK_S = 0.5


class Healer:
    """The healer of all markets' series.

    Args:
        clients: send the requests.
        subscribed: has the instruments of each market.
        ledger: stores the reasons.
        store: receives the candles of long gaps.
        queue: receives the candles of short gaps, which are journaled like streamed candles.
        heal_limit_ms: maximum age of candles that are healed here.
        clock: measures waits.
    """

    def __init__(
        self,
        clients: MarketClients,
        subscribed: SubscribedSeries,
        ledger: Ledger,
        store: LakeStore,
        queue: "asyncio.Queue[Candle]",
        *,
        heal_limit_ms: int,
        clock: Clock,
    ) -> None:
        self.stats = HealerStats()
        self._clients = clients
        self._ledger = ledger
        self._heal_limit_ms = heal_limit_ms
        self._clock = clock
        self._schedule = HealSchedule(clock)
        self._bounds = SeriesBounds(subscribed)
        self.explainer = Explainer(self._bounds, ledger, self.stats, heal_limit_ms=heal_limit_ms)
        self._delivery = Delivery(queue, store, ledger, self._bounds, self.stats)
        self._refused = RefusedRanges()
        # The exchange's time at the last request for each series that REST answered.
        self._answered_ms: dict[Series, int] = {}

    @property
    def pending(self) -> int:
        """The number of series with missing candles."""
        return self._schedule.pending

    def first_missing_ms(self, series: Series, from_ms: int) -> int | None:
        """Return the begin time of a series' first missing candle from a time on; None without one.

        A candle is not missing if it is queued, durable, explained or given up.
        """
        starts_ms = [
            max(start_ms, from_ms)
            for task in self._schedule.tasks_of(series)
            for start_ms, stop_ms in task.ranges
            if stop_ms > from_ms
        ]
        return min(starts_ms, default=None)

    def answered_ms(self, series: Series) -> int | None:
        """Return the exchange's time at the last request for a series that REST answered, if any."""
        return self._answered_ms.get(series)

    def take_undelivered(self) -> list[Series]:
        """Remove and return the series whose stream did not deliver a candle with trades."""
        return self._delivery.take_undelivered()

    def request_heal(self, series: Series, start_ms: int, stop_ms: int, *, late: bool = False) -> None:
        """Add a range of closed candles of a series to its missing candles.

        Args:
            late: whether a stream should have delivered them. If such a candle
                exists, it counts as missed by the stream.
        """
        now_ms = self._now_ms(series)
        # The limit applies to a candle's end: a week or a month begins long before its candle can be missed.
        limit_ms = self._bounds.grid(series).floor(now_ms - self._heal_limit_ms)
        if start_ms < limit_ms:
            error = "older than the heal limit; record with a longer --heal-limit"
            self.explainer.give_up(series, (start_ms, min(stop_ms, limit_ms)), error, now_ms)
            start_ms = limit_ms
        if start_ms >= stop_ms:
            return
        self._ledger.mark(series, start_ms, stop_ms, "pending", now_ms)
        background = self._bounds.grid(series).count(start_ms, stop_ms) > URGENT_CANDLES_MAX
        task = self._schedule.task(series, background=background)
        task.ranges = added(task.ranges, start_ms, stop_ms)
        task.extended = True
        if late:
            task.late = added(task.late, start_ms, stop_ms)
        self._plan(series, task, 0.0)

    def cancel_future(self, series: Series, now_ms: int) -> None:
        """Cancel heals of candles that end after the present; a wrong clock requested them."""
        start_ms = self._bounds.grid(series).floor(now_ms)
        for task in self._schedule.tasks_of(series):
            task.ranges = without(task.ranges, start_ms, TIME_MS_MAX)
            task.late = without(task.late, start_ms, TIME_MS_MAX)
        for gap in self._ledger.gaps(series):
            if gap.stop_ms > start_ms:
                self._ledger.clear(series, max(gap.start_ms, start_ms), gap.stop_ms)

    def note_candle(self, series: Series, begin_ms: int) -> None:
        """Add the begin time of a candle to the bounds of its series."""
        self._bounds.note_candle(series, begin_ms)

    def mark_durable(self, candle: Candle) -> None:
        """Remove a durable candle from the missing candles."""
        series = candle.series
        self.note_candle(series, candle.begin_ms)
        is_provisional = False
        for task in self._schedule.tasks_of(series):
            task.ranges = without(task.ranges, candle.begin_ms, candle.end_ms)
            if candle.source == "stream":
                task.late = without(task.late, candle.begin_ms, candle.end_ms)
                task.provisional.pop(candle.begin_ms, None)
            is_provisional |= candle.begin_ms in task.provisional
        # A provisional candle stays pending. Otherwise a crash would make its first values final.
        if not is_provisional:
            self._ledger.clear(series, candle.begin_ms, candle.end_ms)

    async def run(self) -> None:
        """Heal missing candles until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._retry_refused())
            started: set[str] = set()
            while True:
                self._schedule.new_queue.clear()
                for name, queue in self._schedule.queues.items():
                    if name not in started:
                        started.add(name)
                        for number in range(URGENT_WORKERS + BACKGROUND_WORKERS):
                            tasks.create_task(self._work(queue, background=number >= URGENT_WORKERS))
                await self._schedule.new_queue.wait()

    async def _retry_refused(self) -> None:
        """Retry ranges that were refused an hour ago and are still missing."""
        while True:
            await asyncio.sleep(_REFUSED_CHECK_S)
            due = self._refused.take_due(lambda market: self._clients[market].time.now_ms())
            for series, ranges in due:
                unhealable = union(
                    (gap.start_ms, gap.stop_ms)
                    for gap in self._ledger.gaps(series)
                    if gap.reason == "unhealable"
                )
                for refused in ranges:
                    for start_ms, stop_ms in within(unhealable, *refused):
                        self.stats.unhealable -= self._bounds.grid(series).count(start_ms, stop_ms)
                        self.request_heal(series, start_ms, stop_ms)

    def _now_ms(self, series: Series) -> int:
        return self._clients[series.market].time.now_ms()

    def _plan(self, series: Series, task: HealTask, delay_s: float) -> None:
        self._schedule.plan(self._clients[series.market].market.weight_pool, series, task, delay_s)

    async def _work(self, queue: HealQueue, *, background: bool) -> None:
        while True:
            series, task = await self._schedule.next(queue, background=background)
            try:
                delay_s = await self._heal(series, task, queue)
            finally:
                task.busy = False
            if delay_s is None:
                self._schedule.close(series, task)
            else:
                self._plan(series, task, delay_s)

    async def _heal(self, series: Series, task: HealTask, queue: HealQueue) -> float | None:
        """Request missing candles once; return the next request's delay, or None if no candle is missing."""
        client, grid = self._clients[series.market], self._bounds.grid(series)
        span = next_span(task, grid, client.time.now_ms(), client.market.klines_page)
        if span is None:
            return idle_delay_s(task, series.grid, client.time)
        self.stats.asked += 1
        # Ages are measured at the request, because a slow answer must not make candles older.
        asked_ms = client.time.now_ms()
        try:
            # The second request of a provisional candle is not urgent either.
            background = task.background or not task.ranges
            candles = await client.rest.klines(series, *span, background=background)
            queue.failures = task.unreadable = 0
        except RestError as error:
            if error.code != INVALID_SYMBOL:
                return self._failed(series, task, span, error, queue)
            candles = []
        self._answered_ms[series] = asked_ms
        closed = [candle for candle in candles if candle.end_ms <= asked_ms]
        self._bounds.note_rest_answer(series, closed)
        await self._delivery.deliver(series, task, span, closed, asked_ms)
        if within(task.ranges, *span):
            task.tries += 1
            await self.explainer.explain(series, task, span, client)
        if not within(task.ranges, *span):
            task.tries = 0
        return next_delay_s(task, series.grid, client.time)

    def _failed(
        self, series: Series, task: HealTask, span: Range, error: RestError, queue: HealQueue
    ) -> float | None:
        """Log an error; return the next request's delay, or None if no candle is missing."""
        self.stats.errors += 1
        if error.is_unreadable:
            task.unreadable += 1
            if task.unreadable == 1 or task.unreadable % _ERROR_LOG_EVERY == 0:
                log.warning("healing of a series is delayed: %s", error)
            return error_delay_s(task.unreadable, UNREADABLE_MAX_S)
        if error.is_final:
            return self._refuse(series, task, span, error)
        queue.failures += 1
        delay_s = error_delay_s(queue.failures, ERROR_MAX_S)
        # The whole host fails. No worker sends a request until then.
        queue.failing_until_s = self._clock.monotonic_s() + delay_s
        if queue.failures == 1 or queue.failures % _ERROR_LOG_EVERY == 0:
            log.warning("healing is delayed: %s", error)
        return delay_s

    def _refuse(self, series: Series, task: HealTask, span: Range, error: RestError) -> float | None:
        """Remove a range that the exchange refused, until its retry."""
        log.error("%s: cannot be healed, and is requested again in an hour: %s", series, error)
        client, now_ms = self._clients[series.market], self._now_ms(series)
        refused = within(task.ranges, *span)
        for start_ms, stop_ms in refused:
            self.explainer.give_up(series, (start_ms, stop_ms), error.what, now_ms)
            task.ranges = without(task.ranges, start_ms, stop_ms)
        self._refused.add(series, refused, now_ms)
        self._delivery.drop_provisional(series, task, span, 2**62)
        return next_delay_s(task, series.grid, client.time)
