"""The subscription log: the lake's record of this recorder's subscriptions.

The log confirms the subscriptions at the start, at each change, every five
minutes while recording, and at the stop. If the disk refuses a write, the log
warns once and retries; the recording continues.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.subscriptions import confirm_subscriptions, dead_journals
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series
from lakewriter.subscribed_period import Confirmation, RecorderId

log = logging.getLogger(__name__)

# Maximum age of a recorder's last confirmation.
CONFIRM_EVERY_S = 300.0

# An earlier run of this recorder looks alive while another process replays its
# journal, for instance after a power cut. This run can still take over from it for this long.
FOLLOW_S = 30.0

# If a market's time stays unknown for this long, its series are confirmed by the wall clock.
TIME_PATIENCE_S = 10.0

# Maximum number of series named in one log line.
_SHOWN = 3

_RETRY_S = 5.0
_TIME_CHECK_S = 0.1


class SubscriptionLog:
    """The task that confirms a recorder's subscriptions in the lake.

    It is created before the recorder replays the journals of dead recorders.

    Args:
        store: the lake.
        subscribed: the subscriptions.
        clients: know the time at each market.
        recorder: this run of the recorder.
        expected_since_ms: returns the time from which each listed series that trades is expected.
        clock: the machine's clock.
    """

    def __init__(
        self,
        store: LakeStore,
        subscribed: SubscribedSeries,
        clients: MarketClients,
        recorder: RecorderId,
        expected_since_ms: Callable[[], Mapping[Series, int]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._subscribed = subscribed
        self._clients = clients
        self._recorder = recorder
        self._expected_since_ms = expected_since_ms
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._due = asyncio.Event()
        self._confirming = asyncio.Lock()
        self._dead = dead_journals(store.state_dir)
        self._starting = True
        self._failed = False
        self._ending = False
        self._ended_ms: dict[str, int] = {}
        # All markets that were ever subscribed to, and the markets confirmed with their time.
        self._markets: set[str] = set()
        self._dated: frozenset[str] = frozenset()

    def changed(self) -> None:
        """Request a confirmation, because the subscriptions changed."""
        self._due.set()

    def end(self) -> None:
        """Use the present time in all later confirmations, because listening ends now."""
        self._ending = True
        self._ended_ms = {market: self._clients[market].time.now_ms() for market in self._dated_markets()}

    async def run(self) -> None:
        """Confirm the subscriptions until cancelled."""
        while True:
            self._due.clear()
            taken = await self.confirm()
            await self._wait_due(_RETRY_S if not taken else FOLLOW_S if self._starting else CONFIRM_EVERY_S)

    async def confirm(self) -> bool:
        """Write the present subscriptions; return whether the write succeeded."""
        async with self._confirming:
            dated = self._dated_markets()
            if not dated:
                return True
            writing = asyncio.create_task(
                asyncio.to_thread(confirm_subscriptions, self._store, self._confirmation(dated), self._dead)
            )
            try:
                _log_left(await asyncio.shield(writing))
            except asyncio.CancelledError:
                # The thread cannot be stopped, and the next confirmation must not overtake it.
                await asyncio.gather(writing, return_exceptions=True)
                raise
            except (LakeError, OSError) as error:
                if not self._failed:
                    log.error("subscriptions: %s; the write is retried until it succeeds", error)
                self._failed = True
                return False
            self._failed = False
            self._starting = self._starting and self._clock.monotonic_s() - self._began_s < FOLLOW_S
            self._dated = dated
            return True

    def _confirmation(self, dated: frozenset[str]) -> Confirmation:
        subscriptions = tuple(self._subscribed.subscriptions)

        def covers(series: Series) -> bool:
            return any(each.covers(*series) for each in subscriptions)

        return Confirmation(
            self._recorder,
            self._subscribed.resolve().listened,
            covers,
            self._ended_ms or {market: self._clients[market].time.now_ms() for market in dated},
            self._expected_since_ms(),
            self._starting,
        )

    def _dated_markets(self) -> frozenset[str]:
        """Return the markets whose time is known, or was not known within `TIME_PATIENCE_S`.

        At the end a time with an unknown rate is enough: there is no later confirmation,
        and candles of the market may have been recorded.
        """
        self._markets.update(self._subscribed.markets)
        if self._clock.monotonic_s() - self._began_s >= TIME_PATIENCE_S:
            return frozenset(self._markets)
        times = {market: self._clients[market].time for market in self._markets}
        return frozenset(
            market for market, time in times.items() if time.known or (self._ending and time.agreed)
        )

    async def _wait_due(self, most_s: float) -> None:
        """Wait until the subscriptions change or another market's time is known, for at most `most_s`."""
        until_s = self._clock.monotonic_s() + most_s
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            all_dated = self._dated == self._markets
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s if all_dated else min(left_s, _TIME_CHECK_S)):
                    await self._due.wait()
                    return
            if self._dated_markets() != self._dated:
                return


def _log_left(left: list[Series]) -> None:
    if left:
        shown = ", ".join(map(str, left[:_SHOWN]))
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        log.info("no longer subscribed to, and expected no more: %s%s", shown, more)
