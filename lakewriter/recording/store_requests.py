"""The number of requests by which a recorder's flushes write to an object store.

Stores charge for each request. docs/how-to/s3.md has the prices.
"""

from collections.abc import Iterable

from lakewriter.interval import INTERVALS
from lakewriter.recording.flushing.flusher import FLUSH_CANDLES

_MONTH_S = 30 * 86_400.0


def puts_a_month(intervals: Iterable[str], flush_every_s: float) -> int:
    """Return the number of PUT requests in 30 days, if every series has every candle.

    Each flush replaces the partition of each series that has a new candle.

    Args:
        intervals: the interval of each series.
        flush_every_s: maximum age of a buffered candle. A flush also starts at FLUSH_CANDLES.
    """
    lengths_s = [(INTERVALS[interval].length_ms or 0) / 1000 or _MONTH_S for interval in intervals]
    candles_a_s = sum(1 / length_s for length_s in lengths_s)
    every_s = min(flush_every_s, FLUSH_CANDLES / candles_a_s) if lengths_s else flush_every_s
    return round(sum(_MONTH_S / max(every_s, length_s) for length_s in lengths_s))
