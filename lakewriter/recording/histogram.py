"""Histograms of whole numbers, in buckets of some six per cent. Pure."""

from collections import Counter

import msgspec

# Numbers below 2^_BITS have a bucket each; above, each doubling has half as many.
_BITS = 5


class Distribution(msgspec.Struct, frozen=True):
    """A histogram at one moment.

    Args:
        count: how many values.
        half: at least half of the values do not exceed it.
        percent_99: at least 99 % of the values do not exceed it.
        most: the greatest value.
    """

    count: int
    half: int
    percent_99: int
    most: int


class Histogram:
    """Counts of whole numbers; close numbers share a bucket."""

    def __init__(self) -> None:
        self.count = 0
        self.most = 0
        self._buckets: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Count a value of 0 or more."""
        self.count += 1
        self.most = max(self.most, value)
        shift = max(0, value.bit_length() - _BITS)
        # The greatest number of the bucket stands for it.
        self._buckets[((value >> shift) + 1 << shift) - 1] += 1

    def at_most(self, share: float) -> int:
        """Return a number that at least this share of the values does not exceed; 0 if there are none.

        Never above the greatest value, and at most a sixteenth too large.
        """
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(bucket, self.most)
        return self.most

    def distribution(self) -> Distribution:
        """Return count, median, 99 % and maximum."""
        return Distribution(self.count, self.at_most(0.5), self.at_most(0.99), self.most)
