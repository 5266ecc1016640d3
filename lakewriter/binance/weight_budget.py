"""The budget of request weight of one pool: it decides when a request may be sent. Pure.

Rule 1: in any 60 seconds at most a share of the exchange's limit is spent,
whenever the exchange's minutes begin. All users of one `WeightUse` share this
budget. Rule 2: the weight that other programs at this address spend counts too.
The exchange's answers show it. Rule 3: a block applies to all users. Rule 4:
background work stops at half of the share, but a tenth is reserved for it while it
waits.

Times are passed in, in seconds of the monotonic clock, which all processes of one
boot share. The end of a block is also kept by the wall clock, for the next boot.
"""

import math
from typing import Annotated

import msgspec

WINDOW_S = 60.0

# After a block only one request is sent. Without an answer, the next one is sent after this time.
PROBE_S = 20.0
_NAP_S = 0.1

# The rest is left to other programs at the same address, and to requests in progress.
SHARE = 0.75

# Background work is sent while all work together spends at most this part of the share.
BACKGROUND_SHARE = 0.5

# The part of the share that is reserved for background work if other work spends more.
RESERVED_SHARE = 0.1

# Background work counts as waiting for this long after its last attempt.
RESERVED_S = 2.0

# Seconds in one entry of background weight. Longer entries keep the file small.
_STEP_S = 10

# Maximum block, for any value in a header, a file or a clock. It is the exchange's longest ban.
HOLD_MAX_S = 3 * 86_400.0

# Number of boots whose use is kept: the last ones, or those of machines that share a disk.
BOOTS_MAX = 3

# A block of another boot counts if it ends this much later than the block of this boot.
_LATER_S = 1.0

# Maximum values in a file: more weight than any limit, and three centuries of uptime.
_WEIGHT_MAX = 10**6
_Weight = Annotated[int, msgspec.Meta(ge=0, le=_WEIGHT_MAX)]
_Second = Annotated[int, msgspec.Meta(ge=0, le=10**10)]
_Spent = Annotated[dict[_Second, _Weight], msgspec.Meta(max_length=64)]


class WeightUse(msgspec.Struct, omit_defaults=True):
    """The weight spent in the last minute, and blocks by the exchange, in one boot.

    Args:
        spent: weight by second; a second counts until its end is a minute old.
        others: the weight that other programs at this address spent.
        others_until_s: time until which `others` counts.
        held_until_s: end of the block, by the monotonic clock.
        held_until_unix_s: end of the block by the wall clock, for the next boot.
        doubtful: whether no request was answered since the block.
        probed_s: time of the last request after the block, if it has no answer yet; otherwise None.
        background: weight of background work by start of ten seconds; part of `spent`.
        background_until_s: time until which weight is reserved for background work.
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
        """The weight that counts now, including the weight of other programs."""
        return sum(self.spent.values()) + self.others

    def total_at(self, now_s: float) -> int:
        """Return the weight that counts at a time, without a change. Any thread may call this."""
        spent = sum(weight for second, weight in tuple(self.spent.items()) if _counts(second, 1, now_s))
        return spent + (self.others if now_s < self.others_until_s else 0)

    def drop_expired(self, now_s: float) -> None:
        """Remove entries that are expired, or in the future because a previous boot wrote them."""
        self.spent = _counting(self.spent, 1, now_s)
        self.background = _counting(self.background, _STEP_S, now_s)
        if self.others and not now_s < self.others_until_s <= now_s + WINDOW_S:
            self.others, self.others_until_s = 0, 0.0
        self.held_until_s = min(self.held_until_s, now_s + HOLD_MAX_S)
        self.background_until_s = min(self.background_until_s, now_s + RESERVED_S)
        if self.probed_s is not None and self.probed_s > now_s:
            self.probed_s = None

    def merge(self, other: "WeightUse", now_s: float) -> None:
        """Merge a copy that was changed separately: keep each maximum, and the later block."""
        for mine, others in ((self.spent, other.spent), (self.background, other.background)):
            for second, weight in others.items():
                mine[second] = max(weight, mine.get(second, 0))
        if other.held_until_s > max(now_s, self.held_until_s):
            self.held_until_s, self.held_until_unix_s = other.held_until_s, other.held_until_unix_s
            self.doubtful, self.probed_s = True, None
        self.drop_expired(now_s)


def _counting(spent: dict[int, int], step_s: int, now_s: float) -> dict[int, int]:
    """Return the entries that end less than a minute ago and do not begin in the future."""
    if all(_counts(second, step_s, now_s) for second in spent):
        return spent
    return {second: weight for second, weight in spent.items() if _counts(second, step_s, now_s)}


def _counts(second: int, step_s: int, now_s: float) -> bool:
    return now_s - WINDOW_S - step_s < second <= now_s and not second % step_s


class WeightBudget:
    """The decision whether weight may be spent, based on the weight spent before.

    Args:
        weight_max: the exchange's limit per minute.
        use: the weight spent so far; updated here.
        share: the part of `weight_max` that may be used, from 0 to 1.
    """

    def __init__(self, weight_max: int, use: WeightUse | None = None, *, share: float = SHARE) -> None:
        self.use = use or WeightUse()
        self._allowed = weight_max * share

    def wait_s(self, weight: int, now_s: float, *, background: bool = False) -> float:
        """Return the seconds until this weight may be spent; 0 if it may be spent now."""
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
        """End the doubt after a block, if the answered request was sent after the block.

        Args:
            asked_s: time at which the request was sent.
        """
        if asked_s >= self.use.held_until_s:
            self.use.doubtful, self.use.probed_s = False, None

    def note_used(self, used: int, now_s: float) -> None:
        """Store the weight that the exchange counted in its minute, including our own."""
        self.use.drop_expired(now_s)
        others = max(0, min(used, _WEIGHT_MAX) - sum(self.use.spent.values()))
        self.use.others, self.use.others_until_s = others, now_s + WINDOW_S if others else 0.0

    def block(self, seconds: float, now_s: float, wall_s: float) -> None:
        """Block all requests for this time."""
        use = self.use
        use.held_until_s = max(use.held_until_s, now_s + seconds)
        use.held_until_unix_s = max(use.held_until_unix_s, wall_s + seconds)
        use.doubtful, use.probed_s = True, None

    def blocked_s(self, now_s: float) -> float:
        """Return the seconds until requests are allowed."""
        return max(0.0, self.use.held_until_s - now_s)

    def _wait_below_s(self, limit: float, weight: int, now_s: float) -> float:
        """Return the seconds until this weight fits below a limit."""
        use = self.use
        excess = use.total + weight - limit
        if excess <= 0 or not use.total:
            return 0.0  # a request above the limit is sent when no other weight counts
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
    """The weight use of one pool, stored for later processes.

    Args:
        boots: use by boot id, the newest boot last.
    """

    boots: Annotated[dict[str, WeightUse], msgspec.Meta(max_length=BOOTS_MAX)] = {}

    def use(self, boot: str, now_s: float, wall_s: float) -> WeightUse:
        """Return the weight use of this boot, including a block from another boot that still lasts."""
        if boot not in self.boots:
            self.boots = dict([*self.boots.items()][1 - BOOTS_MAX :])
            self.boots[boot] = WeightUse()
        use = self.boots[boot]
        use.drop_expired(now_s)
        for name, other in self.boots.items():
            if name == boot:
                continue
            # After the wall clock was set back, a block must not last for years.
            other.held_until_unix_s = min(other.held_until_unix_s, wall_s + HOLD_MAX_S)
            until_s = now_s + other.held_until_unix_s - wall_s
            if until_s > max(now_s, use.held_until_s) + _LATER_S:
                WeightBudget(0, use).block(until_s - now_s, now_s, wall_s)
        return use


_decode = msgspec.json.Decoder(WeightBook).decode
_encode = msgspec.json.Encoder().encode


def parse_book(data: bytes) -> WeightBook:
    """Parse the book in a file; return an empty book for an empty file.

    Raises:
        ValueError: if the bytes are not a book.
    """
    try:
        return _decode(data) if data else WeightBook()
    except RecursionError as error:
        raise ValueError(str(error)) from None


def render_book(book: WeightBook) -> bytes:
    """Return the book as one line of bytes."""
    return _encode(book) + b"\n"
