"""The clocks: the machine's, and what we know of the exchange's.

Waiting uses the monotonic clock, candle logic the exchange's time; the wall
clock only stamps `recv_time`. Tests pass their own.
"""

import time

# A rate this near to 1 is 1: the exchange's clock runs like ours.
_RATE_SNAP = 0.02

# Two samples of the server's time give a rate when they are this far apart.
_RATE_APART_S = 0.2

# A sample this far off the estimate, in real seconds, is of another clock: start over.
_JUMP_S = 5.0


class Clock:
    """The system's clocks."""

    def wall_us(self) -> int:
        """Return microseconds since the epoch by the wall clock, which may jump."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds since some moment; never jumps."""
        return time.monotonic()


class ExchangeTime:
    """What time it is at the exchange: an offset and a rate, learned.

    The estimate is never ahead of the exchange by more than half a round trip,
    so that a candle it calls closed is closed. Before anything is learned it is
    the wall clock's time. The rate is 1, but for a sandbox that runs faster.

    Args:
        clock: the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self.rate = 1.0
        self.known = False
        self._clock = clock
        self._anchor_s = clock.monotonic_s()
        self._anchor_ms = clock.wall_us() / 1000
        self._first: tuple[float, int] | None = None

    def now_ms(self) -> int:
        """Return the exchange's time, milliseconds since the epoch."""
        return int(self._at(self._clock.monotonic_s()))

    def real_s(self, exchange_ms: float) -> float:
        """Return how long, in real seconds, so much of the exchange's time takes."""
        return exchange_ms / 1000 / self.rate

    def real_s_until(self, exchange_ms: int) -> float:
        """Return the real seconds until the exchange's clock shows a time; negative if it is past."""
        return self.real_s(exchange_ms - self._at(self._clock.monotonic_s()))

    def heard(self, event_ms: int) -> None:
        """Learn from a frame: the exchange's clock showed its event time before now."""
        now_s = self._clock.monotonic_s()
        if not self.known or event_ms > self._at(now_s):
            self._anchor_s, self._anchor_ms = now_s, float(event_ms)
            self.known = True

    def synced(self, server_ms: int, asked_s: float, answered_s: float) -> None:
        """Learn from an answer to "what time is it", by the monotonic clock."""
        middle_s = (asked_s + answered_s) / 2
        if self._first is None or abs(server_ms - self._at(middle_s)) > _JUMP_S * 1000 * self.rate:
            self._first = (middle_s, server_ms)
        elif middle_s - self._first[0] >= _RATE_APART_S:
            rate = (server_ms - self._first[1]) / 1000 / (middle_s - self._first[0])
            self.rate = 1.0 if abs(rate - 1) <= _RATE_SNAP else max(rate, 0.001)
        self._anchor_s, self._anchor_ms = middle_s, float(server_ms)
        self.known = True

    def _at(self, monotonic_s: float) -> float:
        return self._anchor_ms + (monotonic_s - self._anchor_s) * 1000 * self.rate
