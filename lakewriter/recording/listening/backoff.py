"""The delays between attempts of one connection."""

import random

from lakewriter.binance.handshake_errors import HandshakeRefusedError, broke_rule

# Full jitter under a doubling ceiling. At the ceiling of 30 s a connection makes
# about 20 attempts in 5 minutes. spot allows 300 attempts of all connections.
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0

# Minimum delay after the exchange closed a connection that broke a rule. Repeated breaks ban the address.
RULE_BROKEN_S = 5.0


class Backoff:
    """The delays of one connection that fails repeatedly.

    Args:
        max_s: the maximum delay, unless the exchange requests a longer one.
    """

    def __init__(self, max_s: float = BACKOFF_MAX_S) -> None:
        self._max_s = max_s
        self._failures = 0

    def reset(self) -> None:
        """Reset the delay to the shortest one."""
        self._failures = 0

    def next_s(self, error: BaseException | None = None) -> float:
        """Return the delay after one more failure, in seconds.

        Args:
            error: the failure. A delay that the exchange requested in it has precedence.
        """
        ceiling_s = min(self._max_s, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 16))
        delay_s = random.uniform(0.1, 1.0) * ceiling_s  # noqa: S311 - jitter
        self._failures += 1
        if isinstance(error, HandshakeRefusedError) and error.wait_s is not None:
            return error.wait_s
        if error is not None and broke_rule(error):
            return max(delay_s, min(RULE_BROKEN_S, self._max_s))
        return delay_s
