"""The meaning of a refused handshake, and the delay after it."""

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from lakewriter.binance.handshake_errors import (
    HandshakeRefusedError,
    TooManyStreamsError,
    broke_rule,
    handshake_error,
)
from lakewriter.errors import ExchangeError
from lakewriter.recording.listening.backoff import BACKOFF_MAX_S, RULE_BROKEN_S, Backoff


@pytest.mark.parametrize(
    ("status", "retry_after", "wait_s", "whole_host"),
    [
        (429, None, 60, True),
        (429, "7", 7, True),
        (429, "0", 1, True),
        (429, "soon", 60, True),
        (429, "nan", 60, True),
        (418, None, 120, True),
        (418, "99999999", 3 * 86_400, True),
        (429, "99999999", 3_600, True),
        (451, "86400", 3_600, True),
        (418, "inf", 120, True),
        (418, "1e9", 120, True),
        (418, "-5", 120, True),
        (418, "Wed, 21 Oct 2027 07:28:00 GMT", 120, True),
        (403, "7", 7, True),
        (403, None, 60, True),
        (451, None, 300, True),
        (404, None, 60, False),
        (400, "7", 60, False),
        (500, None, None, False),
        (503, "7", None, False),
        (302, None, None, False),
    ],
)
def test_each_status_has_its_wait(
    status: int, retry_after: str | None, wait_s: float | None, whole_host: bool
) -> None:
    """Retry-After sets the delay, within limits; a 5xx has no delay of its own."""
    error = handshake_error(status, retry_after)
    assert (error.status, error.wait_s, error.whole_host) == (status, wait_s, whole_host)
    assert str(error).startswith(f"handshake refused with HTTP {status}")


def test_a_region_that_is_not_served_is_told_what_to_do() -> None:
    """For 451 the log names the config's key for another endpoint."""
    assert str(handshake_error(451, None)) == (
        "handshake refused with HTTP 451: this region is not served; "
        "name an endpoint that may be used in lakewriter.toml, [markets.…] stream_url"
    )


def test_waits_double_up_to_the_ceiling_and_start_over() -> None:
    """Delays double with jitter up to the maximum, and start over after a good connection."""
    backoff = Backoff()
    for failure in range(100):
        ceiling_s = min(BACKOFF_MAX_S, 0.5 * 2**failure)
        assert 0.1 * ceiling_s <= backoff.next_s(ExchangeError("gone")) <= ceiling_s
    backoff.reset()
    assert backoff.next_s() <= 0.5


def test_who_broke_a_rule_waits_longer() -> None:
    """After a close with 1008, or too many streams, the delay is at least 5 s."""
    policy = ConnectionClosedError(Close(1008, "Too many requests"), None)
    assert broke_rule(policy)
    assert Backoff().next_s(policy) == RULE_BROKEN_S
    assert Backoff().next_s(TooManyStreamsError("Too many subscriptions", 0)) == RULE_BROKEN_S
    assert Backoff(0.1).next_s(policy) == 0.1
    for code in (1000, 1001):
        assert Backoff().next_s(ConnectionClosedError(Close(code, ""), None)) <= 0.5
    assert Backoff().next_s(ConnectionClosedError(None, None)) <= 0.5  # 1006
    assert Backoff().next_s(HandshakeRefusedError("as told", 429, 77.0, whole_host=True)) == 77.0
