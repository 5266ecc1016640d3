"""The limit of connection attempts to one host.

Rule 1: in any window no more attempts are made than the exchange allows. Rule 2:
attempts are made one by one, in the order of their requests, at least 50 ms apart.
Rule 3: while the exchange imposes a block, no attempt is made.

`ConnectAttempts` counts; its time is passed in. `ConnectGate` waits.
"""

import asyncio
import logging
import math
from collections import deque
from typing import NamedTuple

from lakewriter.clock import Clock

log = logging.getLogger(__name__)

# Source: binance-spot-api-docs, web-socket-streams.md: 300 attempts in 5 minutes
# from one address. The futures' documents name no limit. The rest is left to other programs
# at the same address.
ATTEMPTS_MAX = 250
WINDOW_S = 300.0

# Minimum time between two attempts: a hundred connections must not be opened at once.
APART_S = 0.05


class GateState(NamedTuple):
    """The state of a gate, for the next process.

    Args:
        held_s: rest of the block, in seconds.
        ages_s: ages of attempts, in seconds.
    """

    held_s: float
    ages_s: list[float]


class ConnectAttempts:
    """The attempts in the last window, and the time of the next attempt. Pure.

    Args:
        attempts_max: maximum number of attempts in any window.
        window_s: length of the window, in seconds.
        apart_s: minimum time between two attempts, in seconds.
    """

    def __init__(self, attempts_max: int, window_s: float, apart_s: float = APART_S) -> None:
        self._made_s: deque[float] = deque(maxlen=attempts_max)
        self._window_s = window_s
        self._apart_s = apart_s
        self._blocked_until_s = -math.inf

    def next_allowed_s(self) -> float:
        """Return the monotonic time of the next allowed attempt."""
        allowed_s = self._blocked_until_s
        if self._made_s:
            allowed_s = max(allowed_s, self._made_s[-1] + self._apart_s)
        if len(self._made_s) == self._made_s.maxlen:
            allowed_s = max(allowed_s, self._made_s[0] + self._window_s)
        return allowed_s

    def record_attempt(self, now_s: float) -> None:
        """Count an attempt."""
        self._made_s.append(now_s)

    def block(self, now_s: float, until_s: float) -> bool:
        """Block attempts before `until_s`; return whether they were not blocked before."""
        is_new = self._blocked_until_s <= now_s
        self._blocked_until_s = max(self._blocked_until_s, until_s)
        return is_new

    def blocked_s(self, now_s: float) -> float:
        """Return the rest of the block in seconds; 0 if attempts are not blocked."""
        return max(0.0, self._blocked_until_s - now_s)

    def ages_s(self, now_s: float) -> list[float]:
        """Return the ages of the attempts in the last window, the oldest first."""
        return [now_s - made_s for made_s in self._made_s if now_s - made_s < self._window_s]


class ConnectGate:
    """The gate that all connection attempts to one host go through.

    Args:
        attempts_max: maximum number of attempts in any window.
        window_s: length of the window, in seconds.
        apart_s: minimum time between two attempts, in seconds.
        clock: measures waits.
    """

    def __init__(
        self,
        attempts_max: int = ATTEMPTS_MAX,
        window_s: float = WINDOW_S,
        *,
        apart_s: float = APART_S,
        clock: Clock | None = None,
    ) -> None:
        self._attempts = ConnectAttempts(attempts_max, window_s, apart_s)
        self._clock = clock or Clock()
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait until a connection may be opened, in the order of the calls."""
        async with self._turn:
            while True:
                now_s = self._clock.monotonic_s()
                wait_s = self._attempts.next_allowed_s() - now_s
                if wait_s <= 0:
                    break
                await asyncio.sleep(wait_s)  # a block may have begun during the wait
            self._attempts.record_attempt(now_s)

    def block(self, seconds: float, reason: str) -> None:
        """Block attempts for some seconds. Log the reason once, even if many attempts were refused together."""
        now_s = self._clock.monotonic_s()
        if self._attempts.block(now_s, now_s + seconds):
            log.warning("%s; no connection to its host is tried for %.0f s", reason, seconds)

    def export_state(self) -> GateState:
        """Return the state, for the gate of the next process."""
        now_s = self._clock.monotonic_s()
        return GateState(self._attempts.blocked_s(now_s), self._attempts.ages_s(now_s))

    def restore_state(self, state: GateState) -> None:
        """Add the state of an earlier process."""
        now_s = self._clock.monotonic_s()
        for age_s in sorted(state.ages_s, reverse=True):
            self._attempts.record_attempt(now_s - age_s)
        self._attempts.block(now_s, now_s + state.held_s)
