"""The machine's clocks, and an estimate of the exchange's time.

Waiting uses the monotonic clock. Candle logic uses the exchange's time. The wall
clock only stamps `recv_time`. Tests pass their own clocks.
"""

import time

from lakewriter.agreement import Agreement, Jump
from lakewriter.series import Series
from lakewriter.timeline import Moment

# Linux stops its monotonic clock while the machine sleeps. This clock continues.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def present_ms() -> int:
    """Return the wall clock's time in milliseconds since the epoch, for ages and dates that a user gives."""
    return time.time_ns() // 1_000_000


class Clock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """Return the wall clock's time in microseconds since the epoch. It may jump."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return the seconds since a fixed moment. They never jump, and include the machine's sleep."""
        return time.clock_gettime(_SINCE_BOOT)


class ExchangeTime:
    """The exchange's time: an offset and a rate, as `Agreement` measures them.

    The estimate is never ahead of the exchange, so a candle that has ended by it is
    closed. The estimate is behind by at most a round trip. Before the first agreement
    it is the wall clock's time. The rate is 1, except in a sandbox that runs faster.

    Args:
        clock: the machine's clocks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._agreed = Agreement()

    @property
    def known(self) -> bool:
        """Whether the time and its rate are known."""
        line = self._agreed.line
        return line is not None and line.is_rate_settled(self._clock.monotonic_s())

    @property
    def agreed(self) -> bool:
        """Whether the time is known, even if its rate is not."""
        return self._agreed.line is not None

    @property
    def rate(self) -> float:
        """The seconds of the exchange's clock per second of the host's clock."""
        return 1.0 if self._agreed.line is None else self._agreed.line.rate

    @property
    def host_ahead_ms(self) -> int | None:
        """The host's clock minus the exchange's, in milliseconds.

        It is exact to a round trip. None if the exchange's time is unknown, or its clock
        is faster than real time.
        """
        if not self.known or self.rate != 1.0:
            return None
        return round(self._wall_ms() - self._now_ms())

    @property
    def needs_server_time(self) -> bool:
        """Whether a REST answer would settle a disagreement."""
        return self._agreed.needs_server_time

    @property
    def jumps(self) -> int:
        """The number of jumps of the agreed time."""
        return self._agreed.jumps

    @property
    def last_jump(self) -> Jump | None:
        """The last jump of the agreed time; None before the first one."""
        return self._agreed.last_jump

    def now_ms(self) -> int:
        """Return the exchange's time in milliseconds since the epoch."""
        return int(self._now_ms())

    def latest_ms(self) -> int:
        """Return the latest time that the exchange's clock can show now."""
        return int(self._agreed.latest_ms(self._clock.monotonic_s(), self._wall_ms()))

    def real_s(self, exchange_ms: float) -> float:
        """Return the real seconds that a duration by the exchange's clock takes."""
        return exchange_ms / 1000 / self.rate

    def real_s_until(self, exchange_ms: int) -> float:
        """Return the real seconds until a time of the exchange; negative after that time."""
        return self.real_s(exchange_ms - self._now_ms())

    def observe_event_time(self, series: Series, event_ms: int) -> bool:
        """Add a closed candle's event time; return whether it is plausible."""
        return self._agreed.observe_event_time(series, event_ms, self._clock.monotonic_s(), self._wall_ms())

    def observe_server_time(self, moment: Moment) -> bool:
        """Add a reading by REST; return whether the agreed time accepts it."""
        return self._agreed.observe_server_time(moment, self._wall_ms())

    def _wall_ms(self) -> float:
        return self._clock.wall_us() / 1000

    def _now_ms(self) -> float:
        line = self._agreed.line
        return self._wall_ms() if line is None else line.least_ms(self._clock.monotonic_s())
