"""The delivery of healed candles: to the queue, or directly into partitions."""

import asyncio
import logging

from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.storage import StoreAwayError
from lakewriter.partition import by_partition
from lakewriter.ranges import Range, contains, without
from lakewriter.recording.healing.schedule import HealTask
from lakewriter.recording.healing.series_bounds import SeriesBounds
from lakewriter.recording.healing.stats import HealerStats
from lakewriter.recording.healing.timing import PROVISIONAL_MS
from lakewriter.series import Series

log = logging.getLogger(__name__)


class Delivery:
    """The delivery of healed candles.

    Args:
        queue: receives candles that are journaled, like streamed candles.
        store: receives the candles of long gaps.
        ledger: the gaps; merged candles are removed from it.
        bounds: know the grid of each series.
        stats: counts that are updated here.
    """

    def __init__(
        self,
        queue: "asyncio.Queue[Candle]",
        store: LakeStore,
        ledger: Ledger,
        bounds: SeriesBounds,
        stats: HealerStats,
    ) -> None:
        self._queue = queue
        self._store = store
        self._ledger = ledger
        self._bounds = bounds
        self._stats = stats
        self._undelivered: list[Series] = []

    def take_undelivered(self) -> list[Series]:
        """Remove and return the series whose stream did not deliver a candle with trades."""
        undelivered, self._undelivered = self._undelivered, []
        return undelivered

    async def deliver(
        self, series: Series, task: HealTask, span: Range, closed: list[Candle], asked_ms: int
    ) -> None:
        """Deliver the missing candles of an answer, and candles with more trades than before.

        Args:
            span: the range of the answer.
            closed: the closed candles of the answer.
            asked_ms: the exchange's time at the request.
        """
        missing = [candle for candle in closed if contains(task.ranges, candle.begin_ms)]
        grown = [
            candle
            for candle in closed
            if candle.trade_num > task.provisional.get(candle.begin_ms, candle.trade_num)
        ]
        # Candles with more trades are removed from the ledger when they are durable.
        self.drop_provisional(series, task, span, asked_ms, keep=[candle.begin_ms for candle in grown])
        if any(candle.trade_num and contains(task.late, candle.begin_ms) for candle in missing):
            self._undelivered.append(series)
        for candle in missing:
            task.ranges = without(task.ranges, candle.begin_ms, candle.end_ms)
            task.late = without(task.late, candle.begin_ms, candle.end_ms)
            if asked_ms - candle.end_ms < PROVISIONAL_MS:
                task.provisional[candle.begin_ms] = candle.trade_num
        if task.background:
            await self._merge(missing)
        await self._put(grown if task.background else [*missing, *grown])
        self._stats.healed += len(missing)
        self._stats.corrected += len(grown)

    def drop_provisional(
        self, series: Series, task: HealTask, span: Range, asked_ms: int, keep: list[int] | None = None
    ) -> None:
        """Remove provisional candles (see `timing`) of a range that were old enough at the request.

        Args:
            keep: begin times of candles that stay in the ledger.
        """
        grid = self._bounds.grid(series)
        for begin_ms in [begin_ms for begin_ms in task.provisional if span[0] <= begin_ms < span[1]]:
            end_ms = grid.end(begin_ms)
            if asked_ms - end_ms >= PROVISIONAL_MS:
                del task.provisional[begin_ms]
                if begin_ms not in (keep or ()):
                    self._ledger.clear(series, begin_ms, end_ms)

    async def _put(self, candles: list[Candle]) -> None:
        for candle in candles:
            await self._queue.put(candle)

    async def _merge(self, candles: list[Candle]) -> None:
        """Merge candles into their partitions; put candles that cannot be merged on the queue."""
        is_away = False
        for partition, rows in by_partition(candles).items():
            if is_away:
                await self._put(rows)
                continue
            try:
                await asyncio.to_thread(self._store.merge, partition, to_table(rows))
            except StoreAwayError:
                is_away = True
                await self._put(rows)
                continue
            except (LakeError, OSError) as error:
                log.warning("%s: %s; its candles go through the journal", partition, error)
                await self._put(rows)
                continue
            for candle in rows:
                self._ledger.clear(partition.series, candle.begin_ms, candle.end_ms)
