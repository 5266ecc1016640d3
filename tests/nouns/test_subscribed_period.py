"""Subscribed periods when recorders start, change, stop and die."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lakewriter.ranges import contains
from lakewriter.series import Series
from lakewriter.subscribed_period import (
    COMMAND_LINE,
    FOREVER_MS,
    PERIODS_MAX,
    STOP_MARGIN_MS,
    Confirmation,
    RecorderId,
    SubscribedPeriod,
    closed_period,
    owed_since_ms,
    subscribed_ranges,
    unsubscribed_ranges,
    with_confirmation,
)
from support.lengths import examples

BTC, ETH, BNB = (Series("spot", symbol, "1m") for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT"))
FUTURE = Series("usdt_futures", "BTCUSDT", "1m")
CONFIG = "/etc/lakewriter.toml"
MINUTE_MS = 60_000


@dataclass
class Lake:
    """The subscribed periods of a lake, and its living recorders."""

    periods: list[SubscribedPeriod] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    runs: int = 0

    def confirm(
        self,
        recorder: RecorderId,
        series: Iterable[Series],
        minute: int,
        *,
        starting: bool = False,
        markets: Iterable[str] = ("spot", "usdt_futures"),
        owed: Mapping[Series, int] | None = None,
    ) -> None:
        """Let a recorder confirm its subscriptions."""
        wanted = set(series)
        self.periods = with_confirmation(
            self.periods,
            Confirmation(
                recorder,
                wanted,
                wanted.__contains__,
                dict.fromkeys(markets, minute * MINUTE_MS),
                {series: since * MINUTE_MS for series, since in (owed or {}).items()},
                starting,
            ),
            frozenset(self.alive),
        )

    def start(self, name: str, series: Iterable[Series], minute: int) -> RecorderId:
        """Let a recorder start."""
        self.runs += 1
        recorder = RecorderId(name, f"run-{self.runs}")
        self.alive.add(recorder.journal)
        self.confirm(recorder, series, minute, starting=True)
        return recorder

    def stop(self, recorder: RecorderId, series: Iterable[Series], minute: int) -> None:
        """Let a recorder stop cleanly."""
        self.confirm(recorder, series, minute)
        self.alive.discard(recorder.journal)

    def of(self, series: Series) -> list[SubscribedPeriod]:
        """Return a series' periods."""
        return [period for period in self.periods if period.series == series]

    def left(self, series: Series, minute: int) -> bool:
        """Return whether a series was unsubscribed on purpose at a minute."""
        return contains(unsubscribed_ranges(self.of(series)), minute * MINUTE_MS)


@pytest.fixture(params=[CONFIG, COMMAND_LINE])
def name(request: pytest.FixtureRequest) -> str:
    """A recorder's name of either kind."""
    return str(request.param)


def test_a_restart_ends_nothing(name: str) -> None:
    """A restart after a day continues the same period."""
    lake = Lake()
    first = lake.start(name, {BTC}, 0)
    lake.stop(first, {BTC}, 10)
    assert not lake.left(BTC, 100)
    lake.start(name, {BTC}, 1440)
    assert lake.of(BTC) == [SubscribedPeriod(*BTC, 0, 1440 * MINUTE_MS, None, name, "run-2")]


def test_a_crash_ends_nothing(name: str) -> None:
    """A killed recorder's series stay subscribed until a later start, however late, leaves them out."""
    lake = Lake()
    first = lake.start(name, {BTC, ETH}, 0)
    lake.alive.discard(first.journal)
    assert not lake.left(BTC, 1_000_000)
    lake.start(name, {BTC}, 1440)
    assert not lake.left(BTC, 1_000_000)


def test_the_next_start_leaves_what_it_no_longer_includes(name: str) -> None:
    """A series that a start leaves out is unsubscribed since its last confirmation, until the next period."""
    lake = Lake()
    first = lake.start(name, {BTC, ETH}, 0)
    lake.stop(first, {BTC, ETH}, 10)
    second = lake.start(name, {BTC}, 1440)
    margin = STOP_MARGIN_MS // MINUTE_MS
    assert [lake.left(ETH, minute) for minute in (0, 9 - margin, 10 - margin, 99, 2000)] == [False, False, True, True, True]  # fmt: skip
    lake.stop(second, {BTC}, 2000)
    lake.start(name, {BTC, ETH}, 2001)
    assert [lake.left(ETH, minute) for minute in (2000, 2001, 9999)] == [True, False, False]
    assert len(lake.of(ETH)) == 2
    assert not lake.left(BTC, 1441)


def test_a_change_while_recording(name: str) -> None:
    """A change at run time ends the periods of removed series and begins those of added ones."""
    lake = Lake()
    recorder = lake.start(name, {BTC, ETH}, 0)
    lake.confirm(recorder, {BTC, BNB}, 7)
    assert lake.of(ETH) == [SubscribedPeriod(*ETH, 0, 7 * MINUTE_MS, 7 * MINUTE_MS, name, "run-1")]
    assert lake.of(BNB) == [SubscribedPeriod(*BNB, 7 * MINUTE_MS, 7 * MINUTE_MS, None, name, "run-1")]


def test_no_recorder_ends_the_periods_of_another_that_lives(name: str) -> None:
    """Living recorders do not end each other's periods, even with equal names."""
    lake = Lake()
    first = lake.start(name, {BTC}, 0)
    second = lake.start(name, {ETH}, 1)
    lake.confirm(first, {BTC}, 5)
    lake.confirm(second, {ETH}, 5)
    assert not lake.left(BTC, 9)
    assert not lake.left(ETH, 9)


def test_a_recorder_follows_only_its_own_former_run() -> None:
    """After a power cut, the first recorder to start does not end the periods of the other one."""
    lake = Lake()
    lake.start("/etc/spot.toml", {BTC, ETH}, 0)
    lake.start("/etc/futures.toml", {FUTURE}, 0)
    lake.alive.clear()
    lake.start("/etc/spot.toml", {BTC}, 10)
    assert lake.left(ETH, 10)
    assert not lake.left(FUTURE, 10), "its recorder died without a word"
    lake.start("/etc/futures.toml", {BNB}, 20)
    assert lake.left(FUTURE, 20), "the same config may come to name wholly other series"


def test_of_command_lines_the_most_similar_is_the_former_run() -> None:
    """Without a config, a recorder continues the run with the most common series, or none without any."""
    lake = Lake()
    lake.start(COMMAND_LINE, {BTC, ETH}, 0)
    lake.start(COMMAND_LINE, {BTC, BNB, FUTURE}, 0)
    lake.alive.clear()
    lake.start(COMMAND_LINE, {BNB, BTC}, 10)
    assert lake.left(FUTURE, 10)
    assert not lake.left(ETH, 10)
    lake.start(COMMAND_LINE, {Series("spot", "SOLUSDT", "1m")}, 20)
    assert not lake.left(ETH, 20)


def test_another_recorder_continues_what_it_subscribes_to() -> None:
    """A moved config file continues its series, and only later changes end their periods."""
    lake = Lake()
    lake.start("/home/me/lakewriter.toml", {BTC, ETH}, 0)
    lake.alive.clear()
    moved = lake.start(CONFIG, {BTC}, 10)
    assert [period.recorder for period in lake.of(BTC)] == [CONFIG]
    assert not lake.left(ETH, 10), "no start of that recorder says otherwise"
    lake.confirm(moved, {BNB}, 20)
    assert lake.left(BTC, 20)


def test_a_series_of_two_recorders_is_left_when_both_have_left_it() -> None:
    """Candles are expected while at least one recorder subscribes."""
    lake = Lake()
    first = lake.start("/etc/one.toml", {BTC, ETH}, 0)
    second = lake.start("/etc/two.toml", {BTC}, 5)
    lake.confirm(first, {ETH}, 10)
    assert not lake.left(BTC, 11)
    lake.confirm(second, {BNB}, 20)
    assert [lake.left(BTC, minute) for minute in (15, 21)] == [False, True]


def test_a_market_without_a_time_is_confirmed_later() -> None:
    """Periods of a market without a known time are not begun; its existing periods stay."""
    lake = Lake()
    first = lake.start(CONFIG, {BTC, FUTURE}, 5)
    lake.alive.discard(first.journal)
    lake.runs += 1
    recorder = RecorderId(CONFIG, f"run-{lake.runs}")
    lake.alive.add(recorder.journal)
    lake.confirm(recorder, {BTC, FUTURE, ETH}, 9, starting=True, markets=["usdt_futures"])
    assert [period.seen_ms // MINUTE_MS for period in (*lake.of(BTC), *lake.of(FUTURE))] == [5, 9]
    assert lake.of(ETH) == []
    lake.confirm(recorder, {BTC, FUTURE, ETH}, 10)
    assert [period.start_ms // MINUTE_MS for period in lake.of(ETH)] == [10]


def test_a_series_is_owed_since_it_first_traded() -> None:
    """The earliest first candle is kept over restarts and pauses; a series that never traded has none."""
    lake = Lake()
    first = lake.start(CONFIG, {BTC, ETH}, 0)
    assert owed_since_ms(lake.periods) is None
    lake.confirm(first, {BTC, ETH}, 5, owed={BTC: 2})
    lake.confirm(first, {BTC, ETH}, 9, owed={BTC: 7})
    lake.alive.clear()
    second = lake.start(CONFIG, {BTC, ETH}, 20)
    lake.confirm(second, {BTC, ETH}, 21, owed={BTC: 20, ETH: 20})
    assert owed_since_ms(lake.of(BTC)) == 2 * MINUTE_MS
    assert owed_since_ms(lake.of(ETH)) == 20 * MINUTE_MS
    lake.confirm(second, {ETH}, 30, owed={ETH: 20})
    lake.confirm(second, {BTC, ETH}, 40, owed={BTC: 40, ETH: 20})
    assert [period.owed_ms for period in lake.of(BTC)] == [2 * MINUTE_MS, 40 * MINUTE_MS]


def test_periods_are_bounded() -> None:
    """A series with too many periods loses its oldest closed ones."""
    periods = [SubscribedPeriod(*BTC, n, n, n + 1, CONFIG, "old") for n in range(0, 2 * PERIODS_MAX + 50, 2)]
    lake = Lake(periods)
    lake.start(CONFIG, {BTC}, 1)
    assert len(lake.periods) == PERIODS_MAX + 1
    assert lake.periods[0].start_ms == 50
    assert lake.periods[-1].is_open


MOMENTS = st.integers(0, 30)


@st.composite
def some_periods(draw: st.DrawFn) -> list[SubscribedPeriod]:
    """Draw periods of a series, of any recorders, in any order."""
    found = []
    for _ in range(draw(st.integers(0, 6))):
        start, stop = sorted((draw(MOMENTS), draw(MOMENTS)))
        found.append(SubscribedPeriod(*BTC, start, stop, draw(st.sampled_from([stop, None])), CONFIG, "run"))
    return found


@given(some_periods(), st.integers(0, 40))
def test_each_moment_since_the_first_period_is_subscribed_or_left(
    periods: list[SubscribedPeriod], moment: int
) -> None:
    """Each moment since the first period is either subscribed or unsubscribed; earlier ones are neither."""
    is_subscribed = any(
        each.start_ms <= moment < (FOREVER_MS if each.stop_ms is None else each.stop_ms) for each in periods
    )
    starts = [each.start_ms for each in periods]
    assert contains(subscribed_ranges(periods), moment) == is_subscribed
    assert contains(unsubscribed_ranges(periods), moment) == (
        not is_subscribed and bool(starts) and moment >= min(starts)
    )


@given(some_periods())
def test_closing_a_dead_recorders_period_leaves_a_valid_one(periods: list[SubscribedPeriod]) -> None:
    """A closed period ends between its start and its last confirmation."""
    for period in periods:
        stop_ms = closed_period(period).stop_ms
        assert stop_ms is not None
        assert period.start_ms <= stop_ms <= max(period.start_ms, period.seen_ms)


class Recorders(RuleBasedStateMachine):
    """Two configs that start, change, stop and die at random on one lake."""

    def __init__(self) -> None:
        super().__init__()
        self.lake = Lake()
        self.minute = 0
        self.running: dict[str, RecorderId] = {}
        # What each config last named, but for what another one continues since its recorder ended.
        self.words: dict[str, set[Series]] = {}

    @rule(
        name=st.sampled_from(["/one.toml", "/two.toml"]),
        series=st.sets(st.sampled_from([BTC, ETH, BNB, FUTURE]), min_size=1),
        passing=st.integers(1, 30),
    )
    def start_or_change(self, name: str, series: set[Series], passing: int) -> None:
        self.minute += passing
        if name in self.running:
            self.lake.confirm(self.running[name], series, self.minute)
        else:
            self.running[name] = self.lake.start(name, series, self.minute)
        self.words[name] = series
        for other in self.words.keys() - self.running.keys():
            self.words[other] = self.words[other] - series

    @rule(name=st.sampled_from(["/one.toml", "/two.toml"]), passing=st.integers(1, 30), kill=st.booleans())
    def end(self, name: str, passing: int, kill: bool) -> None:
        self.minute += passing
        if name in self.running:
            recorder = self.running.pop(name)
            if not kill:
                self.lake.confirm(recorder, self.words[name], self.minute)
            self.lake.alive.discard(recorder.journal)

    @invariant()
    def what_a_config_last_named_is_subscribed_to(self) -> None:
        for series in set().union(*self.words.values()) if self.words else set():
            assert not self.lake.left(series, self.minute), f"{series} was not left"

    @invariant()
    def what_none_that_lives_or_died_last_named_is_left(self) -> None:
        if self.words and len(self.running) == len(self.words):
            named = set().union(*self.words.values())
            for series in {period.series for period in self.lake.periods} - named:
                assert self.lake.left(series, self.minute), f"{series} is still expected"

    @invariant()
    def periods_are_sound(self) -> None:
        for period in self.lake.periods:
            assert 0 <= period.start_ms <= (period.seen_ms if period.stop_ms is None else period.stop_ms)
        open_periods = [(period.series, period.journal) for period in self.lake.periods if period.is_open]
        assert len(open_periods) == len(set(open_periods))


TestRecorders = Recorders.TestCase
TestRecorders.settings = examples(15, 150, stateful_step_count=20)
