"""The 16 intervals and the laws of their grids."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.interval import BY_WIRE_NAME, DAY_MS, INTERVALS, Interval, parse_interval

NAMES = ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo"]

intervals = st.sampled_from(list(INTERVALS.values()))
times_ms = st.integers(0, 4_102_444_800_000)  # 1970 to 2100


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_sixteen():
    """The exchange has 16 intervals; only months have another name here, `1mo`."""
    assert list(INTERVALS) == NAMES
    assert {name: found.wire_name for name, found in INTERVALS.items() if found.wire_name != name} == {
        "1mo": "1M"
    }
    assert set(BY_WIRE_NAME) == set(NAMES) - {"1mo"} | {"1M"}


@pytest.mark.parametrize("name", [*NAMES, "1M"])
def test_parse(name):
    """Each interval is parsed from its name on disk and at the exchange."""
    assert parse_interval(name).name == ("1mo" if name == "1M" else name)


@pytest.mark.parametrize(
    "text", ["", "1", "m", "7m", "1mon", "1MO", "1D", " 1m", "1m ", "1m\n", "60s", "１m"]
)
def test_parse_refuses(text):
    """The error quotes the unknown interval, and the hint lists all intervals."""
    with pytest.raises(UsageError) as caught:
        parse_interval(text)
    assert str(caught.value) == f"interval: {text!r} is unknown"
    assert caught.value.hint == "choose from: " + " ".join(NAMES)


@given(intervals, times_ms)
def test_floor_and_end(interval, time_ms):
    """Each moment lies in the candle that begins at its floor, and in no other."""
    begin_ms = interval.floor(time_ms)
    assert begin_ms <= time_ms < interval.end(begin_ms)
    assert interval.on_grid(begin_ms)
    assert interval.floor(begin_ms) == begin_ms
    assert interval.floor(interval.end(begin_ms)) == interval.end(begin_ms)
    assert interval.floor(interval.end(begin_ms) - 1) == begin_ms


@given(intervals, times_ms)
def test_ceil(interval, time_ms):
    """The ceiling is the first grid time at or after a moment."""
    begin_ms = interval.ceil(time_ms)
    assert interval.on_grid(begin_ms)
    assert begin_ms >= time_ms
    assert begin_ms == time_ms or interval.floor(begin_ms - 1) < time_ms
    assert (begin_ms == time_ms) == interval.on_grid(time_ms)


@given(intervals, times_ms, st.integers(-3, 40), st.integers(0, DAY_MS))
def test_grid_and_count(interval, start_ms, candles, rest_ms):
    """A range's grid has each candle that begins in it, without a gap."""
    length_ms = interval.length_ms or 31 * DAY_MS
    stop_ms = start_ms + candles * length_ms + rest_ms % length_ms
    grid = interval.grid(start_ms, stop_ms)
    assert interval.count(start_ms, stop_ms) == len(grid)
    assert all(interval.on_grid(begin_ms) and start_ms <= begin_ms < stop_ms for begin_ms in grid)
    assert all(interval.end(one) == next_ for one, next_ in itertools.pairwise(grid))
    if grid:
        assert grid[0] == interval.ceil(start_ms)
        assert interval.end(grid[-1]) >= stop_ms
    else:
        assert interval.ceil(start_ms) >= stop_ms


@given(intervals, times_ms, times_ms, times_ms)
def test_adjacent_ranges(interval, one, other, third):
    """Touching ranges share no candle and lose none."""
    start_ms, middle_ms, stop_ms = sorted((one, other, third))
    parts = interval.count(start_ms, middle_ms) + interval.count(middle_ms, stop_ms)
    assert parts == interval.count(start_ms, stop_ms)


@given(times_ms)
def test_weeks_begin_on_monday(time_ms):
    """A week begins on Monday at midnight UTC."""
    begin = datetime.fromtimestamp(INTERVALS["1w"].floor(time_ms) / 1000, UTC)
    assert (begin.weekday(), begin.hour, begin.minute, begin.second) == (0, 0, 0, 0)


@given(times_ms)
def test_months_begin_on_the_first(time_ms):
    """A month begins on its first day at midnight UTC and ends with it."""
    month = INTERVALS["1mo"]
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    begin = datetime.fromtimestamp(month.floor(time_ms) / 1000, UTC)
    assert begin == datetime(moment.year, moment.month, 1, tzinfo=UTC)
    assert month.end(month.floor(time_ms)) - month.floor(time_ms) in [
        days * DAY_MS for days in (28, 29, 30, 31)
    ]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2024-02-01", "2024-03-01"),
        ("2023-02-01", "2023-03-01"),
        ("2000-02-01", "2000-03-01"),
        ("2100-02-01", "2100-03-01"),
        ("2024-12-01", "2025-01-01"),
    ],
)
def test_leap_years_and_new_year(begin, end):
    """Months have their own lengths, also in February and across New Year."""
    month = INTERVALS["1mo"]
    assert month.end(ms(begin)) == ms(end)
    assert month.floor(ms(end) - 1) == ms(begin)
    assert month.grid(ms(begin), ms(end) + 1) == [ms(begin), ms(end)]


def test_a_day_of_each():
    """A day has the right number of candles of each interval."""
    start_ms = ms("2024-07-01")  # a Monday, the first of a month
    counts = {name: found.count(start_ms, start_ms + DAY_MS) for name, found in INTERVALS.items()}
    del counts["3d"]
    assert list(counts.values()) == [86400, 1440, 480, 288, 96, 48, 24, 12, 6, 4, 3, 2, 1, 1, 1]


@given(st.integers(0, 40_000).map(lambda day: day * DAY_MS), times_ms)
def test_three_days_anchored(begin_ms, time_ms):
    """One begin time sets the anchor of a 3d grid."""
    anchored = INTERVALS["3d"].anchored(begin_ms)
    assert anchored.on_grid(begin_ms)
    assert anchored.on_grid(begin_ms + 3 * DAY_MS)
    assert not anchored.on_grid(begin_ms + DAY_MS)
    assert anchored.floor(time_ms) <= time_ms < anchored.end(anchored.floor(time_ms))
    assert 0 <= anchored.anchor_ms < anchored.length_ms


@pytest.mark.parametrize("name", [name for name in NAMES if name != "3d"])
def test_only_three_days_are_anchored(name):
    """Other grids do not change."""
    interval: Interval = INTERVALS[name]
    assert interval.anchored(12345) is interval
