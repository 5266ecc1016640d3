"""The backfill in a recorder's process: `lakewriter record --since`.

It must neither delay a live candle nor end the recording. A failure is logged and retried
later. Changed subscriptions start a new plan.
"""

import asyncio
import logging
from collections.abc import Callable

from lakewriter.backfill.planner import BackfillOptions
from lakewriter.backfill.run import Backfill
from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.errors import LakewriterError
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.subscription import Subscription

log = logging.getLogger(__name__)

# The pause in seconds after a failure, or while candles are missing.
RETRY_S = 300.0


class BackgroundBackfill:
    """Keeps the history of the recorded series complete.

    Args:
        store: the lake.
        clients: the recorder's clients. Recorder and backfill share one weight budget.
        ledger: the recorder's ledger, which the recorder saves.
        subscriptions: returns the recorded subscriptions.
        since_ms: the minimum begin time of a candle.
        keep_ms: the age at which the recorder forgets candles; None if it keeps all.
        clock: the machine's clock.
    """

    def __init__(
        self,
        store: LakeStore,
        clients: MarketClients,
        ledger: Ledger,
        subscriptions: Callable[[], list[Subscription]],
        *,
        since_ms: int,
        clock: Clock,
        keep_ms: int | None = None,
    ) -> None:
        self.backfill: Backfill | None = None
        self._store = store
        self._clients = clients
        self._ledger = ledger
        self._subscriptions = subscriptions
        self._since_ms = since_ms
        self._keep_ms = keep_ms
        self._clock = clock
        self._changed = asyncio.Event()

    def subscriptions_changed(self) -> None:
        """Request a new plan for changed subscriptions."""
        self._changed.set()

    async def run(self) -> None:
        """Run a backfill after each change and each failure, until cancelled."""
        while True:
            self._changed.clear()
            try:
                whole = await self._fill()
            except (LakewriterError, OSError) as error:
                log.error("history: %s; tried again in %.0f s", error, RETRY_S)
                whole = False
            try:
                async with asyncio.timeout(None if whole else RETRY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _begin_ms(self) -> int:
        """Return the minimum begin time; a recorder of years has forgotten the oldest candles since."""
        if self._keep_ms is None:
            return self._since_ms
        return max(self._since_ms, self._clock.wall_us() // 1000 - self._keep_ms)

    async def _fill(self) -> bool:
        """Run one backfill; return whether nothing is left to retry."""
        began_s = self._clock.monotonic_s()
        self.backfill = backfill = Backfill(
            self._store, self._clients, options=BackfillOptions(self._begin_ms()), clock=self._clock
        )
        plan = await backfill.plan(self._subscriptions())
        for series in plan.unknown:
            log.warning("history: exchange and archive do not know %s", series)
        await backfill.run(plan, self._ledger, "")
        progress = backfill.progress
        log.info(
            "history: %d series complete, %d candles of %d files and %d by REST, in %.0f s",
            len(plan.series), progress.from_archive, progress.files, progress.from_rest, self._clock.monotonic_s() - began_s,
        )  # fmt: skip
        return not (progress.unhealable or progress.unexplained or progress.unmerged or progress.unreadable)
