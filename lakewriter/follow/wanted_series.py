"""The series that a follower wants, by its subscriptions. Pure.

A glob is matched against what the lake has, and again against each new series.
"""

from collections.abc import Sequence
from typing import ClassVar

from lakewriter.series import Series
from lakewriter.subscription import Subscription, chosen, is_glob

# Size of the cache of answers. A recorder's journal has a few thousand series.
_KNOWN_MAX = 50_000


class WantedSeries:
    """A `PartitionSelection` by subscriptions. Days are not filtered.

    Args:
        subscriptions: at least one.
    """

    newest: ClassVar[bool] = False

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self.subscriptions = tuple(subscriptions)
        self._known: dict[tuple[str, str, str], bool] = {}
        self._names = {
            "market": {each.market for each in subscriptions},
            "symbol": {symbol for each in subscriptions for symbol in each.symbols},
            "interval": {interval for each in subscriptions for interval in each.intervals},
        }

    def covers(self, series: tuple[str, str, str]) -> bool:
        """Return whether a series is wanted."""
        known = self._known.get(series)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[series] = any(each.covers(*series) for each in self.subscriptions)
        return known

    def named(self) -> list[Series]:
        """Return the series that are named without a glob, sorted."""
        return sorted(
            {
                Series(each.market, symbol, interval)
                for each in self.subscriptions
                for symbol in each.symbols
                for interval in each.intervals
                if not is_glob(symbol)
            }
        )

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the names of a level that some wanted series may have."""
        return chosen(self._names[level], names)

    def names(self, level: str) -> list[str] | None:
        """Return all wanted names of a level, or None if a glob selects them."""
        names = self._names[level]
        return None if any(map(is_glob, names)) else sorted(names)

    def keep_days(self, interval: str, names: list[str]) -> list[str]:  # noqa: ARG002 - the protocol's argument
        """Return all days."""
        return names

    def few_days(self, interval: str) -> list[str] | None:  # noqa: ARG002 - the protocol's argument
        """Return None: any day is wanted."""
        return None
