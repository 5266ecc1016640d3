"""The clocks: the machine's, and what we know of the exchange's.

Waiting uses the monotonic clock, candle logic the exchange's time; the wall
clock only stamps `recv_time`. Tests pass their own.
"""

import time

from lakewriter.agreement import Agreement, Jump
from lakewriter.series import Series
from lakewriter.timeline import Moment

# Linux stops its monotonic clock while the machine sleeps, and has this one besides.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The system's clocks."""

    def wall_us(self) -> int:
        """Return microseconds since the epoch by the wall clock, which may jump."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds since some moment; never jumps, and counts the machine's sleep."""
        return time.clock_gettime(_SINCE_BOOT)


class ExchangeTime:
    """What time it is at the exchange: an offset and a rate, as `Agreement` learns them.

    The estimate is never ahead of the exchange, so that a candle it calls closed
    is closed; it is behind by a round trip at most. Before anything is learned it is
    the wall clock's time. The rate is 1, but for a sandbox that runs faster.

    Args:
        clock: the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._agreed = Agreement()

    @property
    def known(self) -> bool:
        """Whether anything was learned, the rate included."""
        line = self._agreed.line
        return line is not None and line.is_rate_settled(self._clock.monotonic_s())

    @property
    def rate(self) -> float:
        """How fast the exchange's clock runs, by ours."""
        return 1.0 if self._agreed.line is None else self._agreed.line.rate

    @property
    def needs_server_time(self) -> bool:
        """Whether a question to REST would settle a doubt."""
        return self._agreed.needs_server_time

    @property
    def jumps(self) -> int:
        """How often the agreed time moved without that much time passing."""
        return self._agreed.jumps

    @property
    def last_jump(self) -> Jump | None:
        """The last of these moves."""
        return self._agreed.last_jump

    def now_ms(self) -> int:
        """Return the exchange's time, milliseconds since the epoch."""
        return int(self._now_ms())

    def latest_ms(self) -> int:
        """Return the latest time that the exchange's clock can show now."""
        return int(self._agreed.latest_ms(self._clock.monotonic_s(), self._wall_ms()))

    def real_s(self, exchange_ms: float) -> float:
        """Return how long, in real seconds, so much of the exchange's time takes."""
        return exchange_ms / 1000 / self.rate

    def real_s_until(self, exchange_ms: int) -> float:
        """Return the real seconds until the exchange's clock shows a time; negative if it is past."""
        return self.real_s(exchange_ms - self._now_ms())

    def observe_event_time(self, series: Series, event_ms: int) -> bool:
        """Learn from a closed candle's frame; return whether its event time can be true."""
        return self._agreed.observe_event_time(series, event_ms, self._clock.monotonic_s(), self._wall_ms())

    def observe_server_time(self, moment: Moment) -> bool:
        """Learn from an answer to "what time is it"; return whether it agrees with what else is known."""
        return self._agreed.observe_server_time(moment, self._wall_ms())

    def _wall_ms(self) -> float:
        return self._clock.wall_us() / 1000

    def _now_ms(self) -> float:
        line = self._agreed.line
        return self._wall_ms() if line is None else line.least_ms(self._clock.monotonic_s())
