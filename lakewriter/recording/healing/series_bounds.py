"""The extent of series: where each begins, how far REST has come, and what follows for what is absent."""

import contextlib

from lakewriter.binance.market_clients import MarketClient
from lakewriter.binance.rest import RestError
from lakewriter.candle import Candle
from lakewriter.gap_reasons import SymbolFacts
from lakewriter.interval import DAY_MS, Interval
from lakewriter.market import MARKETS
from lakewriter.ranges import Range
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series

# Of so many the newest candle is looked for, to see how far REST has come.
NEWEST_CANDLES = 99


class SeriesBounds:
    """What anybody saw of each series.

    Args:
        universe: what the exchange lists.
    """

    def __init__(self, universe: SubscribedSeries) -> None:
        self._universe = universe
        # Begin of the first and newest candle that anybody saw, of the first that REST has, of the newest it showed.
        self._seen: dict[Series, int] = {}
        self._last: dict[Series, int] = {}
        self._first: dict[Series, int] = {}
        self._shown: dict[Series, int] = {}

    def saw(self, series: Series, begin_ms: int) -> None:
        """Learn that the series has a candle that begins then."""
        self._seen[series] = min(begin_ms, self._seen.get(series, begin_ms))
        self._last[series] = max(begin_ms, self._last.get(series, begin_ms))

    def rest_showed(self, series: Series, closed: list[Candle]) -> None:
        """Learn from an answer of REST.

        Args:
            closed: candles, ascending.
        """
        if closed:
            self.saw(series, closed[0].begin_ms)
            self.saw(series, closed[-1].begin_ms)
            self._shown[series] = max(closed[-1].begin_ms, self._shown.get(series, 0))

    def grid(self, series: Series) -> Interval:
        """Return the series' grid, as far as it is known where it lies."""
        seen_ms = self._seen.get(series)
        return series.grid if seen_ms is None else series.grid.anchored(seen_ms)

    def standing(self, series: Series) -> SymbolFacts:
        """Return what is known of a series that tells why a candle is absent."""
        return SymbolFacts(
            self._universe.instrument(series),
            self._universe.as_of_ms.get(series.market),
            self._first.get(series),
            self._shown.get(series),
            self._seen.get(series),
            self._last.get(series),
        )

    async def look_round(
        self, series: Series, absent: list[Range], door: MarketClient, *, background: bool
    ) -> None:
        """Ask what REST has before and after what it lacks: without that nothing can be told of it."""
        grid = self.grid(series)
        (first_ms, _), (_, last_ms), closed_ms = absent[0], absent[-1], grid.floor(door.time.now_ms())
        with contextlib.suppress(RestError):  # it is asked again at the next try
            if self._shown.get(series, -1) < last_ms < closed_ms:
                from_ms = grid.floor(closed_ms - NEWEST_CANDLES * (grid.length_ms or 30 * DAY_MS))
                newest = await door.rest.klines(series, from_ms, closed_ms, background=background)
                self.rest_showed(series, newest)
            if series in self._shown and self._first_matters(series, first_ms):
                begin_ms = await door.rest.first_begin(series)
                if begin_ms is not None and begin_ms <= self._seen.get(series, begin_ms):
                    self._first[series] = begin_ms

    def _first_matters(self, series: Series, begin_ms: int) -> bool:
        """Tell whether it could be the reason that the series began later, and nobody knows when."""
        if series in self._first or self._seen.get(series, begin_ms + 1) <= begin_ms:
            return False
        listed = self._universe.instrument(series)
        return (listed is None or listed.onboard_ms is None) and not MARKETS[
            series.market
        ].counts_back_from_end
