"""Spans of time that people read easily: buckets of candles, bins of days, ticks of an axis. Pure.

A span has a length in milliseconds or in months. Weeks begin on Monday; all other
spans count from the epoch, in UTC.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS, MONDAY_MS, SECOND_MS, Interval

_WEEK_MS = 7 * DAY_MS

# Maximum number of spans in a picture. No screen and no paper has more room.
SPANS_MAX = 20_000


class Span(NamedTuple):
    """A span of a timescale.

    Args:
        name: the name for people, such as "3h".
        length_ms: the length; 0 if it is counted in months.
        months: the number of months; 0 if the length is fixed.
        anchor_ms: a begin of a span.
    """

    name: str
    length_ms: int
    months: int = 0
    anchor_ms: int = 0

    def floor(self, time_ms: int) -> int:
        """Return the begin of the span that contains a time."""
        if self.length_ms:
            return time_ms - (time_ms - self.anchor_ms) % self.length_ms
        at = datetime.fromtimestamp(time_ms / 1000, UTC)
        return _month_ms((at.year * 12 + at.month - 1) // self.months * self.months)

    def end(self, begin_ms: int) -> int:
        """Return the end of the span that begins at a time."""
        if self.length_ms:
            return begin_ms + self.length_ms
        at = datetime.fromtimestamp(begin_ms / 1000, UTC)
        return _month_ms(at.year * 12 + at.month - 1 + self.months)

    def begins(self, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin of each span that overlaps a half-open range."""
        begins = []
        begin_ms = self.floor(start_ms)
        while begin_ms < stop_ms:
            begins.append(begin_ms)
            begin_ms = self.end(begin_ms)
        return begins

    def number_in(self, start_ms: int, stop_ms: int) -> int:
        """Return the number of spans that overlap a half-open range."""
        if start_ms >= stop_ms:
            return 0
        if self.length_ms:
            return (self.floor(stop_ms - 1) - self.floor(start_ms)) // self.length_ms + 1
        return len(self.begins(start_ms, stop_ms))


def _month_ms(number: int) -> int:
    """Return the first millisecond of a month, counted from the year 0."""
    return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


def _fixed(unit: str, unit_ms: int, counts: Iterable[int], anchor_ms: int = 0) -> list[Span]:
    return [Span(f"{count}{unit}", count * unit_ms, anchor_ms=anchor_ms) for count in counts]


SPANS = (
    *_fixed("s", SECOND_MS, (1, 2, 5, 10, 15, 30)),
    *_fixed("m", MINUTE_MS, (1, 2, 3, 5, 10, 15, 20, 30)),
    *_fixed("h", HOUR_MS, (1, 2, 3, 4, 6, 8, 12)),
    *_fixed("d", DAY_MS, (1, 2, 3, 4)),
    *_fixed("w", _WEEK_MS, (1, 2), MONDAY_MS),
    *(Span(f"{count}mo", 0, count) for count in (1, 2, 3, 6)),
    *(Span(f"{count}y", 0, 12 * count) for count in (1, 2, 5, 10, 50)),
)


def span_of(interval: Interval) -> Span:
    """Return the span of one candle."""
    if interval.length_ms:
        return Span(interval.name, interval.length_ms, anchor_ms=interval.anchor_ms)
    return Span(interval.name, 0, 1)


def spans_from(interval: Interval) -> list[Span]:
    """Return the spans that consist of whole candles of an interval, ascending, from its own on."""
    own = span_of(interval)
    if not interval.length_ms:
        return [own, *(span for span in SPANS if span.months > 1)]
    if DAY_MS % interval.length_ms:  # candles of 3d and 1w do not fill months
        days = interval.length_ms // DAY_MS
        more = _fixed(
            "d",
            DAY_MS,
            (days * count for count in (2, 4, 10, 20, 50, 100, 400, 1_000, 5_000)),
            interval.anchor_ms,
        )
        return [own, *more]
    return [own, *(span for span in SPANS if span.months or _is_multiple(span, interval.length_ms))]


def _is_multiple(span: Span, length_ms: int) -> bool:
    return span.length_ms > length_ms and span.length_ms % length_ms == 0


def fitting_span(spans: Iterable[Span], start_ms: int, stop_ms: int, count_max: int) -> Span:
    """Return the first span that fits a range at most `count_max` times; the last one if none does."""
    chosen = None
    for chosen in spans:
        length_ms = chosen.length_ms or chosen.months * 28 * DAY_MS
        if (stop_ms - start_ms) // length_ms <= min(2 * count_max, SPANS_MAX) and (
            chosen.number_in(start_ms, stop_ms) <= count_max
        ):
            return chosen
    assert chosen is not None
    return chosen


class Tick(NamedTuple):
    """A tick of a time axis.

    Args:
        at_ms: its time.
        label: its text.
    """

    at_ms: int
    label: str


def time_ticks(start_ms: int, stop_ms: int, count_max: int) -> list[Tick]:
    """Return ticks at round times in a half-open range.

    Args:
        count_max: the maximum number of ticks.
    """
    span = fitting_span(SPANS, start_ms, stop_ms, max(1, count_max))
    return [Tick(at_ms, _label(at_ms, span)) for at_ms in span.begins(start_ms, stop_ms) if at_ms >= start_ms]


def _label(at_ms: int, span: Span) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    if span.months:
        return f"{at:%Y}" if span.months % 12 == 0 or at.month == 1 else f"{at:%Y-%m}"
    if at_ms % DAY_MS == 0:
        return f"{at:%Y}" if (at.month, at.day) == (1, 1) else f"{at:%m-%d}"
    return f"{at:%H:%M}" if span.length_ms >= MINUTE_MS else f"{at:%H:%M:%S}"


def format_time(time_ms: int) -> str:
    """Return a time as "2024-06-30 15:00", with seconds if it has any, in UTC."""
    at = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"
