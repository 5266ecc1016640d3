"""The buffer: candles that are in the journal and not yet in their partitions. Pure.

Contract: a candle leaves the buffer only when its partition was merged
(`discard`); candles that could not be merged are part of the next `seal`. One
candle per key: of duplicates the one that takes precedence.
"""

from collections.abc import Iterable

from lakewriter.candle import Candle, precedence
from lakewriter.partition import Partition, partition_of

Batch = dict[Partition, list[Candle]]


class Buffer:
    """Candles by partition and begin time, in two generations.

    New candles go into the open one; a flush seals it and merges the sealed one,
    while the next is filled.
    """

    def __init__(self) -> None:
        self._open: dict[Partition, dict[int, Candle]] = {}
        self._sealed: dict[Partition, dict[int, Candle]] = {}
        self._oldest_s: float | None = None

    def __len__(self) -> int:
        """Return how many candles are buffered, sealed ones included."""
        return self.open_rows + sum(len(rows) for rows in self._sealed.values())

    @property
    def open_rows(self) -> int:
        """How many candles are in the open generation."""
        return sum(len(rows) for rows in self._open.values())

    def add(self, candles: Iterable[Candle], now_s: float) -> None:
        """Add candles to the open generation.

        Args:
            now_s: the monotonic clock, for `age_s`.
        """
        for candle in candles:
            rows = self._open.setdefault(partition_of(candle), {})
            old = rows.get(candle.begin_ms)
            if old is None or precedence(candle) >= precedence(old):
                rows[candle.begin_ms] = candle
        if self._open and self._oldest_s is None:
            self._oldest_s = now_s

    def age_s(self, now_s: float) -> float:
        """Return how long the oldest candle of the open generation has waited; 0 if none."""
        return 0.0 if self._oldest_s is None else now_s - self._oldest_s

    def seal(self) -> Batch:
        """Seal the open generation and return all sealed candles.

        Those that an earlier flush could not merge are among them.
        """
        if self._sealed:
            newer = [candle for rows in self._open.values() for candle in rows.values()]
            self._open = self._sealed
            self.add(newer, 0.0)
        self._open, self._sealed, self._oldest_s = {}, self._open, None
        return {partition: list(rows.values()) for partition, rows in self._sealed.items()}

    def restart_age(self, now_s: float) -> None:
        """Restart the age of candles that could not be merged."""
        if self._sealed and self._oldest_s is None:
            self._oldest_s = now_s

    def discard(self, partition: Partition) -> None:
        """Remove the sealed candles of a partition that was merged."""
        self._sealed.pop(partition, None)
