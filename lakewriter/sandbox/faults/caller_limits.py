"""What one caller may do: messages in a second, weight in a minute, connection attempts in five.

Machines that are told the time, in real seconds, and answer with a verdict;
they refuse nobody themselves.
"""

import math
from collections import deque
from typing import NamedTuple

# Weight in a minute. Both futures markets draw on one pool since 2026-06-30.
WEIGHT_MAX = {"spot": 6000, "futures": 2400}

# Connection attempts on one market. Source: documented for spot, 2023-02-17.
CONNECTS_MAX = 300
CONNECTS_WINDOW_S = 300.0

# Refused calls in a row, none of them waited for, that end in a ban.
WEIGHT_VIOLATIONS_MAX = 3

# A call that was on its way when its caller was told to wait breaks nothing. On a busy
# machine that takes most of the second that the shortest wait lasts.
CROSSING_S = 0.9

# The exchange's first ban takes two minutes, the longest three days.
BAN_S = 2.0


class Verdict(NamedTuple):
    """Whether a call is answered.

    Args:
        used: weight of this minute, with this call.
        status: 200, or the HTTP status it is refused with.
        wait_s: to be sent as Retry-After; 0 for none.
        broken: the limit it breaks: "weight", "ban", "retry_after", or "".
    """

    used: int
    status: int = 200
    wait_s: int = 0
    broken: str = ""


class _Caller:
    """What is known of one caller in one pool."""

    def __init__(self) -> None:
        self.minute = 0
        self.used = 0
        self.refused = 0
        self.banned_until_s = 0.0
        self.told_s = 0.0
        self.wait_until_s = 0.0


class WeightLimit:
    """The weight that each caller used in this minute, per pool, and who was told to wait."""

    def __init__(self) -> None:
        self._callers: dict[tuple[str, str], _Caller] = {}

    def spend(self, market: str, caller: str, weight: int, now_s: float) -> Verdict:
        """Count a call.

        Args:
            now_s: real seconds; a new minute begins with each 60.
        """
        known = self._caller(market, caller)
        if known.minute != int(now_s // 60):
            known.minute, known.used, known.refused = int(now_s // 60), 0, 0
        known.used += weight
        if now_s < known.banned_until_s:
            return Verdict(known.used, 418, math.ceil(known.banned_until_s - now_s), "retry_after")
        if known.used > WEIGHT_MAX[_pool(market)]:
            return self._overspent(known, now_s)
        known.refused = 0
        too_soon = known.told_s + CROSSING_S <= now_s < known.wait_until_s
        return Verdict(known.used, broken="retry_after" if too_soon else "")

    def tell_to_wait(self, market: str, caller: str, now_s: float, until_s: float) -> None:
        """Remember that a caller was told to wait; calling before breaks a limit."""
        known = self._caller(market, caller)
        if now_s >= known.wait_until_s:
            known.told_s = now_s
        known.wait_until_s = until_s

    def _overspent(self, known: _Caller, now_s: float) -> Verdict:
        known.refused += 1
        if known.refused > WEIGHT_VIOLATIONS_MAX:
            known.refused = 0
            known.banned_until_s = now_s + BAN_S
            return Verdict(known.used, 418, math.ceil(BAN_S), "ban")
        return Verdict(known.used, 429, max(1, int(60 - now_s % 60) + 1), "weight")

    def _caller(self, market: str, caller: str) -> _Caller:
        return self._callers.setdefault((_pool(market), caller), _Caller())


def _pool(market: str) -> str:
    return "spot" if market == "spot" else "futures"


class AttemptLimit:
    """The connection attempts of each caller on each market."""

    def __init__(self) -> None:
        self._times_s: dict[tuple[str, str], deque[float]] = {}

    def attempt(self, market: str, caller: str, now_s: float) -> int:
        """Count an attempt, and return the seconds to wait: 0 if it is within the limit."""
        times_s = self._times_s.setdefault((market, caller), deque(maxlen=CONNECTS_MAX))
        if len(times_s) == CONNECTS_MAX and now_s - times_s[0] < CONNECTS_WINDOW_S:
            return math.ceil(times_s[0] + CONNECTS_WINDOW_S - now_s)
        times_s.append(now_s)
        return 0


class Messages:
    """What one client sent within the last second."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque()

    def arrive(self, now_s: float) -> int:
        """Count a message, and return how many came within a second."""
        self._times_s.append(now_s)
        while self._times_s[0] <= now_s - 1:
            self._times_s.popleft()
        return len(self._times_s)
