"""The health of one stream: its recent candles and its missed candles. Pure."""

from lakewriter.binance.wire import stream_name
from lakewriter.interval import INTERVALS
from lakewriter.series import Series

# Number of stored candles. Two overlapping connections deliver the same candle within seconds.
RECENT_MAX = 4

# Missed candles until the connection is replaced. It is replaced again at 4, 8, 16 …
REPLACE_AFTER = 2

# Missed candles until candles are fetched from REST.
POLL_AFTER = 4


class StreamHealth:
    """The health of the stream of one series.

    Args:
        series: the series.

    Attributes:
        name: the exchange's name of the stream.
        missed_count: candles missed since the last candle that arrived.
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
        """Whether the stream is silent, and its candles have to be fetched from REST."""
        return self.missed_count >= POLL_AFTER

    def is_news(self, begin_ms: int, trade_num: int) -> bool:
        """Return whether a candle is new, or has more trades than before; store it in this case."""
        if trade_num <= self._recent.get(begin_ms, -1):
            return False
        self._recent[begin_ms] = trade_num
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        return True

    def count_miss(self) -> bool:
        """Count a missed candle; return whether the connection should be replaced.

        The connection should be replaced at 2 missed candles, and whenever their number
        has doubled. At least 2 must have been missed on the present connection.
        """
        self.missed_count += 1
        if self.missed_count < self._replace_at or self.missed_count - self._missed_before < REPLACE_AFTER:
            return False
        self._replace_at = 1 << self.missed_count.bit_length()
        return True

    def reconnected(self) -> None:
        """Reset the misses of the present connection, because it is new."""
        self._missed_before = self.missed_count

    def reset_misses(self) -> None:
        """Reset all misses, because a closed candle arrived."""
        if self.missed_count:
            self.missed_count = self._missed_before = 0
            self._replace_at = REPLACE_AFTER
