"""Absent candles and their reasons, from the ledgers or the subscriptions.

If a candle has several reasons, the first of these counts:

1. A ledger has a final reason.
2. A living recorder heals the candle.
3. The series was left on purpose: a recorder unsubscribed from it.
4. A ledger has any other reason.
"""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from lakewriter.gap import FINAL, LEFT, UNEXPLAINED
from lakewriter.interval import Interval
from lakewriter.lake.coverage.expectation import Expectation, expectation, format_minute
from lakewriter.lake.coverage.facts import CoverageMoment, SeriesFacts, series_facts
from lakewriter.lake.gaps.ledgers import ORPHANED, ReportedGap
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.ranges import Range, minus, union, within
from lakewriter.series import Series
from lakewriter.subscribed_period import FOREVER_MS

_NOW = CoverageMoment()


class AbsentCandles(NamedTuple):
    """A run of absent candles with one reason.

    Args:
        series: the series.
        start_ms, stop_ms: the begin time of the first candle and the end time of the last.
        candles: number of candles.
        reason: a ledger's reason, LEFT or UNEXPLAINED.
        has_reason: whether the exchange lacks the candles, they are not expected, or a
            recorder heals them.
        detected_ms, resolved_ms: times of detection and resolution in a ledger, or None
            if no ledger has them.
        error: the error of healing, or another detail.
        never_came: whether the series is subscribed to and never had a candle.
    """

    series: Series
    start_ms: int
    stop_ms: int
    candles: int
    reason: str
    has_reason: bool
    detected_ms: int | None = None
    resolved_ms: int | None = None
    error: str = ""
    never_came: bool = False


class SeriesAbsences(NamedTuple):
    """The expected range of a series, and its absent candles.

    Args:
        series: the series.
        grid: the grid of its candles.
        start_ms, stop_ms: the range in which the wanted expected candles begin. It is
            empty if all of them are outside of the wanted days.
        runs: the absent candles, by time. Those of a series that was left may be later.
    """

    series: Series
    grid: Interval
    start_ms: int
    stop_ms: int
    runs: list[AbsentCandles]


def absent_candles(
    store: LakeStore, wanted: PartitionFilter = ALL, moment: CoverageMoment = _NOW
) -> Iterator[AbsentCandles]:
    """Yield the absent candles of each series, by series and time.

    The arguments and errors are those of `series_absences`.
    """
    return chain.from_iterable(each.runs for each in series_absences(store, wanted, moment))


def series_absences(
    store: LakeStore, wanted: PartitionFilter = ALL, moment: CoverageMoment = _NOW
) -> Iterator[SeriesAbsences]:
    """Yield the expected range and the absent candles of each series that has expected ones, in order.

    Args:
        wanted: the filter of series, and of the days on which the candles begin.
        moment: the time up to which candles are expected.

    Raises:
        LakeError: if a ledger, the journal or a file cannot be read.
    """

    def of_one(facts: SeriesFacts) -> SeriesAbsences | None:
        expected = expectation(facts, moment)
        if expected is None:
            return None
        runs = sorted(_absences(facts, expected, moment, wanted), key=lambda each: each.start_ms)
        start_ms, stop_ms = wanted.clipped(expected.start_ms, expected.stop_ms)
        return SeriesAbsences(facts.series, expected.grid, start_ms, max(start_ms, stop_ms), runs)

    for each in store.storage.in_parallel(of_one, series_facts(store, wanted)):
        if each is not None:
            yield each


def _absences(
    facts: SeriesFacts, expected: Expectation, moment: CoverageMoment, wanted: PartitionFilter
) -> Iterator[AbsentCandles]:
    """Yield the absent candles of one series, unordered."""
    presence, grid = facts.presence, expected.grid
    start_ms, stop_ms = wanted.clipped(expected.start_ms, expected.stop_ms)
    gone: list[Range] = []
    if start_ms < stop_ms:
        gone = [(start_ms, stop_ms)] if presence.first_ms is None else presence.missing(start_ms, stop_ms)
    settled = [each for each in facts.reported if each.gap.reason in FINAL or _is_healed(each)]
    others = [each for each in facts.reported if each not in settled]
    for each in settled:
        for run in _intersection(gone, [(each.gap.start_ms, each.gap.stop_ms)]):
            yield _absent_by_report(each, expected, run)
    gone = minus(gone, [(each.gap.start_ms, each.gap.stop_ms) for each in settled])
    left = _intersection(gone, expected.left)
    trailing = [] if expected.idle else _trailing(facts, expected, moment, wanted)
    for low_ms, high_ms in union([*left, *trailing]):
        yield AbsentCandles(facts.series, low_ms, high_ms, grid.count(low_ms, high_ms), LEFT, has_reason=True)
    gone = minus(gone, left)
    for each in others:
        for run in _intersection(gone, [(each.gap.start_ms, each.gap.stop_ms)]):
            yield _absent_by_report(each, expected, run)
    gone = minus(gone, [(each.gap.start_ms, each.gap.stop_ms) for each in others])
    for low_ms, high_ms in gone:
        yield from _unexplained(facts, expected, low_ms, high_ms)


def _is_healed(reported: ReportedGap) -> bool:
    """Return whether a living recorder heals the gap."""
    return reported.gap.reason == "pending" and reported.alive


def _absent_by_report(reported: ReportedGap, expected: Expectation, run: Range) -> AbsentCandles:
    """Return a run of absent candles with the reason of a ledger."""
    gap = reported.gap
    return AbsentCandles(
        gap.series,
        *run,
        expected.grid.count(*run),
        gap.reason,
        gap.reason != "unhealable" and reported.explains_absence,
        gap.detected_ms,
        gap.resolved_ms,
        gap.error if reported.explains_absence else gap.error or ORPHANED,
    )


def _trailing(
    facts: SeriesFacts, expected: Expectation, moment: CoverageMoment, wanted: PartitionFilter
) -> list[Range]:
    """Return the range since the series was left, or no range if it was not left.

    The range ends at the moment, or at the last confirmation of any recorder.
    """
    if not expected.left or expected.left[-1][1] != FOREVER_MS:
        return []
    until_ms = facts.lake.seen_ms if moment.until_ms is None else moment.until_ms
    if moment.now_ms is not None:
        until_ms = max(until_ms, facts.lake.seen_ms)  # a sandbox's clock may be ahead of ours
    start_ms, stop_ms = wanted.clipped(expected.stop_ms, expected.grid.floor(until_ms))
    return within(expected.left[-1:], start_ms, stop_ms)


def _unexplained(
    facts: SeriesFacts, expected: Expectation, start_ms: int, stop_ms: int
) -> Iterator[AbsentCandles]:
    """Yield a run of unexplained candles, split at the time at which its recorder was last seen."""
    never_came = bool(expected.never_came)
    dead = [period for period in facts.open_periods if period.journal not in facts.lake.alive]
    last = max(dead, key=lambda period: period.seen_ms, default=None)
    cut_ms = stop_ms
    if last is not None and len(dead) == len(facts.open_periods) and not never_came:
        cut_ms = min(stop_ms, max(start_ms, expected.grid.floor(last.seen_ms)))
    for low_ms, high_ms in ((start_ms, cut_ms), (cut_ms, stop_ms)):
        if low_ms < high_ms:
            error = expected.never_came
            if last is not None and low_ms == cut_ms and low_ms < stop_ms:
                error = f"its recorder ({last.recorder}) was last seen {format_minute(last.seen_ms)}"
            candles = expected.grid.count(low_ms, high_ms)
            yield AbsentCandles(
                facts.series,
                low_ms,
                high_ms,
                candles,
                UNEXPLAINED,
                has_reason=False,
                error=error,
                never_came=never_came,
            )


def _intersection(left: list[Range], right: list[Range]) -> list[Range]:
    """Return the intersection of two sets of ranges."""
    return minus(left, minus(left, right))
