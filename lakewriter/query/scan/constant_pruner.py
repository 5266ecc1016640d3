"""The pruning of partitions by comparisons with constants.

It does for the WHERE of a simple statement (see `where_tree`) what `pruning` does for
any filter. Names and days are compared in Python, which takes a fraction of the time.
"""

from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.query.statement.where_tree import BoundWhere


class ConstantPruner:
    """A `PartitionSelection` of the partitions whose rows can pass the conditions of a WHERE.

    Args:
        where: the conditions.
        needs_ends: whether the first and the last rows of each series suffice.

    Attributes:
        newest: always False; a simple statement never selects the newest candles only.
    """

    newest = False

    def __init__(self, where: BoundWhere, *, needs_ends: bool = False) -> None:
        self._where = where
        self.needs_ends = needs_ends
        self.of_days = where.since is not None or where.until is not None
        self._days = PartitionFilter(since=where.since, until=where.until)

    def single_name(self, level: str) -> str:
        """Return the only name that a level can have; "" for no name or several."""
        names = self._where.equal.get(level, frozenset())
        return next(iter(names)) if len(names) == 1 else ""

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the names that pass all conditions, from the sorted names of a level."""
        equal = self._where.equal.get(level)
        if equal is not None:
            names = [name for name in names if name in equal]
        tests = self._where.tests.get(level, ())
        return [name for name in names if all(test(name) for test in tests)]

    def names(self, level: str) -> list[str] | None:
        """Return all names of a level that pass the conditions, sorted; None if they are unknown."""
        equal = self._where.equal.get(level)
        return None if equal is None else self.keep(level, sorted(equal))

    def keep_days(self, interval: str, names: list[str]) -> list[str]:
        """Return the periods of an interval that have a day in which the conditions can hold."""
        return self._days.keep_days(interval, names)

    def few_days(self, interval: str) -> list[str] | None:
        """Return an interval's days in which the conditions can hold; None if they are not few."""
        return self._days.few_days(interval)
