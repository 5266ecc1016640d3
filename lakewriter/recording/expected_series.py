"""The expected series. Each of their candles has to be in the lake, or explained in the ledger.

Contract: a series is expected while it is subscribed to and trades, if the time
of its market is known. A newly expected series is surveyed for earlier
gaps. When a series ends, its candles up to the end are healed.
"""

import logging

from lakewriter.binance.market_clients import MarketClients
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.recording.healing.healer import Healer
from lakewriter.recording.healing.startup_survey import StartupSurvey
from lakewriter.recording.healing.watermarks import Watermarks
from lakewriter.recording.series_states import SeriesStates
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.series import Series
from lakewriter.subscribed_period import STOP_MARGIN_MS

log = logging.getLogger(__name__)

# Maximum delay of the agreed time behind the exchange's time if frames come late.
_BEHIND_MS_MAX = 10 * MINUTE_MS

# A missing candle that ended within this time before the stop is not a gap yet.
MOMENT_MS = STOP_MARGIN_MS


class ExpectedSeries:
    """The series that are expected now. It keeps the watermarks in step with them.

    Args:
        subscribed: the subscriptions, and the instruments of each market.
        clients: know the time at each market.
        watermarks: updated here.
        healer: heals candles of series that ended.
        survey: surveys series that begin.
        ledger: the gaps.
        states: know the newest candle of each series.

    Attributes:
        markets: markets whose series are expected, because their time is known.
    """

    def __init__(
        self,
        subscribed: SubscribedSeries,
        clients: MarketClients,
        watermarks: Watermarks,
        healer: Healer,
        survey: StartupSurvey,
        ledger: Ledger,
        states: SeriesStates,
    ) -> None:
        self.markets: set[str] = set()
        self._subscribed = subscribed
        self._clients = clients
        self._watermarks = watermarks
        self._healer = healer
        self._survey = survey
        self._ledger = ledger
        self._states = states
        # Number of time jumps of each market that have been followed.
        self._jumps: dict[str, int] = {}

    def update(self, market: str, expected: set[Series], new_since_ms: int | None = None) -> bool:
        """Replace the expected series of a market; return whether any is new.

        The time of the market must be known.

        Args:
            new_since_ms: the time from which new series are expected; None for now.
        """
        now_ms = self._clients[market].time.now_ms()
        if market not in self.markets:
            self.markets.add(market)
            self._jumps[market] = self._clients[market].time.jumps
            self._survey.survey_ended_series(market, now_ms)
        present = {series for series in self._watermarks.series if series.market == market}
        for series in sorted(expected - present):
            self._begin(series, now_ms, now_ms if new_since_ms is None else new_since_ms)
        for series in sorted(present - expected):
            self._end(series, now_ms)
        return bool(expected - present)

    def since_ms(self) -> dict[Series, int]:
        """Return the time from which each series is expected, for markets whose list is known."""
        since_ms = ((series, self._watermarks.since_ms(series)) for series in self._watermarks.series)
        return {
            series: from_ms
            for series, from_ms in since_ms
            if from_ms is not None and series.market in self._subscribed.listed
        }

    def follow_time(self) -> None:
        """Restart the series of markets whose agreed time jumped, at the time after the jump.

        Candles that ended before the jump are healed. Candles between its two times
        never existed.
        """
        for market in self.markets:
            time = self._clients[market].time
            if time.jumps == self._jumps.get(market, 0) or time.last_jump is None:
                continue
            self._jumps[market] = time.jumps
            before_ms, after_ms = time.last_jump
            if before_ms != after_ms:
                self._restart(market, before_ms, after_ms)

    def clear_last_moment(self) -> None:
        """Remove from the ledger the pending gaps that ended just before the stop.

        The next recorder finds their candles missing after the newest candle of the lake.
        """
        for gap in self._ledger.gaps():
            newest_ms = self._states.newest_ms(gap.series)
            if gap.reason != "pending" or newest_ms is None:
                continue
            grid = gap.series.grid.anchored(newest_ms)
            tail_ms = max(gap.start_ms, grid.end(newest_ms))
            now_ms = self._clients[gap.market].time.now_ms()
            if tail_ms < gap.stop_ms and grid.end(tail_ms) >= now_ms - MOMENT_MS:
                self._ledger.clear(gap.series, tail_ms, gap.stop_ms)

    def _begin(self, series: Series, now_ms: int, from_ms: int) -> None:
        self._watermarks.expect(series, from_ms)
        self._healer.cancel_future(series, now_ms)
        self._survey.survey(series, from_ms)

    def _end(self, series: Series, now_ms: int) -> None:
        since_ms = self._watermarks.since_ms(series)
        next_ms = self._watermarks.forget(series)
        instrument = self._subscribed.instrument(series)
        if instrument is None and since_ms is not None and next_ms == series.grid.floor(since_ms):
            return  # misspelled, or listed in the future: its recording never began
        if next_ms is None:
            return
        grid = series.grid.anchored(next_ms)
        if not self._subscribed.covers(series):
            # The series is unsubscribed. Its last closed candle may still arrive.
            self._healer.request_heal(series, next_ms, grid.floor(now_ms))
        elif instrument is None or not instrument.trades:
            # A candle that never comes is explained in the ledger: the present candle, at the latest.
            stop_ms = grid.end(max(grid.floor(now_ms), next_ms))
            delivery_ms = None if instrument is None else instrument.delivery_ms
            if delivery_ms is not None and stop_ms <= delivery_ms <= now_ms + _BEHIND_MS_MAX:
                # The list is ahead of the time that frames show. The delivery is over.
                stop_ms = grid.end(grid.floor(delivery_ms))
            self._healer.request_heal(series, next_ms, stop_ms)

    def _restart(self, market: str, before_ms: int, after_ms: int) -> None:
        log.warning(
            "%s: the exchange's time jumped by %.0f s; candles are expected from the new time on",
            market,
            (after_ms - before_ms) / 1000,
        )
        for series in [series for series in self._watermarks.series if series.market == market]:
            next_ms = self._watermarks.restart(series, after_ms)
            if next_ms is None:
                continue
            stop_ms = series.grid.anchored(next_ms).floor(min(before_ms, after_ms))
            if next_ms < stop_ms:
                self._healer.request_heal(series, next_ms, stop_ms)
            self._healer.cancel_future(series, after_ms)
