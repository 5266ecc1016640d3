"""How the exchange says no to a connection, and how long it wants to be left alone. Pure.

A table from the status of a refused handshake to the wait, and the errors that
mean more than "try again".
"""

from typing import NamedTuple

from websockets.exceptions import ConnectionClosed

from lakewriter.binance.retry_after import retry_after_s
from lakewriter.binance.wire import quoted
from lakewriter.errors import ExchangeError

# The close code for whoever broke a rule: too many messages, too many streams.
POLICY_VIOLATION = 1008

# The error code of "Too many subscriptions"; it comes without an id, and the
# connection is closed after it.
TOO_MANY_SUBSCRIPTIONS = 4

# Any other 4xx: we ask for something wrong, and shall go on doing so.
_WRONG_S = 60.0


class _Rule(NamedTuple):
    meaning: str
    wait_s: float
    hint: str = ""


# Source: the general information of the REST and stream documents; 429 and 418
# come with the seconds to wait; so may the others.
_RULES = {
    403: _Rule("its firewall blocks us", 60.0),
    418: _Rule("this address is banned", 120.0),
    429: _Rule("too many attempts", 60.0),
    451: _Rule(
        "this region is not served",
        300.0,
        hint="name an endpoint that may be used in lakewriter.toml, [markets.…] stream_url",
    ),
}


class HandshakeRefusedError(ExchangeError):
    """The handshake was answered, but not by a connection.

    Args:
        status: the HTTP status.
        wait_s: how long to wait at least; None if nobody said so.
        whole_host: it holds for every connection to this host.
    """

    def __init__(self, what: str, status: int, wait_s: float | None, *, whole_host: bool) -> None:
        super().__init__(what)
        self.status = status
        self.wait_s = wait_s
        self.whole_host = whole_host


class TooManyStreamsError(ExchangeError):
    """The connection was to carry more streams than one may.

    Args:
        acknowledged: how many it had been granted.
    """

    def __init__(self, what: str, acknowledged: int) -> None:
        super().__init__(what)
        self.acknowledged = acknowledged


def refused(status: int, retry_after: str | None, location: str | None = None) -> HandshakeRefusedError:
    """Return what a refused handshake means.

    Args:
        retry_after: the header of that name, in seconds.
        location: the header of that name. A redirect is not followed.
    """
    rule = _RULES.get(status)
    if rule is not None:
        wait_s = retry_after_s(status, retry_after) or rule.wait_s
        hint = f"; {rule.hint}" if rule.hint else ""
        return HandshakeRefusedError(
            f"handshake refused with HTTP {status}: {rule.meaning}{hint}", status, wait_s, whole_host=True
        )
    wrong_s = _WRONG_S if 400 <= status < 500 else None
    moved = f": redirected to {quoted(location)}" if location and 300 <= status < 400 else ""
    return HandshakeRefusedError(
        f"handshake refused with HTTP {status}{moved}", status, wrong_s, whole_host=False
    )


def broke_rule(error: BaseException) -> bool:
    """Tell whether the exchange ended the connection because we broke one of its rules."""
    if isinstance(error, ConnectionClosed):
        return error.rcvd is not None and error.rcvd.code == POLICY_VIOLATION
    return isinstance(error, TooManyStreamsError)
