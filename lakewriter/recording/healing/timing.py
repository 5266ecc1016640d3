"""The next request of a heal task, and its time: pages, second requests, retries. Pure."""

import random

from lakewriter.clock import ExchangeTime
from lakewriter.interval import Interval
from lakewriter.ranges import Range, union
from lakewriter.recording.healing.schedule import HealTask

# Observed: the values of a just-closed candle still change. A candle younger than
# PROVISIONAL_MS at its request is provisional. It is requested once more,
# REQUEST_AGAIN_MS after its end.
PROVISIONAL_MS = 30_000
REQUEST_AGAIN_MS = 60_000

# Delays of retries for candles that REST does not have yet. They double, in the exchange's time.
_ABSENT_FIRST_MS = 2_000
_ABSENT_MAX_MS = 60_000
_ABSENT_REAL_S_MIN = 0.25

# The rate of the exchange's time may be learned only after the first request.
_PROVISIONAL_REAL_S_MAX = 5.0

# Delays of retries after an error, in real time. They are short: after minutes of
# outage, the missing candles are healed within seconds.
_ERROR_FIRST_S = 0.5
ERROR_MAX_S = 15.0

# Maximum delay of retries for one series whose answers cannot be read. Other series are not delayed.
UNREADABLE_MAX_S = 300.0


def next_span(task: HealTask, grid: Interval, now_ms: int, page: int) -> Range | None:
    """Return the next range to request, or None if no closed candle is missing.

    The range is one page, beginning with the oldest missing candle.

    Args:
        grid: the grid of the series.
        now_ms: the exchange's time.
        page: maximum number of candles in a page.
    """
    provisional = [(begin_ms, grid.end(begin_ms)) for begin_ms in task.provisional]
    due = [span for span in provisional if now_ms >= span[1] + REQUEST_AGAIN_MS]
    ranges = union([*task.ranges, *due])
    if not ranges:
        return None
    start_ms, stop_ms = ranges[0][0], min(ranges[-1][1], grid.floor(now_ms))
    if grid.length_ms:
        stop_ms = min(stop_ms, start_ms + page * grid.length_ms)
    return (start_ms, stop_ms) if start_ms < stop_ms else None


def next_delay_s(task: HealTask, grid: Interval, time: ExchangeTime) -> float | None:
    """Return the real seconds until the next request of a task, or None if it is complete."""
    if task.ranges and (task.extended or not task.tries):
        return 0.0  # a new range, or the next page
    delays_ms = []
    if task.ranges:
        delays_ms.append(float(min(_ABSENT_MAX_MS, _ABSENT_FIRST_MS << min(task.tries, 10))))
    if task.provisional:
        again_ms = grid.end(min(task.provisional)) + REQUEST_AGAIN_MS
        delays_ms.append(max(0.0, again_ms - time.now_ms()))
    if not delays_ms:
        return None
    delay_s = max(time.real_s(min(delays_ms)), _ABSENT_REAL_S_MIN)
    return delay_s if task.ranges else min(delay_s, _PROVISIONAL_REAL_S_MAX)


def idle_delay_s(task: HealTask, grid: Interval, time: ExchangeTime) -> float | None:
    """Return the real seconds until a task without a range to request now is due; None if it is complete."""
    delay_s = next_delay_s(task, grid, time)
    return None if delay_s is None else max(delay_s, _ABSENT_REAL_S_MIN)


def error_delay_s(failures: int, delay_max_s: float) -> float:
    """Return the delay after this many consecutive failures: exponential, with jitter."""
    ceiling_s = min(delay_max_s, _ERROR_FIRST_S * 2.0 ** min(failures - 1, 20))
    return ceiling_s * random.uniform(0.7, 1.0)  # noqa: S311 - jitter
