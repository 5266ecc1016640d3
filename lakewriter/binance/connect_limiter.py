"""How often one host may be asked for a connection.

Rule 1: in any window no more attempts pass than the exchange allows. Rule 2:
they pass one by one, in the order they came, a little apart. Rule 3: while
the gate is held, because the exchange said so, nobody passes.

`ConnectAttempts` keeps the books and is told the time; `ConnectGate` waits.
"""

import asyncio
import logging
import math
from collections import deque
from typing import NamedTuple

from lakewriter.clock import Clock

log = logging.getLogger(__name__)

# Source: binance-spot-api-docs, web-socket-streams.md: 300 attempts in 5 minutes
# from one address; the futures document none. The rest is left to whatever else
# runs at the same address.
ATTEMPTS_MAX = 250
WINDOW_S = 300.0

# Between two attempts, so that a hundred connections do not knock at once.
APART_S = 0.05


class GateState(NamedTuple):
    """What a process leaves to the next one.

    Args:
        held_s: for how long nobody passes.
        ages_s: how long ago attempts were.
    """

    held_s: float
    ages_s: list[float]


class ConnectAttempts:
    """When attempts passed, and from when on the next one may. Pure.

    Args:
        attempts_max: in any window.
        window_s: its length.
        apart_s: between one attempt and the next.
    """

    def __init__(self, attempts_max: int, window_s: float, apart_s: float = APART_S) -> None:
        self._passed: deque[float] = deque(maxlen=attempts_max)
        self._window_s = window_s
        self._apart_s = apart_s
        self._held_until_s = -math.inf

    def free_s(self) -> float:
        """Return from when on another attempt may pass."""
        free_s = self._held_until_s
        if self._passed:
            free_s = max(free_s, self._passed[-1] + self._apart_s)
        if len(self._passed) == self._passed.maxlen:
            free_s = max(free_s, self._passed[0] + self._window_s)
        return free_s

    def passes(self, now_s: float) -> None:
        """Enter an attempt into the books."""
        self._passed.append(now_s)

    def hold(self, now_s: float, until_s: float) -> bool:
        """Let nobody pass before that; tell whether somebody could have until now."""
        news = self._held_until_s <= now_s
        self._held_until_s = max(self._held_until_s, until_s)
        return news

    def held_s(self, now_s: float) -> float:
        """Return for how long nobody passes."""
        return max(0.0, self._held_until_s - now_s)

    def ages_s(self, now_s: float) -> list[float]:
        """Return how long ago the attempts of the last window were, the oldest first."""
        return [now_s - passed_s for passed_s in self._passed if now_s - passed_s < self._window_s]


class ConnectGate:
    """The gate that all connection attempts to one host go through.

    Args:
        attempts_max: in any window.
        window_s: its length, in seconds.
        apart_s: between one attempt and the next.
        clock: for waiting.
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

    async def enter(self) -> None:
        """Wait until a connection may be tried; first come, first served."""
        async with self._turn:
            while True:
                now_s = self._clock.monotonic_s()
                wait_s = self._attempts.free_s() - now_s
                if wait_s <= 0:
                    break
                await asyncio.sleep(wait_s)  # and look again: the gate may have been held meanwhile
            self._attempts.passes(now_s)

    def hold(self, seconds: float, why: str) -> None:
        """Let nobody pass for so long; said once, however many were refused together."""
        now_s = self._clock.monotonic_s()
        if self._attempts.hold(now_s, now_s + seconds):
            log.warning("%s; no connection to its host is tried for %.0f s", why, seconds)

    def kept(self) -> GateState:
        """Return what the next process has to know."""
        now_s = self._clock.monotonic_s()
        return GateState(self._attempts.held_s(now_s), self._attempts.ages_s(now_s))

    def resume(self, kept: GateState) -> None:
        """Go on from what an earlier process did."""
        now_s = self._clock.monotonic_s()
        for age_s in sorted(kept.ages_s, reverse=True):
            self._attempts.passes(now_s - age_s)
        self._attempts.hold(now_s, now_s + kept.held_s)
