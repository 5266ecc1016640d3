"""The system's clocks, and the exchange's time that its witnesses agree on."""

import time
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lakewriter.agreement import HOST_WRONG_MS, INSIST_S, LATE_S, REST_SILENT_S, Agreement, ClockClaim
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.series import Series
from lakewriter.timeline import FIT_MS, Moment, TimeLine
from support.lengths import examples

YEAR_MS = 365 * DAY_MS
TRUE_MS = 1_800_000_000_000
BTC, ETH, SOL = (Series("spot", symbol, "1m") for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"))


def test_wall_clock():
    """The wall clock counts microseconds since the epoch."""
    before_us = time.time_ns() // 1000
    assert before_us <= Clock().wall_us() <= time.time_ns() // 1000


def test_monotonic_clock():
    """The monotonic clock never goes back, and includes the machine's sleep."""
    clock = Clock()
    seen = [clock.monotonic_s() for _ in range(1000)]
    assert seen == sorted(seen)
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before_s <= clock.monotonic_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


class World:
    """A simulated exchange and host, and what their clocks show as simulated seconds pass."""

    def __init__(self, rate: float = 1.0, host_error_ms: float = 0.0) -> None:
        self.agreed = Agreement()
        self.now_s = 1000.0
        self.rate = rate
        self.host_error_ms = host_error_ms
        self.shift_ms = 0.0

    def true_ms(self, at_s: float | None = None) -> int:
        """Return the time of the exchange's clock, now or at a simulated second."""
        at_s = self.now_s if at_s is None else at_s
        return TRUE_MS + int(self.shift_ms + (at_s - 1000) * 1000 * self.rate)

    @property
    def wall_ms(self) -> float:
        """The time of the host's clock."""
        return TRUE_MS + self.shift_ms + (self.now_s - 1000) * 1000 + self.host_error_ms

    @property
    def time_ms(self) -> float:
        """The agreed time."""
        assert self.agreed.line is not None
        return self.agreed.line.least_ms(self.now_s)

    def ask(self, out_s: float = 0.02, back_s: float = 0.02, lie_ms: float = 0.0) -> bool:
        """Request the server time from REST; return whether the answer was accepted."""
        asked_s = self.now_s
        self.now_s += out_s + back_s
        server_ms = self.true_ms(asked_s + out_s) + int(lie_ms)
        return self.agreed.observe_server_time(Moment(server_ms, asked_s, self.now_s), self.wall_ms)

    def ask_often(self, times: int = 4, apart_s: float = 0.3, lie_ms: float = 0.0) -> bool:
        """Request the server time several times; return whether the last answer was accepted."""
        believed = False
        for _ in range(times):
            believed = self.ask(lie_ms=lie_ms)
            self.now_s += apart_s
        return believed

    def hear(self, series: Series, late_s: float = 0.05, lie_ms: float = 0.0) -> bool:
        """Add a closed candle's event time; return whether it was plausible."""
        event_ms = self.true_ms(self.now_s - late_s) + int(lie_ms)
        return self.agreed.observe_event_time(series, event_ms, self.now_s, self.wall_ms)

    def is_right(self) -> bool:
        """Return whether the agreed time is not ahead of the exchange, and hardly behind."""
        return -200 - 200 * self.rate <= self.time_ms - self.true_ms() <= 1


class ToldClock(Clock):
    """A clock whose times a test sets."""

    now_s = 1000.0

    def wall_us(self) -> int:
        return 1_700_000_000_000_000

    def monotonic_s(self) -> float:
        return self.now_s


@given(
    st.sampled_from([1.0, 60.0, 600.0, 7200.0]),
    st.lists(st.tuples(st.floats(0.5, 30), st.floats(0, 0.1), st.floats(0, 0.1)), min_size=3, max_size=7),
    st.floats(0, 60),
)
@example(60.0, [(0.5, 0.0625, 0.0), (18.0, 0.0, 0.0625), (1.0, 0.0, 0.0)], 1.0)
def test_the_exchanges_time_is_never_ahead_and_hardly_behind(
    rate: float, steps: list[tuple[float, float, float]], later_s: float
) -> None:
    """For answers of any duration, the estimate is never ahead of the exchange, and close."""
    world = World(rate)
    for wait_s, out_s, back_s in steps:
        world.ask(out_s, back_s)
        base_s = world.now_s - 1000
        world.now_s += wait_s
    world.now_s += later_s
    truth_ms = world.true_ms()
    off = 0.2 + (0.2 / base_s if rate != 1 else 0) * (later_s + wait_s)
    assert truth_ms - 1000 * rate * off - 2 <= world.time_ms <= truth_ms + 1
    assert world.agreed.line is not None
    assert rate != 1 or world.agreed.line.rate == 1


@given(
    st.lists(st.tuples(st.floats(0.05, 2), st.integers(-20, 20), st.floats(0, 0.05)), min_size=3, max_size=9)
)
def test_machines_that_differ_by_some_milliseconds_make_no_other_rate(
    steps: list[tuple[float, int, float]],
) -> None:
    """Server times of machines that differ by milliseconds do not make the exchange's clock seem fast."""
    world = World()
    for wait_s, lie_ms, way_s in steps:
        assert world.ask(way_s, way_s, lie_ms)
        world.now_s += wait_s
    assert world.agreed.line is not None
    assert world.agreed.line.rate == 1.0
    assert world.agreed.jumps == 0


class Word(NamedTuple):
    """One time message.

    Args:
        who: its source: "rest", "liar", or the number of a series.
        after_s: seconds since the message before.
        late_s: seconds from its sending to its arrival.
    """

    who: int | str
    after_s: float
    late_s: float


WORDS = st.lists(
    st.builds(
        Word,
        st.sampled_from([*range(5), "rest", "rest", "liar", "liar"]),
        st.floats(0.01, 40),
        st.floats(0, 3),
    ),
    max_size=40,
)


@given(
    WORDS,
    st.lists(st.integers(-2 * YEAR_MS, 2 * YEAR_MS), min_size=1),
    st.integers(-20 * HOUR_MS, 20 * HOUR_MS),
)
def test_one_liar_among_honest_series_never_moves_the_time(
    words: list[Word], lies_ms: list[int], host_error_ms: int
) -> None:
    """Once REST's time is known, wrong event times of one series never change the agreed time.

    This holds for any host clock, and with or without further answers of REST.
    """
    world = World(host_error_ms=host_error_ms)
    assert world.ask_often()
    lies = iter(lies_ms * 40)
    for word in words:
        world.now_s += word.after_s
        if word.who == "rest":
            assert world.ask(word.late_s / 2, word.late_s / 2)
        elif word.who == "liar":
            world.hear(BTC, word.late_s, next(lies))
        else:
            assert world.hear(ETH._replace(symbol=f"S{word.who}USDT"), word.late_s)
        assert -FIT_MS <= world.time_ms - world.true_ms() <= 1
    assert world.agreed.jumps == 0


@given(
    st.sampled_from([1.0, 60.0]),
    st.lists(st.tuples(st.sampled_from(["rest", "rest lies", "series", "liar"]), st.floats(0.01, 30))),
    st.sampled_from([0, 7 * HOUR_MS]),
    st.integers(1, 9000),
    st.integers(1, 9000),
)
def test_lies_that_differ_move_nothing(
    rate: float, words: list[tuple[str, float]], host_error_ms: int, rest_h: int, liar_h: int
) -> None:
    """Wrong REST answers and a wrong series with different errors do not change the agreed time."""
    assume(abs(rest_h - liar_h) > 2 and 7 not in (rest_h, liar_h))
    world = World(rate, host_error_ms)
    assert world.ask_often()
    lies = 0
    for who, after_s in words:
        world.now_s += after_s
        if who == "rest":
            assert world.ask()
        elif who == "rest lies" and lies < 2:
            assert not world.ask(lie_ms=rest_h * HOUR_MS * rate)
        elif who == "liar":
            world.hear(BTC, lie_ms=liar_h * HOUR_MS * rate)
        else:
            assert world.hear(ETH)
        if who in ("rest", "rest lies"):
            lies = lies + 1 if who == "rest lies" else 0
        assert -60_000 * rate < world.time_ms - world.true_ms() <= 1
    assert world.agreed.jumps == 0


@given(st.integers(-20 * HOUR_MS, 20 * HOUR_MS), st.integers(2, 6), st.floats(0, 2))
def test_unanimous_moments_are_learned(host_error_ms: int, count: int, late_s: float) -> None:
    """Series that agree with each other set the time without REST, for any host clock."""
    world = World(host_error_ms=host_error_ms)
    for number in range(count):
        assert world.hear(ETH._replace(symbol=f"S{number}USDT"), late_s)
    assert world.true_ms() - 1000 * late_s - 2 <= world.time_ms <= world.true_ms()


@pytest.mark.parametrize("rate", [1.0, 60.0, 7200.0])
@pytest.mark.parametrize("host_error_ms", [0, -5 * HOUR_MS, 5 * HOUR_MS, -9 * YEAR_MS, 9 * YEAR_MS])
def test_rest_alone_is_believed_when_it_repeats_itself(rate: float, host_error_ms: int) -> None:
    """Three answers of REST correct a host clock that is wrong by hours or years."""
    world = World(rate, host_error_ms)
    assert world.ask_often(3)
    assert world.is_right()
    assert world.agreed.jumps == 0


def test_one_answer_and_the_host_are_enough() -> None:
    """With a right host clock the first answer sets the time."""
    world = World(host_error_ms=900)
    assert world.ask()
    assert world.is_right()


@pytest.mark.parametrize("lie_ms", [MINUTE_MS, HOUR_MS, YEAR_MS, -HOUR_MS, -YEAR_MS])
@pytest.mark.parametrize("host_error_ms", [0, 3 * HOUR_MS])
def test_one_wrong_answer_of_rest_moves_nothing(lie_ms: int, host_error_ms: int) -> None:
    """One wrong serverTime never changes the time, and the next right one is accepted."""
    world = World(host_error_ms=host_error_ms)
    assert not world.ask(lie_ms=lie_ms)
    world.now_s += 0.3
    assert world.ask_often()
    assert world.is_right()
    for _ in range(3):
        assert not world.ask(lie_ms=lie_ms)
        assert world.agreed.needs_server_time
        assert world.is_right()
        assert world.ask()
        assert not world.agreed.needs_server_time
    assert world.agreed.jumps == 0


@pytest.mark.parametrize("server_ms", [0, -1, 5_000_000, TRUE_MS // 1000, TRUE_MS * 1000, 10**30])
def test_a_time_in_other_units_is_no_time(server_ms: int) -> None:
    """A serverTime in seconds, microseconds or out of range is never accepted."""
    world = World(host_error_ms=HOUR_MS)
    for _ in range(5):
        assert not world.agreed.observe_server_time(
            Moment(server_ms, world.now_s, world.now_s), world.wall_ms
        )
        world.now_s += 30
    assert world.agreed.line is None
    assert world.ask_often()
    assert not world.agreed.observe_server_time(Moment(server_ms, world.now_s, world.now_s), world.wall_ms)
    assert world.is_right()


def test_a_frame_from_the_future_is_refused_and_rest_is_asked() -> None:
    """A frame with a time one hour ahead is refused, REST is asked at once, and its answer decides."""
    world = World()
    world.ask_often()
    assert not world.hear(BTC, lie_ms=HOUR_MS)
    assert world.agreed.needs_server_time
    assert world.ask()
    assert not world.agreed.needs_server_time
    assert world.hear(BTC)


@pytest.mark.parametrize("error_ms", [0, -5 * HOUR_MS, 5 * HOUR_MS])
def test_before_the_time_is_known_only_the_absurd_is_refused(error_ms: int) -> None:
    """Before the time is known, frames within hours of the host's clock pass, others do not."""
    world = World(host_error_ms=error_ms)
    assert not world.hear(BTC, lie_ms=YEAR_MS)
    assert not world.hear(BTC, lie_ms=HOST_WRONG_MS + 6 * HOUR_MS)
    assert world.hear(BTC)
    assert (world.agreed.line is None) == bool(error_ms)


def test_two_series_raise_the_time_within_what_rest_allows() -> None:
    """Later event times of two series raise the estimate; those of one series do not."""
    world = World()
    world.ask(0.0, 0.4)
    assert world.time_ms == pytest.approx(world.true_ms() - 400, abs=1)
    world.hear(BTC, 0.01)
    world.hear(BTC, 0.01)
    assert world.time_ms == pytest.approx(world.true_ms() - 400, abs=1)
    world.hear(ETH, 0.03)
    assert world.time_ms == pytest.approx(world.true_ms() - 30, abs=1)
    world.hear(SOL, 3.0)
    assert world.time_ms == pytest.approx(world.true_ms() - 30, abs=1)


class PlainAgreement(Agreement):
    """An agreement that sorts all claims at each candle."""

    def _refine(self, line: TimeLine, claim: ClockClaim) -> None:
        now_s = claim.heard_s
        others = [earlier for earlier in self._latest_claims if earlier.series != claim.series]
        ahead = [
            (each.event_ms + (now_s - each.heard_s) * 1000 * line.rate - line.least_ms(now_s), each)
            for each in (*others, claim)
        ]
        ahead.sort(reverse=True)
        self._latest_claims = [each for _, each in ahead[:2]]
        if len(ahead) > 1 and ahead[1][0] > 0:
            line.raise_least(line.least_ms(now_s) + ahead[1][0], now_s)


@examples(200, 2_000)
@given(
    st.sampled_from([1.0, 30.0]),
    st.lists(
        st.tuples(st.sampled_from([BTC, ETH, SOL, None]), st.floats(0, 3), st.floats(0, 60)), max_size=40
    ),
)
@example(1.0, [(BTC, 0.0, 0.0), (ETH, 0.0, 0.0), (None, 0.5, 60.0), (SOL, 3.0, 0.0)])
def test_the_time_of_a_burst(rate: float, steps: list[tuple[Series | None, float, float]]) -> None:
    """Any order of candles and answers gives the time that comparing all claims each time gives."""
    worlds = [World(rate), World(rate)]
    worlds[1].agreed = PlainAgreement()
    for world in worlds:
        world.ask_often()
    for series, late_s, passed_s in steps:
        for world in worlds:
            world.now_s += passed_s
            if series is None:
                world.ask(0.0, late_s)
            else:
                world.hear(series, late_s)
        assert worlds[0].time_ms == pytest.approx(worlds[1].time_ms, abs=0.01, rel=0)


@pytest.mark.parametrize("host_error_ms", [0, 3 * HOUR_MS])
def test_a_machine_that_slept_is_an_hour_on(host_error_ms: int) -> None:
    """After sleep that the monotonic clock missed, one answer with the host's clock moves the time."""
    world = World(host_error_ms=host_error_ms)
    world.ask_often()
    world.hear(BTC)
    world.shift_ms += HOUR_MS
    assert world.ask()
    assert world.is_right()
    assert world.agreed.last_jump is not None
    assert world.agreed.last_jump.before_ms == world.agreed.last_jump.after_ms


def test_a_machine_that_slept_without_rest_hears_it_from_a_stream() -> None:
    """After sleep without REST, a frame that agrees with the host's clock moves the time."""
    world = World()
    world.ask_often()
    world.shift_ms += HOUR_MS
    assert world.hear(BTC)
    assert abs(world.time_ms - world.true_ms()) < LATE_S * 1000


def test_a_machine_that_was_paused_follows_rest_and_a_stream() -> None:
    """After a pause that the host's clock missed as well, REST and a series together move the time."""
    world = World()
    world.ask_often()
    before_ms = world.time_ms
    world.shift_ms += HOUR_MS
    world.host_error_ms -= HOUR_MS
    assert not world.hear(BTC)
    assert world.ask()
    assert world.is_right()
    assert world.agreed.last_jump is not None
    assert world.agreed.last_jump.before_ms == pytest.approx(before_ms, abs=1000)
    assert world.agreed.last_jump.after_ms == pytest.approx(world.true_ms(), abs=1000)


def test_a_short_pause_follows_rest_at_the_second_answer() -> None:
    """A jump of eight seconds, within the host's tolerance, is accepted at the second answer."""
    world = World()
    world.ask_often()
    world.shift_ms += 8_000
    world.host_error_ms -= 8_000
    assert not world.ask()
    world.now_s += 0.3
    assert world.ask()
    assert world.is_right()


def test_rest_that_insists_is_believed_when_no_frame_contradicts() -> None:
    """REST that repeats another time for a minute is accepted, even against the host's clock."""
    world = World()
    world.ask_often()
    assert not world.ask_often(10, INSIST_S / 20, lie_ms=HOUR_MS)
    assert world.ask_often(14, INSIST_S / 20, lie_ms=HOUR_MS)


@pytest.mark.parametrize("rate", [1.0, 120.0])
@pytest.mark.parametrize("apart_s", [0.01, 3.0, 100.0])
def test_two_different_lies_bear_each_other_not_out(rate: float, apart_s: float) -> None:
    """A wrong answer of REST and a wrong frame with another error do not confirm each other."""
    for rest_first in (True, False):
        world = World(rate, host_error_ms=0 if rate == 1 else 9 * HOUR_MS)
        world.ask_often()
        world.now_s += 5
        for number in range(20):
            if (number % 2 == 0) == rest_first:
                assert not world.ask(lie_ms=2 * HOUR_MS * rate)
            else:
                assert not world.hear(BTC, lie_ms=4 * HOUR_MS * rate)
            world.now_s += apart_s if number % 4 else 0.01
            assert world.hear(ETH)
        assert world.ask()
        assert world.is_right()
        assert world.agreed.jumps == 0


def test_rest_that_insists_is_not_believed_while_a_stream_bears_the_time_out() -> None:
    """A repeated wrong serverTime is not accepted while frames confirm the time."""
    world = World()
    world.ask_often()
    for _ in range(10):
        assert not world.ask(lie_ms=HOUR_MS)
        world.now_s += INSIST_S / 4
        assert world.hear(BTC)
        assert world.is_right()
    assert world.agreed.jumps == 0


def test_frames_and_the_host_take_back_what_rest_alone_had_said() -> None:
    """If REST was one hour off from the beginning, streams and host clock together correct the time."""
    world = World()
    assert world.ask_often(lie_ms=HOUR_MS)
    for _ in range(3):
        world.hear(BTC)
        assert world.agreed.jumps == 0
        world.now_s += INSIST_S
    world.hear(ETH)
    assert abs(world.time_ms - world.true_ms()) < LATE_S * 1000
    assert world.agreed.jumps == 1


def test_two_liars_that_came_first_are_given_up_for_rest_and_an_honest_series() -> None:
    """Wrong series that set the time first are overruled by REST and a right series."""
    world = World(host_error_ms=5 * HOUR_MS)
    assert world.hear(BTC, lie_ms=HOUR_MS)
    assert world.hear(ETH, lie_ms=HOUR_MS)
    assert world.time_ms == pytest.approx(world.true_ms() + HOUR_MS, abs=1000)
    world.now_s += 1
    assert world.hear(SOL)
    assert world.ask()
    assert world.is_right()
    assert not world.hear(BTC, lie_ms=HOUR_MS)


@given(st.floats(0.1, 1000), st.booleans())
def test_frames_that_were_held_up_move_nothing(late_s: float, host_is_right: bool) -> None:
    """A burst of old frames after a stall does not change the time."""
    world = World(host_error_ms=0 if host_is_right else -late_s * 1000)
    world.ask_often()
    for series in (BTC, ETH, SOL):
        assert world.hear(series, late_s)
    assert world.hear(BTC)
    assert world.is_right()


def test_streams_alone_move_the_time_when_rest_is_silent_for_long() -> None:
    """After a long silence of REST, two series that agree move the time, unless the host's clock contradicts."""
    world = World(host_error_ms=HOUR_MS)
    world.ask_often()
    world.now_s += REST_SILENT_S
    world.host_error_ms += HOUR_MS
    assert not world.hear(BTC, lie_ms=10 * MINUTE_MS)
    assert not world.hear(BTC, lie_ms=10 * MINUTE_MS)
    assert world.hear(ETH, lie_ms=10 * MINUTE_MS)


@pytest.mark.parametrize("rate", [60.0, 300.0, 7200.0])
def test_a_fast_sandbox_is_followed_while_rest_is_away(rate: float) -> None:
    """Without REST a single series moves the time, though the host's clock stays behind."""
    world = World(rate)
    heard = []
    for _ in range(100):
        heard.append(world.hear(BTC))
        world.now_s += max(0.2, 60 / rate)
    assert all(heard) or rate > 300
    assert all(heard[50:])
    assert world.ask_often()
    assert world.is_right()


@pytest.mark.parametrize("rate", [60.0, 120.0, 300.0])
def test_learning_the_rate_of_a_fast_sandbox_is_no_jump(rate: float) -> None:
    """Series that close at the same times before REST answers teach the rate; no series is restarted."""
    world = World(rate)
    for _ in range(30):
        for series in (BTC, ETH, SOL):
            world.hear(series)
            world.now_s += 0.01
        world.now_s += 60 / rate - 0.03
    assert world.ask_often()
    assert world.is_right()
    assert world.agreed.jumps == 0


def test_learning_the_rate_from_rest_after_two_series_is_no_jump() -> None:
    """A slow answer of REST, read before the frames that set the time, contradicts nothing."""
    world = World(120.0, host_error_ms=HOUR_MS)
    asked_s = world.now_s
    world.now_s += 0.3
    for series in (BTC, ETH):
        world.hear(series)
    assert world.agreed.line is not None
    world.agreed.observe_server_time(Moment(world.true_ms(asked_s), asked_s, world.now_s), world.wall_ms)
    world.ask_often(4)
    world.now_s += 15
    world.hear(BTC)
    world.ask_often(4)
    assert world.is_right()
    assert world.agreed.jumps == 0


@given(st.floats(0.02, 7200), st.integers(-9 * YEAR_MS, 9 * YEAR_MS))
def test_any_rate_is_learned(rate: float, host_error_ms: int) -> None:
    """A sandbox's rate and start are known after some answers, and stay known.

    A rate near 1 is no sandbox's: the first second of answers cannot tell it from 1.
    """
    assume(not 0.9 < rate < 1.1 or rate == 1)
    world = World(rate, host_error_ms)
    world.ask_often(5)
    for _ in range(5):
        world.now_s += 30
        assert world.ask()
    assert world.agreed.line is not None
    assert world.agreed.line.rate == pytest.approx(rate, rel=0.05)
    assert world.agreed.jumps == 0


def test_before_anything_is_learned_it_is_the_wall_clocks_time() -> None:
    """Before the first answer or frame the time is the wall clock's, and is marked as such."""
    time_there = ExchangeTime(ToldClock())
    assert (time_there.known, time_there.now_ms()) == (False, 1_700_000_000_000)
