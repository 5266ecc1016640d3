"""What the exchange counts of this address, beyond one process. Pure."""

from collections.abc import Callable
from typing import Protocol

import msgspec


class RateLimitState(msgspec.Struct):
    """What a host counts of this address, for the process that comes after a crash.

    Without it a recorder that is started again and again would knock through
    every ban, and each ban is longer than the one before.

    Args:
        held_until_s: host → until when no connection may be tried there, Unix time.
        attempts_s: host → when connections were tried, Unix time, the oldest first.
    """

    held_until_s: dict[str, float] = {}
    attempts_s: dict[str, list[float]] = {}


class SharedFile(Protocol):
    """A few bytes that the processes of this host read and change, one at a time."""

    @property
    def boot(self) -> str:
        """Which run of this machine it is: monotonic times are of one boot."""

    def change(self, turn: Callable[[bytes], bytes], *, durable: bool = False) -> None:
        """Hand over the bytes, none at first, and keep what is returned. Blocks.

        Args:
            turn: runs while all others wait; nothing is written if nothing is changed.
            durable: it has to outlive a loss of power.

        Raises:
            OSError: if it cannot be read or written; it is as it was, or damaged.
        """
