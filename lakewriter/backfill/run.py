"""A backfill: from subscriptions and a date to a complete history, without a seam to the present.

Looks at the lake, the archive's list and the exchange, plans, imports files,
asks REST for the rest, and explains what is not to be had. Its state is the
lake: whoever is stopped plans anew and goes on where it was.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from datetime import date
from functools import partial
from typing import NamedTuple

from lakewriter.backfill.archive_import import DOWNLOADS, FileImport
from lakewriter.backfill.market_info import FILE_TRIES_MAX, MarketInfo, asking
from lakewriter.backfill.plan import Choice, PlannedFile, SeriesPlan, period_of, plan_series, unpublished_ms
from lakewriter.backfill.progress import Progress
from lakewriter.backfill.rest_fill import YOUNG_MS, RestFill
from lakewriter.binance.archive import ArchiveError
from lakewriter.binance.archive_files import ArchiveFile, Period
from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.weight_budget import BACKGROUND_SHARE, SHARE
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.gap import FINAL
from lakewriter.lake.gaps.ledger import Ledger, save
from lakewriter.lake.gaps.ledgers import read_told
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.market import MARKETS
from lakewriter.ranges import Range, minus, union
from lakewriter.series import Series
from lakewriter.subscription import Subscription, is_glob, matching

log = logging.getLogger(__name__)

# Series that are planned at once, and that are finished by REST at once in each market.
PLANNERS = 8
FINISHERS = 2

_SAVE_EVERY_S = 1.0


class BackfillOptions(NamedTuple):
    """What a user may choose.

    Args:
        since_ms: candles that begin before are not wanted; None for the first there is.
        until_ms: … nor from here on; None for "up to now".
        files: which files of the archive are used.
        downloads: how many at once.
        ever: globs also stand for symbols that only the archive has.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    files: Choice = "auto"
    downloads: int = DOWNLOADS
    ever: bool = False


class BackfillPlan(NamedTuple):
    """What is to be done.

    Args:
        series: by market and symbol.
        unknown: series whose symbol nobody has heard of.
    """

    series: list[SeriesPlan]
    unknown: list[Series]


class Backfill:
    """Brings history into a lake.

    Args:
        store: the lake.
        doors: the ways to the exchange.
        options: what a user may choose.
        clock: the machine's.

    Attributes:
        progress: what `run` has done so far.
    """

    def __init__(
        self,
        store: LakeStore,
        doors: MarketClients,
        *,
        options: BackfillOptions,
        clock: Clock,
    ) -> None:
        self.progress = Progress()
        self._store = store
        self._doors = doors
        self._options = options
        self._clock = clock
        self._views: dict[str, MarketInfo] = {}
        self._unlisted: set[str] = set()
        self._settled: dict[Series, list[Range]] = {}
        self._listing_s = 0.0  # how long a page of the archive's list took last

    async def plan(self, subscriptions: Iterable[Subscription]) -> BackfillPlan:
        """Return what is to be done for these subscriptions. Asks, but changes nothing.

        Raises:
            RestError: if the exchange does not answer.
            LakeError: if the ledgers cannot be read.
        """
        self._settled = await asyncio.to_thread(_settled, self._store)
        wanted = await self._wanted(subscriptions)
        log.info("looking at %d series", len(wanted))
        plans: list[SeriesPlan] = []
        unknown: list[Series] = []
        todo = iter(wanted)

        async def work() -> None:
            for series in todo:
                try:
                    plan = await self._plan(series)
                except LakeError as error:
                    self.progress.unread(series, error)
                    continue
                if plan is None:
                    unknown.append(series)
                else:
                    plans.append(plan)

        with _one_error():
            async with asyncio.TaskGroup() as tasks:
                for _ in range(PLANNERS):
                    tasks.create_task(work())
        return BackfillPlan(sorted(plans, key=lambda each: each.series), sorted(unknown))

    async def run(self, plan: BackfillPlan, ledger: Ledger, own_journal: str) -> None:
        """Do it; return when all is there or explained.

        Args:
            ledger: where the reasons go.
            own_journal: the name of the journal that is held for this; "" if a recorder
                runs in this process, which then writes the ledger, too.

        Raises:
            LakeError: if the ledger cannot be written.
            OSError: if the disk takes no more.
        """
        files_left = {each.series: each.file_count for each in plan.series}
        by_series = {each.series: each for each in plan.series}
        ready: dict[str, asyncio.Queue[SeriesPlan]] = {name: asyncio.Queue() for name in self._views}

        async def file_done(planned: PlannedFile) -> None:
            series = planned.file.series
            files_left[series] -= 1
            if not files_left[series]:
                ready[series.market].put_nowait(by_series[series])

        for each in plan.series:
            if not each.file_count:
                ready[each.series.market].put_nowait(each)
        importing = FileImport(
            self._store, lambda name: self._doors[name].archive, self.progress, file_done, self._clock
        )
        remainder = RestFill(
            self._store, ledger, self._settled, importing.given_up, self.progress, own_journal
        )
        files = (planned for each in plan.series for planned in each.files)
        with _one_error():
            async with asyncio.TaskGroup() as tasks:
                helping = [
                    tasks.create_task(self._finish(queue, remainder))
                    for queue in ready.values()
                    for _ in range(FINISHERS)
                ]
                if own_journal:
                    helping.append(tasks.create_task(_save_often(ledger)))
                await importing.run(files, self._options.downloads)
                for queue in ready.values():
                    await queue.join()
                for task in helping:
                    task.cancel()

    def seconds(self, plan: BackfillPlan) -> float:
        """Return about how long a plan takes, by what the exchange allows and how fast its archive listed."""
        weights: dict[str, int] = {}
        for each in plan.series:
            market = self._doors[each.series.market].market
            weights[market.weight_pool] = weights.get(market.weight_pool, 0) + each.weight
        allowed = {market.weight_pool: market.weight_max for market in MARKETS.values()}
        by_weight_s = max(
            (60.0 * weight / (allowed[pool] * SHARE * BACKGROUND_SHARE) for pool, weight in weights.items()),
            default=0.0,
        )
        files = sum(each.file_count for each in plan.series)
        return max(by_weight_s, files * self._listing_s / self._options.downloads)

    async def _finish(self, ready: "asyncio.Queue[SeriesPlan]", remainder: RestFill) -> None:
        while True:
            plan = await ready.get()
            try:
                await remainder.finish(plan, self._views[plan.series.market])
            except LakeError as error:
                self.progress.unread(plan.series, error)
            finally:
                ready.task_done()

    async def _wanted(self, subscriptions: Iterable[Subscription]) -> list[Series]:
        """Return the series that the subscriptions stand for."""
        wanted: dict[Series, None] = {}
        for subscription in subscriptions:
            view = await self._view(subscription.market)
            known = list(view.instruments)
            if self._options.ever and any(map(is_glob, subscription.symbols)):
                known = sorted({*known, *await asking(view.door.archive.symbols)})
            for name in subscription.symbols:
                for symbol in matching(name, known) if is_glob(name) else [name]:
                    for interval in subscription.intervals:
                        wanted[Series(subscription.market, symbol, interval)] = None
        return list(wanted)

    async def _view(self, market: str) -> MarketInfo:
        if market not in self._views:
            view = MarketInfo(self._doors[market], self._clock)
            await view.look()
            self._views[market] = view
        return self._views[market]

    async def _plan(self, series: Series) -> SeriesPlan | None:
        """Return the plan for a series; None if nobody has heard of its symbol."""
        view, options = self._views[series.market], self._options
        period = period_of(series.interval, options.files)
        listed = {} if period is None else await self._listed(series, period)
        ends_ms = sorted(ArchiveFile(series, period, day).stop_ms for day in listed) if period else []
        begin_ms = ArchiveFile(series, period, min(listed)).start_ms if period and listed else None
        bounds = await view.bounds(series, begin_ms)
        start_ms = options.since_ms if bounds is None or options.since_ms is not None else bounds.first_ms
        if bounds is None or start_ms is None:
            return None
        stop_ms = series.grid.floor(view.door.time.now_ms() - YOUNG_MS)
        if options.until_ms is not None:
            stop_ms = min(stop_ms, options.until_ms)
        if bounds.stop_ms is not None and ends_ms:
            # What comes after the last file of a symbol that trades no more is one question.
            stop_ms = min(stop_ms, ends_ms[-1])
        if bounds.gone and period and listed:
            coming_ms = unpublished_ms(series, period, max(listed), view.door.time.now_ms())
            bounds = bounds._replace(unpublished_ms=coming_ms)
        low_ms = max(start_ms, bounds.first_ms or 0)
        missing = await asyncio.to_thread(self._missing, series, low_ms, stop_ms)
        span = (start_ms, options.until_ms)
        return plan_series(view.door.market, series, bounds, span, missing, listed, period)

    def _missing(self, series: Series, start_ms: int, stop_ms: int) -> list[Range]:
        if start_ms >= stop_ms:
            return []
        there = presence_of(self._store, series)
        return minus(there.missing(start_ms, stop_ms), self._settled.get(series, []))

    async def _listed(self, series: Series, period: Period) -> dict[date, int]:
        archive = self._doors[series.market].archive
        asked, began_s = archive.asked, self._clock.monotonic_s()
        try:
            # What was refused for one series is not waited for by the others.
            tries_max = 1 if series.market in self._unlisted else FILE_TRIES_MAX
            listed = await asking(partial(archive.files, series, period), tries_max=tries_max)
            pages = max(1, archive.asked - asked)
            self._listing_s = (self._clock.monotonic_s() - began_s) / pages
            return listed
        except ArchiveError as error:
            if series.market not in self._unlisted:
                self._unlisted.add(series.market)
                log.warning("%s; REST is asked for everything of %s", error, series.market)
            return {}


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Raise what went wrong first in a group of tasks, as one error."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _save_often(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(_SAVE_EVERY_S)
        await save(ledger)


def _settled(store: LakeStore) -> dict[Series, list[Range]]:
    """Return what any ledger says for good."""
    found: dict[Series, list[Range]] = {}
    for told in read_told(store.state_dir):
        if told.gap.reason in FINAL:
            found.setdefault(told.gap.series, []).append((told.gap.start_ms, told.gap.stop_ms))
    return {series: union(ranges) for series, ranges in found.items()}
