"""The budget of request weight of one pool: which request may be sent, and when. Pure.

Rule 1: in any 60 seconds no more is spent than a share of what the exchange
allows, whenever its minutes begin; all users of one `WeightUse` together count
as one. Rule 2: the weight that other programs at this address spend is known
from the exchange's answers, and counts too. Rule 3: when one is blocked, all
are. Rule 4: background work stops at half of the share, but a tenth is its own
while it waits.

Times are passed in, in seconds of the monotonic clock, which the processes of
one boot have in common; a block outlives the boot by the wall clock.
"""

import math
from typing import Annotated

import msgspec

WINDOW_S = 60.0

# After a block one request goes ahead; without an answer another follows.
PROBE_S = 20.0
_NAP_S = 0.1

# The rest is left to other programs at the same address, and to requests on their way.
SHARE = 0.75

# Background work is sent while all work together takes at most this part of the share.
BACKGROUND_SHARE = 0.5

# The part of the share that is background work's own if other work takes more.
RESERVED_SHARE = 0.1

# Background work counts as waiting for this long after its last try.
RESERVED_S = 2.0

# The step, in seconds, in which the weight of background work is counted: the file stays small.
_STEP_S = 10

# The longest block, whatever a header, a file or a clock says: the exchange's longest ban.
HOLD_MAX_S = 3 * 86_400.0

# The boots whose use is kept: the last ones, or machines that share a disk.
BOOTS_MAX = 3

# A block from another boot counts if it ends this much later than ours.
_LATER_S = 1.0

# Limits of values in a file: more weight than any limit, three centuries of uptime.
_WEIGHT_MAX = 10**6
_Weight = Annotated[int, msgspec.Meta(ge=0, le=_WEIGHT_MAX)]
_Second = Annotated[int, msgspec.Meta(ge=0, le=10**10)]
_Spent = Annotated[dict[_Second, _Weight], msgspec.Meta(max_length=64)]


class WeightUse(msgspec.Struct, omit_defaults=True):
    """The weight spent in the last minute, and blocks by the exchange, in one boot.

    Args:
        spent: second → weight; a second counts until all of it is a minute old.
        others: the weight that other programs at this address spent.
        others_until_s: until when that counts.
        held_until_s: end of the block.
        held_until_unix_s: the same by the wall clock, for the next boot.
        doubtful: whether no request was answered since the block.
        probed_s: when a request went ahead; None if none did.
        background: start of ten seconds → weight of background work, part of `spent`.
        background_until_s: until when background work waits for its own share.
    """

    spent: _Spent = {}
    others: _Weight = 0
    others_until_s: float = 0.0
    held_until_s: float = 0.0
    held_until_unix_s: float = 0.0
    doubtful: bool = False
    probed_s: float | None = None
    background: _Spent = {}
    background_until_s: float = 0.0

    @property
    def total(self) -> int:
        """The weight that counts now, with that of other programs."""
        return sum(self.spent.values()) + self.others

    def drop_expired(self, now_s: float) -> None:
        """Drop entries that are expired, or in the future (written before a reboot)."""
        self.spent = _counting(self.spent, 1, now_s)
        self.background = _counting(self.background, _STEP_S, now_s)
        if self.others and not now_s < self.others_until_s <= now_s + WINDOW_S:
            self.others, self.others_until_s = 0, 0.0
        self.held_until_s = min(self.held_until_s, now_s + HOLD_MAX_S)
        self.background_until_s = min(self.background_until_s, now_s + RESERVED_S)
        if self.probed_s is not None and self.probed_s > now_s:
            self.probed_s = None

    def merge(self, other: "WeightUse", now_s: float) -> None:
        """Add the entries that a copy has in excess, after both changed apart."""
        for mine, others in ((self.spent, other.spent), (self.background, other.background)):
            for second, weight in others.items():
                mine[second] = max(weight, mine.get(second, 0))
        if other.held_until_s > max(now_s, self.held_until_s):
            self.held_until_s, self.held_until_unix_s = other.held_until_s, other.held_until_unix_s
            self.doubtful, self.probed_s = True, None
        self.drop_expired(now_s)


def _counting(spent: dict[int, int], step_s: int, now_s: float) -> dict[int, int]:
    """Return the entries of a step each that are not all a minute old, and not in the future."""
    oldest = now_s - WINDOW_S - step_s
    if all(oldest < second <= now_s and not second % step_s for second in spent):
        return spent
    return {
        second: weight for second, weight in spent.items() if oldest < second <= now_s and not second % step_s
    }


class WeightBudget:
    """Decides whether weight may be spent, by the weight spent before.

    Args:
        weight_max: the exchange's limit in a minute.
        use: the weight spent so far; changed here.
        share: how much of `weight_max` may be used.
    """

    def __init__(self, weight_max: int, use: WeightUse | None = None, *, share: float = SHARE) -> None:
        self.use = use or WeightUse()
        self._allowed = weight_max * share

    def wait_s(self, weight: int, now_s: float, *, background: bool = False) -> float:
        """Return how long to wait before this weight may be spent; 0 if it may be now."""
        use = self.use
        use.drop_expired(now_s)
        if now_s < use.held_until_s:
            return use.held_until_s - now_s
        if use.doubtful and use.probed_s is not None and now_s < use.probed_s + PROBE_S:
            return _NAP_S
        own_left = self._allowed * RESERVED_SHARE - sum(use.background.values())
        if not background:
            is_reserved = now_s < use.background_until_s
            return self._wait_below_s(
                self._allowed - (max(0.0, own_left) if is_reserved else 0.0), weight, now_s
            )
        wait_s = self._wait_below_s(self._allowed * BACKGROUND_SHARE, weight, now_s)
        if wait_s and weight <= own_left:
            wait_s = self._wait_below_s(self._allowed, weight, now_s)
            if wait_s:
                use.background_until_s = now_s + RESERVED_S
        return wait_s

    def spend(self, weight: int, now_s: float, *, background: bool = False) -> None:
        """Count the weight of a request that is sent now."""
        second = math.floor(now_s)
        _add(self.use.spent, second, weight)
        if background:
            _add(self.use.background, second // _STEP_S * _STEP_S, weight)
        if self.use.doubtful:
            self.use.probed_s = now_s

    def note_answered(self, asked_s: float) -> None:
        """Note that a request sent at `asked_s` was answered. If it was sent after the block, the block is over."""
        if asked_s >= self.use.held_until_s:
            self.use.doubtful, self.use.probed_s = False, None

    def note_used(self, used: int, now_s: float) -> None:
        """Note the weight that the exchange has counted in its minute, ours included."""
        self.use.drop_expired(now_s)
        others = max(0, min(used, _WEIGHT_MAX) - sum(self.use.spent.values()))
        self.use.others, self.use.others_until_s = others, now_s + WINDOW_S if others else 0.0

    def block(self, seconds: float, now_s: float, wall_s: float) -> None:
        """Allow no request for this time."""
        use = self.use
        use.held_until_s = max(use.held_until_s, now_s + seconds)
        use.held_until_unix_s = max(use.held_until_unix_s, wall_s + seconds)
        use.doubtful, use.probed_s = True, None

    def blocked_s(self, now_s: float) -> float:
        """Return for how long no request is allowed."""
        return max(0.0, self.use.held_until_s - now_s)

    def _wait_below_s(self, limit: float, weight: int, now_s: float) -> float:
        """Return how long to wait until this weight fits below a limit."""
        use = self.use
        excess = use.total + weight - limit
        if excess <= 0 or not use.total:
            return 0.0  # a request above the limit is sent alone
        expiring = [(second + 1 + WINDOW_S, spent) for second, spent in use.spent.items()]
        free_s = now_s
        for expires_s, spent in sorted([*expiring, (use.others_until_s, use.others)]):
            excess -= spent
            free_s = expires_s
            if excess <= 0:
                break
        return max(0.001, free_s - now_s)


def _add(spent: dict[int, int], second: int, weight: int) -> None:
    spent[second] = min(spent.get(second, 0) + weight, _WEIGHT_MAX)


class WeightBook(msgspec.Struct):
    """The use of one pool, kept beyond the life of a process.

    Args:
        boots: by the boot's id, the newest last.
    """

    boots: Annotated[dict[str, WeightUse], msgspec.Meta(max_length=BOOTS_MAX)] = {}

    def use(self, boot: str, now_s: float, wall_s: float) -> WeightUse:
        """Return the use of this boot; a block of another boot goes on in it."""
        if boot not in self.boots:
            self.boots = dict([*self.boots.items()][1 - BOOTS_MAX :])
            self.boots[boot] = WeightUse()
        use = self.boots[boot]
        use.drop_expired(now_s)
        for name, other in self.boots.items():
            if name == boot:
                continue
            # A wall clock that was set back must not block requests for years.
            other.held_until_unix_s = min(other.held_until_unix_s, wall_s + HOLD_MAX_S)
            until_s = now_s + other.held_until_unix_s - wall_s
            if until_s > max(now_s, use.held_until_s) + _LATER_S:
                WeightBudget(0, use).block(until_s - now_s, now_s, wall_s)
        return use


_decode = msgspec.json.Decoder(WeightBook).decode
_encode = msgspec.json.Encoder().encode


def parse_book(data: bytes) -> WeightBook:
    """Return the book in a file; an empty one if there are no bytes.

    Raises:
        ValueError: if the bytes are no book.
    """
    try:
        return _decode(data) if data else WeightBook()
    except RecursionError as error:
        raise ValueError(str(error)) from None


def render_book(book: WeightBook) -> bytes:
    """Return the bytes to keep: one line."""
    return _encode(book) + b"\n"
