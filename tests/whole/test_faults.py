"""Every fault of the exchange, each with a recorder that runs against it.

The faults run at the same time, each with its own exchange at 120 times speed. One test
for each fault checks its outcome: each candle of the truth is in the lake, or in the
ledger with the right reason, and no limit was broken.
"""

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from lakewriter.binance.socket import Timeouts
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.recording.supervisor import SupervisorOptions
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import SandboxOptions, serve
from lakewriter.series import Series
from support.recording import Account, Recording, account, recording
from support.running import until
from support.stream_libraries import LAST_ONLY_PARAMS, reading_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPEED = 120.0
# Half a second of real time, for this machine has more to do.
OPTIONS = SupervisorOptions(
    grace_ms=60_000, list_every_s=1.5, timeouts=Timeouts(ping_after_s=0.5, pong_s=0.5, prove_s=1.0)
)
SPOT = "spot:BTCUSDT,ETHUSDT:1m"

# Minutes from the first whole minute: faults begin after 3, and the account is settled at 14.
BEGIN, END, ALL = 3, 9, 14


class Outcome(NamedTuple):
    """The results of a scenario."""

    accounts: dict[Series, Account]
    recording: Recording
    start_ms: int

    def minutes(self, reason: str) -> dict[str, set[int]]:
        """Return, by symbol, which minutes have a reason."""
        return {
            series.symbol: {
                (begin_ms - self.start_ms) // MINUTE_MS
                for begin_ms, why in each.reasons.items()
                if why == reason
            }
            for series, each in self.accounts.items()
        }


class Scenario(NamedTuple):
    """A failure, and what a recording has to make of it.

    Args:
        faults: from BEGIN to END; a stop of -1 means for good.
        check: what has to hold, beside that each missing candle has a reason.
        explained: reasons that the ledger may have.
        until: a condition for which the recording continues beyond END.
    """

    faults: tuple[Fault, ...]
    check: Callable[[Outcome], bool]
    explained: frozenset[str] = frozenset()
    subscriptions: tuple[str, ...] = (SPOT,)
    options: SupervisorOptions = OPTIONS
    streams_max: int = 1024
    until: Callable[[Recording], bool] = lambda _: True


def healed(outcome: Outcome) -> bool:
    return outcome.recording.supervisor.healer.stats.healed > 0


def streamed(outcome: Outcome) -> bool:
    """Return whether most candles came by the stream; on a busy machine some arrive after their deadline."""
    supervisor = outcome.recording.supervisor
    return supervisor.freshness.streamed.count > supervisor.freshness.healed.count


def reconnected(outcome: Outcome) -> bool:
    return any(each.stats.reconnects > 0 for each in outcome.recording.supervisor.listeners.values())


def replaced(outcome: Outcome) -> bool:
    return any(each.stats.replaced > 0 for each in outcome.recording.supervisor.listeners.values())


def rotated(outcome: Outcome) -> bool:
    return all(each.stats.rotations > 0 for each in outcome.recording.supervisor.listeners.values())


def unmoved(outcome: Outcome) -> bool:
    """Check that the exchange's time did not jump: no gap lies in the future, and no candle is too old."""
    supervisor, now_ms = outcome.recording.supervisor, outcome.recording.sandbox.now_ms()
    assert not [
        outcome.recording.clients[market].time.last_jump
        for market in supervisor.listeners
        if outcome.recording.clients[market].time.jumps
    ]
    assert max(supervisor.freshness.streamed.most, supervisor.freshness.healed.most) < 30 * MINUTE_MS
    assert not supervisor.healer.stats.unhealable
    assert all(gap.stop_ms <= now_ms for gap in supervisor.ledger.gaps())
    return True


def refused(outcome: Outcome) -> bool:
    """Return whether frames from the future were counted, and the real candles healed."""
    bad = sum(each.stats.bad_frames["ahead"] for each in outcome.recording.supervisor.listeners.values())
    return bad > 0 and healed(outcome) and unmoved(outcome)


def replacing(recording: Recording) -> bool:
    """Return whether a connection was replaced because its streams are silent."""
    return any(each.stats.replaced for each in recording.supervisor.listeners.values())


def doubted(outcome: Outcome) -> bool:
    """Return whether wrong times were counted like frames from the future, and changed nothing."""
    keepers = outcome.recording.supervisor.timekeepers.values()
    return all(each.doubted for each in keepers) and refused(outcome)


YEAR_S = 365 * 86_400.0
MUTE = Fault("missing_close")
LIAR = Fault("close_ahead", symbols=("ETHUSDT",), value=7200)

SCENARIOS = {
    "ack_then_silence": Scenario(
        (Fault("close_code", value=1006), Fault("ack_then_silence")),
        lambda it: healed(it) and reconnected(it),
    ),
    "silent_stream": Scenario(
        (Fault("silent_stream", symbols=("BTCUSDT",), stop_ms=-1),), healed, until=replacing
    ),
    # Whichever is noticed first: no pong, or streams that are silent.
    "stalled_socket": Scenario(
        (Fault("stalled_socket"),), lambda it: healed(it) and (reconnected(it) or replaced(it))
    ),
    "late_close": Scenario((Fault("late_close", value=90),), lambda it: True),
    "missing_close": Scenario((MUTE,), healed),
    "duplicate_close": Scenario((Fault("duplicate_close"),), streamed),
    "out_of_order_closes": Scenario((Fault("out_of_order_closes"),), lambda it: True),
    "close_ahead_an_hour": Scenario((Fault("close_ahead", symbols=("BTCUSDT",)),), refused),
    "close_ahead_a_year": Scenario((Fault("close_ahead", symbols=("BTCUSDT",), value=YEAR_S),), refused),
    "closes_all_ahead": Scenario((Fault("close_ahead", value=7200),), refused),
    "close_ahead_of_a_single_series": Scenario(
        (Fault("close_ahead"),), refused, subscriptions=("spot:BTCUSDT:1m",)
    ),
    # A frame in doubt makes the recorder ask for the time at once.
    "time_off": Scenario((Fault("time_off", value=3600), LIAR), doubted),
    "time_off_by_a_year": Scenario((Fault("time_off", value=-YEAR_S), LIAR), doubted),
    "time_microseconds": Scenario((Fault("time_microseconds"), LIAR), doubted),
    "silent_zero_trades": Scenario(
        (Fault("silent_zero_trades"),),
        lambda it: not replaced(it),
        subscriptions=("spot:BELBTC,1INCHUSDT:1m", "coin_futures:TRXUSD_PERP:1m"),
    ),
    "connection_age": Scenario(
        (Fault("connection_age", value=0.1),),
        # The first connection is made before the exchange's rate is known.
        lambda it: rotated(it) and streamed(it),
        # REST does not overtake the streams of a busy machine.
        options=OPTIONS._replace(rotate_after_ms=4 * MINUTE_MS, grace_ms=3 * MINUTE_MS),
        subscriptions=(SPOT, "usdt_futures:BTCUSDT,ETHUSDT:1m,5m"),
    ),
    "connection_cut": Scenario((Fault("connection_age", value=0.05),), reconnected),
    "server_shutdown": Scenario(
        (Fault("server_shutdown", value=2),), lambda it: rotated(it) and streamed(it)
    ),
    "close_1001": Scenario((Fault("close_code", value=1001),), reconnected),
    "close_1006": Scenario((Fault("close_code", value=1006),), reconnected),
    "close_1008": Scenario((Fault("close_code", value=1008),), reconnected),
    "too_many_messages": Scenario(
        (Fault("close_code", value=1001), Fault("fewer_messages", value=1)), lambda it: True
    ),
    "too_many_streams": Scenario(
        (Fault("close_code", value=1001), Fault("fewer_streams", value=5)),
        lambda it: True,
        subscriptions=("spot:*USDT:1m",),
    ),
    "handshake_403": Scenario(
        (Fault("close_code"), Fault("refuse_handshake", value=403, retry_after_s=1)), healed
    ),
    "handshake_418": Scenario(
        (Fault("close_code"), Fault("refuse_handshake", value=418, retry_after_s=1)), healed
    ),
    "handshake_429": Scenario(
        (Fault("close_code"), Fault("refuse_handshake", value=429, retry_after_s=1)), healed
    ),
    "handshake_451": Scenario((Fault("close_code"), Fault("refuse_handshake", value=451)), healed),
    "handshake_503": Scenario((Fault("close_code"), Fault("refuse_handshake", value=503)), healed),
    "rest_429": Scenario((MUTE, Fault("rest_status", value=429, retry_after_s=1)), healed),
    "rest_418": Scenario((MUTE, Fault("rest_status", value=418, retry_after_s=1)), healed),
    "rest_503": Scenario((MUTE, Fault("rest_status", value=503)), healed),
    "rest_lag": Scenario((MUTE, Fault("rest_lag", value=120)), healed),
    "rest_unsettled": Scenario(
        (MUTE, Fault("rest_unsettled", value=25)),
        healed,
        options=OPTIONS._replace(grace_ms=5_000),
    ),
    "rest_missing_rows": Scenario((Fault("rest_missing_rows"),), streamed),
    "rest_and_stream_missing": Scenario(
        (MUTE, Fault("rest_missing_rows")),
        lambda it: set().union(*it.minutes("exchange_halt").values()) >= set(range(BEGIN + 1, END - 1)),
        frozenset(["exchange_halt"]),
    ),
    "slow_rest": Scenario((MUTE, Fault("slow_rest", value=0.5)), healed),
    "exchange_halt": Scenario(
        (Fault("exchange_halt"),),
        lambda it: all(each == set(range(BEGIN, END)) for each in it.minutes("exchange_halt").values()),
        frozenset(["exchange_halt"]),
    ),
    "new_listing": Scenario(
        (Fault("new_listing", symbols=("ETHUSDT",)),),
        lambda it: len(it.accounts[Series("spot", "ETHUSDT", "1m")].present) == ALL - BEGIN,
        frozenset(["not_listed"]),
        subscriptions=("spot:*USDT:1m",),
        until=lambda it: Series("spot", "ETHUSDT", "1m") in it.supervisor.watermarks,
    ),
    "delisting": Scenario(
        (Fault("delisting", symbols=("ETHUSDT",), stop_ms=-1),),
        lambda it: it.minutes("delisted")["ETHUSDT"] != set(),
        frozenset(["delisted"]),
        subscriptions=("spot:*USDT:1m",),
        options=OPTIONS._replace(list_every_s=4),
    ),
}


def timed(fault: Fault, start_ms: int) -> Fault:
    return msgspec.structs.replace(
        fault,
        start_ms=start_ms + BEGIN * MINUTE_MS,
        stop_ms=None if fault.stop_ms == -1 else start_ms + END * MINUTE_MS,
    )


async def play(scenario: Scenario, lake: Path) -> Outcome:
    """Record through a scenario, and account for each candle."""
    async with serve(SandboxOptions(speed=SPEED, push_every_ms=250, symbols=30)) as sandbox:
        # What is listed is told before the recording begins; until then all is well.
        told = [sandbox.add_fault(timed(fault, sandbox.now_ms() + DAY_MS)) for fault in scenario.faults]
        async with recording(
            sandbox,
            lake,
            *scenario.subscriptions,
            options=scenario.options,
            endpoints=lambda market: msgspec.structs.replace(market, streams_max=scenario.streams_max),
        ) as running:
            start_ms = sandbox.now_ms() // MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS
            for fault_id in told:
                sandbox.remove_fault(fault_id)
            for fault in scenario.faults:
                sandbox.add_fault(timed(fault, start_ms))
            await running.past(start_ms + (ALL + 3) * MINUTE_MS)
            await until(lambda: scenario.until(running))
            await running.past(start_ms + (ALL + 3) * MINUTE_MS)
            listened = {
                each for listener in running.supervisor.listeners.values() for each in listener.series
            }
            listened |= {gap.series for gap in running.supervisor.ledger.gaps()}
        stop_ms = start_ms + ALL * MINUTE_MS
        accounts = {
            series: account(running.store, sandbox, series, start_ms, series.grid.floor(stop_ms))
            for series in sorted(listened)
        }
        assert not sandbox.violations, sandbox.violations
        return Outcome(accounts, running, start_ms)


@pytest.fixture(scope="module", params=LAST_ONLY_PARAMS)
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome | BaseException]:
    """Run all scenarios, some at a time."""
    at_once = asyncio.Semaphore(16)

    async def one(name: str) -> Outcome:
        async with at_once:
            return await play(SCENARIOS[name], tmp_path_factory.mktemp(name) / "lake")

    async def every() -> list[Outcome | BaseException]:
        return await asyncio.gather(*map(one, SCENARIOS), return_exceptions=True)

    with reading_by(request.param):
        return dict(zip(SCENARIOS, asyncio.run(every()), strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_fault(name: str, outcomes: dict[str, Outcome | BaseException]) -> None:
    """After the failure each candle is in the lake, or in the ledger with its reason."""
    outcome, scenario = outcomes[name], SCENARIOS[name]
    if isinstance(outcome, BaseException):
        traceback.print_exception(outcome)
        raise outcome
    for series, each in outcome.accounts.items():
        if name in ("new_listing", "delisting") and series.symbol == "ETHUSDT":
            accounted = each.present | each.reasons.keys()  # from its listing, to its end
            assert not any(min(accounted) < begin_ms < max(accounted) for begin_ms in each.silent)
            continue
        assert not each.silent, f"{series}: {sorted(each.silent)}"
        assert set(each.reasons.values()) <= scenario.explained, f"{series}: {each.reasons}"
    assert scenario.check(outcome), (
        outcome.recording.supervisor.healer.stats,
        [listener.stats for listener in outcome.recording.supervisor.listeners.values()],
        outcome.accounts,
    )
