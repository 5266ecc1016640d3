"""The bars of a chart: the candles of a series in a range, in buckets that fit the chart, and its gaps."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import FloatArray, IntArray, int_column
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS
from lakewriter.lake.coverage.absences import AbsentCandles, absent_candles
from lakewriter.lake.coverage.facts import CoverageMoment
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import presence_of
from lakewriter.lake.presence_many import known_series
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import day_of
from lakewriter.pictures.timescale import Span, fitting_span, format_time, span_of, spans_from
from lakewriter.query.python.series_rows import SymbolSelection, read_rows
from lakewriter.ranges import Range
from lakewriter.series import Series

# Maximum number of candles of one chart. They are in memory, 48 bytes each.
CANDLES_MAX = 5_000_000

_COLUMNS = ("open", "high", "low", "close", "volume")


class Bars(NamedTuple):
    """Candles of equal buckets, as arrays of one length, ascending. Empty buckets have no bar.

    Args:
        begins: begin times of the buckets, in milliseconds.
        open, high, low, close: prices.
        volume: sums of the known volumes.
    """

    begins: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __len__(self) -> int:
        return len(self.begins)


class ChartData(NamedTuple):
    """What a chart shows, before it is fitted to a size.

    Args:
        wanted: the series of the chart.
        source: the series in the lake whose candles are read. Its interval may be shorter.
        start_ms, stop_ms: the range of the time axis.
        candles: the candles of `source` that begin in the range.
        gaps: the absent candles in the range, by time.
    """

    wanted: Series
    source: Series
    start_ms: int
    stop_ms: int
    candles: Bars
    gaps: list[AbsentCandles]

    @property
    def change(self) -> float:
        """The relative change from the first open to the last close."""
        return float(self.candles.close[-1] / self.candles.open[0] - 1)

    def span_for(self, bars_max: int) -> Span:
        """Return the shortest bucket of which at most `bars_max` fit the range."""
        grid = self.wanted.grid.anchored(int(self.candles.begins[0]))
        return fitting_span(spans_from(grid), self.start_ms, self.stop_ms, bars_max)

    def bars(self, span: Span) -> Bars:
        """Return the candles in buckets of a span."""
        return in_buckets(self.candles, span)


def chart_facts(data: ChartData, span_name: str, dash: str = "–") -> list[str]:
    """Return the facts below a chart's title: range, bars if they are longer than wanted, and candles."""
    range_text = f"{format_time(data.start_ms)} {dash} {format_time(data.stop_ms)} UTC"
    longer = [] if span_name == data.wanted.interval else [f"in bars of {span_name}"]
    source = f" of {data.source.interval}" if data.source != data.wanted else ""
    count = len(data.candles)
    return [range_text, *longer, f"{count:,} candle{'s' * (count != 1)}{source}"]


class WantedRange(NamedTuple):
    """The range that the user wants.

    Args:
        since_ms, until_ms: the half-open range; None is the series' own end.
        last_ms: the length before `until_ms`, or before the end of the last candle.
        candles: the number of candles if neither `since_ms` nor `last_ms` is given.
    """

    since_ms: int | None
    until_ms: int | None
    last_ms: int | None
    candles: int


def source_of(store: LakeStore, wanted: Series) -> Series | None:
    """Return the series in the lake whose candles make the wanted ones; None if no series does.

    It is the wanted series, or the one with the longest interval that divides its interval.
    """
    same_symbol = PartitionFilter((wanted.market,), (wanted.symbol,))
    known = known_series(store, same_symbol)
    if wanted in known:
        return wanted
    length_ms = wanted.grid.length_ms or DAY_MS
    parts = [
        each for each in known if 0 < each.grid.length_ms <= DAY_MS and length_ms % each.grid.length_ms == 0
    ]
    return max(parts, key=lambda each: each.grid.length_ms, default=None)


def read_chart(
    store: LakeStore, wanted: Series, source: Series, asked: WantedRange, now_ms: int
) -> ChartData:
    """Read the candles and gaps of a chart.

    Args:
        source: the series in the lake, from `source_of`.
        now_ms: the present, after which no candle is expected.

    Raises:
        UsageError: if the range has no candle, or more than CANDLES_MAX.
        LakeError: if a file cannot be read.
    """
    presence = presence_of(store, source, list(read_unflushed(store.state_dir)))
    if presence.first_ms is None or presence.last_ms is None:
        raise UsageError(f"chart: {':'.join(source)} has no candle yet", "lakewriter coverage")
    grid = presence.grid
    first_ms, end_ms = presence.first_ms, grid.end(presence.last_ms)
    start_ms, stop_ms = asked_ms = _range(asked, span_of(wanted.grid), end_ms, max(now_ms, end_ms))
    gaps = _gaps(store, source, asked_ms, expected=asked.until_ms is not None, now_ms=now_ms)
    # Without this limit a range from 2017 on would be mostly empty.
    start_ms = max(start_ms, min([first_ms, *(gap.start_ms for gap in gaps)]))
    length_ms = grid.length_ms or DAY_MS
    count = (stop_ms - start_ms) // length_ms
    if count > CANDLES_MAX:
        raise UsageError(
            f"chart: {_written(start_ms, stop_ms)} there are {count:,} candles of {source.interval}, "
            f"and a chart reads {CANDLES_MAX:,} at most",
            f"--last {CANDLES_MAX * length_ms // DAY_MS}d, or a longer interval",
        )
    candles = _read(store, source, (start_ms, stop_ms)) if start_ms < stop_ms else None
    if candles is None:
        raise UsageError(
            f"chart: {':'.join(source)} has no candles {_written(*asked_ms)}",
            f"it has candles {_written(first_ms, end_ms)}",
        )
    return ChartData(wanted, source, start_ms, stop_ms, candles, gaps)


def _written(start_ms: int, stop_ms: int) -> str:
    if start_ms >= stop_ms:
        return f"since {format_time(start_ms)}"
    return f"from {format_time(start_ms)} to {format_time(stop_ms)}"


def _range(asked: WantedRange, candle: Span, end_ms: int, latest_ms: int) -> Range:
    """Return the range of a chart.

    Args:
        end_ms: the end of the last candle.
        latest_ms: the latest end of the range.
    """
    stop_ms = end_ms if asked.until_ms is None else min(asked.until_ms, latest_ms)
    if asked.since_ms is not None:
        return max(0, asked.since_ms), stop_ms
    length_ms = asked.candles * (candle.length_ms or 30 * DAY_MS) if asked.last_ms is None else asked.last_ms
    return max(0, stop_ms - length_ms), stop_ms


def _gaps(
    store: LakeStore, source: Series, wanted: Range, *, expected: bool, now_ms: int
) -> list[AbsentCandles]:
    """Return the absent candles in a range.

    Args:
        expected: whether a subscribed series has candles up to the end of the range.
    """
    start_ms, stop_ms = wanted
    if start_ms >= stop_ms:
        return []
    days = PartitionFilter(
        (source.market,),
        (source.symbol,),
        (source.interval,),
        since=day_of(start_ms),
        until=day_of(stop_ms - 1),
    )
    moment = CoverageMoment(stop_ms if expected else None, now_ms)
    found = absent_candles(store, days, moment)
    clipped = [
        gap._replace(start_ms=max(gap.start_ms, start_ms), stop_ms=min(gap.stop_ms, stop_ms)) for gap in found
    ]
    return [
        gap._replace(candles=source.grid.count(gap.start_ms, gap.stop_ms))
        for gap in clipped
        if gap.start_ms < gap.stop_ms
    ]


def _read(store: LakeStore, source: Series, range_ms: Range) -> Bars | None:
    """Return the candles of a series in a range, or None without any."""
    selection = SymbolSelection(source.market, (source.symbol,), source.interval, range_ms)
    found = read_rows(store, selection, range_ms, _COLUMNS)
    if not found:
        return None
    (table,) = found.values()
    return Bars(int_column(table, "candle_begin_time"), *(_floats(table, name) for name in _COLUMNS))


def _floats(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = table[name].to_numpy()
    return np.asarray(values, np.float64)


def in_buckets(candles: Bars, span: Span) -> Bars:
    """Return candles in buckets of a span, which are as long as a candle or longer."""
    buckets = _bucket_begins(candles.begins, span)
    firsts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
    lasts = np.append(firsts[1:], len(buckets)) - 1
    return Bars(
        buckets[firsts],
        candles.open[firsts],
        np.maximum.reduceat(candles.high, firsts),
        np.minimum.reduceat(candles.low, firsts),
        candles.close[lasts],
        np.add.reduceat(np.nan_to_num(candles.volume), firsts),
    )


def _bucket_begins(begins: IntArray, span: Span) -> IntArray:
    if span.length_ms:
        floors: IntArray = begins - (begins - span.anchor_ms) % span.length_ms
        return floors
    edges = np.array(span.begins(int(begins[0]), int(begins[-1]) + 1), np.int64)
    chosen: IntArray = edges[np.searchsorted(edges, begins, "right") - 1]
    return chosen


class GapTotal(NamedTuple):
    """The absent candles of one reason.

    Args:
        reason: the reason.
        has_reason: whether it explains the absence.
        candles: their number.
    """

    reason: str
    has_reason: bool
    candles: int


def gap_totals(gaps: Sequence[AbsentCandles]) -> list[GapTotal]:
    """Return the totals of each reason, those that explain nothing first."""
    totals: dict[tuple[bool, str], int] = {}
    for gap in gaps:
        key = gap.has_reason, gap.reason
        totals[key] = totals.get(key, 0) + gap.candles
    return [GapTotal(reason, has_reason, count) for (has_reason, reason), count in sorted(totals.items())]


def buckets_of_gaps(gaps: Iterable[AbsentCandles], begins: Sequence[int], stop_ms: int) -> dict[int, bool]:
    """Return the positions of the buckets that lack candles, each with whether all gaps have a reason.

    Args:
        begins: the begin times of all buckets of the range, ascending.
        stop_ms: the end of the last one.
    """
    edges = np.array([*begins, stop_ms], np.int64)
    found: dict[int, bool] = {}
    for gap in gaps:
        first = max(0, int(np.searchsorted(edges, gap.start_ms, "right")) - 1)
        last = min(len(begins), int(np.searchsorted(edges, gap.stop_ms, "left")))
        for at in range(first, last):
            found[at] = found.get(at, True) and gap.has_reason
    return found
