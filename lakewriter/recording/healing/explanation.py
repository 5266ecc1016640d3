"""Reasons for candles that REST does not have, entered into the gap ledger."""

from lakewriter.binance.market_clients import MarketClient
from lakewriter.gap_reasons import reason_for
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.ranges import Range, within, without
from lakewriter.recording.healing.schedule import HealTask
from lakewriter.recording.healing.series_bounds import SeriesBounds
from lakewriter.recording.healing.stats import HealerStats
from lakewriter.series import Series

# spot's klines come from a database that lags. A candle that REST lacks this long after
# its end does not exist, if REST has later candles.
SETTLE_MS = 300_000


class Explainer:
    """The explainer of absent candles, for all series.

    Args:
        bounds: know the facts of each series.
        ledger: stores the reasons.
        stats: counts that are updated here.
        heal_limit_ms: maximum age of candles that are healed; older candles are given up.
    """

    def __init__(
        self, bounds: SeriesBounds, ledger: Ledger, stats: HealerStats, *, heal_limit_ms: int
    ) -> None:
        self._bounds = bounds
        self._ledger = ledger
        self._stats = stats
        self._heal_limit_ms = heal_limit_ms
        self._stale_lists: set[str] = set()

    def needs_list(self, market: str) -> bool:
        """Return whether the market's instrument list is too old to explain an absent candle."""
        return market in self._stale_lists

    def list_refreshed(self, market: str) -> None:
        """Mark the market's instrument list as fresh."""
        self._stale_lists.discard(market)

    async def explain(self, series: Series, task: HealTask, span: Range, client: MarketClient) -> None:
        """Write to the ledger why candles are absent from an answer, as far as the reason is certain.

        Args:
            span: the range of the answer.
        """
        now_ms, grid = client.time.now_ms(), self._bounds.grid(series)
        if task.tries < 2:
            return
        absent = within(task.ranges, *span)
        newest_before_ms = self._bounds.facts(series).newest_ms
        if now_ms - grid.end(absent[0][0]) >= SETTLE_MS:
            await self._bounds.fetch_neighbours(series, absent, client, background=task.background)
        absent_ms = [begin_ms for missing in within(task.ranges, *span) for begin_ms in grid.grid(*missing)]
        for begin_ms in absent_ms:
            end_ms = grid.end(begin_ms)
            if now_ms - end_ms < SETTLE_MS:
                break
            facts = self._bounds.facts(series)
            reason = reason_for(begin_ms, end_ms, facts)
            if reason == "exchange_halt" and (newest_before_ms or 0) <= begin_ms < (facts.newest_ms or 0):
                continue  # REST had no newer candle at the request, and may have caught up since
            if reason is not None:
                self._ledger.mark(series, begin_ms, end_ms, reason, now_ms)
                self._stats.explained += 1
            elif now_ms - end_ms > self._heal_limit_ms:
                self.give_up(series, (begin_ms, end_ms), "the exchange has sent nothing since", now_ms)
            else:
                self._stale_lists.add(series.market)
                continue
            task.ranges = without(task.ranges, begin_ms, end_ms)
            task.late = without(task.late, begin_ms, end_ms)

    def give_up(self, series: Series, span: Range, error: str, now_ms: int) -> None:
        """Mark a range as unhealable in the ledger."""
        start_ms, stop_ms = span
        if start_ms < stop_ms:
            self._ledger.mark(series, start_ms, stop_ms, "unhealable", now_ms, error)
            self._stats.unhealable += self._bounds.grid(series).count(start_ms, stop_ms)
