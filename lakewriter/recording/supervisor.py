"""The watch: sees to it that each candle of what is subscribed to is there or explained.

Joins the universe (what to record), the listeners (one a market), the
watermarks (what is late), the past (what is missing from before), the healer
and the ledger. The recorder tells it what
became durable; it tells the recorder nothing.
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import RestError
from lakewriter.binance.socket import Timeouts
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import LakeError, LakewriterError
from lakewriter.instrument import Instrument
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.exchange_limits import RATE_LIMITS_FILE, write_rate_limits
from lakewriter.lake.gaps.ledger import Ledger, save
from lakewriter.lake.instruments import remember
from lakewriter.lake.lake import LakeStore
from lakewriter.rate_limit_state import RateLimitState
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.startup_survey import StartupSurvey
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.histogram import Histogram
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.subscription_log import SubscriptionLog
from lakewriter.recording.timekeeping import Timekeeper
from lakewriter.series import Series
from lakewriter.subscribed_period import STOP_MARGIN_MS, RecorderId
from lakewriter.subscription import Subscription

log = logging.getLogger(__name__)

_TICK_S = 0.1
_SAVE_EVERY_S = 0.25

# A stream that is silent is not waited for: REST has the candle about then.
POLL_GRACE_MS = 2_000

# So far the agreed time may be behind the exchange's, where frames come late.
_BEHIND_MS_MAX = 10 * MINUTE_MS

# What ended so shortly before the stop, and did not come, is no gap yet.
MOMENT_MS = STOP_MARGIN_MS

# The journal was behind for so long: what the sockets still hold may come yet.
_BEHIND_S = 1.0

# A machine that slept meanwhile was not behind for so long.
_BEHIND_S_MAX = 60.0

# A list is not kept if the exchange's time stays unknown for so long after it.
_TIME_PATIENCE_S = 10.0

# A list that is asked for between its times is not asked for more often than this.
_LIST_EVERY_S_MIN = 30.0

# So many series are named in one line of the log.
_SHOWN = 3


class SupervisorOptions(NamedTuple):
    """What a user may choose.

    Args:
        heal_limit_ms: what is missing from longer ago is not asked for.
        grace_ms: how long after its end a closed candle may take; None for the market's own.
        rotate_after_ms: age at which a connection is replaced.
        universe_every_s: how often exchangeInfo is asked for.
        patience: how long a connection may take over what.
    """

    heal_limit_ms: int = 7 * 86_400_000
    grace_ms: int | None = None
    rotate_after_ms: int = 23 * 3_600_000
    universe_every_s: float = 600.0
    patience: Timeouts = Timeouts()


class Freshness(msgspec.Struct):
    """Milliseconds from a candle's end to its being durable, by the exchange's clock.

    Args:
        streamed: candles that a stream brought.
        healed: candles that ended while we were recording and that REST brought.
    """

    streamed: Histogram = msgspec.field(default_factory=Histogram)
    healed: Histogram = msgspec.field(default_factory=Histogram)


class CompletenessSupervisor:
    """Watches over the series of a recorder.

    Args:
        store: the lake.
        universe: what is subscribed to; `first` was awaited.
        doors: the ways to the exchange.
        queue: bounded; where candles go.
        recorder: this run of the recorder.
        options: what a user may choose.
        clock: the machine's.
    """

    def __init__(
        self,
        store: LakeStore,
        universe: SubscribedSeries,
        doors: MarketClients,
        queue: "asyncio.Queue[Candle]",
        *,
        recorder: RecorderId,
        ledger: Ledger,
        options: SupervisorOptions,
        clock: Clock,
    ) -> None:
        self.listeners: dict[str, CandleListener] = {}
        self.timekeepers: dict[str, Timekeeper] = {}
        self.freshness = Freshness()
        self.universe = universe
        self.ledger = ledger
        self.healer = Healer(
            doors, universe, ledger, store, queue, heal_limit_ms=options.heal_limit_ms, clock=clock
        )
        self.watermarks = Watermarks(self._grace_ms)
        self._store = store
        self._doors = doors
        self._queue = queue
        self._options = options
        self._clock = clock
        self._committed = 0
        # Begin of the newest durable candle of each series.
        self._newest_ms: dict[Series, int] = {}
        self._saved = asyncio.Lock()
        self._save_failed = False
        self._past = StartupSurvey(
            store,
            universe,
            ledger,
            self.watermarks,
            self.healer,
            doors,
            heal_limit_ms=options.heal_limit_ms,
        )
        self._subscriptions = SubscriptionLog(store, universe, doors, recorder, self._owed_since, clock)
        self._listened: frozenset[Series] = frozenset()
        # Markets whose series are owed: their time is known since.
        self._owing: set[str] = set()
        self._newcomers_since_ms: dict[str, int] = {}
        # How often the time of a market had jumped when that was last looked at.
        self._jumps: dict[str, int] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._polled: frozenset[Series] = frozenset()

    @property
    def surveying(self) -> int:
        """How many series' past was not looked up yet."""
        return self._past.surveying

    def committed(self, candles: Iterable[Candle]) -> None:
        """Take note of candles that are durable now."""
        healer, watermarks = self.healer, self.watermarks
        for market in self._owing:
            self._follow_time(market)
        now_ms = {market: self._doors[market].time.now_ms() for market in self.listeners}
        for candle in candles:
            self._committed += 1
            series = candle.series
            skipped = watermarks.seen(candle)
            if skipped is not None:
                healer.owe(series, *skipped)
            since_ms = watermarks.since_ms(series)
            if since_ms is not None and candle.end_ms > since_ms:
                age = self.freshness.streamed if candle.source == "stream" else self.freshness.healed
                age.add(max(0, now_ms.get(candle.market, candle.end_ms) - candle.end_ms))
            self._newest_ms[series] = max(candle.begin_ms, self._newest_ms.get(series, 0))
            healer.committed(candle)

    def change(self, subscriptions: Iterable[Subscription]) -> None:
        """Record these from now on; streams that stay are not touched."""
        self.universe.subscriptions = list(subscriptions)
        if self._tasks is None:
            return  # not begun yet, or over
        self._apply()
        self._subscriptions.changed()
        for market in self._owing:
            self.universe.warn_of_unlisted(market)
            self._past.look_up_former(market, self._doors[market].time.now_ms())

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._apply()
                for work in (
                    self.healer.run,
                    self._watch_deadlines,
                    self._save_often,
                    self._keep_restraint,
                    self._past.run,
                    self._subscriptions.run,
                ):
                    tasks.create_task(work())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # they all fail for one reason: say that
        finally:
            self._tasks = None
            self._let_go()
            self._subscriptions.end()

    async def close(self) -> None:
        """Write the last state of the ledger and of the subscriptions."""
        await self.save()
        await self._subscriptions.confirm()

    async def save(self) -> None:
        """Write what the ledger learned since the last time."""
        async with self._saved:
            try:
                await save(self.ledger)
            except (LakeError, OSError) as error:
                if not self._save_failed:
                    log.error("gaps: %s; they are written again until the disk takes them", error)
                self._save_failed = True
            else:
                self._save_failed = False

    def _let_go(self) -> None:
        """Leave no gap of a candle that was missed a moment ago: the recording ends before it.

        The next recorder finds it missing behind the newest that is there.
        """
        for gap in self.ledger.gaps():
            newest_ms = self._newest_ms.get(gap.series)
            if gap.reason != "pending" or newest_ms is None:
                continue
            grid = gap.series.grid.anchored(newest_ms)
            tail_ms = max(gap.start_ms, grid.end(newest_ms))
            now_ms = self._doors[gap.market].time.now_ms()
            if tail_ms < gap.stop_ms and grid.end(tail_ms) >= now_ms - MOMENT_MS:
                self.ledger.clear(gap.series, tail_ms, gap.stop_ms)

    def _apply(self) -> None:
        """Bring listeners and watermarks in step with what is wanted."""
        for market in self.universe.markets:
            if market not in self.listeners:
                self._open(market)
        wanted = self.universe.wanted()
        if wanted.listened != self._listened:
            self._listened = wanted.listened
            self._subscriptions.changed()
        for market, listener in self.listeners.items():
            present = listener.series
            here = {series for series in wanted.listened if series.market == market}
            for change, some in (
                (listener.remove_symbols, present - here),
                (listener.add_symbols, here - present),
            ):
                by_interval: dict[str, list[str]] = {}
                for series in sorted(some):
                    by_interval.setdefault(series.interval, []).append(series.symbol)
                for interval, symbols in by_interval.items():
                    change(*symbols, interval=interval)
            if present and here != present:
                log.info("%s: %d series came, %d left", market, len(here - present), len(present - here))
            if self._doors[market].time.known:
                owed = {series for series in wanted.owed if series.market == market}
                self._owe(market, owed)

    def _owe(self, market: str, owed: set[Series]) -> None:
        if market not in self._owing:
            self._owing.add(market)
            self._jumps[market] = self._doors[market].time.jumps
            self._past.look_up_former(market, self._doors[market].time.now_ms())
        now_ms = self._doors[market].time.now_ms()
        present = {series for series in self.watermarks.series if series.market == market}
        if owed - present:
            self._subscriptions.changed()
        for series in sorted(owed - present):
            from_ms = self._newcomers_since_ms.get(market, now_ms)
            self.watermarks.expect(series, from_ms)
            self.healer.disown(series, now_ms)
            self._past.look_up(series, from_ms)
        for series in sorted(present - owed):
            since_ms = self.watermarks.since_ms(series)
            next_ms = self.watermarks.forget(series)
            instrument = self.universe.instrument(series)
            if instrument is None and since_ms is not None and next_ms == series.grid.floor(since_ms):
                continue  # a spelling mistake, or a listing to come: its recording never began
            if next_ms is not None and not self.universe.covers(series):
                # Left on purpose: owed up to its last closed candle, which may be on its way.
                self.healer.owe(series, next_ms, series.grid.anchored(next_ms).floor(now_ms))
                continue
            if next_ms is not None and (instrument is None or not instrument.trades):
                # The first candle that never comes says in the ledger why: the one of now, at the latest.
                grid = series.grid.anchored(next_ms)
                stop_ms = grid.end(max(grid.floor(now_ms), next_ms))
                delivery_ms = None if instrument is None else instrument.delivery_ms
                if delivery_ms is not None and stop_ms <= delivery_ms <= now_ms + _BEHIND_MS_MAX:
                    # The list is ahead of what frames tell of the time: the delivery has passed.
                    stop_ms = grid.end(grid.floor(delivery_ms))
                self.healer.owe(series, next_ms, stop_ms)

    def _owed_since(self) -> dict[Series, int]:
        """Return since when each series is owed that its market lists as trading."""
        owed = ((series, self.watermarks.since_ms(series)) for series in self.watermarks.series)
        return {
            series: since_ms
            for series, since_ms in owed
            if since_ms is not None and series.market in self.universe.listed
        }

    def _open(self, market: str) -> None:
        """Begin to listen to a market."""
        assert self._tasks is not None
        door = self._doors[market]
        self.listeners[market] = CandleListener(
            door.market,
            (),
            door.market.intervals[0],
            self._queue,
            patience=self._options.patience,
            clock=self._clock,
            gate=door.gate,
            time=door.time,
            rotate_after_ms=self._options.rotate_after_ms,
        )
        for work in (self.listeners[market].run(), self._keep_time(market), self._keep_universe(market)):
            self._tasks.create_task(work)

    def _grace_ms(self, series: Series) -> int:
        if series in self._polled:
            return POLL_GRACE_MS
        own = self._options.grace_ms
        return self._doors[series.market].market.grace_ms if own is None else own

    async def _keep_time(self, market: str) -> None:
        """Learn the exchange's time, again and again."""
        keeper = self.timekeepers[market] = Timekeeper(self._doors[market])
        while True:
            at_once = await keeper.ask()
            if not at_once or market not in self._owing:
                self._apply()
            await keeper.wait()

    def _follow_time(self, market: str) -> None:
        """Begin anew at the agreed time, if it moved without that much time passing.

        What ended until then is owed; what lies between never passed, and is not.
        """
        time = self._doors[market].time
        if time.jumps == self._jumps.get(market, 0) or time.last_jump is None:
            return
        self._jumps[market] = time.jumps
        before_ms, after_ms = time.last_jump
        if before_ms == after_ms:
            return
        log.warning(
            "%s: the exchange's time moved by %.0f s, as its moments agree; candles are expected from there",
            market,
            (after_ms - before_ms) / 1000,
        )
        for series in [series for series in self.watermarks.series if series.market == market]:
            next_ms = self.watermarks.restart(series, after_ms)
            if next_ms is None:
                continue
            stop_ms = series.grid.anchored(next_ms).floor(min(before_ms, after_ms))
            if next_ms < stop_ms:
                self.healer.owe(series, next_ms, stop_ms)
            self.healer.disown(series, after_ms)

    async def _keep_universe(self, market: str) -> None:
        """Ask what the market lists, again and again, and follow it."""
        every_s = self._options.universe_every_s
        while True:
            try:
                before_ms = self.universe.as_of_ms.get(market)
                is_first = market not in self.universe.listed
                instruments = await self.universe.refresh(market)
                self.healer.asks_list.discard(market)
                self.universe.warn_of_unlisted(market)
                # Who was not listed the last time may have begun to trade right after it.
                if before_ms is not None and market in self._owing:
                    self._newcomers_since_ms[market] = before_ms
                self._apply()
                self._newcomers_since_ms.pop(market, None)
                if is_first:
                    self._subscriptions.changed()  # now it is known which of them trade
                await self._remember(market, instruments)
            except RestError as error:
                log.warning("what %s lists is not known: %s", market, error)
            waited_s, wait_s = 0.0, every_s * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
            while waited_s < wait_s:
                nap_s = min(1.0, every_s / 4)
                await asyncio.sleep(nap_s)
                waited_s += nap_s
                if market in self.healer.asks_list and waited_s >= min(_LIST_EVERY_S_MIN, every_s / 2):
                    break

    async def _remember(self, market: str, instruments: list[Instrument]) -> None:
        time = self._doors[market].time
        patience_s = _TIME_PATIENCE_S
        # The first list often comes before the first answer to what time it is.
        while not time.known and patience_s > 0:
            await asyncio.sleep(_TICK_S)
            patience_s -= _TICK_S
        now_ms = self.universe.as_of_ms.get(market, time.now_ms())
        if instruments and time.known:
            try:
                await asyncio.to_thread(remember, self._store, market, instruments, now_ms)
            except (LakewriterError, OSError) as error:
                log.error("instruments: %s", error)

    async def _watch_deadlines(self) -> None:
        """Hand to the healer what is late, and to the listeners what that says of them."""
        quiet_until_s = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            for market in self._owing:
                self._follow_time(market)
            now_ms = {
                market: self._doors[market].time.now_ms()
                for market in self.watermarks.markets
                if self._doors[market].time.known
            }
            behind_s = await self._caught_up()
            now_s = self._clock.monotonic_s()
            if behind_s >= _BEHIND_S:
                quiet_until_s = now_s + min(behind_s, _BEHIND_S_MAX)
            if now_s < quiet_until_s:
                continue
            self._look_who_is_silent()
            for market, until_ms in now_ms.items():
                for late in self.watermarks.overdue(market, until_ms):
                    self.healer.owe(late.series, late.start_ms, late.stop_ms, late=True)
            while self.healer.undelivered:
                series = self.healer.undelivered.pop()
                self.listeners[series.market].missed(series)

    def _look_who_is_silent(self) -> None:
        polled = frozenset().union(*(each.polled for each in self.listeners.values()))
        for some, what in (
            (polled - self._polled, "silent; their candles are fetched"),
            (self._polled - polled, "flowing again"),
        ):
            if some:
                shown = ", ".join(map(str, sorted(some)[:_SHOWN]))
                more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
                log.warning("%s%s: %s", shown, more, what)
        self._polled = polled

    async def _caught_up(self) -> float:
        """Wait until all that arrived before now is durable; return how long that took."""
        arrived = self.healer.put + sum(listener.stats.candles for listener in self.listeners.values())
        began_s = self._clock.monotonic_s()
        # An event would have to be set for each candle.
        while self._committed < arrived:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return self._clock.monotonic_s() - began_s

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            await self.save()

    async def _keep_restraint(self) -> None:
        """Leave to the next process, at once, what the exchange asked of this one."""
        written = RateLimitState()
        while True:
            await asyncio.sleep(_TICK_S)
            restraint = self._doors.restraint()
            if not _same(restraint, written):
                try:
                    await asyncio.to_thread(write_rate_limits, self._store.state_dir, restraint)
                except OSError as error:
                    log.error("%s cannot be written: %s", RATE_LIMITS_FILE, error.strerror)
                written = restraint


def _same(one: RateLimitState, other: RateLimitState) -> bool:
    """Tell whether nothing was added; attempts that grow old are no news."""
    counts = [{host: each[-1:] for host, each in some.attempts_s.items()} for some in (one, other)]
    return one.held_until_s.keys() == other.held_until_s.keys() and counts[0] == counts[1]
