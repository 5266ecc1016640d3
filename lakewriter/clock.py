"""The machine's clocks, and an estimate of the exchange's.

Waiting uses the monotonic clock. Candle logic uses the exchange's time. The wall
clock only stamps `recv_time`. Tests pass clocks of their own.
"""

import time

from lakewriter.agreement import Agreement, Jump
from lakewriter.series import Series
from lakewriter.timeline import Moment

# Linux stops its monotonic clock while the machine sleeps; this one goes on.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """Return the wall clock's time, microseconds since the epoch; it may jump."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds since a fixed moment; never jumps, and counts the machine's sleep."""
        return time.clock_gettime(_SINCE_BOOT)


class ExchangeTime:
    """The exchange's time: an offset and a rate, as `Agreement` measures them.

    The estimate is never ahead of the exchange: a candle that it calls closed is
    closed. It is behind by at most a round trip. Before the first agreement it is the
    wall clock's time. The rate is 1, except in a sandbox that runs faster.

    Args:
        clock: the machine's clocks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._agreed = Agreement()

    @property
    def known(self) -> bool:
        """Whether time and rate are known."""
        line = self._agreed.line
        return line is not None and line.is_rate_settled(self._clock.monotonic_s())

    @property
    def rate(self) -> float:
        """Seconds of the exchange's clock in a second of ours."""
        return 1.0 if self._agreed.line is None else self._agreed.line.rate

    @property
    def needs_server_time(self) -> bool:
        """Whether an answer of REST would settle a disagreement."""
        return self._agreed.needs_server_time

    @property
    def jumps(self) -> int:
        """How often the agreed time moved without that much time passing."""
        return self._agreed.jumps

    @property
    def last_jump(self) -> Jump | None:
        """The newest of these moves; None if there was none."""
        return self._agreed.last_jump

    def now_ms(self) -> int:
        """Return the exchange's time, milliseconds since the epoch."""
        return int(self._now_ms())

    def latest_ms(self) -> int:
        """Return the latest time that the exchange's clock can show now."""
        return int(self._agreed.latest_ms(self._clock.monotonic_s(), self._wall_ms()))

    def real_s(self, exchange_ms: float) -> float:
        """Return how many real seconds a length of the exchange's time takes."""
        return exchange_ms / 1000 / self.rate

    def real_s_until(self, exchange_ms: int) -> float:
        """Return the real seconds until a time of the exchange; negative if it is past."""
        return self.real_s(exchange_ms - self._now_ms())

    def observe_event_time(self, series: Series, event_ms: int) -> bool:
        """Add a closed candle's event time; return whether it can be true."""
        return self._agreed.observe_event_time(series, event_ms, self._clock.monotonic_s(), self._wall_ms())

    def observe_server_time(self, moment: Moment) -> bool:
        """Add an answer of REST's time call; return whether it agrees with the other witnesses."""
        return self._agreed.observe_server_time(moment, self._wall_ms())

    def _wall_ms(self) -> float:
        return self._clock.wall_us() / 1000

    def _now_ms(self) -> float:
        line = self._agreed.line
        return self._wall_ms() if line is None else line.least_ms(self._clock.monotonic_s())
