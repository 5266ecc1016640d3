"""The clock: the one small object that is asked what time it is.

Waiting uses the monotonic clock, candle logic the exchange's times; the wall
clock only stamps `recv_time`. Tests pass their own.
"""

import time


class Clock:
    """The system's clocks."""

    def wall_us(self) -> int:
        """Return microseconds since the epoch by the wall clock, which may jump."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds since some moment; never jumps."""
        return time.monotonic()
