"""Retention in a recorder's process: the config's `keep`.

At the start, and then once a day, it forgets the partitions of the subscribed series whose
candles are all older than `keep`. It neither delays a live candle nor ends the recording:
a failure is logged and retried a day later.

Rule: a time by which candles are removed is never later than the exchange's clock or the
host's. A host whose clock is years ahead removes nothing.
"""

import asyncio
import logging
import math
from itertools import islice

from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.errors import LakewriterError
from lakewriter.interval import DAY_MS
from lakewriter.lake.forgotten import ForgetPurpose
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.retention import RetentionResult, forget_old, old_partitions
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series

log = logging.getLogger(__name__)

EVERY_S = 86_400.0

# In the record. The name of a host changes with each new container.
_BY = "recorder"

# Pause between checks whether a market is due.
_CHECK_S = 2.0

# Partitions that are removed together, and the pause after them for other work.
BATCH_PARTITIONS = 200
_PAUSE_S = 0.05

# Errors that one run logs.
_ERRORS_MAX = 3


class Retention:
    """The task that forgets old candles of the subscribed series.

    Args:
        store: the lake.
        subscribed: the subscriptions.
        clients: know the exchange's time.
        keep_ms: the least age of a removed candle.
        clock: the machine's clock.
    """

    def __init__(
        self,
        store: LakeStore,
        subscribed: SubscribedSeries,
        clients: MarketClients,
        *,
        keep_ms: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._subscribed = subscribed
        self._clients = clients
        self._keep_ms = keep_ms
        self._clock = clock

    async def run(self) -> None:
        """Forget old candles of each market as soon as its time is known, and once a day, until cancelled."""
        due_s: dict[str, float] = {}
        while True:
            for market in self._subscribed.markets:
                now_s = self._clock.monotonic_s()
                if not self._clients[market].time.known or now_s < due_s.get(market, -math.inf):
                    continue
                due_s[market] = now_s + EVERY_S
                try:
                    await self._forget(market)
                except (LakewriterError, OSError) as error:
                    log.error("retention: %s: %s; tried again tomorrow", market, error)
            await asyncio.sleep(_CHECK_S)

    async def _forget(self, market: str) -> None:
        wall_ms = self._clock.wall_us() // 1000
        now_ms = min(self._clients[market].time.now_ms(), wall_ms)
        before_ms = (now_ms - self._keep_ms) // DAY_MS * DAY_MS
        if before_ms <= 0:
            return
        series = await asyncio.to_thread(self._series, market)
        items = old_partitions(self._store, series, before_ms)
        purpose = ForgetPurpose(_BY, f"keep = {self._keep_ms // DAY_MS}d", (), wall_ms)
        results: list[RetentionResult] = []
        while batch := await asyncio.to_thread(lambda: list(islice(items, BATCH_PARTITIONS))):
            finished_ms = self._clock.wall_us() // 1000
            results.append(await asyncio.to_thread(forget_old, self._store, batch, purpose, finished_ms))
            await asyncio.sleep(_PAUSE_S)
        self._log(market, results)

    def _series(self, market: str) -> list[Series]:
        """Return the series of the lake that a subscription covers; other series of the lake stay."""
        present = self._store.series(PartitionFilter(markets=(market,)))
        return [each for each in present if self._subscribed.covers(each)]

    def _log(self, market: str, results: list[RetentionResult]) -> None:
        errors = [error for each in results for error in each.errors]
        for error in errors[:_ERRORS_MAX]:
            log.error("retention: %s", error)
        partitions = sum(each.partitions for each in results)
        if partitions or errors:
            log.info(
                "retention: %(market)s: forgot %(candles)d candles in %(partitions)d partitions of %(series)d"
                " series, older than %(days)d days; %(freed_mb).1f MB freed, %(failed)d partitions failed",
                {
                    "market": market,
                    "candles": sum(each.candles for each in results),
                    "partitions": partitions,
                    "series": len(frozenset().union(*(each.series for each in results))),
                    "days": self._keep_ms // DAY_MS,
                    "freed_mb": sum(each.file_bytes for each in results) / 1e6,
                    "failed": len(errors),
                },
            )
