"""The heat of a map of coverage: for each series and bin of time, how many candles are there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.interval import MINUTE_MS, Interval
from lakewriter.lake.coverage.absences import SeriesAbsences
from lakewriter.pictures.timescale import SPANS, Span, fitting_span, format_time
from lakewriter.series import Series

# The least share of present candles of each level, and its text. A level is a position
# in this list; the last one is complete.
LEVELS = (
    (0.0, "none"), (0.0, "less"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (1.0, "complete"),
)  # fmt: skip
COMPLETE = len(LEVELS) - 1

# The level of a bin without expected candles.
NEVER = -1

# The shortest bin. Shorter ones would show single candles.
_BIN_MS_MIN = 5 * MINUTE_MS


class HeatRow(NamedTuple):
    """A series of a heat map.

    Args:
        series: the series.
        expected, missing, without_reason: the numbers of candles of the whole row.
        levels: the level of each bin, or NEVER.
        open_bins: whether a candle of the bin is missing without a reason, for each bin.
    """

    series: Series
    expected: int
    missing: int
    without_reason: int
    levels: list[int]
    open_bins: list[bool]

    @property
    def percent(self) -> float:
        """The percentage of present candles, rounded down to 0.01."""
        present = self.expected - self.missing
        return present * 10_000 // self.expected / 100 if self.expected else 100.0


class HeatMap(NamedTuple):
    """A heat map of coverage.

    Args:
        span: the span of one bin.
        begins: the begin times of the bins, in milliseconds.
        start_ms, stop_ms: the range of all expected candles. The first bin may begin
            earlier, and the last one may end later.
        rows: the rows, sorted by series.
        series_count: the number of series, of which `rows` may be a part.
    """

    span: Span
    begins: list[int]
    start_ms: int
    stop_ms: int
    rows: list[HeatRow]
    series_count: int

    def facts(self, unit: str, dash: str = "–") -> list[str]:
        """Return the facts below the title: range, bin, and the number of series if some are left out.

        Args:
            unit: the word for a bin in the picture.
            dash: the text between two times.
        """
        facts = [
            f"{format_time(self.start_ms)} {dash} {format_time(self.stop_ms)} UTC",
            f"a {unit} is {self.span.name}",
        ]
        if len(self.rows) < self.series_count:
            facts.append(f"the {len(self.rows):,} of {self.series_count:,} series that miss most")
        return facts


def heat_map(found: Sequence[SeriesAbsences], bins_max: int, rows_max: int | None = None) -> HeatMap:
    """Return the heat map of some series, which are at least one.

    Args:
        found: the series; those without expected candles are left out.
        bins_max: the maximum number of bins.
        rows_max: the maximum number of rows; the series that miss most stay. None is no limit.
    """
    counted = [each for each in found if each.start_ms < each.stop_ms]
    start_ms = min((each.start_ms for each in counted), default=0)
    stop_ms = max((each.stop_ms for each in counted), default=1)
    spans = [span for span in SPANS if span.months or span.length_ms >= _BIN_MS_MIN]
    span = fitting_span(spans, start_ms, stop_ms, bins_max)
    begins = span.begins(start_ms, stop_ms)
    edges = np.array([*begins, span.end(begins[-1])], np.int64)
    rows = [_row(each, edges) for each in counted]
    if rows_max is not None and len(rows) > rows_max:
        worst = sorted(rows, key=lambda row: (-row.without_reason, -row.missing, row.series))[:rows_max]
        rows = sorted(worst, key=lambda row: row.series)
    return HeatMap(span, begins, start_ms, stop_ms, rows, len(counted))


def _row(found: SeriesAbsences, edges: IntArray) -> HeatRow:
    start_ms, stop_ms = found.start_ms, found.stop_ms
    expected = _counts(found.grid, start_ms, stop_ms, edges)
    missing, open_missing = np.zeros_like(expected), np.zeros_like(expected)
    for run in found.runs:
        counts = _counts(found.grid, max(run.start_ms, start_ms), min(run.stop_ms, stop_ms), edges)
        missing += counts
        if not run.has_reason:
            open_missing += counts
    totals = int(expected.sum()), int(missing.sum()), int(open_missing.sum())
    # A bin in which no candle begins shows the candle that is longer than the bin.
    inside = np.flatnonzero((edges[1:] > start_ms) & (edges[:-1] < stop_ms))
    for at in inside:
        if not expected[at] and at > 0:
            for counts in (expected, missing, open_missing):
                counts[at] = counts[at - 1]
    levels = [level_of(int(here), int(gone)) for here, gone in zip(expected, missing, strict=True)]
    return HeatRow(found.series, *totals, levels, [bool(count) for count in open_missing])


def _counts(grid: Interval, start_ms: int, stop_ms: int, edges: IntArray) -> IntArray:
    """Return the number of candles of each bin that begin in a half-open range."""
    if start_ms >= stop_ms:
        return np.zeros(len(edges) - 1, np.int64)
    clipped = np.clip(edges, start_ms, stop_ms)
    if grid.length_ms:
        numbers = -((grid.anchor_ms - clipped) // grid.length_ms)
        return np.asarray(np.diff(numbers), np.int64)
    pairs = zip(clipped[:-1].tolist(), clipped[1:].tolist(), strict=True)
    return np.array([grid.count(low, high) if low < high else 0 for low, high in pairs], np.int64)


def level_of(expected: int, missing: int) -> int:
    """Return the level of a bin by its candles, or NEVER if it expects none."""
    if not expected:
        return NEVER
    if missing <= 0:
        return COMPLETE
    present = (expected - missing) / expected
    # A bin with one missing candle of a million is not complete.
    reached = [number for number, (least, _) in enumerate(LEVELS[:-1]) if number > 1 and present >= least]
    return max(reached, default=int(present > 0))
