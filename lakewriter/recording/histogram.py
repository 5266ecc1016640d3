"""How often which size: counts by power of two. Pure."""

from collections import Counter


class Histogram:
    """Counts of whole numbers, each in the bucket of the next power of two."""

    def __init__(self) -> None:
        self.count = 0
        self.most = 0
        self._buckets: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Count a value of 0 or more."""
        self.count += 1
        self.most = max(self.most, value)
        self._buckets[max(0, value - 1).bit_length()] += 1

    def at_most(self, share: float) -> int:
        """Return a number that so large a share of the values does not exceed; 0 if there are none.

        Exact to the next power of two, and never above the greatest value.
        """
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(1 << bucket, self.most)
        return self.most
