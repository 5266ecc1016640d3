"""Watermarks return each missing candle once, after a skipped candle or at a deadline."""

from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.recording.healing.watermarks import Overdue, Watermarks
from lakewriter.series import Series

START_MS = 1_719_705_600_000
GRACE_MS = 10_000
BTC = Series("spot", "BTCUSDT", "1m")


def numbered_candle(number: int, series: Series = BTC) -> Candle:
    begin_ms = series.grid.floor(START_MS) + number * (series.grid.length_ms or DAY_MS)
    return Candle(
        *series, begin_ms, series.grid.end(begin_ms), 1, 1, 1, 1, 1, 1, 1, 1, 1, begin_ms, 0, "stream"
    )


def marks(*series: Series) -> Watermarks:
    made = Watermarks(lambda _: GRACE_MS)
    for each in series:
        made.expect(each, START_MS + 5_000)
    return made


def minute(number: int) -> int:
    return START_MS + number * MINUTE_MS


def test_candles_in_order_leave_nothing_missing() -> None:
    """A series whose candles arrive within their grace is never late."""
    watermarks = marks(BTC)
    for number in range(5):
        assert list(watermarks.overdue("spot", minute(number + 1) + GRACE_MS - 1)) == []
        assert watermarks.advance(numbered_candle(number)) is None


def test_a_jump_shows_what_is_missing_before_it() -> None:
    """A candle after the expected one returns the candles between, once."""
    watermarks = marks(BTC)
    watermarks.advance(numbered_candle(0))
    assert watermarks.advance(numbered_candle(3)) == (minute(1), minute(3))
    assert watermarks.advance(numbered_candle(1)) is None
    assert list(watermarks.overdue("spot", minute(4))) == []


def test_a_passed_deadline_hands_out_all_that_should_have_come() -> None:
    """After a long silence all candles past their grace are returned at once, and no others."""
    watermarks = marks(BTC, Series("coin_futures", "BTCUSD_PERP", "1m"))
    assert list(watermarks.overdue("spot", minute(1) + GRACE_MS)) == [Overdue(BTC, minute(0), minute(1))]
    now_ms = minute(7) + GRACE_MS - 1
    assert list(watermarks.overdue("spot", now_ms)) == [Overdue(BTC, minute(1), minute(6))]
    assert list(watermarks.overdue("spot", now_ms)) == []
    assert watermarks.advance(numbered_candle(5)) is None
    assert watermarks.advance(numbered_candle(6)) is None


def test_nothing_is_owed_before_it_is_expected_or_after_it_is_forgotten() -> None:
    """Candles of series that are not expected are ignored."""
    watermarks = marks()
    assert watermarks.advance(numbered_candle(3)) is None
    watermarks.expect(BTC, minute(4))
    assert watermarks.since_ms(BTC) == minute(4)
    assert watermarks.forget(BTC) == minute(4)
    assert watermarks.forget(BTC) is None
    assert list(watermarks.overdue("spot", minute(100))) == []


def test_the_grid_of_three_days_is_learned_from_the_first_candle() -> None:
    """3d candles are expected from the first one on, on its grid."""
    series = Series("spot", "BTCUSDT", "3d")
    watermarks = marks(series)
    assert list(watermarks.overdue("spot", START_MS + 30 * DAY_MS)) == []
    first = numbered_candle(0, series)
    first = type(first)(*series, START_MS, START_MS + 3 * DAY_MS, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, "stream")
    watermarks.advance(first)
    late = list(watermarks.overdue("spot", START_MS + 6 * DAY_MS + GRACE_MS))
    assert late == [Overdue(series, START_MS + 3 * DAY_MS, START_MS + 6 * DAY_MS)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40))
def test_every_candle_is_seen_or_handed_out_exactly_once(events: list[tuple[bool, int]]) -> None:
    """For late, unordered and absent arrivals, each candle is seen or overdue exactly once."""
    watermarks = marks(BTC)
    handed: list[int] = []
    seen: set[int] = set()
    for is_candle, number in events:
        if is_candle:
            seen.add(minute(number))
            if skipped := watermarks.advance(numbered_candle(number)):
                handed += BTC.grid.grid(*skipped)
        else:
            for late in watermarks.overdue("spot", minute(number)):
                handed += BTC.grid.grid(late.start_ms, late.stop_ms)
    for late in watermarks.overdue("spot", minute(30) + GRACE_MS):
        handed += BTC.grid.grid(late.start_ms, late.stop_ms)
    assert len(handed) == len(set(handed))
    assert set(handed) | seen >= set(BTC.grid.grid(minute(0), minute(30)))


def test_three_days_are_owed_from_any_of_their_candles_on() -> None:
    """Any candle sets the grid of `3d`, and a later one does not change it."""
    three = Series("spot", "BTCUSDT", "3d")
    watermarks = marks(three)
    assert watermarks.next_ms(three) is None
    watermarks.anchor(three, START_MS - 29 * DAY_MS)
    watermarks.anchor(three, START_MS)
    assert watermarks.next_ms(three) == START_MS - 2 * DAY_MS
    deadline_ms = START_MS + DAY_MS + GRACE_MS
    assert list(watermarks.overdue("spot", deadline_ms - 1)) == []
    late = Overdue(three, START_MS - 2 * DAY_MS, START_MS + DAY_MS)
    assert list(watermarks.overdue("spot", deadline_ms)) == [late]
