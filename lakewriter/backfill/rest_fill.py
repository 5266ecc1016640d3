"""Fetch candles that no file has from REST, and explain in the ledger those that REST lacks.

Rule 1: after the backfill, the lake has each candle up to the present, or the ledger explains it.
The present is the time of the request. A candle that closes later is not explained.
Rule 2: if a recorder runs on this lake, the present is the last closed candle. The recorder
has only candles from after its start. Otherwise the newest candles are left out, because
their values may still change.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from lakewriter.backfill.market_info import MarketInfo, ask_with_retry
from lakewriter.backfill.plan import YOUNG_MS, SeriesPlan
from lakewriter.backfill.progress import Progress
from lakewriter.binance.rest import INVALID_SYMBOL, Page, RestError
from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.gap_reasons import SymbolFacts, reasons_for
from lakewriter.interval import Interval
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.journal_directories import living_recorders
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.partition import by_partition
from lakewriter.ranges import Range, minus, union, within
from lakewriter.series import Series

log = logging.getLogger(__name__)

# The maximum lag of REST. A candle that ended more recently may still appear.
SETTLE_MS = 300_000


_NO_FILE = "its archive file is unusable, and the market no longer lists the symbol"


class _SeriesContents(NamedTuple):
    """The first and last candle of a series in the lake, and the missing ranges between two times."""

    grid: Interval
    first_ms: int | None
    last_ms: int | None
    missing: list[Range]


class RestFill:
    """Finishes series whose files were imported.

    Args:
        store: the lake.
        ledger: the ledger for reasons.
        settled: ranges with a final reason in any ledger at the time of planning.
        given_up: the ranges of unusable files, by series.
        progress: counters to update.
        own_journal: the name of this backfill's journal, which belongs to no recorder; ""
            if a recorder runs in this process.
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

    async def finish(self, plan: SeriesPlan, market_info: MarketInfo) -> None:
        """Fetch the missing candles of a series, and explain those that REST lacks.

        Raises:
            LakeError: if a file of the lake cannot be read.
            OSError: if the disk is full or fails.
        """
        asked: list[Range] = []
        failed: list[Range] = []
        while True:
            recording = await asyncio.to_thread(self._is_recording)
            # The present must be after the recorder's start.
            await market_info.sync_time(fresh=recording)
            asked_ms = market_info.client.time.now_ms()
            horizon_ms = asked_ms if recording else asked_ms - YOUNG_MS
            for start_ms, stop_ms in minus(await self._ranges_to_ask(plan, horizon_ms), asked):
                if not await self._fill_range(plan.series, start_ms, stop_ms, market_info):
                    failed.append((start_ms, stop_ms))
                asked = union([*asked, (start_ms, stop_ms)])
            # A recorder that started meanwhile lacks the candles before its start.
            if recording or not await asyncio.to_thread(self._is_recording):
                break
        await self._explain(plan, union(failed), market_info, asked_ms)
        self._progress.series += 1

    async def _ranges_to_ask(self, plan: SeriesPlan, horizon_ms: int) -> list[Range]:
        """Return the ranges to fetch from REST, of candles that closed before `horizon_ms`."""
        bounds = plan.bounds
        start_ms = max(plan.start_ms, bounds.first_ms or 0)
        stop_ms = _earliest(plan.stop_ms, bounds.rest_stop_ms, bounds.stop_ms, horizon_ms)
        contents = await asyncio.to_thread(self._contents, plan.series, start_ms, stop_ms)
        # A candle that is open at the horizon is left out.
        closed = within(contents.missing, start_ms, contents.grid.floor(horizon_ms))
        return minus(closed, self._settled_ranges(plan.series))

    async def _fill_range(self, series: Series, start_ms: int, stop_ms: int, market_info: MarketInfo) -> bool:
        """Fetch and merge a range; return whether REST answered."""
        while start_ms < stop_ms:
            self._progress.current = str(series)
            try:
                page = await self._fetch_page(series, start_ms, stop_ms, market_info)
            except RestError as error:
                log.error("%s: cannot be fetched: %s", series, error)
                now_ms = market_info.client.time.now_ms()
                self._ledger.mark(series, start_ms, stop_ms, "unhealable", now_ms, error.what)
                self._progress.unhealable += series.grid.count(start_ms, stop_ms)
                return False
            now_ms = market_info.client.time.now_ms()
            closed = [candle for candle in page.candles if candle.end_ms <= now_ms]
            await asyncio.to_thread(self._merge, closed)
            self._progress.pages += 1
            self._progress.from_rest += len(closed)
            start_ms = page.answered_ms
        return True

    async def _fetch_page(self, series: Series, start_ms: int, stop_ms: int, market_info: MarketInfo) -> Page:
        def retried() -> None:
            self._progress.retried += 1

        rest = market_info.client.rest
        try:
            return await ask_with_retry(
                lambda: rest.oldest(series, start_ms, stop_ms, background=True), retried
            )
        except RestError as error:
            if error.code != INVALID_SYMBOL:
                raise
            return Page([], stop_ms)  # the market no longer lists it

    def _merge(self, candles: list[Candle]) -> None:
        for partition, rows in by_partition(candles).items():
            try:
                self._progress.corrections += self._store.merge(partition, to_table(rows)).corrections
            except LakeError as error:
                self._progress.add_unmerged(partition, error)

    async def _explain(
        self, plan: SeriesPlan, failed: list[Range], market_info: MarketInfo, asked_ms: int
    ) -> None:
        """Write to the ledger why candles are still missing.

        Args:
            failed: the ranges that REST did not answer.
            asked_ms: the time of the last request. Only candles that had settled by then are missing.
        """
        series, bounds, now_ms = plan.series, plan.bounds, market_info.client.time.now_ms()
        stop_ms = _earliest(plan.stop_ms, bounds.stop_ms, asked_ms - SETTLE_MS)
        contents = await asyncio.to_thread(self._contents, series, plan.start_ms, stop_ms)
        span = union([(plan.start_ms, stop_ms)])
        for present in minus(span, contents.missing):
            self._ledger.clear(series, *present)
        missing = minus(minus(contents.missing, failed), self._settled_ranges(series))
        if bounds.unlisted:
            missing = self._explainable(plan, contents, missing, now_ms)
        first_ms = bounds.first_ms
        if first_ms is None or first_ms >= plan.start_ms:
            # All sources have been requested for candles older than the first one in the lake.
            first_ms = contents.first_ms if contents.first_ms is not None else first_ms
        # A candle that ends after the last settled time is not missing yet.
        ended = within(missing, plan.start_ms, contents.grid.floor(max(stop_ms, plan.start_ms)))
        if not ended:
            return
        newest_ms = await self._newest_begin(plan, contents, market_info)
        instrument = market_info.instruments.get(series.symbol)
        facts = SymbolFacts(
            instrument, market_info.as_of_ms, first_ms, newest_ms, contents.first_ms, contents.last_ms
        )
        unexplained = sum(contents.grid.count(*each) for each in ended)
        for (low_ms, high_ms), reason in reasons_for(ended, contents.grid, facts):
            self._ledger.mark(series, low_ms, high_ms, reason, now_ms)
            self._progress.explained += contents.grid.count(low_ms, high_ms)
            unexplained -= contents.grid.count(low_ms, high_ms)
        self._progress.unexplained += unexplained

    async def _newest_begin(
        self, plan: SeriesPlan, contents: _SeriesContents, market_info: MarketInfo
    ) -> int | None:
        """Return the begin time of REST's newest candle; REST may lag behind a stream."""
        if plan.bounds.stop_ms is not None:
            return contents.last_ms  # the symbol no longer trades, so REST cannot lag
        try:
            return await ask_with_retry(partial(market_info.client.rest.last_begin, plan.series))
        except RestError as error:
            log.error("%s: its missing candles stay unexplained: %s", plan.series, error)
            return None

    def _explainable(
        self, plan: SeriesPlan, contents: _SeriesContents, missing: list[Range], now_ms: int
    ) -> list[Range]:
        """Return the missing ranges, except those of unusable files and of files still to be published."""
        series, coming_ms = plan.series, plan.bounds.unpublished_ms
        given_up = self._given_up.get(series, [])
        for low_ms, high_ms in given_up:
            for start_ms, stop_ms in within(missing, low_ms, high_ms):
                self._ledger.mark(series, start_ms, stop_ms, "unhealable", now_ms, _NO_FILE)
                self._progress.unhealable += contents.grid.count(start_ms, stop_ms)
        missing = minus(missing, union(given_up))
        # A series that ended within its newest file has no later file.
        ended = (
            contents.last_ms is not None
            and coming_ms is not None
            and contents.grid.end(contents.last_ms) < coming_ms
        )
        if coming_ms is None or (ended and not given_up):
            return missing
        return within(missing, plan.start_ms, coming_ms)

    def _settled_ranges(self, series: Series) -> list[Range]:
        """Return the ranges with a final reason."""
        return union([*self._settled.get(series, []), *self._ledger.final_ranges(series)])

    def _contents(self, series: Series, start_ms: int, stop_ms: int) -> _SeriesContents:
        presence = presence_of(self._store, series)
        missing = presence.missing(start_ms, stop_ms) if start_ms < stop_ms else []
        return _SeriesContents(presence.grid, presence.first_ms, presence.last_ms, missing)

    def _is_recording(self) -> bool:
        return not self._own_journal or bool(living_recorders(self._store.state_dir) - {self._own_journal})


def _earliest(*times_ms: int | None) -> int:
    return min(each for each in times_ms if each is not None)
