"""The state of each series: its stream delivers, REST delivers, or nothing does; and late candles.

A candle is late from its deadline on until it arrives or is explained in the ledger.
A series is silent if it brought no candle since its first one was due, by the stream
or by REST. Its name may be misspelled.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lakewriter.binance.market_clients import MarketClients
from lakewriter.candle import Candle
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.status import OverdueSeries, SilentSeries
from lakewriter.series import Series

# Maximum number of series that a status names, for each state.
NAMED_MAX = 20

# A candle is requested from REST at its deadline, and usually arrives within seconds. A
# series is stuck if its next candle is late for longer, and REST does not answer. It is not
# stuck if only earlier candles are missing.
STUCK_AFTER_MS = 60_000


class SeriesSummary(NamedTuple):
    """The number of series in each state. Live, polled and silent series add up to all series.

    Args:
        series: series that are listened to.
        live: series whose stream delivers, or whose first candle is not due yet.
        polled: series whose stream is silent, and whose candles REST delivers.
        silent: series that brought no candle.
        overdue: series with a late candle; they are also in another state.
        most_overdue: at most NAMED_MAX overdue series. Those that REST lacks too come last;
            otherwise the most overdue comes first.
        silent_longest: the series that are silent for longest, at most NAMED_MAX.
        stuck: the number of stuck series in each market that has any.
    """

    series: int
    live: int
    polled: int
    silent: int
    overdue: int
    most_overdue: tuple[OverdueSeries, ...]
    silent_longest: tuple[SilentSeries, ...]
    stuck: Counter[str]


class SeriesStates:
    """The states of all series that a recorder listens to.

    Args:
        listeners: by market.
        watermarks: has the expected series.
        healer: knows the missing candles.
        clients: know the time at each market.
        grace_ms: returns the grace period of a series, from a candle's end to its deadline.
    """

    def __init__(
        self,
        listeners: Mapping[str, CandleListener],
        watermarks: Watermarks,
        healer: Healer,
        clients: MarketClients,
        grace_ms: Callable[[Series], int],
    ) -> None:
        self._listeners = listeners
        self._watermarks = watermarks
        self._healer = healer
        self._clients = clients
        self._grace_ms = grace_ms
        # Begin time of the newest durable candle of each series.
        self._newest_ms: dict[Series, int] = {}
        # The time at which each series was first seen among the listened ones.
        self._since_ms: dict[Series, int] = {}
        # Begin time of the first late candle of each series.
        self._late_ms: dict[Series, int] = {}

    def newest_ms(self, series: Series) -> int | None:
        """Return the begin time of a series' newest durable candle, or None before the first one."""
        return self._newest_ms.get(series)

    def note_durable(self, candle: Candle) -> None:
        """Store a candle's begin time if it is the newest durable candle of its series."""
        series = candle.series
        self._newest_ms[series] = max(candle.begin_ms, self._newest_ms.get(series, 0))

    def note_late(self, series: Series, begin_ms: int) -> None:
        """Store that a candle missed its deadline."""
        self._late_ms.setdefault(series, begin_ms)

    def summary(self) -> SeriesSummary:
        """Return the number of series in each state, and the names of the worst ones."""
        now_ms = {
            market: self._clients[market].time.now_ms()
            for market in self._listeners
            if self._clients[market].time.known
        }
        listened = frozenset[Series]().union(*(each.series for each in self._listeners.values()))
        polled = frozenset[Series]().union(*(each.polled for each in self._listeners.values()))
        silent = sorted(self._silent(listened, now_ms), key=lambda each: -each.silent_ms)
        overdue = sorted(self._overdue(now_ms), key=lambda each: (each.is_absent, -each.overdue_ms))
        only_polled = len(polled.difference(Series(*each.series) for each in silent))
        return SeriesSummary(
            len(listened),
            len(listened) - only_polled - len(silent),
            only_polled,
            len(silent),
            len(overdue),
            tuple(overdue[:NAMED_MAX]),
            tuple(silent[:NAMED_MAX]),
            Counter(each.market for each in overdue if self._is_stuck(each, now_ms[each.market])),
        )

    def _silent(self, listened: frozenset[Series], now_ms: Mapping[str, int]) -> list[SilentSeries]:
        for left in self._since_ms.keys() - listened:
            del self._since_ms[left]
        for series in listened - self._since_ms.keys():
            if series.market in now_ms:
                self._since_ms[series] = now_ms[series.market]
        silent = []
        for series in self._since_ms.keys() - self._newest_ms.keys():
            since_ms, grid = self._since_ms[series], series.grid
            due_ms = grid.end(grid.floor(since_ms)) + self._grace_ms(series)
            silent_ms = now_ms.get(series.market, 0) - due_ms
            if silent_ms > 0:
                silent.append(SilentSeries(*series, since_ms, silent_ms))
        return silent

    def _overdue(self, now_ms: Mapping[str, int]) -> list[OverdueSeries]:
        overdue = []
        for series, late_ms in list(self._late_ms.items()):
            begin_ms = self._healer.first_missing_ms(series, late_ms)
            if begin_ms is None or series not in self._watermarks:
                del self._late_ms[series]  # it came, was explained, or is no longer expected
            elif series.market in now_ms:
                deadline_ms = series.grid.anchored(begin_ms).end(begin_ms) + self._grace_ms(series)
                overdue_ms = max(0, now_ms[series.market] - deadline_ms)
                is_absent = (self._healer.answered_ms(series) or 0) > deadline_ms
                overdue.append(OverdueSeries(*series, begin_ms, overdue_ms, is_absent))
        return overdue

    def _is_stuck(self, late: OverdueSeries, now_ms: int) -> bool:
        newest_ms, grid = self._newest_ms.get(late.series), late.series.grid.anchored(late.begin_ms)
        next_ms = late.begin_ms if newest_ms is None else max(late.begin_ms, grid.end(newest_ms))
        next_late_ms = now_ms - grid.end(next_ms) - self._grace_ms(late.series)
        return next_late_ms > STUCK_AFTER_MS and not late.is_absent
