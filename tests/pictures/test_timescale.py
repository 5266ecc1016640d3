"""Spans, ticks and numbers of pictures."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakewriter.interval import CALENDAR_MS_MAX, DAY_MS, INTERVALS, Interval
from lakewriter.pictures.numbers import format_amount, format_change, format_price, value_ticks
from lakewriter.pictures.timescale import SPANS, fitting_span, format_time, spans_from, time_ticks

TIMES = st.integers(DAY_MS * 400, CALENDAR_MS_MAX - 20_000 * DAY_MS)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@given(TIMES, st.sampled_from(SPANS), st.integers(1, 50))
def test_spans_follow_each_other(start_ms: int, span, count: int) -> None:
    """The spans of a range cover it without a seam, and `number_in` counts them."""
    stop_ms = start_ms + count * min(span.length_ms or 28 * DAY_MS, 28 * DAY_MS)
    begins = span.begins(start_ms, stop_ms)
    assert begins[0] <= start_ms < span.end(begins[0])
    assert begins[-1] < stop_ms <= span.end(begins[-1])
    assert [span.end(begin_ms) for begin_ms in begins[:-1]] == begins[1:]
    assert all(span.floor(begin_ms) == begin_ms for begin_ms in begins)
    assert span.number_in(start_ms, stop_ms) == len(begins)


@given(TIMES, st.sampled_from(list(INTERVALS.values())), st.integers(1, 100_000), st.integers(20, 400))
def test_a_fitting_span_fits_and_holds_whole_candles(
    start_ms: int, interval: Interval, candles: int, count_max: int
) -> None:
    """No more spans than wanted are in a range, and each begins with a candle."""
    grid = interval.anchored(start_ms)
    stop_ms = start_ms + candles * min(grid.length_ms or 30 * DAY_MS, 30 * DAY_MS) % (15_000 * DAY_MS) + 1
    span = fitting_span(spans_from(grid), start_ms, stop_ms, count_max)
    begins = span.begins(start_ms, stop_ms)
    assert len(begins) <= count_max
    assert all(grid.on_grid(begin_ms) for begin_ms in begins[:50])


def test_the_shortest_span_is_chosen() -> None:
    """A range of 24 hours in 24 columns has bars of an hour, and in 23 columns of two."""
    start_ms = ms("2024-06-30")
    spans = spans_from(INTERVALS["1m"])
    assert fitting_span(spans, start_ms, start_ms + DAY_MS, 24).name == "1h"
    assert fitting_span(spans, start_ms, start_ms + DAY_MS, 23).name == "2h"
    assert fitting_span(spans, start_ms, start_ms + 1, 24).name == "1m"


def test_times_have_short_labels() -> None:
    """Ticks show what changes: the time, the day at midnight, the month, the year in January."""
    labels = [tick.label for tick in time_ticks(ms("2024-12-31T18:00"), ms("2025-01-01T13:00"), 8)]
    assert labels == ["18:00", "21:00", "2025", "03:00", "06:00", "09:00", "12:00"]
    labels = [tick.label for tick in time_ticks(ms("2024-06-29"), ms("2024-07-03"), 5)]
    assert labels == ["06-29", "06-30", "07-01", "07-02"]
    labels = [tick.label for tick in time_ticks(ms("2024-10-02"), ms("2025-03-01"), 5)]
    assert labels == ["2024-11", "2024-12", "2025", "2025-02"]
    assert format_time(ms("2024-06-30T15:00")) == "2024-06-30 15:00"
    assert format_time(ms("2024-06-30T15:00:07")) == "2024-06-30 15:00:07"


@given(st.floats(1e-8, 1e9), st.floats(1e-4, 10), st.integers(2, 20))
@example(1e-8, 1e-4, 3)
def test_value_ticks_are_round_and_distinct(low: float, spread: float, count_max: int) -> None:
    """Ticks are within the range, evenly spaced, with labels that differ and say their values."""
    high = low * (1 + spread)
    ticks = value_ticks(low, high, count_max)
    assert 1 <= len(ticks) <= count_max or len(ticks) == 0
    assert len({tick.label for tick in ticks}) == len(ticks)
    for tick in ticks:
        assert low * (1 - 1e-6) <= tick.value <= high * (1 + 1e-6)
        assert float(tick.label) == pytest.approx(tick.value, rel=1e-3, abs=1e-12)


def test_numbers_are_for_people() -> None:
    """Prices have their digits and no power of ten; volumes have a unit."""
    assert [tick.label for tick in value_ticks(81_449, 81_714, 4)] == ["81500", "81600", "81700"]
    assert [tick.label for tick in value_ticks(1.2e-7, 1.5e-7, 4)] == ["0.00000012", "0.00000013", "0.00000014", "0.00000015"]  # fmt: skip
    assert [tick.label for tick in value_ticks(5, 5, 4)] == ["5"]
    assert [format_price(price) for price in (81714.09, 1e-8, 100.0)] == ["81714.09", "0.00000001", "100"]
    assert [format_amount(each) for each in (0, 0.5, 12, 1234, 999_900, 1.5e6, 2e13)] == [
        "0", "0.5", "12", "1.23k", "1000k", "1.5M", "20T",
    ]  # fmt: skip
    assert [format_change(each) for each in (0.0131, -0.5, 12.0)] == ["+1.31 %", "-50.00 %", "+1,200.00 %"]
