"""The completeness supervisor. It ensures that each subscribed candle is recorded, or explained.

The supervisor runs these parts, and passes durable candles and changed
subscriptions to them:

    listeners         put the candles of each market's streams on the queue
    expected_series   the series that have to be complete
    series_states     the state of each series, for the recorder's status
    deadlines         find late candles
    healing           requests late and missing candles from REST
    timekeeping, instrument_lists    the time and the instruments of each market
    subscription_log, state_saver    write the state for the next process

The supervisor never calls the recorder.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.socket import Timeouts
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.first_error import first_error
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.candle_queue import CandleQueue
from lakewriter.recording.deadlines import DeadlineWatch, GracePeriods
from lakewriter.recording.expected_series import ExpectedSeries
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.startup_survey import StartupSurvey
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.instrument_lists import InstrumentList
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.series_states import SeriesStates
from lakewriter.recording.state_saver import StateSaver
from lakewriter.recording.status import Freshness
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.subscription_log import SubscriptionLog
from lakewriter.recording.timekeeping import Timekeeper
from lakewriter.series import Series
from lakewriter.subscribed_period import RecorderId
from lakewriter.subscription import Subscription

log = logging.getLogger(__name__)


class SupervisorOptions(NamedTuple):
    """The user's options.

    Args:
        heal_limit_ms: maximum age of missing candles that are requested.
        grace_ms: time from a candle's end to its deadline; None for each market's own.
        rotate_after_ms: age at which a connection is replaced.
        list_every_s: pause between requests of exchangeInfo.
        timeouts: the timeouts of a connection.
    """

    heal_limit_ms: int = 7 * 86_400_000
    grace_ms: int | None = None
    rotate_after_ms: int = 23 * 3_600_000
    list_every_s: float = 600.0
    timeouts: Timeouts = Timeouts()


class CompletenessSupervisor:
    """The supervisor of a recorder's series.

    Args:
        store: the lake.
        subscribed: the subscriptions, after `first` was awaited.
        clients: the clients of the markets.
        queue: receives candles.
        recorder: this run of the recorder.
        ledger: the gaps.
        options: the user's options.
        clock: the machine's clock.
    """

    def __init__(
        self,
        store: LakeStore,
        subscribed: SubscribedSeries,
        clients: MarketClients,
        queue: CandleQueue,
        *,
        recorder: RecorderId,
        ledger: Ledger,
        options: SupervisorOptions,
        clock: Clock,
    ) -> None:
        self.listeners: dict[str, CandleListener] = {}
        self.timekeepers: dict[str, Timekeeper] = {}
        self.freshness = Freshness()
        self.subscribed = subscribed
        self.ledger = ledger
        self.recorder = recorder
        self.clients = clients
        self._store = store
        self._queue = queue
        self._options = options
        self._clock = clock
        limit_ms = options.heal_limit_ms
        self.healer = Healer(clients, subscribed, ledger, store, queue, heal_limit_ms=limit_ms, clock=clock)
        grace = GracePeriods(clients, options.grace_ms)
        self.watermarks = Watermarks(grace.ms)
        self._survey = StartupSurvey(
            store, subscribed, ledger, self.watermarks, self.healer, clients, heal_limit_ms=limit_ms
        )
        self.states = SeriesStates(self.listeners, self.watermarks, self.healer, clients, grace.ms)
        self._expected = ExpectedSeries(
            subscribed, clients, self.watermarks, self.healer, self._survey, ledger, self.states
        )
        self._deadlines = DeadlineWatch(
            self._expected,
            self.watermarks,
            grace,
            self.healer,
            self.listeners,
            queue,
            states=self.states,
            clients=clients,
            clock=clock,
        )
        self._subscription_log = SubscriptionLog(
            store, subscribed, clients, recorder, self._expected.since_ms, clock
        )
        self._saver = StateSaver(store, ledger, clients)
        self._listened: frozenset[Series] = frozenset()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def surveying(self) -> int:
        """The number of series that are not surveyed yet."""
        return self._survey.surveying

    def market_times_ms(self) -> dict[str, int]:
        """Return the exchange's time at each market that is listened to."""
        return {market: self.clients[market].time.now_ms() for market in self.listeners}

    def mark_durable(self, candles: Iterable[Candle], durable_ms: Mapping[str, int]) -> None:
        """Move the watermarks past durable candles, and heal candles missing before them.

        Args:
            durable_ms: the result of `market_times_ms` when the candles became durable.
        """
        healer, watermarks = self.healer, self.watermarks
        self._expected.follow_time()
        for candle in candles:
            series = candle.series
            skipped = watermarks.advance(candle)
            if skipped is not None:
                healer.request_heal(series, *skipped)
            since_ms = watermarks.since_ms(series)
            if since_ms is not None and candle.end_ms > since_ms:
                age_ms = max(0, durable_ms.get(candle.market, candle.end_ms) - candle.end_ms)
                self.freshness.add(age_ms, is_streamed=candle.source == "stream")
            self.states.note_durable(candle)
            healer.mark_durable(candle)

    def change(self, subscriptions: Iterable[Subscription]) -> None:
        """Replace the subscriptions from now on; streams of unchanged series continue."""
        self.subscribed.subscriptions = list(subscriptions)
        if self._tasks is None:
            return  # not started yet, or stopped
        self._apply()
        self._subscription_log.changed()
        for market in self._expected.markets:
            self.subscribed.warn_of_unlisted(market)
            self._survey.survey_ended_series(market, self.clients[market].time.now_ms())

    async def run(self) -> None:
        """Run all parts until cancelled."""
        parts = (self.healer, self._deadlines, self._saver, self._survey, self._subscription_log)
        try:
            with first_error():  # all parts fail for the same reason
                async with asyncio.TaskGroup() as tasks:
                    self._tasks = tasks
                    self._apply()
                    for part in parts:
                        tasks.create_task(part.run())
        finally:
            self._tasks = None
            self._expected.clear_last_moment()
            self._subscription_log.end()

    async def close(self) -> None:
        """Write the last state of the ledger and of the subscriptions."""
        await self._saver.save_ledger()
        await self._subscription_log.confirm()
        if self._store.is_remote:
            await self._saver.publish(leaving=self.recorder.journal)

    def _apply(self, new_since_ms: Mapping[str, int] | None = None) -> None:
        """Update listeners and expected series to the subscriptions and the lists.

        Args:
            new_since_ms: the time from which new series are expected, by market; now for absent markets.
        """
        for market in self.subscribed.markets:
            if market not in self.listeners:
                self._open(market)
        resolved = self.subscribed.resolve()
        if resolved.listened != self._listened:
            self._listened = resolved.listened
            self._subscription_log.changed()
        for market, listener in self.listeners.items():
            _set_streams(listener, {series for series in resolved.listened if series.market == market})
            if self.clients[market].time.known:
                expected = {series for series in resolved.expected if series.market == market}
                if self._expected.update(market, expected, (new_since_ms or {}).get(market)):
                    self._subscription_log.changed()

    def _open(self, market: str) -> None:
        """Start the listener of a market, and the tasks that keep its time and its list."""
        assert self._tasks is not None
        client = self.clients[market]
        self.listeners[market] = CandleListener(
            client.market,
            (),
            client.market.intervals[0],
            self._queue,
            timeouts=self._options.timeouts,
            clock=self._clock,
            gate=client.gate,
            time=client.time,
            rotate_after_ms=self._options.rotate_after_ms,
        )
        for work in (self.listeners[market].run(), self._keep_time(market), self._keep_list(market)):
            self._tasks.create_task(work)

    async def _keep_time(self, market: str) -> None:
        """Request the exchange's time regularly, and expect series as soon as it is known."""
        keeper = self.timekeepers[market] = Timekeeper(self.clients[market])
        while True:
            answered_at_once = await keeper.ask()
            if not answered_at_once or market not in self._expected.markets:
                self._apply()
            await keeper.wait()

    async def _keep_list(self, market: str) -> None:
        """Request the market's list regularly, and apply each answer."""
        client, every_s = self.clients[market], self._options.list_every_s
        instruments = InstrumentList(
            market, self._store, self.subscribed, client, self.healer.explainer, every_s=every_s
        )
        while True:
            refreshed = await instruments.refresh()
            if refreshed is not None:
                # A new symbol may have begun to trade right after the previous list.
                if refreshed.previous_ms is not None and market in self._expected.markets:
                    self._apply({market: refreshed.previous_ms})
                else:
                    self._apply()
                if refreshed.is_first:
                    self._subscription_log.changed()  # the list shows which symbols trade
                await instruments.keep(refreshed.instruments)
            await instruments.wait()


def _set_streams(listener: CandleListener, wanted: set[Series]) -> None:
    """Add and remove streams of a listener, so that exactly the wanted series remain."""
    present = listener.series
    for change, changed in (
        (listener.remove_symbols, present - wanted),
        (listener.add_symbols, wanted - present),
    ):
        by_interval: dict[str, list[str]] = {}
        for series in sorted(changed):
            by_interval.setdefault(series.interval, []).append(series.symbol)
        for interval, symbols in by_interval.items():
            change(*symbols, interval=interval)
    if present and wanted != present:
        market = listener.market.name
        log.info("%s: %d series added, %d removed", market, len(wanted - present), len(present - wanted))
