"""The exchange's limits on one caller.

The limits apply to messages per second, weight per minute, and connection attempts in
five minutes. Each limit counts and returns a verdict; the server refuses the call. Pure:
the time is passed in, in real seconds.
"""

import math
from collections import deque
from typing import NamedTuple

# The maximum weight per minute. Both futures markets share one pool since 2026-06-30.
WEIGHT_MAX = {"spot": 6000, "futures": 2400}

# The maximum connection attempts on one market. Source: documented for spot, 2023-02-17.
CONNECTS_MAX = 300
CONNECTS_WINDOW_S = 300.0

# The maximum refused calls in a row, without a wait between them. The next one causes a ban.
WEIGHT_VIOLATIONS_MAX = 3

# The seconds after a Retry-After in which a call is no violation. It may have been in
# flight. The shortest wait is a second. On a busy machine, a call may be in flight for most
# of it.
IN_FLIGHT_S = 0.9

# The latest refusals of a caller whose waits are checked.
_WAITS_MAX = 100

# The seconds of a ban. The exchange's first ban takes two minutes, the longest takes three days.
BAN_S = 2.0


class Verdict(NamedTuple):
    """The answer of `WeightLimit` to one call.

    Args:
        used: the weight used in this minute, including this call.
        status: 200, or the HTTP status of the refusal.
        wait_s: the value of Retry-After; 0 to send no Retry-After.
        violation: the broken limit: "weight", "ban" or "retry_after"; "" for an allowed call.
    """

    used: int
    status: int = 200
    wait_s: int = 0
    violation: str = ""


class _CallerState:
    """The state of one caller in one pool."""

    def __init__(self) -> None:
        self.minute = 0
        self.used = 0
        self.refused = 0
        self.banned_until_s = 0.0
        # The time of each refusal, and the end of the wait that it required.
        self.waits: deque[tuple[float, float]] = deque(maxlen=_WAITS_MAX)


class WeightLimit:
    """The used weight of each caller in this minute, by pool, and the waits required of each caller."""

    def __init__(self) -> None:
        self._callers: dict[tuple[str, str], _CallerState] = {}

    def spend(self, market: str, caller: str, weight: int, now_s: float) -> Verdict:
        """Count a call; return its verdict.

        Args:
            now_s: the time in real seconds; a minute begins at each multiple of 60.
        """
        state = self._state_of(market, caller)
        if state.minute != int(now_s // 60):
            state.minute, state.used, state.refused = int(now_s // 60), 0, 0
        state.used += weight
        if now_s < state.banned_until_s:
            return Verdict(state.used, 418, math.ceil(state.banned_until_s - now_s), "retry_after")
        if state.used > WEIGHT_MAX[_pool(market)]:
            return self._refuse(state, now_s)
        state.refused = 0
        # Each refusal counts by itself: its caller may not know it yet.
        too_soon = any(told_s + IN_FLIGHT_S <= now_s < until_s for told_s, until_s in state.waits)
        return Verdict(state.used, violation="retry_after" if too_soon else "")

    def require_wait(self, market: str, caller: str, now_s: float, until_s: float) -> None:
        """Start a wait: calls of this caller before `until_s` are violations."""
        state = self._state_of(market, caller)
        state.waits.append((now_s, until_s))

    def _refuse(self, state: _CallerState, now_s: float) -> Verdict:
        state.refused += 1
        if state.refused > WEIGHT_VIOLATIONS_MAX:
            state.refused = 0
            state.banned_until_s = now_s + BAN_S
            return Verdict(state.used, 418, math.ceil(BAN_S), "ban")
        return Verdict(state.used, 429, max(1, int(60 - now_s % 60) + 1), "weight")

    def _state_of(self, market: str, caller: str) -> _CallerState:
        return self._callers.setdefault((_pool(market), caller), _CallerState())


def _pool(market: str) -> str:
    return "spot" if market == "spot" else "futures"


class AttemptLimit:
    """The connection attempts of each caller on each market."""

    def __init__(self) -> None:
        self._times_s: dict[tuple[str, str], deque[float]] = {}

    def attempt(self, market: str, caller: str, now_s: float) -> int:
        """Count an attempt; return the seconds to wait, or 0 for an allowed attempt."""
        times_s = self._times_s.setdefault((market, caller), deque(maxlen=CONNECTS_MAX))
        if len(times_s) == CONNECTS_MAX and now_s - times_s[0] < CONNECTS_WINDOW_S:
            return math.ceil(times_s[0] + CONNECTS_WINDOW_S - now_s)
        times_s.append(now_s)
        return 0


class MessageRate:
    """The messages of one client within the last second."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque()

    def count(self, now_s: float) -> int:
        """Count a message; return the number of messages within the last second."""
        self._times_s.append(now_s)
        while self._times_s[0] <= now_s - 1:
            self._times_s.popleft()
        return len(self._times_s)
