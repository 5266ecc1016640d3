"""The errors of a refused handshake, and the time for which each blocks attempts. Pure.

A table maps the HTTP status to the delay. Some errors require more than a retry.
"""

from typing import NamedTuple

from websockets.exceptions import ConnectionClosed

from lakewriter.binance.retry_after import retry_after_s
from lakewriter.binance.wire import quoted
from lakewriter.errors import ExchangeError

# The close code for a broken rule, such as too many messages or too many streams.
POLICY_VIOLATION = 1008

# The error code of "Too many subscriptions". The answer has no id, and the exchange
# closes the connection after it.
TOO_MANY_SUBSCRIPTIONS = 4

# Delay after any other 4xx. The request is wrong, and the next one will be wrong too.
_OTHER_4XX_S = 60.0


class _Rule(NamedTuple):
    meaning: str
    wait_s: float
    hint: str = ""


# Source: the general information of the REST and stream documents. 429 and 418
# always carry Retry-After; other statuses may carry it.
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
    """A refused handshake.

    Args:
        status: the HTTP status.
        wait_s: the minimum delay of the next attempt, in seconds; None if the status has no rule.
        whole_host: whether the delay applies to every connection to this host.
    """

    def __init__(self, what: str, status: int, wait_s: float | None, *, whole_host: bool) -> None:
        super().__init__(what)
        self.status = status
        self.wait_s = wait_s
        self.whole_host = whole_host


class TooManyStreamsError(ExchangeError):
    """A refused subscription: the connection has too many streams.

    Args:
        acknowledged: number of streams that the exchange acknowledged before.
    """

    def __init__(self, what: str, acknowledged: int) -> None:
        super().__init__(what)
        self.acknowledged = acknowledged


def handshake_error(
    status: int, retry_after: str | None, location: str | None = None
) -> HandshakeRefusedError:
    """Return the error of a refused handshake.

    Args:
        retry_after: the Retry-After header, in seconds.
        location: the Location header. A redirect is not followed.
    """
    rule = _RULES.get(status)
    if rule is not None:
        wait_s = retry_after_s(status, retry_after) or rule.wait_s
        hint = f"; {rule.hint}" if rule.hint else ""
        return HandshakeRefusedError(
            f"handshake refused with HTTP {status}: {rule.meaning}{hint}", status, wait_s, whole_host=True
        )
    other_s = _OTHER_4XX_S if 400 <= status < 500 else None
    moved = f": redirected to {quoted(location)}" if location and 300 <= status < 400 else ""
    return HandshakeRefusedError(
        f"handshake refused with HTTP {status}{moved}", status, other_s, whole_host=False
    )


def broke_rule(error: BaseException) -> bool:
    """Return whether the exchange closed the connection because we broke one of its rules."""
    if isinstance(error, ConnectionClosed):
        return error.rcvd is not None and error.rcvd.code == POLICY_VIOLATION
    return isinstance(error, TooManyStreamsError)
