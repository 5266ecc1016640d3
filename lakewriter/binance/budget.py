"""The budget of request weight of one pool: who may ask, and when. Pure.

Rule 1: in any 60 seconds no more is spent than a share of what the exchange
allows, so that it holds whenever its minutes begin. Rule 2: what others on
this address spend is known from the exchange's answers and counts too. Rule 3:
whoever is told to wait, waits.

Times are told, in seconds of the monotonic clock.
"""

import math
from collections import deque

WINDOW_S = 60.0

# After a wait one request goes ahead; without an answer another follows.
PROBE_S = 20.0
_NAP_S = 0.1

# A part is left to others on the same address, and to requests on their way.
SHARE = 0.75

# Of that, what need not be done now may take so much.
BACKGROUND_SHARE = 0.5


class WeightBudget:
    """What was spent in the last minute.

    Args:
        weight_max: what the exchange allows in a minute.
    """

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self._spent: deque[tuple[float, int]] = deque()
        self._own = 0
        self._others = 0
        self._others_until_s = 0.0
        self._held_until_s = 0.0
        self._doubtful = False
        self._probed_s = -math.inf

    def wait_s(self, weight: int, now_s: float, *, background: bool = False) -> float:
        """Return how long to wait before so much may be spent; 0 if it may be now."""
        if now_s < self._held_until_s:
            return self._held_until_s - now_s
        if self._doubtful and now_s < self._probed_s + PROBE_S:
            return _NAP_S
        self._forget(now_s)
        allowed = self._weight_max * SHARE * (BACKGROUND_SHARE if background else 1.0)
        others = self._others if now_s < self._others_until_s else 0
        excess = self._own + others + weight - allowed
        if excess <= 0 or not (self._spent or others):
            return 0.0  # what is larger than all that is allowed goes alone
        waits_s = [self._others_until_s - now_s] if others else []
        for spent_s, spent in self._spent:
            excess -= spent
            waits_s.append(spent_s + WINDOW_S - now_s)
            if excess <= 0:
                return max(waits_s[-1], 0.001)
        return max(0.001, *waits_s)

    def spend(self, weight: int, now_s: float) -> None:
        """Count what is asked now."""
        self._spent.append((now_s, weight))
        self._own += weight
        self._probed_s = now_s

    def answered(self) -> None:
        """Learn that somebody was answered: nobody has to hold back."""
        self._doubtful = False

    def told(self, used: int, now_s: float) -> None:
        """Learn what the exchange has counted in its minute, ours included."""
        self._forget(now_s)
        self._others = max(0, used - self._own)
        self._others_until_s = now_s + WINDOW_S

    def hold(self, seconds: float, now_s: float) -> None:
        """Spend nothing for so long."""
        self._held_until_s = max(self._held_until_s, now_s + seconds)
        self._doubtful = True
        self._probed_s = -math.inf

    def held_s(self, now_s: float) -> float:
        """Return for how long nothing may be spent."""
        return max(0.0, self._held_until_s - now_s)

    def _forget(self, now_s: float) -> None:
        while self._spent and self._spent[0][0] <= now_s - WINDOW_S:
            self._own -= self._spent.popleft()[1]
