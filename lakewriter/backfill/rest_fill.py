"""What no file brought: REST is asked for it, and what REST does not have gets its reason.

Rule 1: everything between a series' first candle and the present is there in the
end, or in the ledger. Rule 2: up to the present means up to the last closed
candle when somebody records on this lake meanwhile: its recording began at some
moment, and what is before that is ours. Otherwise the newest candles, whose
values may still move, are left to whoever comes next.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from lakewriter.backfill.market_info import MarketInfo, asking
from lakewriter.backfill.plan import SeriesPlan
from lakewriter.backfill.progress import Progress
from lakewriter.binance.rest import INVALID_SYMBOL, Page, RestError
from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.gap_reasons import SymbolFacts, reasons_for
from lakewriter.interval import Interval
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.journal import living
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.partition import by_partition
from lakewriter.ranges import Range, minus, union, within
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Values of a candle that closed just now may still move in REST's answers.
YOUNG_MS = 30_000

# REST may lag behind: before this a candle that it does not have may come yet.
SETTLE_MS = 300_000


_NO_FILE = "its file cannot be had, and the market does not list it any more"


class _Found(NamedTuple):
    """What the lake has of a series, and lacks between two times."""

    grid: Interval
    first_ms: int | None
    last_ms: int | None
    missing: list[Range]


class RestFill:
    """Finishes series whose files were imported.

    Args:
        store: the lake.
        ledger: where the reasons go.
        settled: what any ledger said for good when this was planned.
        given_up: the ranges of files that could not be used, by series.
        progress: counts.
        own_journal: the name of our own journal, which does not make us a recorder;
            "" if a recorder runs in this process.
    """

    def __init__(
        self,
        store: LakeStore,
        ledger: Ledger,
        settled: Mapping[Series, list[Range]],
        given_up: Mapping[Series, list[Range]],
        progress: Progress,
        own_journal: str,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._settled = settled
        self._given_up = given_up
        self._progress = progress
        self._own_journal = own_journal

    async def finish(self, plan: SeriesPlan, view: MarketInfo) -> None:
        """Ask for what is missing of a series, and explain what is not to be had.

        Raises:
            LakeError: if a file of the lake cannot be read.
            OSError: if the disk takes no more.
        """
        asked: list[Range] = []
        failed: list[Range] = []
        while True:
            beside = await asyncio.to_thread(self._somebody_records)
            # Up to now has to be after the beginning of that recording.
            await view.sync(fresh=beside)
            for start_ms, stop_ms in minus(await self._wanted(plan, view, beside=beside), asked):
                if not await self._ask(plan.series, start_ms, stop_ms, view):
                    failed.append((start_ms, stop_ms))
                asked = union([*asked, (start_ms, stop_ms)])
            # Somebody who began to record meanwhile did not see what we brought.
            if beside or not await asyncio.to_thread(self._somebody_records):
                break
        await self._explain(plan, union(failed), view)
        self._progress.series += 1

    async def _wanted(self, plan: SeriesPlan, view: MarketInfo, *, beside: bool) -> list[Range]:
        """Return what REST is to be asked for now."""
        bounds, now_ms = plan.bounds, view.door.time.now_ms()
        horizon_ms = now_ms if beside else now_ms - YOUNG_MS
        start_ms = max(plan.start_ms, bounds.first_ms or 0)
        stop_ms = _least(plan.stop_ms, bounds.rest_stop_ms, bounds.stop_ms, horizon_ms)
        found = await asyncio.to_thread(self._look, plan.series, start_ms, stop_ms)
        # What is open at the horizon is not closed yet.
        closed = within(found.missing, start_ms, found.grid.floor(horizon_ms))
        return minus(closed, self._known(plan.series))

    async def _ask(self, series: Series, start_ms: int, stop_ms: int, view: MarketInfo) -> bool:
        """Bring what REST has of a range; tell whether it answered."""
        while start_ms < stop_ms:
            self._progress.current = str(series)
            try:
                page = await self._page(series, start_ms, stop_ms, view)
            except RestError as error:
                log.error("%s: cannot be had: %s", series, error)
                now_ms = view.door.time.now_ms()
                self._ledger.mark(series, start_ms, stop_ms, "unhealable", now_ms, error.what)
                self._progress.unhealable += series.grid.count(start_ms, stop_ms)
                return False
            now_ms = view.door.time.now_ms()
            closed = [candle for candle in page.candles if candle.end_ms <= now_ms]
            await asyncio.to_thread(self._merge, closed)
            self._progress.pages += 1
            self._progress.from_rest += len(closed)
            start_ms = page.answered_ms
        return True

    async def _page(self, series: Series, start_ms: int, stop_ms: int, view: MarketInfo) -> Page:
        def retried() -> None:
            self._progress.retried += 1

        rest = view.door.rest
        try:
            return await asking(lambda: rest.oldest(series, start_ms, stop_ms, background=True), retried)
        except RestError as error:
            if error.code != INVALID_SYMBOL:
                raise
            return Page([], stop_ms)  # the market does not list it any more

    def _merge(self, candles: list[Candle]) -> None:
        for partition, rows in by_partition(candles).items():
            try:
                self._progress.corrections += self._store.merge(partition, to_table(rows)).corrections
            except LakeError as error:
                self._progress.failed(partition, error)

    async def _explain(self, plan: SeriesPlan, failed: list[Range], view: MarketInfo) -> None:
        """Enter into the ledger why the exchange does not have what is still missing."""
        series, bounds, now_ms = plan.series, plan.bounds, view.door.time.now_ms()
        stop_ms = _least(plan.stop_ms, bounds.stop_ms, now_ms - SETTLE_MS)
        found = await asyncio.to_thread(self._look, series, plan.start_ms, stop_ms)
        span = union([(plan.start_ms, stop_ms)])
        for present in minus(span, found.missing):
            self._ledger.clear(series, *present)
        missing = minus(minus(found.missing, failed), self._known(series))
        if bounds.gone:
            missing = self._without_unsure(plan, found, missing, now_ms)
        first_ms = bounds.first_ms
        if first_ms is None or first_ms >= plan.start_ms:
            # Everybody was asked for what may be older than the first one that is there.
            first_ms = found.first_ms if found.first_ms is not None else first_ms
        # What has not ended by then is not late.
        ended = within(missing, plan.start_ms, found.grid.floor(max(stop_ms, plan.start_ms)))
        if not ended:
            return
        newest_ms = await self._newest(plan, found, view)
        listed = view.instruments.get(series.symbol)
        standing = SymbolFacts(listed, view.as_of_ms, first_ms, newest_ms, found.first_ms, found.last_ms)
        left = sum(found.grid.count(*each) for each in ended)
        for (low_ms, high_ms), reason in reasons_for(ended, found.grid, standing):
            self._ledger.mark(series, low_ms, high_ms, reason, now_ms)
            self._progress.explained += found.grid.count(low_ms, high_ms)
            left -= found.grid.count(low_ms, high_ms)
        self._progress.unexplained += left

    async def _newest(self, plan: SeriesPlan, found: _Found, view: MarketInfo) -> int | None:
        """Return the newest candle that REST has: it may be behind of what a stream brought."""
        if plan.bounds.stop_ms is not None:
            return found.last_ms  # it trades no more, and nothing is behind
        try:
            return await asking(partial(view.door.rest.last_begin, plan.series))
        except RestError as error:
            log.error("%s: what it lacks stays unexplained: %s", plan.series, error)
            return None

    def _without_unsure(
        self, plan: SeriesPlan, found: _Found, missing: list[Range], now_ms: int
    ) -> list[Range]:
        """Leave out what only the archive can have: files that could not be used, and those that may come."""
        series, coming_ms = plan.series, plan.bounds.unpublished_ms
        given_up = self._given_up.get(series, [])
        for low_ms, high_ms in given_up:
            for start_ms, stop_ms in within(missing, low_ms, high_ms):
                self._ledger.mark(series, start_ms, stop_ms, "unhealable", now_ms, _NO_FILE)
                self._progress.unhealable += found.grid.count(start_ms, stop_ms)
        missing = minus(missing, union(given_up))
        # It ended before its newest file did: then no other will come.
        ended = (
            found.last_ms is not None and coming_ms is not None and found.grid.end(found.last_ms) < coming_ms
        )
        if coming_ms is None or (ended and not given_up):
            return missing
        return within(missing, plan.start_ms, coming_ms)

    def _known(self, series: Series) -> list[Range]:
        """Return what nobody has to be asked for again."""
        return union([*self._settled.get(series, []), *self._ledger.settled(series)])

    def _look(self, series: Series, start_ms: int, stop_ms: int) -> _Found:
        there = presence_of(self._store, series)
        missing = there.missing(start_ms, stop_ms) if start_ms < stop_ms else []
        return _Found(there.grid, there.first_ms, there.last_ms, missing)

    def _somebody_records(self) -> bool:
        return not self._own_journal or bool(living(self._store.state_dir) - {self._own_journal})


def _least(*times_ms: int | None) -> int:
    return min(each for each in times_ms if each is not None)
