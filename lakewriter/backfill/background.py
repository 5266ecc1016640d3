"""A backfill beside a recorder, in its process: `lakewriter record --since`.

It must never hold up a live candle, nor end the recording: whatever fails is
said and tried again later. When the subscriptions change it looks again; what is
there already costs a look.
"""

import asyncio
import logging
from collections.abc import Callable

from lakewriter.backfill.run import Backfill, BackfillOptions
from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.errors import LakewriterError
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.subscription import Subscription

log = logging.getLogger(__name__)

# After a failure, or with something left that could not be had.
RETRY_S = 300.0


class BackgroundBackfill:
    """Keeps the history of what is recorded complete.

    Args:
        store: the lake.
        doors: the recorder's ways to the exchange, whose budget is shared so.
        ledger: the recorder's, which writes it.
        subscriptions: tells what is recorded now.
        since_ms: candles that begin before are not wanted.
        clock: the machine's.
    """

    def __init__(
        self,
        store: LakeStore,
        doors: MarketClients,
        ledger: Ledger,
        subscriptions: Callable[[], list[Subscription]],
        *,
        since_ms: int,
        clock: Clock,
    ) -> None:
        self.backfill: Backfill | None = None
        self._store = store
        self._doors = doors
        self._ledger = ledger
        self._subscriptions = subscriptions
        self._options = BackfillOptions(since_ms=since_ms)
        self._clock = clock
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Look again: the subscriptions are other ones now."""
        self._changed.set()

    async def run(self) -> None:
        """Fill, and fill again when something changes, until cancelled."""
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

    async def _fill(self) -> bool:
        """Bring what is missing; tell whether nothing has to be tried again."""
        began_s = self._clock.monotonic_s()
        self.backfill = backfill = Backfill(
            self._store, self._doors, options=self._options, clock=self._clock
        )
        plan = await backfill.plan(self._subscriptions())
        for series in plan.unknown:
            log.warning("history: nobody knows %s", series)
        await backfill.run(plan, self._ledger, "")
        done = backfill.progress
        log.info(
            "history: %d series complete, %d candles of %d files and %d by REST, in %.0f s",
            len(plan.series), done.from_archive, done.files, done.from_rest, self._clock.monotonic_s() - began_s,
        )  # fmt: skip
        return not (done.unhealable or done.unexplained or done.unmerged or done.unreadable)
