"""The words for the ends of connections: each error of a connection has one."""

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidMessage
from websockets.frames import Close

from lakewriter.binance.frame_connection import StreamError
from lakewriter.binance.handshake_errors import TooManyStreamsError, handshake_error
from lakewriter.errors import ExchangeError
from lakewriter.recording.listening.reopening import REASONS, reason_of


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (None, "closed"),
        (ConnectionClosedOK(Close(1001, ""), None), "closed"),
        (ConnectionClosedError(None, None), "lost"),
        (ConnectionClosedError(Close(1008, ""), None), "rule_broken"),
        (TooManyStreamsError("no", 1), "rule_broken"),
        (handshake_error(503, None), "refused"),
        (StreamError("silent", "no pong"), "silent"),
        (StreamError("no_reply", "no answer"), "no_reply"),
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(), "network"),
        (ExchangeError("a proxy"), "broken"),
        (InvalidMessage("no HTTP"), "broken"),
    ],
    ids=str,
)
def test_each_end_has_its_word(error: BaseException | None, word: str) -> None:
    """The word tells who ended the connection, and is one of the known words."""
    assert reason_of(error) == word
    assert word in REASONS
