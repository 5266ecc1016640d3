"""The gate for connection attempts, with times passed in and in virtual time."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.connect_limiter import ATTEMPTS_MAX, WINDOW_S, ConnectAttempts, ConnectGate
from support import virtual_time
from support.virtual_time import VirtualClock


def test_the_default_stays_below_what_the_exchange_documents() -> None:
    """The defaults allow fewer attempts than spot's 300 in 5 minutes."""
    assert (ATTEMPTS_MAX, WINDOW_S) == (250, 300.0)


def test_attempts_pass_a_little_apart() -> None:
    """The first attempt passes at once, the next one shortly later."""
    attempts = ConnectAttempts(10, 300, 0.5)
    assert attempts.next_allowed_s() < 0
    attempts.record_attempt(100.0)
    assert attempts.next_allowed_s() == 100.5


def test_a_full_window_waits_for_its_oldest_attempt() -> None:
    """In a full window, the next attempt waits until the oldest one leaves it."""
    attempts = ConnectAttempts(3, 300, 0)
    for now_s in (0.0, 10.0, 20.0):
        assert attempts.next_allowed_s() <= now_s
        attempts.record_attempt(now_s)
    assert attempts.next_allowed_s() == 300
    attempts.record_attempt(300)
    assert attempts.next_allowed_s() == 310


def test_a_held_gate_lets_nobody_pass_and_is_never_held_for_less() -> None:
    """The longest block counts, and only the first of several is logged."""
    attempts = ConnectAttempts(3, 300, 0)
    assert attempts.block(0, 60)
    assert not attempts.block(1, 120)
    assert not attempts.block(2, 30)
    assert attempts.next_allowed_s() == 120
    assert attempts.block(120, 121)


@given(
    st.integers(1, 8),
    st.floats(0, 2),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 40)), max_size=60),
)
def test_no_window_has_more_attempts_than_allowed(
    attempts_max: int, apart_s: float, asked: list[tuple[float, float]]
) -> None:
    """Attempts that wait for `next_allowed_s` keep every rule, with any blocks in between."""
    attempts = ConnectAttempts(attempts_max, 30, apart_s)
    now_s, passed, holds = 0.0, [], []
    for pause_s, hold_s in asked:
        now_s += pause_s
        if hold_s > 20:
            attempts.block(now_s, now_s + hold_s)
            holds.append((now_s, now_s + hold_s))
        now_s = max(now_s, attempts.next_allowed_s())
        attempts.record_attempt(now_s)
        passed.append(now_s)
    for first, last in zip(passed, passed[attempts_max:], strict=False):
        assert last >= first + 30
    for one, other in itertools.pairwise(passed):
        assert other >= one + apart_s
    assert not any(start < at_s < stop for at_s in passed for start, stop in holds)


def test_those_who_wait_pass_in_their_order_and_not_too_many() -> None:
    """Of six waiting attempts three pass now and three in the next window, in order."""

    async def main() -> None:
        clock = VirtualClock()
        gate = ConnectGate(3, 300.0, apart_s=1.0, clock=clock)
        start_s = clock.monotonic_s()
        passed: list[tuple[int, float]] = []

        async def one(number: int) -> None:
            await gate.acquire()
            passed.append((number, clock.monotonic_s() - start_s))

        await asyncio.gather(*(one(number) for number in range(6)))
        assert passed == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 300.0), (4, 301.0), (5, 302.0)]

    virtual_time.run(main())


def test_a_gate_can_be_held_while_somebody_waits(caplog: pytest.LogCaptureFixture) -> None:
    """A block extends present waits, and its reason is logged once."""

    async def main() -> None:
        clock = VirtualClock()
        gate = ConnectGate(10, 300.0, apart_s=1.0, clock=clock)
        await gate.acquire()
        start_s = clock.monotonic_s()
        waiting = asyncio.create_task(gate.acquire())
        await asyncio.sleep(0)
        gate.block(30.0, "spot #1: handshake refused with 429: too many attempts")
        gate.block(30.0, "spot #2: handshake refused with 429: too many attempts")
        await waiting
        assert clock.monotonic_s() - start_s == 30.0

    virtual_time.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "spot #1: handshake refused with 429: too many attempts; no connection to its host is tried for 30 s"
    ]


def test_who_gives_up_waiting_is_in_nobodys_way() -> None:
    """A cancelled attempt uses no place in the window."""

    async def main() -> None:
        clock = VirtualClock()
        gate = ConnectGate(10, 300.0, apart_s=1.0, clock=clock)
        await gate.acquire()
        start_s = clock.monotonic_s()
        gone, stays = asyncio.create_task(gate.acquire()), asyncio.create_task(gate.acquire())
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        assert gone.cancelled()
        assert clock.monotonic_s() - start_s == 1.0

    virtual_time.run(main())
