"""The buffer: what is in the journal and not yet in its partition. Pure.

Contract: a candle leaves the buffer only when its partition was merged
(`discard`); what could not be merged is part of the next `seal`. One candle
per key: of duplicates the one that takes precedence.
"""

from collections.abc import Iterable

from lakewriter.candle import Candle, precedence
from lakewriter.partition import Partition, partition_of

Batch = dict[Partition, list[Candle]]


class Buffer:
    """Candles by partition and begin time, in two generations.

    New candles go into the open one; a flush seals it and works on what was
    sealed, while the next is filled.
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
        """Put candles into the open generation.

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
        """Seal the open generation and return all that is sealed.

        What an earlier flush left sealed is part of it.
        """
        if self._sealed:
            newer = [candle for rows in self._open.values() for candle in rows.values()]
            self._open = self._sealed
            self.add(newer, 0.0)
        self._open, self._sealed, self._oldest_s = {}, self._open, None
        return {partition: list(rows.values()) for partition, rows in self._sealed.items()}

    def wait_again(self, now_s: float) -> None:
        """Let what could not be merged grow old once more, from now on."""
        if self._sealed and self._oldest_s is None:
            self._oldest_s = now_s

    def discard(self, partition: Partition) -> None:
        """Forget the sealed candles of a partition that was merged."""
        self._sealed.pop(partition, None)
