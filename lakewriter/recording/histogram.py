"""Histograms of whole numbers, in buckets at most about 6 % wide. Pure."""

from collections import Counter, deque
from collections.abc import Iterable

import msgspec

# Each number below 2^_BITS has its own bucket. Above, each doubling has 2^(_BITS - 1) buckets.
_BITS = 5


class Distribution(msgspec.Struct, frozen=True):
    """A snapshot of a histogram.

    Args:
        count: the number of values.
        half: the median; at least half of the values do not exceed it.
        percent_99: at least 99 % of the values do not exceed it.
        most: the maximum.
    """

    count: int
    half: int
    percent_99: int
    most: int

    def divided(self, divisor: int) -> "Distribution":
        """Return the distribution in a larger unit; values are rounded up."""
        half, percent_99, most = (-(-each // divisor) for each in (self.half, self.percent_99, self.most))
        return Distribution(self.count, half, percent_99, most)


class Histogram:
    """Counts of whole numbers. Close numbers share a bucket.

    Attributes:
        count: the number of values.
        total: the sum of the values.
        most: the maximum.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.most = 0
        self._buckets: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Count a value of 0 or more."""
        self.count += 1
        self.total += value
        self.most = max(self.most, value)
        shift = max(0, value.bit_length() - _BITS)
        # The maximum of the bucket is its key.
        self._buckets[((value >> shift) + 1 << shift) - 1] += 1

    def copy(self) -> "Histogram":
        """Return a copy, which later values do not change."""
        copied = Histogram()
        copied.count, copied.total, copied.most = self.count, self.total, self.most
        copied._buckets = self._buckets.copy()
        return copied

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return the values that were counted after an earlier copy. Their maximum is that of its bucket."""
        later = Histogram()
        later._buckets = self._buckets - earlier._buckets
        later.count, later.total = self.count - earlier.count, self.total - earlier.total
        later.most = min(self.most, max(later._buckets, default=0))
        return later

    def at_most(self, share: float) -> int:
        """Return the quantile of a share; 0 if no value was counted.

        The result never exceeds the maximum, and is at most 1/16 too large.

        Args:
            share: at least this share of the values does not exceed the result.
        """
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(bucket, self.most)
        return self.most

    def counts_below(self, exponents: Iterable[int]) -> list[int]:
        """Return the exact number of values below each power of two; the exponents ascend."""
        # A power of two begins a bucket.
        ordered = deque(sorted(self._buckets.items()))
        counts, count = [], 0
        for exponent in exponents:
            while ordered and ordered[0][0] < 1 << exponent:
                count += ordered.popleft()[1]
            counts.append(count)
        return counts

    def distribution(self) -> Distribution:
        """Return the count, the median, the 99 % quantile and the maximum."""
        return Distribution(self.count, self.at_most(0.5), self.at_most(0.99), self.most)
