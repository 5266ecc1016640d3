"""The system's clocks."""

import time

from hypothesis import example, given
from hypothesis import strategies as st

from lakewriter.clock import Clock, ExchangeTime


def test_wall_clock():
    """The wall clock counts microseconds since the epoch."""
    before_us = time.time_ns() // 1000
    assert before_us <= Clock().wall_us() <= time.time_ns() // 1000


def test_monotonic_clock():
    """The monotonic clock never goes back."""
    clock = Clock()
    seen = [clock.monotonic_s() for _ in range(1000)]
    assert seen == sorted(seen)


class ToldClock(Clock):
    """Clocks that show what they are told."""

    now_s = 1000.0

    def wall_us(self) -> int:
        return 1_700_000_000_000_000

    def monotonic_s(self) -> float:
        return self.now_s


def learned(rate: float, round_trips_s: list[tuple[float, float, float]]) -> tuple[ToldClock, ExchangeTime]:
    """Ask an exchange whose clock runs at a rate, at given times, by given ways out and back."""
    clock = ToldClock()
    time_there = ExchangeTime(clock)
    for asked_s, out_s, back_s in round_trips_s:
        clock.now_s = asked_s + out_s + back_s
        time_there.synced(exchange_ms(asked_s + out_s, rate), asked_s, clock.now_s)
    return clock, time_there


def exchange_ms(monotonic_s: float, rate: float) -> int:
    return 1_800_000_000_000 + int((monotonic_s - 1000) * 1000 * rate)


@given(
    st.sampled_from([1.0, 60.0, 600.0]),
    st.lists(st.tuples(st.floats(0.5, 30), st.floats(0, 0.1), st.floats(0, 0.1)), min_size=2, max_size=6),
    st.floats(0, 60),
)
@example(60.0, [(0.5, 0.0625, 0.0), (18.0, 0.0, 0.0625), (1.0, 0.0, 0.0)], 1.0)
def test_the_exchanges_time_is_never_ahead_and_hardly_behind(
    rate: float, steps: list[tuple[float, float, float]], later_s: float
) -> None:
    """However long answers take, the estimate is not in the exchange's future, and near."""
    asked_s, trips = 1000.0, []
    for wait_s, out_s, back_s in steps:
        trips.append((asked_s, out_s, back_s))
        asked_s += wait_s
    clock, time_there = learned(rate, trips)
    told_s = clock.now_s
    clock.now_s += later_s
    truth_ms = exchange_ms(clock.now_s, rate)
    base_s = max(0.2, told_s - 1000)
    slack_ms = 1000 * rate * (0.2 + later_s * (0.2 / base_s if rate != 1 else 0)) + 2
    assert truth_ms - slack_ms <= time_there.now_ms() <= truth_ms + 1
    assert rate != 1 or time_there.rate == 1


def test_frames_push_the_estimate_forward_only() -> None:
    """An event time later than the estimate is believed, an older one is not."""
    clock, time_there = learned(1.0, [(1000.0, 0.05, 0.05)])
    before_ms = time_there.now_ms()
    time_there.heard(before_ms - 5_000)
    assert time_there.now_ms() == before_ms
    time_there.heard(before_ms + 40)
    assert time_there.now_ms() == before_ms + 40
    clock.now_s += 1
    assert time_there.now_ms() == before_ms + 1040


def test_another_clock_altogether_is_learned_anew() -> None:
    """An exchange that shows quite another time is believed, and its rate kept till more is known."""
    clock, time_there = learned(60.0, [(1000.0, 0, 0.01), (1001.0, 0, 0.01)])
    clock.now_s = 1010.0
    time_there.synced(5_000_000, 1010.0, 1010.0)
    assert time_there.now_ms() == 5_000_000
    assert 55 < time_there.rate <= 60


def test_before_anything_is_learned_it_is_the_wall_clocks_time() -> None:
    """Nothing known: the wall clock's time, and said so."""
    time_there = ExchangeTime(ToldClock())
    assert (time_there.known, time_there.now_ms()) == (False, 1_700_000_000_000)
