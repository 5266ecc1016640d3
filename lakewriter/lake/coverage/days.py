"""Coverage by day: the numbers of expected, present, missing and explained candles."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from lakewriter.gap import FINAL
from lakewriter.lake.coverage.expectation import Expectation, expectation
from lakewriter.lake.coverage.facts import CoverageMoment, SeriesFacts, series_facts
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.partition import day_of, day_range
from lakewriter.ranges import Range, minus, union, within
from lakewriter.series import Series

_NOW = CoverageMoment()


class CoverageDay(NamedTuple):
    """The coverage of a UTC day of a series.

    Args:
        series: the series.
        date: the day.
        expected: number of expected candles that begin on the day.
        present: number of candles in the lake.
        missing: number of expected candles that are absent.
        explained: number of missing candles with a reason in a ledger or the subscriptions.
        unhealable: number of explained candles whose healing failed. The exchange may have them.
    """

    series: Series
    date: date
    expected: int
    present: int
    missing: int
    explained: int
    unhealable: int = 0

    @property
    def without_reason(self) -> int:
        """The number of missing candles that the exchange may have and no recorder heals."""
        return self.missing - self.explained + self.unhealable


class SeriesCoverage(NamedTuple):
    """The coverage of a series.

    Args:
        series: the series.
        days: the days with expected or present candles.
        never_came: why the subscribed series never had a candle, or "" if it had one.
        left_ms: the time at which it was left on purpose, or None if it was not.
    """

    series: Series
    days: list[CoverageDay]
    never_came: str
    left_ms: int | None


def series_coverage(
    store: LakeStore,
    wanted: PartitionFilter = ALL,
    moment: CoverageMoment = _NOW,
    *,
    whole: bool = False,
) -> Iterator[SeriesCoverage]:
    """Yield the coverage of each series that has expected or present candles, in order.

    Args:
        wanted: the filter of series and days.
        moment: the time up to which candles are expected.
        whole: as for `series_facts`.

    Raises:
        LakeError: if a ledger, the journal or a file cannot be read.
    """
    for facts in series_facts(store, wanted, whole=whole):
        expected = expectation(facts, moment)
        if expected is None:
            continue
        days = list(_days(facts, expected, wanted))
        if days:
            left_ms = None
            if facts.periods and not facts.open_periods:
                left_ms = max(period.stop_ms or 0 for period in facts.periods)
            yield SeriesCoverage(facts.series, days, expected.never_came, left_ms)


def coverage(
    store: LakeStore, wanted: PartitionFilter = ALL, until_ms: int | None = None
) -> Iterator[CoverageDay]:
    """Yield each day of each series, by series and day.

    Args:
        wanted: the filter of series and days.
        until_ms: the time up to which subscribed series have expected candles; None for
            the last candle or ledger entry of each. Delisted and delivered series may end
            before it, and so may series that are not listed yet.

    Raises:
        LakeError: if a ledger, the journal or a file cannot be read.
    """
    for each in series_coverage(store, wanted, CoverageMoment(until_ms)):
        yield from each.days


def _days(facts: SeriesFacts, expected: Expectation, wanted: PartitionFilter) -> Iterator[CoverageDay]:
    accounted = [each.gap for each in facts.reported if each.explains_absence]
    known = union([*((gap.start_ms, gap.stop_ms) for gap in accounted), *expected.left])
    final = [(gap.start_ms, gap.stop_ms) for gap in accounted if gap.reason in FINAL]
    given_up = minus(
        union((gap.start_ms, gap.stop_ms) for gap in accounted if gap.reason == "unhealable"),
        minus(expected.left, final),
    )
    low_ms, high_ms = wanted.clipped(expected.start_ms, expected.stop_ms)
    day = day_of(low_ms)
    while low_ms < high_ms and day <= day_of(high_ms - 1):
        found = _day(facts, expected, day, known, given_up)
        if found.expected or found.present:
            yield found
        day += timedelta(days=1)


def _day(
    facts: SeriesFacts, expected: Expectation, day: date, known: list[Range], given_up: list[Range]
) -> CoverageDay:
    presence, grid = facts.presence, expected.grid
    start_ms, stop_ms = day_range(day)
    start_ms, stop_ms = max(start_ms, expected.start_ms), min(stop_ms, expected.stop_ms)
    count = grid.count(start_ms, stop_ms)
    present = presence.count(day)
    missing = max(0, count - present)
    explained = unhealable = 0
    if missing and (known := within(known, start_ms, stop_ms)):
        gone = [(start_ms, stop_ms)] if presence.first_ms is None else presence.missing(start_ms, stop_ms)

        def of_missing(ranges: list[Range]) -> int:
            both = minus(gone, minus(gone, ranges))
            return min(missing, sum(grid.count(low, min(high, stop_ms)) for low, high in both))

        explained = of_missing(known)
        unhealable = of_missing(within(given_up, start_ms, stop_ms))
    return CoverageDay(facts.series, day, count, present, missing, explained, unhealable)
