"""The buffer: candles that are in the journal and not yet in their partitions. Pure.

Contract: a candle leaves the buffer only by `discard`, after its partition was
merged. Candles that could not be merged are part of the next `seal`. The buffer
holds one candle per key: among duplicates, the one that takes precedence.
"""

from collections.abc import Iterable

from lakewriter.candle import Candle, precedence
from lakewriter.partition import Partition, partition_of

Batch = dict[Partition, list[Candle]]


class Buffer:
    """Candles by partition and begin time, in two generations.

    New candles are added to the open generation. A flush seals it, and merges the
    sealed generation while the next one is filled.
    """

    def __init__(self) -> None:
        self._open: dict[Partition, dict[int, Candle]] = {}
        self._sealed: dict[Partition, dict[int, Candle]] = {}
        self._oldest_s: float | None = None

    def __len__(self) -> int:
        """Return the number of buffered candles, including sealed candles."""
        return self.open_rows + sum(len(rows) for rows in self._sealed.values())

    @property
    def open_rows(self) -> int:
        """The number of candles in the open generation."""
        return sum(len(rows) for rows in self._open.values())

    def add(self, candles: Iterable[Candle], now_s: float) -> None:
        """Add candles to the open generation.

        Args:
            now_s: the monotonic time, for `age_s`.
        """
        for candle in candles:
            rows = self._open.setdefault(partition_of(candle), {})
            old = rows.get(candle.begin_ms)
            if old is None or precedence(candle) >= precedence(old):
                rows[candle.begin_ms] = candle
        if self._open and self._oldest_s is None:
            self._oldest_s = now_s

    def age_s(self, now_s: float) -> float:
        """Return the age in seconds of the oldest candle in the open generation; 0 if it is empty."""
        return 0.0 if self._oldest_s is None else now_s - self._oldest_s

    def seal(self) -> Batch:
        """Seal the open generation and return all sealed candles.

        They include candles that an earlier flush could not merge.
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
