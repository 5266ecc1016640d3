"""The budget of request weight of one pool: who may ask, and when. Pure.

Rule 1: in any 60 seconds no more is spent than a share of what the exchange
allows, so that it holds whenever its minutes begin; whoever shares a tally
counts as one. Rule 2: what others on this address spend is known from the
exchange's answers and counts too. Rule 3: when one is told to wait, all wait.

Times are told, in seconds of the monotonic clock, which the processes of one
boot have in common; a wait outlives the boot by the wall clock.
"""

import math
from typing import Annotated

import msgspec

WINDOW_S = 60.0

# After a wait one request goes ahead; without an answer another follows.
PROBE_S = 20.0
_NAP_S = 0.1

# A part is left to others on the same address, and to requests on their way.
SHARE = 0.75

# Of that, what need not be done now may take so much.
BACKGROUND_SHARE = 0.5

# Nobody is held for longer, whatever a header, a file or a clock says: the
# exchange's longest ban.
HOLD_MAX_S = 3 * 86_400.0

# Of so many boots what they spent is kept: the last ones, or machines that share a disk.
BOOTS_MAX = 3

# A wait that another boot left is news if it ends so much later than ours.
_LATER_S = 1.0

# What is kept is believed within reason: more weight than any limit, three centuries of uptime.
_WEIGHT_MAX = 10**6
_Weight = Annotated[int, msgspec.Meta(ge=0, le=_WEIGHT_MAX)]
_Second = Annotated[int, msgspec.Meta(ge=0, le=10**10)]
_Spent = Annotated[dict[_Second, _Weight], msgspec.Meta(max_length=64)]


class WeightUse(msgspec.Struct, omit_defaults=True):
    """What was spent in the last minute, and who was told to wait, in one boot.

    Args:
        spent: second → weight; a second counts until all of it is a minute old.
        others: what others on this address spent.
        others_until_s: until when that counts.
        held_until_s: until when nothing may be spent.
        held_until_unix_s: the same by the wall clock, for the next boot.
        doubtful: whether nobody was answered since.
        probed_s: when somebody went ahead; None if nobody did.
    """

    spent: _Spent = {}
    others: _Weight = 0
    others_until_s: float = 0.0
    held_until_s: float = 0.0
    held_until_unix_s: float = 0.0
    doubtful: bool = False
    probed_s: float | None = None

    def forget(self, now_s: float) -> None:
        """Let go of what is over, and of what cannot be: it is of another time."""
        oldest = now_s - WINDOW_S - 1
        if any(not oldest < second <= now_s for second in self.spent):
            self.spent = {second: each for second, each in self.spent.items() if oldest < second <= now_s}
        if self.others and not now_s < self.others_until_s <= now_s + WINDOW_S:
            self.others, self.others_until_s = 0, 0.0
        self.held_until_s = min(self.held_until_s, now_s + HOLD_MAX_S)
        if self.probed_s is not None and self.probed_s > now_s:
            self.probed_s = None

    def take_over(self, other: "WeightUse", now_s: float) -> None:
        """Count what a copy of this, which went its own way for a while, has more."""
        for second, weight in other.spent.items():
            self.spent[second] = max(weight, self.spent.get(second, 0))
        if other.held_until_s > max(now_s, self.held_until_s):
            self.held_until_s, self.held_until_unix_s = other.held_until_s, other.held_until_unix_s
            self.doubtful, self.probed_s = True, None
        self.forget(now_s)


class WeightBudget:
    """Lets spend what a tally leaves.

    Args:
        weight_max: what the exchange allows in a minute.
        tally: what was spent; changed here.
        share: how much of it may be used.
    """

    def __init__(self, weight_max: int, tally: WeightUse | None = None, *, share: float = SHARE) -> None:
        self.tally = tally or WeightUse()
        self._allowed = weight_max * share

    def wait_s(self, weight: int, now_s: float, *, background: bool = False) -> float:
        """Return how long to wait before so much may be spent; 0 if it may be now."""
        tally = self.tally
        tally.forget(now_s)
        if now_s < tally.held_until_s:
            return tally.held_until_s - now_s
        if tally.doubtful and tally.probed_s is not None and now_s < tally.probed_s + PROBE_S:
            return _NAP_S
        counted = sum(tally.spent.values()) + tally.others
        excess = counted + weight - self._allowed * (BACKGROUND_SHARE if background else 1.0)
        if excess <= 0 or not counted:
            return 0.0  # what is larger than all that is allowed goes alone
        over = [(second + 1 + WINDOW_S, each) for second, each in tally.spent.items()]
        free_s = now_s
        for over_s, each in sorted([*over, (tally.others_until_s, tally.others)]):
            excess -= each
            free_s = over_s
            if excess <= 0:
                break
        return max(0.001, free_s - now_s)

    def spend(self, weight: int, now_s: float) -> None:
        """Count what is asked now."""
        second = math.floor(now_s)
        self.tally.spent[second] = min(self.tally.spent.get(second, 0) + weight, _WEIGHT_MAX)
        if self.tally.doubtful:
            self.tally.probed_s = now_s

    def answered(self, asked_s: float) -> None:
        """Learn that somebody was answered who asked then: after a wait nobody has to hold back."""
        if asked_s >= self.tally.held_until_s:
            self.tally.doubtful, self.tally.probed_s = False, None

    def told(self, used: int, now_s: float) -> None:
        """Learn what the exchange has counted in its minute, ours included."""
        self.tally.forget(now_s)
        others = max(0, min(used, _WEIGHT_MAX) - sum(self.tally.spent.values()))
        self.tally.others, self.tally.others_until_s = others, now_s + WINDOW_S if others else 0.0

    def hold(self, seconds: float, now_s: float, wall_s: float) -> None:
        """Spend nothing for so long."""
        tally = self.tally
        tally.held_until_s = max(tally.held_until_s, now_s + seconds)
        tally.held_until_unix_s = max(tally.held_until_unix_s, wall_s + seconds)
        tally.doubtful, tally.probed_s = True, None

    def held_s(self, now_s: float) -> float:
        """Return for how long nothing may be spent."""
        return max(0.0, self.tally.held_until_s - now_s)


class WeightBook(msgspec.Struct):
    """What is kept of one pool beyond the life of a process.

    Args:
        boots: by the boot's name, the last one that came last.
    """

    boots: Annotated[dict[str, WeightUse], msgspec.Meta(max_length=BOOTS_MAX)] = {}

    def tally(self, boot: str, now_s: float, wall_s: float) -> WeightUse:
        """Return the tally of this boot; a wait that another boot left goes on in it."""
        if boot not in self.boots:
            self.boots = dict([*self.boots.items()][1 - BOOTS_MAX :])
            self.boots[boot] = WeightUse()
        tally = self.boots[boot]
        tally.forget(now_s)
        for name, other in self.boots.items():
            if name == boot:
                continue
            # A wall clock that was set back must not hold us for years.
            other.held_until_unix_s = min(other.held_until_unix_s, wall_s + HOLD_MAX_S)
            until_s = now_s + other.held_until_unix_s - wall_s
            if until_s > max(now_s, tally.held_until_s) + _LATER_S:
                WeightBudget(0, tally).hold(until_s - now_s, now_s, wall_s)
        return tally


_decode = msgspec.json.Decoder(WeightBook).decode
_encode = msgspec.json.Encoder().encode


def parse_book(data: bytes) -> WeightBook:
    """Return what was kept; an empty book of no bytes.

    Raises:
        ValueError: if that is no book.
    """
    try:
        return _decode(data) if data else WeightBook()
    except RecursionError as error:
        raise ValueError(str(error)) from None


def render_book(book: WeightBook) -> bytes:
    """Return the bytes to keep: one line."""
    return _encode(book) + b"\n"
