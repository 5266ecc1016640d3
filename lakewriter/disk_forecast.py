"""The forecast of a full disk, from its free bytes and their decrease. Pure.

The free bytes of a disk also decrease by logs and other programs, so they are measured
instead of the lake. A measurement needs an hour: flushes, compactions and log rotation
move the free bytes up and down.
"""

from collections import deque

# A decrease is measured over at least this time, and over at most this time.
MEASURED_S_MIN = 3_600.0
MEASURED_S_MAX = 86_400.0

# The pause between two readings.
READ_EVERY_S = 60.0

# A disk that will be full within this time needs a person.
FULL_SOON_DAYS = 7.0
FULL_VERY_SOON_DAYS = 1.0

_DAY_S = 86_400.0


class FreeSpaceHistory:
    """The readings of a disk's free bytes in the last day."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque(maxlen=int(MEASURED_S_MAX / READ_EVERY_S))

    def add(self, now_s: float, free_bytes: int) -> None:
        """Add a reading, at a time of the monotonic clock."""
        self._readings.append((now_s, free_bytes))
        while now_s - self._readings[0][0] > MEASURED_S_MAX:
            self._readings.popleft()

    def growth_bytes_a_day(self) -> int | None:
        """Return the decrease of the free bytes a day; None before MEASURED_S_MIN, or without a decrease."""
        if not self._readings:
            return None
        first_s, first_bytes = self._readings[0]
        last_s, last_bytes = self._readings[-1]
        if last_s - first_s < MEASURED_S_MIN or last_bytes >= first_bytes:
            return None
        return round((first_bytes - last_bytes) * _DAY_S / (last_s - first_s))


def days_until_full(free_bytes: int, growth_bytes_a_day: int | None) -> float | None:
    """Return the days until a disk is full; None without growth."""
    if not growth_bytes_a_day or growth_bytes_a_day < 0:
        return None
    return free_bytes / growth_bytes_a_day
