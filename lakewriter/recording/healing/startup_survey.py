"""The startup survey: it finds candles missing from before a series was expected.

Only this module knows where the recording of a series began: with its first
candle, or with its first entry in the ledger. It also knows which missing candles
need no request, because their reason is final. The healer sends the requests.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import RestError
from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.gap import ENDED, FINAL, IDLE, Gap
from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import SurveyResult, survey
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.storage import StoreAwayError
from lakewriter.lake.subscriptions import read_periods
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.ranges import Range, minus, union, within, without
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series
from lakewriter.subscribed_period import FOREVER_MS

log = logging.getLogger(__name__)

# Maximum number of series that one call in a thread surveys.
_SURVEY_SERIES = 50

# Pause between requests for a candle that shows where a series' grid lies.
_GRID_EVERY_S = 30.0

# Pause between attempts while the object store is away. The flusher logs that.
_AWAY_PAUSE_S = 15.0


class StartupSurvey:
    """A survey of newly expected series. It requests heals of their missing candles.

    `surveying` counts the series that are not surveyed yet.

    Args:
        store: the lake.
        subscribed: the subscriptions.
        ledger: earlier gaps.
        watermarks: the expected series; their grids are anchored here.
        healer: heals missing candles.
        clients: send the requests.
        heal_limit_ms: maximum age of candles that are requested.
    """

    def __init__(
        self,
        store: LakeStore,
        subscribed: SubscribedSeries,
        ledger: Ledger,
        watermarks: Watermarks,
        healer: Healer,
        clients: MarketClients,
        *,
        heal_limit_ms: int,
    ) -> None:
        self.surveying = 0
        self._store = store
        self._subscribed = subscribed
        self._ledger = ledger
        self._watermarks = watermarks
        self._healer = healer
        self._clients = clients
        self._heal_limit_ms = heal_limit_ms
        self._surveys: asyncio.Queue[tuple[Series, int]] = asyncio.Queue()
        self._ended: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._gridless: asyncio.Queue[Series] = asyncio.Queue()

    def survey(self, series: Series, until_ms: int) -> None:
        """Add a survey of candles missing before the candle that contains `until_ms`."""
        self._surveys.put_nowait((series, series.grid.floor(until_ms)))
        self.surveying += 1

    def survey_ended_series(self, market: str, until_ms: int) -> None:
        """Add a survey of series that are no longer expected; they may have ended between two recordings."""
        self._ended.put_nowait((market, until_ms))

    async def run(self) -> None:
        """Survey queued series until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._keep_surveying, self._keep_finding_ended, self._keep_learning_grids):
                tasks.create_task(work())

    async def _keep_surveying(self) -> None:
        while True:
            requested = [await self._surveys.get()]
            while not self._surveys.empty():
                requested.append(self._surveys.get_nowait())
            surveyed = 0
            try:
                # The journal is read before any file is listed: a candle that leaves it later is in its partition.
                unflushed = await asyncio.to_thread(_unflushed, self._store)
                expected_since_ms, forgotten = await asyncio.to_thread(_ledgers, self._store)
                for first in range(0, len(requested), _SURVEY_SERIES):
                    batch = requested[first : first + _SURVEY_SERIES]
                    results = await asyncio.to_thread(self._survey, batch, unflushed)
                    for (series, stop_ms), result in zip(batch, results, strict=True):
                        if result is not None:
                            since_ms = expected_since_ms.get(series)
                            self._request_heals(series, stop_ms, result, since_ms, forgotten.get(series, []))
                    surveyed += len(batch)
            except StoreAwayError:
                self.surveying -= surveyed
                for each in requested[surveyed:]:
                    self._surveys.put_nowait(each)
                await asyncio.sleep(_AWAY_PAUSE_S)
                continue
            except (LakeError, OSError) as error:
                log.error("the lake cannot be surveyed for missing candles: %s", error)
            self.surveying -= len(requested)

    async def _keep_finding_ended(self) -> None:
        while True:
            market, until_ms = await self._ended.get()
            try:
                present = await asyncio.to_thread(_present_series, self._store, market)
            except StoreAwayError:
                self._ended.put_nowait((market, until_ms))
                await asyncio.sleep(_AWAY_PAUSE_S)
                continue
            except (LakeError, OSError) as error:
                log.error("the ended series of %s cannot be found: %s", market, error)
                continue
            for series in present:
                if series not in self._watermarks and self._subscribed.covers(series):
                    self.survey(series, until_ms)
            self._heal_unsubscribed(market)

    def _heal_unsubscribed(self, market: str) -> None:
        """Request heals of unsubscribed series' gaps that have no final reason yet."""
        for gap in self._ledger.gaps():
            if gap.market == market and gap.reason not in FINAL and not self._subscribed.covers(gap.series):
                self._healer.request_heal(gap.series, gap.start_ms, gap.stop_ms)

    async def _keep_learning_grids(self) -> None:
        """Fetch one candle, open or closed, of each series whose grid is unknown. Only `3d` has such series."""
        while True:
            series = await self._gridless.get()
            client = self._clients[series.market]
            now_ms = client.time.now_ms()
            span = (now_ms - series.grid.length_ms, now_ms)
            with contextlib.suppress(RestError):
                for candle in await client.rest.klines(series, *span, background=True):
                    self._watermarks.anchor(series, candle.begin_ms)
            if series in self._watermarks and self._watermarks.next_ms(series) is None:
                self._gridless.put_nowait(series)
                await asyncio.sleep(_GRID_EVERY_S)

    def _survey(
        self, batch: list[tuple[Series, int]], unflushed: dict[Series, list[Candle]]
    ) -> list[SurveyResult | None]:
        return [self._survey_one(series, stop_ms, unflushed.get(series, ())) for series, stop_ms in batch]

    def _survey_one(self, series: Series, stop_ms: int, unflushed: Iterable[Candle]) -> SurveyResult | None:
        start_ms = series.grid.floor(stop_ms - self._heal_limit_ms)
        try:
            return survey(self._store, series, start_ms, stop_ms, unflushed)
        except StoreAwayError:
            raise  # all series wait
        except (LakeError, OSError) as error:
            log.error("%s: cannot be surveyed for missing candles: %s", series, error)
            return None

    def _request_heals(
        self,
        series: Series,
        stop_ms: int,
        result: SurveyResult,
        expected_since_ms: int | None,
        forgotten: list[Range],
    ) -> None:
        """Request heals of candles that the lake lacks, unless their reason is final.

        Args:
            expected_since_ms: the time at which a recorder first expected the series; None if unknown.
            forgotten: the ranges that a user or the retention forgot.
        """
        first_ms = stop_ms if result.first_ms is None else result.first_ms
        before_first: list[Range] = []
        if expected_since_ms is not None and series in self._watermarks:
            before_first = union([(series.grid.floor(expected_since_ms), first_ms)])
        if result.first_ms is None or result.last_ms is None:
            # Its recording began with its first entry in the ledger, but no candle arrived.
            missing = union((gap.start_ms, stop_ms) for gap in self._ledger.gaps(series)[:1])
            if series in self._watermarks and self._watermarks.next_ms(series) is None:
                self._gridless.put_nowait(series)
        else:
            self._healer.note_candle(series, result.first_ms)
            self._watermarks.anchor(series, result.first_ms)
            missing = self._missing(series, stop_ms, result, result.first_ms, result.last_ms)
        begin_ms = min(_forgotten_until_ms(forgotten, first_ms), stop_ms - self._heal_limit_ms)
        wanted = within(union([*missing, *before_first]), begin_ms, FOREVER_MS)
        for start_ms, end_ms in minus(wanted, self._settled(series, stop_ms)):
            self._healer.request_heal(series, start_ms, end_ms)

    def _settled(self, series: Series, stop_ms: int) -> list[Range]:
        """Return the ranges of a series whose reason is final."""
        settled = self._ledger.final_ranges(series)
        for gap in self._ledger.gaps(series):
            if self._is_refuted(gap):
                settled = without(settled, max(gap.start_ms, stop_ms - self._heal_limit_ms), gap.stop_ms)
        return settled

    def _is_refuted(self, gap: Gap) -> bool:
        """Return whether a series that was marked as ended trades again, which means a halt."""
        instrument = self._subscribed.instrument(gap.series)
        return gap.reason in ENDED and instrument is not None and instrument.trades

    def _missing(
        self, series: Series, stop_ms: int, result: SurveyResult, first_ms: int, last_ms: int
    ) -> list[Range]:
        """Return the missing ranges of a series that has candles, from its survey and its ledger.

        Args:
            first_ms, last_ms: begin times of its first and last candle.
        """
        gaps = self._ledger.gaps(series)
        grid = series.grid.anchored(first_ms)
        limit_ms = grid.floor(stop_ms - self._heal_limit_ms)
        # Unsettled candles are requested again even if present, because they may have been fetched too early.
        unsettled = union(
            (gap.start_ms, min(gap.stop_ms, stop_ms))
            for gap in gaps
            if gap.reason not in FINAL or self._is_refuted(gap)
        )
        missing = [*within(unsettled, limit_ms, stop_ms), *result.missing]
        # Its recording began with its first entry in the ledger, or with its first candle.
        missing += [(gap.start_ms, first_ms) for gap in gaps[:1]]
        if series in self._watermarks:
            if result.before_ms is not None:
                # Candles missing right before the limit are marked, although they are not healed.
                missing.append((grid.end(result.before_ms), limit_ms))
            return union(missing)
        if last_ms < limit_ms:
            return []  # the series ended before the limit; its exact end is unknown
        is_idle = gaps and gaps[-1].reason in IDLE and gaps[-1].stop_ms > last_ms
        return within(union(missing), 0, gaps[-1].start_ms) if is_idle else union(missing)


def _present_series(store: LakeStore, market: str) -> list[Series]:
    """Return the series of a market that have candles in partitions or in a journal."""
    unflushed = {series for series in _unflushed(store) if series.market == market}
    return sorted(unflushed.union(store.series(PartitionFilter(markets=(market,)))))


def _ledgers(store: LakeStore) -> tuple[dict[Series, int], dict[Series, list[Range]]]:
    """Return the time at which a recorder of any host first expected each series, and its forgotten ranges."""
    with current_ledgers(store) as root:
        periods, lines = read_periods(root), read_forgotten(root)
    since_ms: dict[Series, int] = {}
    for period in periods:
        if period.owed_ms is not None:
            since_ms[period.series] = min(period.owed_ms, since_ms.get(period.series, period.owed_ms))
    ranges: dict[Series, list[Range]] = {}
    for line in lines:
        ranges.setdefault(line.series, []).extend(line.ranges)
    return since_ms, ranges


def _forgotten_until_ms(forgotten: list[Range], first_ms: int) -> int:
    """Return the end of the candles that were forgotten before the first one; 0 without any."""
    return max((stop_ms for start_ms, stop_ms in forgotten if start_ms < first_ms), default=0)


def _unflushed(store: LakeStore) -> dict[Series, list[Candle]]:
    unflushed: dict[Series, list[Candle]] = {}
    for candle in read_unflushed(store.state_dir):
        unflushed.setdefault(candle.series, []).append(candle)
    return unflushed
