"""The sandbox's clock. It starts at a given time, and runs at a given speed.

Server time, event times and closes follow simulated time. Pings, limits and the intervals
between frames of open candles follow real time. Only this module of the sandbox reads the
machine's clock.
"""

import time

from lakewriter.clock import present_ms


class SimClock:
    """Simulated time.

    Args:
        start_ms: its first time; None for the present.
        speed: simulated seconds per real second.
    """

    def __init__(self, start_ms: int | None = None, speed: float = 1.0) -> None:
        self._start_ms = present_ms() if start_ms is None else start_ms
        self._started_s = time.monotonic()
        self.speed = speed

    def real_s(self) -> float:
        """Return the real seconds since the start."""
        return time.monotonic() - self._started_s

    def now_ms(self) -> int:
        """Return the simulated time."""
        return self._start_ms + int(self.real_s() * 1000 * self.speed)

    def real_s_until(self, sim_ms: int) -> float:
        """Return the real seconds until the clock shows `sim_ms`; negative for past times."""
        return (sim_ms - self._start_ms) / 1000 / self.speed - self.real_s()
