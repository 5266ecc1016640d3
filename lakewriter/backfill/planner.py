"""The planner of a backfill. It reads the lake, the archive's list and the exchange, and changes nothing.

`plan` has the rules for a series. This module finds the series and their facts.
"""

import asyncio
import logging
from collections.abc import Iterable
from datetime import date
from functools import partial
from typing import NamedTuple

from lakewriter.backfill.archive_import import DOWNLOADS
from lakewriter.backfill.market_info import FILE_TRIES_MAX, MarketInfo, ask_with_retry
from lakewriter.backfill.plan import (
    YOUNG_MS,
    ArchiveChoice,
    SeriesPlan,
    period_of,
    plan_series,
    unpublished_ms,
)
from lakewriter.backfill.progress import Progress
from lakewriter.binance.archive import ArchiveError
from lakewriter.binance.archive_files import ArchiveFile, Period
from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.weight_budget import BACKGROUND_SHARE, SHARE
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.first_error import first_error
from lakewriter.gap import FINAL
from lakewriter.lake.gaps.ledgers import read_reported
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.lake.published import current_ledgers
from lakewriter.market import MARKETS
from lakewriter.ranges import Range, minus, union
from lakewriter.series import Series
from lakewriter.subscription import Subscription, is_glob, matching

log = logging.getLogger(__name__)

# The number of series that are planned concurrently.
PLANNERS = 8


class BackfillOptions(NamedTuple):
    """The options of a backfill.

    Args:
        since_ms: the minimum begin time of a candle; None for the first candle.
        until_ms: all candles begin before this time; None for "up to now".
        files: the archive files to use.
        downloads: the number of concurrent downloads.
        delisted: whether globs also match symbols that only the archive lists.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    files: ArchiveChoice = "auto"
    downloads: int = DOWNLOADS
    delisted: bool = False


class BackfillPlan(NamedTuple):
    """The plan of a backfill.

    Args:
        series: the plans, sorted by market and symbol.
        unknown: series whose symbol neither exchange nor archive knows.
    """

    series: list[SeriesPlan]
    unknown: list[Series]


class Planner:
    """Plans a backfill of a lake.

    Args:
        store: the lake.
        clients: the clients of the markets.
        options: the user's options.
        clock: the machine's clock.
        progress: the counter of the unreadable series.

    Attributes:
        market_infos: the facts of each planned market, by its name.
        settled: ranges with a final reason in any ledger, by series.
    """

    def __init__(
        self,
        store: LakeStore,
        clients: MarketClients,
        *,
        options: BackfillOptions,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self.market_infos: dict[str, MarketInfo] = {}
        self.settled: dict[Series, list[Range]] = {}
        self._store = store
        self._clients = clients
        self._options = options
        self._clock = clock
        self._progress = progress
        self._markets_without_list: set[str] = set()
        self._list_page_s = 0.0  # the duration of the last page request for the archive's list

    async def plan(self, subscriptions: Iterable[Subscription]) -> BackfillPlan:
        """Return the plan for these subscriptions.

        Raises:
            RestError: if the exchange does not answer.
            LakeError: if the ledgers cannot be read.
        """
        self.settled = await asyncio.to_thread(_settled, self._store)
        wanted = await self._resolve(subscriptions)
        log.info("looking at %d series", len(wanted))
        plans: list[SeriesPlan] = []
        unknown: list[Series] = []
        todo = iter(wanted)

        async def work() -> None:
            for series in todo:
                try:
                    plan = await self._plan_series(series)
                except LakeError as error:
                    self._progress.add_unreadable(series, error)
                    continue
                if plan is None:
                    unknown.append(series)
                else:
                    plans.append(plan)

        with first_error():
            async with asyncio.TaskGroup() as tasks:
                for _ in range(PLANNERS):
                    tasks.create_task(work())
        return BackfillPlan(sorted(plans, key=lambda each: each.series), sorted(unknown))

    def estimated_s(self, plan: BackfillPlan) -> float:
        """Return the estimated seconds of a plan from the exchange's limits and the archive's speed."""
        weights: dict[str, int] = {}
        for each in plan.series:
            market = self._clients[each.series.market].market
            weights[market.weight_pool] = weights.get(market.weight_pool, 0) + each.weight
        allowed = {market.weight_pool: market.weight_max for market in MARKETS.values()}
        by_weight_s = max(
            (60.0 * weight / (allowed[pool] * SHARE * BACKGROUND_SHARE) for pool, weight in weights.items()),
            default=0.0,
        )
        files = sum(each.file_count for each in plan.series)
        return max(by_weight_s, files * self._list_page_s / self._options.downloads)

    async def _resolve(self, subscriptions: Iterable[Subscription]) -> list[Series]:
        """Return the series of the subscriptions."""
        wanted: dict[Series, None] = {}
        for subscription in subscriptions:
            market_info = await self._market_info(subscription.market)
            known = list(market_info.instruments)
            if self._options.delisted and any(map(is_glob, subscription.symbols)):
                known = sorted({*known, *await ask_with_retry(market_info.client.archive.symbols)})
            for name in subscription.symbols:
                for symbol in matching(name, known) if is_glob(name) else [name]:
                    for interval in subscription.intervals:
                        wanted[Series(subscription.market, symbol, interval)] = None
        return list(wanted)

    async def _market_info(self, market: str) -> MarketInfo:
        if market not in self.market_infos:
            market_info = MarketInfo(self._clients[market], self._clock)
            await market_info.load()
            self.market_infos[market] = market_info
        return self.market_infos[market]

    async def _plan_series(self, series: Series) -> SeriesPlan | None:
        """Return the plan for a series; None if neither exchange nor archive knows its symbol."""
        market_info, options = self.market_infos[series.market], self._options
        period = period_of(series.interval, options.files)
        listed = {} if period is None else await self._list_files(series, period)
        ends_ms = sorted(ArchiveFile(series, period, day).stop_ms for day in listed) if period else []
        begin_ms = ArchiveFile(series, period, min(listed)).start_ms if period and listed else None
        bounds = await market_info.bounds(series, begin_ms)
        start_ms = options.since_ms if bounds is None or options.since_ms is not None else bounds.first_ms
        if bounds is None or start_ms is None:
            return None
        stop_ms = series.grid.floor(market_info.client.time.now_ms() - YOUNG_MS)
        if options.until_ms is not None:
            stop_ms = min(stop_ms, options.until_ms)
        if bounds.stop_ms is not None and ends_ms:
            # One REST request covers the time after the last file of a symbol that no
            # longer trades.
            stop_ms = min(stop_ms, ends_ms[-1])
        if bounds.unlisted and period and listed:
            coming_ms = unpublished_ms(series, period, max(listed), market_info.client.time.now_ms())
            bounds = bounds._replace(unpublished_ms=coming_ms)
        low_ms = max(start_ms, bounds.first_ms or 0)
        missing = await asyncio.to_thread(self._missing_ranges, series, low_ms, stop_ms)
        span = (start_ms, options.until_ms)
        return plan_series(
            market_info.client.market,
            series,
            bounds,
            span,
            missing,
            listed,
            period,
            choose_rest=options.files == "auto",
        )

    def _missing_ranges(self, series: Series, start_ms: int, stop_ms: int) -> list[Range]:
        if start_ms >= stop_ms:
            return []
        presence = presence_of(self._store, series)
        return minus(presence.missing(start_ms, stop_ms), self.settled.get(series, []))

    async def _list_files(self, series: Series, period: Period) -> dict[date, int]:
        archive = self._clients[series.market].archive
        asked, began_s = archive.asked, self._clock.monotonic_s()
        try:
            # After the list of one series was refused, the other series do not retry.
            tries_max = 1 if series.market in self._markets_without_list else FILE_TRIES_MAX
            listed = await ask_with_retry(partial(archive.files, series, period), tries_max=tries_max)
            pages = max(1, archive.asked - asked)
            self._list_page_s = (self._clock.monotonic_s() - began_s) / pages
            return listed
        except ArchiveError as error:
            if series.market not in self._markets_without_list:
                self._markets_without_list.add(series.market)
                log.warning("%s; all candles of %s are fetched from REST", error, series.market)
            return {}


def _settled(store: LakeStore) -> dict[Series, list[Range]]:
    """Return the ranges with a final reason in any ledger."""
    ranges_by_series: dict[Series, list[Range]] = {}
    with current_ledgers(store) as root:
        known = read_reported(root)
    for reported in known:
        if reported.gap.reason in FINAL:
            ranges_by_series.setdefault(reported.gap.series, []).append(
                (reported.gap.start_ms, reported.gap.stop_ms)
            )
    return {series: union(ranges) for series, ranges in ranges_by_series.items()}
