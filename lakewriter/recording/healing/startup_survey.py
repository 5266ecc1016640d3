"""The past: what series lack from before they were owed, looked up in the lake and its ledger.

Only this knows where the recording of a series began (with its first candle, or
with the first word of the ledger about it) and what of the past nobody has to
ask for again. Asking is the healer's.
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
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.journal import read_hot
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import SurveyResult, survey
from lakewriter.lake.subscriptions import read_periods
from lakewriter.ranges import Range, minus, union, within, without
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Series looked up in the lake in one go, in a thread.
_SURVEY_SERIES = 50

# The exchange is asked so often where a series' grid lies, until it says.
_GRID_EVERY_S = 30.0


class StartupSurvey:
    """Looks up series as they begin to be owed, and hands to the healer what they lack.

    `surveying` counts the series that were not looked up yet.

    Args:
        store: the lake.
        universe: what is subscribed to.
        ledger: what was said of series before.
        watermarks: who is owed, and learns where a grid lies.
        healer: takes what is missing.
        doors: to ask the exchange.
        heal_limit_ms: what is missing from longer ago is not asked for.
    """

    def __init__(
        self,
        store: LakeStore,
        universe: SubscribedSeries,
        ledger: Ledger,
        watermarks: Watermarks,
        healer: Healer,
        doors: MarketClients,
        *,
        heal_limit_ms: int,
    ) -> None:
        self.surveying = 0
        self._store = store
        self._universe = universe
        self._ledger = ledger
        self._watermarks = watermarks
        self._healer = healer
        self._doors = doors
        self._heal_limit_ms = heal_limit_ms
        self._surveys: asyncio.Queue[tuple[Series, int]] = asyncio.Queue()
        self._former: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._gridless: asyncio.Queue[Series] = asyncio.Queue()

    def look_up(self, series: Series, until_ms: int) -> None:
        """See to what a series lacks from before the candle that contains a moment."""
        self._surveys.put_nowait((series, series.grid.floor(until_ms)))
        self.surveying += 1

    def look_up_former(self, market: str, until_ms: int) -> None:
        """See to what series lack that are not owed any more: they may have ended while nobody recorded."""
        self._former.put_nowait((market, until_ms))

    async def run(self) -> None:
        """Look up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._keep_surveying, self._keep_finding_former, self._keep_learning_grids):
                tasks.create_task(work())

    async def _keep_surveying(self) -> None:
        while True:
            some = [await self._surveys.get()]
            while not self._surveys.empty():
                some.append(self._surveys.get_nowait())
            try:
                # Before any file is looked for: what leaves the journal is in its partition then.
                hot = await asyncio.to_thread(_hot, self._store)
                owed = await asyncio.to_thread(_owed, self._store)
                for first in range(0, len(some), _SURVEY_SERIES):
                    batch = some[first : first + _SURVEY_SERIES]
                    found = await asyncio.to_thread(self._survey, batch, hot)
                    for (series, stop_ms), surveyed in zip(batch, found, strict=True):
                        if surveyed is not None:
                            self._take(series, stop_ms, surveyed, owed.get(series))
            except (LakeError, OSError) as error:
                log.error("what the lake lacks is not known: %s", error)
            self.surveying -= len(some)

    async def _keep_finding_former(self) -> None:
        while True:
            market, until_ms = await self._former.get()
            try:
                there = await asyncio.to_thread(_known_series, self._store, market)
            except (LakeError, OSError) as error:
                log.error("which series of %s ended is not known: %s", market, error)
                continue
            for series in there:
                if series not in self._watermarks and self._universe.covers(series):
                    self.look_up(series, until_ms)
            self._owe_of_left(market)

    def _owe_of_left(self, market: str) -> None:
        """Owe what series that were left lack from before: a recorder died before it was healed."""
        for gap in self._ledger.gaps():
            if gap.market == market and gap.reason not in FINAL and not self._universe.covers(gap.series):
                self._healer.owe(gap.series, gap.start_ms, gap.stop_ms)

    async def _keep_learning_grids(self) -> None:
        """Ask for a candle, open or not, of each series whose grid nobody knows; of `3d`, that is."""
        while True:
            series = await self._gridless.get()
            now_ms = self._doors[series.market].time.now_ms()
            span = (now_ms - series.grid.length_ms, now_ms)
            with contextlib.suppress(RestError):
                for candle in await self._doors[series.market].rest.klines(series, *span, background=True):
                    self._watermarks.anchor(series, candle.begin_ms)
            if series in self._watermarks and self._watermarks.next_ms(series) is None:
                self._gridless.put_nowait(series)
                await asyncio.sleep(_GRID_EVERY_S)

    def _survey(
        self, batch: list[tuple[Series, int]], hot: dict[Series, list[Candle]]
    ) -> list[SurveyResult | None]:
        return [self._survey_one(series, stop_ms, hot.get(series, ())) for series, stop_ms in batch]

    def _survey_one(self, series: Series, stop_ms: int, hot: Iterable[Candle]) -> SurveyResult | None:
        start_ms = series.grid.floor(stop_ms - self._heal_limit_ms)
        try:
            return survey(self._store, series, start_ms, stop_ms, hot)
        except (LakeError, OSError) as error:
            log.error("%s: what it lacks is not known: %s", series, error)
            return None

    def _take(self, series: Series, stop_ms: int, surveyed: SurveyResult, owed_ms: int | None) -> None:
        """Owe what the lake lacks of a series, and what its ledger could not settle before.

        Args:
            owed_ms: since when a recorder first owed it; None if that is not known.
        """
        first_ms = stop_ms if surveyed.first_ms is None else surveyed.first_ms
        before_first: list[Range] = []
        if owed_ms is not None and series in self._watermarks:
            before_first = union([(series.grid.floor(owed_ms), first_ms)])
        if surveyed.first_ms is None or surveyed.last_ms is None:
            # Its recording began with the first word about it, but nothing ever came.
            missing = union((gap.start_ms, stop_ms) for gap in self._ledger.gaps(series)[:1])
            if series in self._watermarks and self._watermarks.next_ms(series) is None:
                self._gridless.put_nowait(series)
        else:
            self._healer.saw(series, surveyed.first_ms)
            self._watermarks.anchor(series, surveyed.first_ms)
            missing = self._missing(series, stop_ms, surveyed, surveyed.first_ms, surveyed.last_ms)
        for start_ms, end_ms in minus(union([*missing, *before_first]), self._settled(series, stop_ms)):
            self._healer.owe(series, start_ms, end_ms)

    def _settled(self, series: Series, stop_ms: int) -> list[Range]:
        """Return what nobody has to ask for again."""
        settled = self._ledger.settled(series)
        for gap in self._ledger.gaps(series):
            if self._is_refuted(gap):
                settled = without(settled, max(gap.start_ms, stop_ms - self._heal_limit_ms), gap.stop_ms)
        return settled

    def _is_refuted(self, gap: Gap) -> bool:
        """Tell whether a series was said to be over that trades again: that was a halt."""
        instrument = self._universe.instrument(gap.series)
        return gap.reason in ENDED and instrument is not None and instrument.trades

    def _missing(
        self, series: Series, stop_ms: int, surveyed: SurveyResult, first_ms: int, last_ms: int
    ) -> list[Range]:
        """Return what a series with candles lacks, as far as anybody told or the limit allows.

        Args:
            first_ms, last_ms: its first and last candle.
        """
        told = self._ledger.gaps(series)
        grid = series.grid.anchored(first_ms)
        limit_ms = grid.floor(stop_ms - self._heal_limit_ms)
        # What was unsettled is asked for again, there or not: it may have been taken too early.
        unsettled = union(
            (gap.start_ms, min(gap.stop_ms, stop_ms))
            for gap in told
            if gap.reason not in FINAL or self._is_refuted(gap)
        )
        missing = [*within(unsettled, limit_ms, stop_ms), *surveyed.missing]
        # Its recording began with the first word about it, or with its first candle.
        missing += [(gap.start_ms, first_ms) for gap in told[:1]]
        if series in self._watermarks:
            if surveyed.before_ms is not None:
                # What is missing right before the limit is told of, if not healed.
                missing.append((grid.end(surveyed.before_ms), limit_ms))
            return union(missing)
        if last_ms < limit_ms:
            return []  # it is over for so long that nobody can say since when
        ended = told and told[-1].reason in IDLE and told[-1].stop_ms > last_ms
        return within(union(missing), 0, told[-1].start_ms) if ended else union(missing)


def _known_series(store: LakeStore, market: str) -> list[Series]:
    """Return the series of a market that have candles, be it in a journal only."""
    hot = {series for series in _hot(store) if series.market == market}
    return sorted(hot.union(store.series(PartitionFilter(markets=(market,)))))


def _owed(store: LakeStore) -> dict[Series, int]:
    """Return since when each series was first owed by a recorder."""
    owed: dict[Series, int] = {}
    for period in read_periods(store.state_dir):
        if period.owed_ms is not None:
            owed[period.series] = min(period.owed_ms, owed.get(period.series, period.owed_ms))
    return owed


def _hot(store: LakeStore) -> dict[Series, list[Candle]]:
    hot: dict[Series, list[Candle]] = {}
    for candle in read_hot(store.state_dir):
        hot.setdefault(candle.series, []).append(candle)
    return hot
