"""The bounds of each series: its first and last candle, REST's newest candle, and the grid of its candles."""

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

# The newest candle of REST is searched among this many last candles of the grid.
NEWEST_CANDLES = 99


class SeriesBounds:
    """The bounds of all series that candles and REST have shown.

    Args:
        subscribed: has the instruments of each market.
    """

    def __init__(self, subscribed: SubscribedSeries) -> None:
        self._subscribed = subscribed
        # Begin times of the first and last candle from any source, and of the first and newest candle of REST.
        self._first_seen_ms: dict[Series, int] = {}
        self._last_seen_ms: dict[Series, int] = {}
        self._rest_first_ms: dict[Series, int] = {}
        self._rest_newest_ms: dict[Series, int] = {}

    def note_candle(self, series: Series, begin_ms: int) -> None:
        """Add the begin time of a candle to the bounds of its series."""
        self._first_seen_ms[series] = min(begin_ms, self._first_seen_ms.get(series, begin_ms))
        self._last_seen_ms[series] = max(begin_ms, self._last_seen_ms.get(series, begin_ms))

    def note_rest_answer(self, series: Series, closed: list[Candle]) -> None:
        """Add the closed candles of a REST answer, in ascending order, to the bounds of their series."""
        if closed:
            self.note_candle(series, closed[0].begin_ms)
            self.note_candle(series, closed[-1].begin_ms)
            self._rest_newest_ms[series] = max(closed[-1].begin_ms, self._rest_newest_ms.get(series, 0))

    def grid(self, series: Series) -> Interval:
        """Return the series' grid, anchored at one of its candles if a candle was seen."""
        first_ms = self._first_seen_ms.get(series)
        return series.grid if first_ms is None else series.grid.anchored(first_ms)

    def facts(self, series: Series) -> SymbolFacts:
        """Return the facts that explain why a candle of the series is absent."""
        return SymbolFacts(
            self._subscribed.instrument(series),
            self._subscribed.as_of_ms.get(series.market),
            self._rest_first_ms.get(series),
            self._rest_newest_ms.get(series),
            self._first_seen_ms.get(series),
            self._last_seen_ms.get(series),
        )

    async def fetch_neighbours(
        self, series: Series, absent: list[Range], client: MarketClient, *, background: bool
    ) -> None:
        """Fetch the newest and the first candle of a series, if absent candles cannot be explained without them."""
        grid = self.grid(series)
        (first_ms, _), (_, last_ms), closed_ms = absent[0], absent[-1], grid.floor(client.time.now_ms())
        with contextlib.suppress(RestError):  # the next try fetches both again
            if self._rest_newest_ms.get(series, -1) < last_ms < closed_ms:
                from_ms = grid.floor(closed_ms - NEWEST_CANDLES * (grid.length_ms or 30 * DAY_MS))
                newest = await client.rest.klines(series, from_ms, closed_ms, background=background)
                self.note_rest_answer(series, newest)
            if series in self._rest_newest_ms and self._needs_first(series, first_ms):
                begin_ms = await client.rest.first_begin(series)
                if begin_ms is not None and begin_ms <= self._first_seen_ms.get(series, begin_ms):
                    self._rest_first_ms[series] = begin_ms

    def _needs_first(self, series: Series, begin_ms: int) -> bool:
        """Return whether the series may have begun after `begin_ms`, at an unknown time."""
        if series in self._rest_first_ms or self._first_seen_ms.get(series, begin_ms + 1) <= begin_ms:
            return False
        listed = self._subscribed.instrument(series)
        return (listed is None or listed.onboard_ms is None) and not MARKETS[
            series.market
        ].counts_back_from_end
