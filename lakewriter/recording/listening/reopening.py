"""The reasons for which a connection is reopened or replaced, each as one word for a counter. Pure."""

from websockets.exceptions import ConnectionClosed

from lakewriter.binance.frame_connection import StreamError
from lakewriter.binance.handshake_errors import HandshakeRefusedError, broke_rule

# The connection was replaced while it was open.
AGE = "age"
SHUTDOWN = "shutdown"
SILENT_STREAMS = "silent_streams"

# The words of `reason_of`. "broken" is also the word for every other error.
_ENDS = (
    "broken",
    "closed",
    "lost",
    "network",
    "no_reply",
    "refused",
    "refused_streams",
    "rule_broken",
    "silent",
    "timeout",
    "unread",
)

REASONS = (AGE, SHUTDOWN, SILENT_STREAMS, *_ENDS)


def reason_of(error: BaseException | None) -> str:
    """Return the word for the error that ended a connection; None is an end without an error."""
    if error is None:
        return "closed"
    if isinstance(error, StreamError):
        return error.kind
    if isinstance(error, HandshakeRefusedError):
        return "refused"
    if broke_rule(error):
        return "rule_broken"
    if isinstance(error, ConnectionClosed):
        return "lost" if error.rcvd is None else "closed"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "network" if isinstance(error, OSError) else "broken"
