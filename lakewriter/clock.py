"""The clocks: the machine's, and what we know of the exchange's.

Waiting uses the monotonic clock, candle logic the exchange's time; the wall
clock only stamps `recv_time`. Tests pass their own.
"""

import time

# A rate this near to 1 is 1: the exchange's clock runs like ours.
_RATE_SNAP = 0.02

# A clock that hardly moves is waited for all the same.
_RATE_MIN = 0.001

# Two samples of the server's time give a rate when they are this far apart.
_RATE_APART_S = 0.2

# A sample this far off what the rates allow, in real seconds, is of another clock: start over.
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

    The estimate is never ahead of the exchange, so that a candle it calls closed
    is closed; it is behind by a round trip at most. Before anything is learned it is
    the wall clock's time. The rate is 1, but for a sandbox that runs faster.

    Args:
        clock: the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self.rate = 1.0
        self.known = False
        self._rate_most = 1.0
        self._clock = clock
        self._anchor_s = clock.monotonic_s()
        self._anchor_ms = clock.wall_us() / 1000
        self._first: tuple[int, float, float] | None = None
        self._rated = False

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
        ahead_ms = server_ms - self._at(answered_s)
        # A rate learned from two samples that were near each other leaves much room.
        room_ms = (answered_s - self._anchor_s) * 1000 * (self._rate_most - self.rate)
        jump_ms = _JUMP_S * 1000 * self.rate
        if self._first is None or (self._rated and not -jump_ms <= ahead_ms <= room_ms + jump_ms):
            self._first, self._rated = (server_ms, asked_s, answered_s), False
        elif asked_s - self._first[2] >= _RATE_APART_S:
            # The server looked at its clock somewhere between asking and answer, so the
            # rate lies between these two; the lower one is never ahead.
            passed_s = (server_ms - self._first[0]) / 1000
            least, most = passed_s / (answered_s - self._first[1]), passed_s / (asked_s - self._first[2])
            usual = least - _RATE_SNAP <= 1 <= most + _RATE_SNAP
            self.rate = 1.0 if usual else max(least, _RATE_MIN)
            self._rate_most = 1.0 if usual else max(most, _RATE_MIN)
            self._rated = True
        self._anchor_s, self._anchor_ms = answered_s, float(server_ms)
        self.known = True

    def _at(self, monotonic_s: float) -> float:
        return self._anchor_ms + (monotonic_s - self._anchor_s) * 1000 * self.rate
