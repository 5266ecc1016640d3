"""What a listener knows of one stream: what it delivered, and what is held against it. Pure."""

from lakewriter.binance.wire import stream_name
from lakewriter.interval import INTERVALS
from lakewriter.series import Series

# Two connections that overlap deliver the same candles within seconds.
RECENT_MAX = 4

# Candles that did not come, until another connection is tried; then at 4, 8, 16 …
REPLACE_AFTER = 2

# Candles that did not come, until they are fetched instead of waited for.
POLL_AFTER = 4


class StreamHealth:
    """One series, as a connection carries it.

    Args:
        series: what it is.
        name: what the exchange calls it.
        missed_count: candles that did not come since the last one that did.
    """

    __slots__ = ("_missed_before", "_recent", "_replace_at", "missed_count", "name", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.name = stream_name(series.symbol, INTERVALS[series.interval])
        self._recent: dict[int, int] = {}
        self.missed_count = 0
        self._missed_before = 0
        self._replace_at = REPLACE_AFTER

    @property
    def polled(self) -> bool:
        """It has been silent for so long that its candles have to be fetched."""
        return self.missed_count >= POLL_AFTER

    def is_news(self, begin_ms: int, trade_num: int) -> bool:
        """Tell whether a candle was not delivered yet, or not with so many trades; remember it."""
        if trade_num <= self._recent.get(begin_ms, -1):
            return False
        self._recent[begin_ms] = trade_num
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        return True

    def count_miss(self) -> bool:
        """Count a candle that did not come; tell whether another connection should be tried.

        That is so at 2 missed_count, and each time they have doubled since; at least
        2 must have happened on the present connection.
        """
        self.missed_count += 1
        if self.missed_count < self._replace_at or self.missed_count - self._missed_before < REPLACE_AFTER:
            return False
        self._replace_at = 1 << self.missed_count.bit_length()
        return True

    def reconnected(self) -> None:
        """Begin anew with another connection: it is not to blame for what was before."""
        self._missed_before = self.missed_count

    def reset_misses(self) -> None:
        """A closed candle came: nothing is held against it."""
        if self.missed_count:
            self.missed_count = self._missed_before = 0
            self._replace_at = REPLACE_AFTER
