"""Filters of partitions by the levels of their path: market, symbol, interval and date."""

from datetime import date, timedelta
from typing import ClassVar, Protocol

import msgspec

from lakewriter.interval import INTERVALS
from lakewriter.partition import day_range, period_date
from lakewriter.ranges import Range
from lakewriter.series import Series

# The maximum number of days of a series that are opened without a listing of the series.
FEW_DAYS = 16


class PartitionSelection(Protocol):
    """The interface to select partitions by the levels of their path."""

    @property
    def newest(self) -> bool:
        """Whether the partitions of `LakeStore.newest` suffice."""

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the wanted ones among the sorted names of a level above the dates."""

    def names(self, level: str) -> list[str] | None:
        """Return every name of a level that can be wanted, sorted; None if these names are not known."""

    def keep_days(self, interval: str, names: list[str]) -> list[str]:
        """Return the wanted ones among the sorted first days of an interval's periods."""

    def few_days(self, interval: str) -> list[str] | None:
        """Return an interval's wanted days, sorted, or None if they are more than FEW_DAYS.

        The result is also None for periods longer than a day: a directory of any of the
        period's days can belong to the partition.
        """


class PartitionFilter(msgspec.Struct, frozen=True):
    """A filter of partitions by exact names and days. An empty field selects all.

    Args:
        markets, symbols, intervals: exact names.
        since, until: the first and last wanted day. A partition is wanted if its period
            has a wanted day.
    """

    markets: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    intervals: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None

    newest: ClassVar[bool] = False

    def covers(self, series: Series) -> bool:
        """Return whether a series is wanted."""
        return (
            (not self.markets or series.market in self.markets)
            and (not self.symbols or series.symbol in self.symbols)
            and (not self.intervals or series.interval in self.intervals)
        )

    def clipped(self, start_ms: int, stop_ms: int) -> Range:
        """Return the part of a range that lies in the days from `since` to `until`."""
        if self.since is not None:
            start_ms = max(start_ms, day_range(self.since)[0])
        if self.until is not None:
            stop_ms = min(stop_ms, day_range(self.until)[1])
        return start_ms, stop_ms

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the wanted names of a level."""
        wanted = frozenset(getattr(self, level + "s"))
        return [name for name in names if name in wanted] if wanted else names

    def names(self, level: str) -> list[str] | None:
        """Return the wanted names of a level, or None if all names are wanted."""
        wanted: tuple[str, ...] = getattr(self, level + "s")
        return sorted(set(wanted)) if wanted else None

    def keep_days(self, interval: str, names: list[str]) -> list[str]:
        """Return the periods that have a day from `since` to `until`."""
        since = period_date(interval, self.since).isoformat() if self.since else ""
        until = self.until.isoformat() if self.until else "9999-12-31"
        return [name for name in names if since <= name <= until]

    def few_days(self, interval: str) -> list[str] | None:
        """Return the days from `since` to `until`, or None if they are not few."""
        if self.since is None or self.until is None or INTERVALS[interval].file_period != "day":
            return None
        days = (self.until - self.since).days + 1
        if days > FEW_DAYS:
            return None
        return [(self.since + timedelta(days=number)).isoformat() for number in range(days)]


ALL = PartitionFilter()
