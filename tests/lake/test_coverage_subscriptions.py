"""`coverage` and `gaps` on series that are unsubscribed, without a first candle, or no longer recorded."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import to_table
from lakewriter.cli import cli
from lakewriter.errors import LakewriterError
from lakewriter.gap import FINAL, REASONS, Reason
from lakewriter.instrument import Instrument
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.days import series_coverage
from lakewriter.lake.coverage.facts import CoverageMoment
from lakewriter.lake.instruments import record_instruments
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import partition_at
from lakewriter.series import Series
from lakewriter.subscribed_period import STOP_MARGIN_MS
from support.candles import BTC
from support.lakes import BEGIN_MS, make_lake, rest_candle, rows_of_sql
from support.lengths import examples
from support.living_recorder import (
    CONFIG,
    MINUTE_MS,
    LivingRecorder,
    confirm_series,
    kill_recorder,
    mark_gap,
    start_recorder,
)

ETH, SOL = Series("spot", "ETHUSDT", "1m"), Series("spot", "SOLUSD", "1m")
MARGIN = STOP_MARGIN_MS // MINUTE_MS


def at(minute: int) -> int:
    """Return the begin time of a minute."""
    return BEGIN_MS + minute * MINUTE_MS


def clock(minute: int) -> str:
    """Return a minute as a user writes it."""
    return f"2024-06-30T{minute // 60:02}:{minute % 60:02}:00Z"


def invoke(store: LakeStore, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [*arguments, "--lake", str(store.root)])


def shown(store: LakeStore, *arguments: str) -> list[dict[str, object]]:
    """Return the objects that a command prints with --json."""
    return [json.loads(line) for line in invoke(store, *arguments, "--json").stdout.splitlines()]


def line_of(result: Result) -> tuple[int, str, str]:
    """Return a refusal's exit code, line and next command."""
    assert isinstance(result.exception, LakewriterError), result.output
    return result.exception.exit_code, result.exception.what, result.exception.hint


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Ten minutes of two symbols."""
    return make_lake(
        tmp_path, [rest_candle(n, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT") for n in range(10)]
    )


def test_what_was_left_while_recording_is_expected_up_to_then(store: LakeStore) -> None:
    """README's command for cron succeeds, and both commands show when the series was left."""
    journal = start_recorder(store, BTC, ETH, now_ms=at(0))
    confirm_series(store, journal, BTC, now_ms=at(10) + 5_000)
    make_lake(store.root, [rest_candle(n) for n in range(10, 20)])
    confirm_series(store, journal, BTC, now_ms=at(20))
    until = ("--until", clock(20))
    done = invoke(store, "coverage", *until)
    assert (done.exit_code, done.exception) == (0, None)
    assert [line.split()[-2:] for line in done.stdout.splitlines()[3:4]] == [["2024-06-30", "00:10:05"]]
    btc, eth, _ = shown(store, "coverage", *until)
    assert (btc["expected"], btc["left_at"]) == (20, None)
    assert (eth["expected"], eth["missing"], eth["left_at"]) == (10, 0, "2024-06-30T00:10:05Z")
    assert [
        (each["symbol"], each["reason"], each["start"], each["candles"])
        for each in shown(store, "gaps", *until)
    ] == [("ETHUSDT", "left", "2024-06-30T00:10:00Z", 10)]
    assert invoke(store, "gaps", *until).exit_code == 0
    journal.close()


def test_what_the_next_start_does_not_include_is_left(store: LakeStore) -> None:
    """After a start without a series, no candle of its pause is expected of it; all of the others are."""
    first = start_recorder(store, BTC, ETH, now_ms=at(0))
    confirm_series(store, first, BTC, ETH, now_ms=at(10))
    first.close()
    code, what, hint = line_of(invoke(store, "coverage", "--until", clock(70)))
    assert (code, what) == (1, "coverage: 120 candles of 2 series are missing without a reason")
    assert hint == f"lakewriter gaps --until {clock(70)} --lake {store.root}"
    second = start_recorder(store, BTC, now_ms=at(70))
    assert line_of(invoke(store, "coverage", "--until", clock(70)))[1] == (
        "coverage: 60 candles of 1 series are missing without a reason"
    )
    make_lake(store.root, [rest_candle(n) for n in range(10, 70)])
    assert invoke(store, "coverage", "--until", clock(70)).exit_code == 0
    second.close()


def test_a_pause_between_two_subscriptions_has_its_reason(store: LakeStore) -> None:
    """Only candles absent during the pause have the reason "left"."""
    journal = start_recorder(store, BTC, ETH, now_ms=at(0))
    confirm_series(store, journal, ETH, now_ms=at(10) + 100)
    confirm_series(store, journal, BTC, ETH, now_ms=at(30) + 100)
    make_lake(store.root, [rest_candle(n) for n in range(32, 40)] + [rest_candle(n, symbol="ETHUSDT") for n in range(10, 40)])  # fmt: skip
    confirm_series(store, journal, BTC, ETH, now_ms=at(40))
    btc = shown(store, "coverage")[0]
    assert (btc["expected"], btc["missing"], btc["explained"]) == (40, 22, 20)
    assert [(each["reason"], each["candles"]) for each in shown(store, "gaps")] == [
        ("left", 20), ("unexplained", 2)
    ]  # fmt: skip
    make_lake(store.root, [rest_candle(n) for n in (30, 31)])
    assert invoke(store, "coverage").exit_code == invoke(store, "gaps").exit_code == 0
    journal.close()


@pytest.mark.parametrize("reason", REASONS)
def test_left_on_purpose_stands_beside_other_reasons(store: LakeStore, reason: Reason) -> None:
    """Candles that the exchange lacks keep their reason; unhealable ones of a left range are "left"."""
    journal = start_recorder(store, BTC, now_ms=at(0))
    confirm_series(store, journal, ETH, now_ms=at(10))
    confirm_series(store, journal, BTC, ETH, now_ms=at(30))
    make_lake(store.root, [rest_candle(n) for n in range(30, 40)])
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 10, 30, reason)
    if reason == "pending":
        assert [each["reason"] for each in shown(store, "gaps", "--symbol", "BTCUSDT")] == ["pending"]
    recorder.die()
    kept = reason if reason in FINAL else "left"
    assert [each["reason"] for each in shown(store, "gaps", "--symbol", "BTCUSDT")] == [kept]
    assert invoke(store, "coverage", "--symbol", "BTCUSDT").exit_code == 0
    journal.close()


def test_a_recorder_that_died_is_noticed(store: LakeStore) -> None:
    """If a recorder died, the commands name it and the time when it was last seen."""
    journal = start_recorder(store, BTC, ETH, now_ms=at(0))
    confirm_series(store, journal, BTC, ETH, now_ms=at(9) + 1)
    kill_recorder(journal)
    until = ("--until", clock(20))
    code, what, hint = line_of(invoke(store, "coverage", *until))
    assert (code, what) == (1, "coverage: 20 candles of 2 series are missing without a reason")
    assert hint == f"lakewriter gaps --until {clock(20)} --lake {store.root}"
    code, what, hint = line_of(invoke(store, "gaps", *until))
    assert (code, what) == (1, "gaps: 20 candles in 2 gaps have no reason")
    assert hint == (
        "lakewriter record heals what the exchange still has; if it was left on purpose: "
        f"lakewriter unsubscribe spot:BTCUSDT:1m --lake {store.root}"
    )
    assert [(each["reason"], each["error"]) for each in shown(store, "gaps", *until)] == [
        ("unexplained", f"its recorder ({CONFIG}) was last seen 2024-06-30 00:09")
    ] * 2


def test_a_candle_from_the_future_makes_nothing_missing(store: LakeStore) -> None:
    """A candle and gaps a year ahead make no year of candles missing, and verify reports the candle.

    The command that verify shows removes it.
    """
    ahead = time.time_ns() // 60_000_000_000 + 365 * 24 * 60 - BEGIN_MS // MINUTE_MS
    store.merge(partition_at(BTC, at(ahead)), to_table([rest_candle(ahead)]))
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, ahead - 363 * 24 * 60, ahead, "unhealable")
    recorder.die()
    assert [(each["expected"], each["missing"]) for each in shown(store, "coverage")[:2]] == [(10, 0)] * 2
    assert invoke(store, "gaps").exit_code == 0
    code, what, hint = line_of(invoke(store, "verify", "--check", "candle"))
    assert (code, what) == (1, "verify: 1 finding")
    _, *command = hint.split()
    assert invoke(store, *command[:-1], "--yes").exit_code == 0
    assert invoke(store, "verify", "--check", "candle").exit_code == 0
    assert [each["present"] for each in shown(store, "coverage")[:2]] == [10, 10]


def test_unsubscribe_settles_what_no_start_will(store: LakeStore) -> None:
    """After `unsubscribe`, candles of a permanently ended recorder are not expected; a living one refuses it."""
    journal = start_recorder(store, BTC, ETH, now_ms=at(0))
    confirm_series(store, journal, BTC, ETH, now_ms=at(10))
    assert line_of(invoke(store, "unsubscribe", "spot:ETHUSDT:1m")) == (
        1,
        f"subscriptions: spot ETHUSDT 1m is recorded at this moment, by {CONFIG}",
        "take it out of the config, then reload the recorder (SIGHUP) or restart it",
    )
    journal.close()
    done = invoke(store, "unsubscribe", "spot:ETH*:1m", "spot:BTCUSDT:1m")
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        [
            f"spot {symbol} 1m is unsubscribed since 2024-06-30 00:{10 - MARGIN:02}"
            for symbol in ("BTCUSDT", "ETHUSDT")
        ],
    )
    for command in ("coverage", "gaps"):
        assert invoke(store, command, "--until", clock(70)).exit_code == 0
    assert line_of(invoke(store, "unsubscribe", "spot:ETHUSDT:1m")) == (
        2,
        "unsubscribe: no recorder of the lake subscribes to spot:ETHUSDT:1m",
        'lakewriter query "FROM subscriptions WHERE stop IS NULL"',
    )


def test_a_misspelt_symbol_is_a_finding(store: LakeStore) -> None:
    """A subscribed symbol that never had a candle exits 1 at once, with a reason and a next command."""
    journal = start_recorder(store, BTC, ETH, SOL, now_ms=at(9))
    record_instruments(
        store, "spot", [Instrument(each, "TRADING") for each in ("BTCUSDT", "ETHUSDT", "SOLUSDT")], at(9)
    )
    why = (
        "subscribed to since 2024-06-30 00:09, and never a candle came:"
        " spot does not list SOLUSD, but SOLUSDT"
    )
    answer = f"lakewriter query \"FROM subscriptions WHERE symbol = 'SOLUSD'\" --lake {store.root}"
    # A moment of the past: its first candle is not over yet.
    code, what, hint = line_of(invoke(store, "coverage", "--until", "2024-06-30T00:09:30Z"))
    assert (code, what, hint) == (
        1,
        f"coverage: 1 candles of 1 series are missing without a reason; spot SOLUSD 1m: {why}",
        answer,
    )
    assert line_of(invoke(store, "gaps", "--until", "2024-06-30T00:09:30Z")) == (
        1, f"gaps: 1 candles in 1 gaps have no reason; spot SOLUSD 1m: {why}", answer
    )  # fmt: skip
    sol, totals = shown(store, "coverage", "--symbol", "SOLUSD", "--until", clock(19))
    assert (sol["symbol"], sol["expected"], sol["present"], sol["percent"]) == ("SOLUSD", 10, 0, 0)
    assert totals["totals"]["never_came"] == 1  # type: ignore[index]
    for command in ("coverage", "gaps"):
        assert why in line_of(invoke(store, command))[1], "no moment was chosen"
        assert why in line_of(invoke(store, command, "--until", "now"))[1]
    assert rows_of_sql(store, "SELECT symbol, expected, present FROM coverage WHERE symbol = 'SOLUSD'") == [
        ("SOLUSD", 1, 0)
    ]
    assert rows_of_sql(store, "SELECT candles, reason, error FROM gaps") == [(1, "unexplained", why)]
    # Mended, it is no more.
    confirm_series(store, journal, BTC, ETH, Series("spot", "SOLUSDT", "1m"), now_ms=at(10))
    make_lake(store.root, [rest_candle(9, symbol="SOLUSDT")])
    for command in ("coverage", "gaps"):
        assert invoke(store, command).exit_code == 0
        assert invoke(store, command, "--until", clock(10)).exit_code == 0
    journal.close()
    assert invoke(store, "coverage", "--symbol", "SOLUSD").exit_code == 0


def test_a_recorder_that_has_just_begun_is_in_order(tmp_path: Path) -> None:
    """For a new recorder without due candles coverage exits 0; without a recorder it does not."""
    store = make_lake(tmp_path)
    journal = start_recorder(store, BTC, now_ms=time.time_ns() // 1_000_000)
    for until in ((), ("--until", "now")):
        done = invoke(store, "coverage", *until)
        assert (done.exit_code, done.stdout) == (0, "no candles yet\n")
    journal.close()
    assert line_of(invoke(store, "coverage", "--until", "now"))[0] == 1


def test_why_nothing_came(store: LakeStore) -> None:
    """A symbol without candles is reported when its first is due, with its status, but not before trading."""
    journal = start_recorder(store, SOL, now_ms=at(9))

    def why(minute: int) -> list[str]:
        found = series_coverage(store, PartitionFilter(symbols=("SOLUSD",)), CoverageMoment(at(minute)))
        return [each.never_came for each in found]

    since = "subscribed to since 2024-06-30 00:09, and never a candle came"
    for instruments in ([], [Instrument("SOLUSD", "TRADING")]):
        if instruments:
            record_instruments(store, "spot", instruments, at(9))
        assert why(9) == []
        assert why(10) == [since]
    record_instruments(store, "spot", [Instrument("SOLUSD", "BREAK")], at(10))
    assert why(10) == [f"{since}: spot SOLUSD does not trade (BREAK)"]
    record_instruments(store, "spot", [Instrument("SOLUSD", "PENDING_TRADING")], at(11))
    assert why(30) == []
    record_instruments(store, "spot", [Instrument("BTCUSDT", "TRADING")], at(12))
    assert why(30) == [f"{since}: spot does not list SOLUSD"]
    # A ledger's word that no symbol is called so changes nothing about that.
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 9, 12, "not_listed", SOL)
    assert why(30) == [f"{since}: spot does not list SOLUSD"]
    assert sum(each.candles for each in absent_candles(store, PartitionFilter(symbols=("SOLUSD",)), CoverageMoment(at(30)))) == 21  # fmt: skip
    recorder.die()
    journal.close()


def test_only_what_is_subscribed_to_has_to_last_until_now(store: LakeStore) -> None:
    """An imported or backfilled series that was never recorded ends with its last candle."""
    assert invoke(store, "coverage", "--until", clock(11)).exit_code == 1, "no subscription is known at all"
    journal = start_recorder(store, BTC, now_ms=at(9))
    assert [each["expected"] for each in shown(store, "coverage", "--until", clock(10))[:-1]] == [10, 10]
    make_lake(store.root, [rest_candle(10)])
    assert invoke(store, "coverage", "--until", clock(11)).exit_code == 0
    journal.close()


def test_a_series_is_expected_since_it_was_owed(store: LakeStore) -> None:
    """A series is expected since it was subscribed to and traded, not since its first candle."""
    journal = start_recorder(store, SOL, now_ms=at(2))
    store = make_lake(store.root, [rest_candle(n, symbol="SOLUSD") for n in range(8, 10)])
    only = ("--symbol", "SOLUSD")
    assert shown(store, "coverage", *only)[0]["expected"] == 2, "whether it traded is not known"
    confirm_series(store, journal, SOL, now_ms=at(10), owed={SOL: at(6) + 1})
    assert shown(store, "coverage", *only)[0]["expected"] == 4
    assert [(each["start"], each["candles"]) for each in shown(store, "gaps", *only)] == [
        ("2024-06-30T00:06:00Z", 2)
    ]
    journal.close()


def test_a_halt_that_goes_on_is_no_finding(store: LakeStore) -> None:
    """While its market lists a halted symbol as not trading, no candles are expected."""
    journal = start_recorder(store, BTC, now_ms=at(0))
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 10, 11, "exchange_halt")
    late = ("coverage", "--until", clock(50), "--symbol", "BTCUSDT")
    record_instruments(store, "spot", [Instrument("BTCUSDT", "HALT")], at(11))
    assert invoke(store, *late).exit_code == 0
    record_instruments(store, "spot", [Instrument("BTCUSDT", "TRADING")], at(49))
    assert invoke(store, *late).exit_code == 1
    recorder.die()
    journal.close()


class Story(NamedTuple):
    """A random history of a series, in thirty candles.

    Args:
        interval: the interval of the candles.
        present: the positions of the candles in the lake.
        told: gaps: first candle, end candle, reason.
        said: the candles at which its recorder subscribed and unsubscribed, in turn.
        alive: whether its recorder lives.
        until: the candle up to which it is expected; None for no such moment.
    """

    interval: str
    present: list[int]
    told: list[tuple[int, int, Reason]]
    said: list[float]
    alive: bool
    until: float | None


# At a candle's begin, within it, or a moment before its end.
MOMENTS = st.builds(lambda number, part: number + part, st.integers(0, 30), st.sampled_from([0, 0.5, 0.9999]))

STORIES = st.builds(
    Story,
    st.sampled_from(["1m", "1h", "1d"]),
    st.lists(st.integers(0, 30), unique=True, max_size=20),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(REASONS)), max_size=4),
    st.lists(MOMENTS, unique=True, max_size=5).map(sorted),
    st.booleans(),
    st.none() | st.builds(lambda moment, more: moment + more, MOMENTS, st.integers(0, 15)),
)


@examples(12, 80)
@given(STORIES)
def test_gaps_and_coverage_agree(tmp_path_factory: pytest.TempPathFactory, story: Story) -> None:
    """`gaps` and `coverage` agree on the missing candles, and on those without a reason."""
    series = Series("spot", "BTCUSDT", story.interval)
    length_ms = series.grid.length_ms

    def moment_of(candles: float) -> int:
        return BEGIN_MS + int(candles * length_ms)

    root = tmp_path_factory.mktemp("lake")
    store = make_lake(root, [rest_candle(n, interval=story.interval) for n in story.present])
    recorder = LivingRecorder(store.root)
    for low, high, reason in story.told:
        recorder.ledger.mark(series, moment_of(low), moment_of(high), reason, moment_of(31))
    recorder.write()
    journal = start_recorder(store, ETH, now_ms=BEGIN_MS)
    for number, said in enumerate(story.said):
        confirm_series(store, journal, *([series] if number % 2 == 0 else []), ETH, now_ms=moment_of(said))
    if not story.alive:
        recorder.die()
        kill_recorder(journal)
    wanted = PartitionFilter(symbols=("BTCUSDT",))
    moment = CoverageMoment(None if story.until is None else moment_of(story.until))
    days = [day for each in series_coverage(store, wanted, moment) for day in each.days]
    gaps = list(absent_candles(store, wanted, moment))
    # What is left for good is a gap, and expected by no day.
    left_for_good_ms = moment_of(int(story.said[-1])) if story.said and len(story.said) % 2 == 0 else None
    trailing = sum(
        each.candles
        for each in gaps
        if each.reason == "left" and left_for_good_ms is not None and each.start_ms >= left_for_good_ms
    )
    missing = sum(day.missing for day in days)
    assert missing <= sum(each.candles for each in gaps) <= missing + trailing
    without_reason = sum(each.candles for each in gaps if not each.has_reason)
    assert sum(day.without_reason for day in days) == without_reason
    ranges = sorted((each.start_ms, each.stop_ms) for each in gaps)
    assert all(one[1] <= other[0] for one, other in pairwise(ranges))
    begins = {begin_ms for each in ranges for begin_ms in series.grid.grid(*each)}
    assert not begins & {moment_of(number) for number in story.present}
    assert sum(each.candles for each in gaps) == len(begins)
    if story.alive:
        recorder.die()
        kill_recorder(journal)
