"""The healer: what is missing is asked for by REST, until it is there or has a reason.

Rule 1: a range leaves the healer only when its candles were put on the queue or
merged, or when the ledger says why there are none. Rule 2: what closed just
now goes first and through the journal; long gaps go behind it, with half of
the budget, straight into partitions. Rule 3: a candle that is still open by the
exchange's time is never taken; one taken soon after its close is looked at
once more.

What waits for when is the `agenda`'s, what is known of each series the `extent`'s.
Times are the exchange's in milliseconds, waiting is by the monotonic clock.
"""

import asyncio
import logging
import random

import msgspec

from lakewriter.binance.market_clients import MarketClient, MarketClients
from lakewriter.binance.rest import INVALID_SYMBOL, RestError
from lakewriter.candle import Candle, to_table
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.gap_reasons import reason_for
from lakewriter.interval import TIME_MS_MAX
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import by_partition
from lakewriter.ranges import Range, added, contains, union, within, without
from lakewriter.recording.healing.schedule import HealQueue, HealSchedule, HealTask
from lakewriter.recording.healing.series_bounds import SeriesBounds
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Up to so many missing candles of a series are urgent: they cost least to ask for.
URGENT_CANDLES_MAX = 99

# How many requests of a pool are under way at once.
URGENT_WORKERS = 4
BACKGROUND_WORKERS = 1

# Spot's klines come from a database that lags: so long after its end a candle
# that REST does not have is not coming, if REST has later ones.
SETTLE_MS = 300_000

# Seen: values of a just-closed candle still moving. One that was taken sooner
# than this after its end is asked for once more, so long after its end.
YOUNG_MS = 30_000
LOOK_AGAIN_MS = 60_000

# Asking again for what REST does not have: doubling, in the exchange's time.
_ABSENT_FIRST_MS = 2_000
_ABSENT_MAX_MS = 60_000
# How fast the exchange's time goes may be learnt only after the first look.
_YOUNG_REAL_S_MAX = 5.0
_ABSENT_REAL_S_MIN = 0.25

# Asking again after an error, in real time: short, so that minutes of absence
# are healed within seconds of coming back.
_ERROR_FIRST_S = 0.5
_ERROR_MAX_S = 15.0
_ERROR_LOG_EVERY = 50

# Asking again for one series alone, whose answers cannot be read: the others go on.
_UNREADABLE_MAX_S = 300.0

# A refusal that should not change may have been a moment's all the same: what was given
# up for it is asked for again so long after, by the exchange's time, and at each start.
REFUSED_AGAIN_MS = 3_600_000
_REFUSED_LOOK_S = 0.5


class HealerStats(msgspec.Struct):
    """What a healer has done since it was made.

    Args:
        asked: pages asked for.
        healed: candles that REST had and the stream had not brought.
        corrected: candles whose second look had more trades.
        explained: candles that the exchange does not have, with a reason.
        unhealable: candles given up, with the error.
        errors: pages that were not answered.
    """

    asked: int = 0
    healed: int = 0
    corrected: int = 0
    explained: int = 0
    unhealable: int = 0
    errors: int = 0


class Healer:
    """Heals the series of all markets.

    Args:
        doors: to ask the exchange.
        universe: what it lists.
        ledger: where the reasons go.
        store: where long gaps are merged.
        queue: where short ones go, to be journaled like all others.
        heal_limit_ms: what began longer ago is not healed here.
        clock: for waiting.
    """

    def __init__(
        self,
        doors: MarketClients,
        universe: SubscribedSeries,
        ledger: Ledger,
        store: LakeStore,
        queue: "asyncio.Queue[Candle]",
        *,
        heal_limit_ms: int,
        clock: Clock,
    ) -> None:
        self.stats = HealerStats()
        self.put = 0
        # Series whose candle existed, with trades, and did not come in time; whoever
        # knows the connections takes them from here.
        self.undelivered: list[Series] = []
        # Markets whose list is older than what it has to explain.
        self.asks_list: set[str] = set()
        self._doors = doors
        self._ledger = ledger
        self._store = store
        self._queue = queue
        self._heal_limit_ms = heal_limit_ms
        self._clock = clock
        self._agenda = HealSchedule(clock)
        self._extent = SeriesBounds(universe)
        # When to ask again for which ranges that were refused.
        self._refused: dict[Series, tuple[int, list[Range]]] = {}

    @property
    def pending(self) -> int:
        """How many series wait for something."""
        return self._agenda.pending

    def owe(self, series: Series, start_ms: int, stop_ms: int, *, late: bool = False) -> None:
        """Heal what is missing of a series in a range of closed candles.

        Args:
            late: a stream should have delivered it: if it existed, that is
                evidence against the connection.
        """
        now_ms = self._doors[series.market].time.now_ms()
        # By a candle's end: a week's or month's begins long before it can be missed.
        limit_ms = self._extent.grid(series).floor(now_ms - self._heal_limit_ms)
        if start_ms < limit_ms:
            self._give_up(
                series,
                (start_ms, min(stop_ms, limit_ms)),
                "older than the heal limit; record with a longer --heal-limit",
            )
            start_ms = limit_ms
        if start_ms >= stop_ms:
            return
        self._ledger.mark(series, start_ms, stop_ms, "pending", now_ms)
        background = self._extent.grid(series).count(start_ms, stop_ms) > URGENT_CANDLES_MAX
        case = self._agenda.case(series, background=background)
        case.ranges = added(case.ranges, start_ms, stop_ms)
        case.fresh = True
        if late:
            case.late = added(case.late, start_ms, stop_ms)
        self._plan(series, case, 0.0)

    def disown(self, series: Series, from_ms: int) -> None:
        """Owe nothing of a series that ends after the present moment: it was owed by a wrong clock."""
        start_ms = self._extent.grid(series).floor(from_ms)
        for case in self._agenda.of(series):
            case.ranges = without(case.ranges, start_ms, TIME_MS_MAX)
            case.late = without(case.late, start_ms, TIME_MS_MAX)
        for gap in self._ledger.gaps(series):
            if gap.stop_ms > start_ms:
                self._ledger.clear(series, max(gap.start_ms, start_ms), gap.stop_ms)

    def saw(self, series: Series, begin_ms: int) -> None:
        """Learn that the series has a candle that begins then."""
        self._extent.saw(series, begin_ms)

    def committed(self, candle: Candle) -> None:
        """Take note of a candle that is durable now."""
        series = candle.series
        self.saw(series, candle.begin_ms)
        provisional = False
        for case in self._agenda.of(series):
            case.ranges = without(case.ranges, candle.begin_ms, candle.end_ms)
            if candle.source == "stream":
                case.late = without(case.late, candle.begin_ms, candle.end_ms)
                case.young.pop(candle.begin_ms, None)
            provisional |= candle.begin_ms in case.young
        # One that is to be looked at once more stays pending, so that a crash does not
        # make its first values its last.
        if not provisional:
            self._ledger.clear(series, candle.begin_ms, candle.end_ms)

    async def run(self) -> None:
        """Heal until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask_again())
            started: set[str] = set()
            while True:
                self._agenda.new_pool.clear()
                for name, pool in self._agenda.pools.items():
                    if name not in started:
                        started.add(name)
                        for number in range(URGENT_WORKERS + BACKGROUND_WORKERS):
                            tasks.create_task(self._work(pool, background=number >= URGENT_WORKERS))
                await self._agenda.new_pool.wait()

    async def _ask_again(self) -> None:
        """Owe once more what was refused an hour ago, as far as nobody brought it meanwhile."""
        while True:
            await asyncio.sleep(_REFUSED_LOOK_S)
            for series, (again_ms, ranges) in list(self._refused.items()):
                if self._doors[series.market].time.now_ms() < again_ms:
                    continue
                del self._refused[series]
                absent = union(
                    (gap.start_ms, gap.stop_ms)
                    for gap in self._ledger.gaps(series)
                    if gap.reason == "unhealable"
                )
                for each in ranges:
                    for start_ms, stop_ms in within(absent, *each):
                        self.stats.unhealable -= self._extent.grid(series).count(start_ms, stop_ms)
                        self.owe(series, start_ms, stop_ms)

    def _plan(self, series: Series, case: HealTask, delay_s: float) -> None:
        self._agenda.plan(self._doors[series.market].market.weight_pool, series, case, delay_s)

    async def _work(self, pool: HealQueue, *, background: bool) -> None:
        while True:
            series, case = await self._agenda.next(pool, background=background)
            try:
                delay_s = await self._heal(series, case, pool)
            finally:
                case.busy = False
            if delay_s is None:
                self._agenda.close(series, case)
            else:
                self._plan(series, case, delay_s)

    async def _heal(self, series: Series, case: HealTask, pool: HealQueue) -> float | None:
        """Ask once for what is missing; return after how long to look again, None if nothing is."""
        door = self._doors[series.market]
        span = self._span(series, case, door)
        if span is None:
            delay_s = self._next_look(case, series, door)
            return None if delay_s is None else max(delay_s, _ABSENT_REAL_S_MIN)
        self.stats.asked += 1
        # What was true when it was asked: an answer that took long is no older for that.
        asked_ms = door.time.now_ms()
        try:
            # A second look can wait, too.
            later = case.background or not case.ranges
            candles = await door.rest.klines(series, *span, background=later)
            pool.failures = case.unreadable = 0
        except RestError as error:
            if error.code != INVALID_SYMBOL:
                return self._failed(series, case, span, error, pool)
            candles = []
        closed = [candle for candle in candles if candle.end_ms <= asked_ms]
        self._extent.rest_showed(series, closed)
        await self._bring(series, case, span, closed, asked_ms)
        if within(case.ranges, *span):
            case.tries += 1
            await self._explain(series, case, span, door)
        if not within(case.ranges, *span):
            case.tries = 0
        return self._next_look(case, series, door)

    def _span(self, series: Series, case: HealTask, door: MarketClient) -> Range | None:
        """Return the range to ask for: one page from the oldest on, of closed candles."""
        grid, now_ms = self._extent.grid(series), door.time.now_ms()
        ends = [(begin_ms, grid.end(begin_ms)) for begin_ms in case.young]
        ranges = union([*case.ranges, *(each for each in ends if now_ms >= each[1] + LOOK_AGAIN_MS)])
        if not ranges:
            return None
        start_ms, stop_ms = ranges[0][0], min(ranges[-1][1], grid.floor(now_ms))
        if grid.length_ms:
            stop_ms = min(stop_ms, start_ms + door.market.klines_page * grid.length_ms)
        return (start_ms, stop_ms) if start_ms < stop_ms else None

    async def _bring(
        self, series: Series, case: HealTask, span: Range, closed: list[Candle], asked_ms: int
    ) -> None:
        """Hand on what was missing, and what has more trades than at the first look."""
        missing = [candle for candle in closed if contains(case.ranges, candle.begin_ms)]
        grown = [each for each in closed if each.trade_num > case.young.get(each.begin_ms, each.trade_num)]
        self._forget_young(series, case, span, asked_ms, {candle.begin_ms for candle in grown})
        if any(candle.trade_num and contains(case.late, candle.begin_ms) for candle in missing):
            self.undelivered.append(series)
        for candle in missing:
            case.ranges = without(case.ranges, candle.begin_ms, candle.end_ms)
            case.late = without(case.late, candle.begin_ms, candle.end_ms)
            if asked_ms - candle.end_ms < YOUNG_MS:
                case.young[candle.begin_ms] = candle.trade_num
        if case.background:
            await self._merge(missing)
        await self._journal(grown if case.background else [*missing, *grown])
        self.stats.healed += len(missing)
        self.stats.corrected += len(grown)

    def _forget_young(
        self, series: Series, case: HealTask, span: Range, asked_ms: int, grown: set[int]
    ) -> None:
        """Let go of what was looked at once more; what has grown is cleared when it is durable."""
        grid = self._extent.grid(series)
        for begin_ms in [each for each in case.young if span[0] <= each < span[1]]:
            end_ms = grid.end(begin_ms)
            if asked_ms - end_ms >= YOUNG_MS:
                del case.young[begin_ms]
                if begin_ms not in grown:
                    self._ledger.clear(series, begin_ms, end_ms)

    async def _merge(self, candles: list[Candle]) -> None:
        """Merge candles straight into their partitions; those of a partition that refuses go the other way."""
        for partition, rows in by_partition(candles).items():
            try:
                await asyncio.to_thread(self._store.merge, partition, to_table(rows))
            except (LakeError, OSError) as error:
                log.warning("%s: %s; its candles go through the journal", partition, error)
                await self._journal(rows)
                continue
            for candle in rows:
                series = partition.series
                self._ledger.clear(series, candle.begin_ms, candle.end_ms)

    async def _journal(self, candles: list[Candle]) -> None:
        for candle in candles:
            await self._queue.put(candle)
            self.put += 1

    async def _explain(self, series: Series, case: HealTask, span: Range, door: MarketClient) -> None:
        """Enter into the ledger what the exchange does not have, as far as that can be told."""
        now_ms, grid = door.time.now_ms(), self._extent.grid(series)
        if case.tries < 2:
            return
        absent = within(case.ranges, *span)
        shown_ms = self._extent.standing(series).newest_ms
        if now_ms - grid.end(absent[0][0]) >= SETTLE_MS:
            await self._extent.look_round(series, absent, door, background=case.background)
        for begin_ms in [begin_ms for each in within(case.ranges, *span) for begin_ms in grid.grid(*each)]:
            end_ms = grid.end(begin_ms)
            if now_ms - end_ms < SETTLE_MS:
                break
            standing = self._extent.standing(series)
            reason = reason_for(begin_ms, end_ms, standing)
            if reason == "exchange_halt" and (shown_ms or 0) <= begin_ms < (standing.newest_ms or 0):
                continue  # REST had nothing newer when it was asked, and may have caught up since
            if reason is not None:
                self._ledger.mark(series, begin_ms, end_ms, reason, now_ms)
                self.stats.explained += 1
            elif now_ms - end_ms > self._heal_limit_ms:
                self._give_up(series, (begin_ms, end_ms), "the exchange has sent nothing since")
            else:
                self.asks_list.add(series.market)
                continue
            case.ranges = without(case.ranges, begin_ms, end_ms)
            case.late = without(case.late, begin_ms, end_ms)

    def _next_look(self, case: HealTask, series: Series, door: MarketClient) -> float | None:
        if case.ranges and (case.fresh or not case.tries):
            return 0.0  # what came meanwhile, or the next page
        waits_ms = []
        if case.ranges:
            waits_ms.append(float(min(_ABSENT_MAX_MS, _ABSENT_FIRST_MS << min(case.tries, 10))))
        if case.young:
            first_ms = series.grid.end(min(case.young)) + LOOK_AGAIN_MS
            waits_ms.append(max(0.0, first_ms - door.time.now_ms()))
        if not waits_ms:
            return None
        delay_s = max(door.time.real_s(min(waits_ms)), _ABSENT_REAL_S_MIN)
        return delay_s if case.ranges else min(delay_s, _YOUNG_REAL_S_MAX)

    def _failed(
        self, series: Series, case: HealTask, span: Range, error: RestError, pool: HealQueue
    ) -> float | None:
        """Say what went wrong; return after how long to ask again."""
        self.stats.errors += 1
        if error.of_series:
            case.unreadable += 1
            if case.unreadable == 1 or case.unreadable % _ERROR_LOG_EVERY == 0:
                log.warning("its healing waits: %s", error)
            return _delay_s(case.unreadable, _UNREADABLE_MAX_S)
        if error.final:
            log.error("%s: cannot be healed, and is asked for again in an hour: %s", series, error)
            now_ms = self._doors[series.market].time.now_ms()
            again_ms, refused = self._refused.get(series, (now_ms + REFUSED_AGAIN_MS, []))
            for each in within(case.ranges, *span):
                self._give_up(series, each, error.what)
                case.ranges = without(case.ranges, *each)
                refused = added(refused, *each)
            self._refused[series] = (again_ms, refused)
            self._forget_young(series, case, span, 2**62, set())
            return self._next_look(case, series, self._doors[series.market])
        pool.failures += 1
        delay_s = _delay_s(pool.failures, _ERROR_MAX_S)
        # The whole host is at fault: nobody asks it until then, and all do when it is back.
        pool.failing_until_s = self._clock.monotonic_s() + delay_s
        if pool.failures == 1 or pool.failures % _ERROR_LOG_EVERY == 0:
            log.warning("healing waits: %s", error)
        return delay_s

    def _give_up(self, series: Series, span: Range, error: str) -> None:
        start_ms, stop_ms = span
        if start_ms < stop_ms:
            now_ms = self._doors[series.market].time.now_ms()
            self._ledger.mark(series, start_ms, stop_ms, "unhealable", now_ms, error)
            self.stats.unhealable += self._extent.grid(series).count(start_ms, stop_ms)


def _delay_s(failures: int, delay_max_s: float) -> float:
    """Return how long to wait after so many failures in a row: doubling, with jitter."""
    ceiling_s = min(delay_max_s, _ERROR_FIRST_S * 2.0 ** min(failures - 1, 20))
    return ceiling_s * random.uniform(0.7, 1.0)  # noqa: S311 - jitter
