"""The plan of a backfill: each missing candle has one source, and no other candle is requested."""

import tracemalloc
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.backfill.plan import Bounds, days_between, page_count, period_of, plan_series
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.market import MARKETS
from lakewriter.partition import day_of
from lakewriter.ranges import Range, minus, union
from lakewriter.series import Series

START_MS = 1_719_705_600_000  # 2024-06-30
SPOT = MARKETS["spot"]

# Days of eight years, and what a plan may keep of each file.
FILES = 2920
FILE_BYTES_MAX = 32

MINUTES = Series("spot", "BTCUSDT", "1m")


def planned(missing: list[Range], listed: list[date], series: Series = MINUTES, period: str = "daily"):
    return plan_series(
        MARKETS[series.market],
        series,
        Bounds(),
        (START_MS, None),
        missing,
        dict.fromkeys(listed, 100),
        period,
    )


def test_finished_days_come_from_the_archive_and_the_rest_from_rest() -> None:
    """A day with a file is imported if any part of it is missing; today comes from REST."""
    missing = [
        (START_MS + 5 * MINUTE_MS, START_MS + 6 * MINUTE_MS),
        (START_MS + DAY_MS, START_MS + 2 * DAY_MS + HOUR_MS),
    ]
    plan = planned(missing, [date(2024, 6, 30), date(2024, 7, 1)])
    assert [each.file.day for each in plan.files] == [date(2024, 6, 30), date(2024, 7, 1)]
    assert plan.rest == [(START_MS + 2 * DAY_MS, START_MS + 2 * DAY_MS + HOUR_MS)]
    assert (plan.candles, plan.pages, plan.weight, plan.file_bytes) == (1 + 1440 + 60, 1, 2, 200)


def test_nothing_is_asked_for_what_is_there() -> None:
    """Files of days without a missing candle are not planned."""
    plan = planned([], [date(2024, 6, 30)])
    assert (plan.files, plan.rest, plan.pages) == ([], [], 0)


@pytest.mark.slow
def test_a_plan_of_many_years_is_small() -> None:
    """Hundreds of series with a file for each day of eight years fit into memory."""
    missing = [(START_MS, START_MS + FILES * DAY_MS)]
    first = day_of(START_MS)
    listed = [first + timedelta(days=day) for day in range(FILES)]
    planned(missing, listed)
    tracemalloc.start()
    try:
        plans = [planned(missing, listed) for _ in range(10)]
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(plan.files) for plan in plans) == 10 * FILES
    assert kept_bytes < 10 * FILES * FILE_BYTES_MAX


def test_days_without_a_file_are_asked_for() -> None:
    """REST serves days without a file, page by page."""
    plan = planned([(START_MS, START_MS + 3 * DAY_MS)], [date(2024, 6, 30), date(2024, 7, 2)])
    assert plan.rest == [(START_MS + DAY_MS, START_MS + 2 * DAY_MS)]
    assert plan.pages == 2  # 1,440 rows of at most 1,000


def test_a_month_file_is_taken_once() -> None:
    """A monthly file is planned once, for any number of missing days."""
    hours = Series("spot", "BTCUSDT", "1h")
    missing = [(START_MS, START_MS + HOUR_MS), (START_MS + 3 * DAY_MS, START_MS + 5 * DAY_MS)]
    plan = planned(missing, [date(2024, 6, 1), date(2024, 7, 1)], hours, "monthly")
    assert [each.file.name for each in plan.files] == ["BTCUSDT-1h-2024-06", "BTCUSDT-1h-2024-07"]
    assert plan.rest == []


@pytest.mark.parametrize(
    ("interval", "choice", "period"),
    [
        ("1m", "auto", "daily"), ("30m", "auto", "daily"), ("1h", "auto", "monthly"), ("1d", "auto", "monthly"),
        ("1mo", "auto", "monthly"), ("1w", "daily", "monthly"), ("1m", "monthly", "monthly"),
        ("1d", "daily", "daily"), ("1m", "none", None),
    ],
)  # fmt: skip
def test_which_files_serve_an_interval(interval: str, choice: str, period: str | None) -> None:
    """Intervals below an hour use daily files; longer ones use monthly files."""
    assert period_of(interval, choice) == period


def test_coin_futures_pages_span_at_most_200_days() -> None:
    """Its REST refuses longer ranges, however few candles they have."""
    days_ = Series("coin_futures", "BTCUSD_PERP", "1d")
    assert page_count(MARKETS["coin_futures"], days_, START_MS, START_MS + 401 * DAY_MS) == 3
    assert page_count(SPOT, Series("spot", "BTCUSDT", "1d"), START_MS, START_MS + 401 * DAY_MS) == 1


@pytest.mark.parametrize(
    ("interval", "years", "by_rest"),
    [
        ("1d", 9, True),
        ("1mo", 9, True),
        ("4h", 9, True),
        ("1h", 9, False),
        ("2h", 9, False),
        ("1d", 0.1, False),
    ],
)
def test_rest_serves_a_series_whose_pages_replace_many_files(
    interval: str, years: float, *, by_rest: bool
) -> None:
    """A page has 1,000 rows of spot: 33 months of days, or 6 weeks of hours."""
    series = Series("spot", "BTCUSDT", interval)
    missing = [(START_MS, START_MS + int(years * 365) * DAY_MS)]
    months = sorted({day.replace(day=1) for day in days_between(*missing[0])})
    listed = dict.fromkeys(months, 100)
    known = Bounds(rest_first_ms=START_MS)
    plan = plan_series(SPOT, series, known, (START_MS, None), missing, listed, "monthly", choose_rest=True)
    assert (plan.rest, plan.file_count) == ((missing, 0) if by_rest else ([], len(months)))
    asked = plan_series(SPOT, series, known, (START_MS, None), missing, listed, "monthly")
    assert (asked.rest, asked.file_count) == ([], len(months))


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(),
        Bounds(rest_first_ms=START_MS, unlisted=True),
        Bounds(rest_first_ms=START_MS, rest_stop_ms=START_MS + 100 * DAY_MS),
        Bounds(rest_first_ms=START_MS + 40 * DAY_MS),
    ],
)
def test_rest_serves_no_series_of_which_it_may_lack_a_part(bounds: Bounds) -> None:
    """The archive has symbols that are no longer listed, and contracts before and after REST has them."""
    series, missing = Series("spot", "BTCUSDT", "1d"), [(START_MS, START_MS + 900 * DAY_MS)]
    listed = dict.fromkeys({day.replace(day=1) for day in days_between(*missing[0])}, 100)
    plan = plan_series(SPOT, series, bounds, (START_MS, None), missing, listed, "monthly", choose_rest=True)
    assert (plan.rest, plan.file_count) == ([], len(listed))


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 3000)), max_size=6),
    st.sets(st.integers(0, 6)),
)
def test_every_missing_candle_has_one_source(gaps: list[tuple[int, int]], listed: set[int]) -> None:
    """REST gets exactly the candles that files do not cover, and each file is needed."""
    missing = union((START_MS + at * MINUTE_MS, START_MS + (at + length) * MINUTE_MS) for at, length in gaps)
    first = day_of(START_MS)
    plan = planned(missing, [first + timedelta(days=day) for day in sorted(listed)])
    covered = union((each.file.start_ms, each.file.stop_ms) for each in plan.files)
    assert plan.rest == minus(missing, covered)
    touched = {day for each in missing for day in days_between(*each)}
    assert {each.file.day for each in plan.files} == touched & {first + timedelta(days=day) for day in listed}
    assert sum(SPOT.klines_page * page_count(SPOT, MINUTES, *each) for each in plan.rest) >= sum(
        MINUTES.grid.count(*each) for each in plan.rest
    )
