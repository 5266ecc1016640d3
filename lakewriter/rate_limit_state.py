"""Rate limit state of this IP address, shared by all processes of a host. Pure."""

from collections.abc import Callable
from typing import Protocol

import msgspec


class RateLimitState(msgspec.Struct):
    """Bans and connection attempts of this address, kept for the process after a crash.

    Without it a recorder in a restart loop would connect during every ban, and each
    ban is longer than the last.

    Args:
        held_until_s: host → end of its ban on connections, Unix time.
        attempts_s: host → times of connection attempts, Unix time, the oldest first.
    """

    held_until_s: dict[str, float] = {}
    attempts_s: dict[str, list[float]] = {}


class SharedFile(Protocol):
    """A small file that the processes of this host read and change, one at a time."""

    @property
    def boot(self) -> str:
        """The id of this boot; monotonic times are comparable within one boot."""

    def change(self, turn: Callable[[bytes], bytes], *, durable: bool = False) -> None:
        """Pass the file's bytes to a function, and write the bytes that it returns. Blocks.

        Args:
            turn: runs while all other processes wait; its argument is empty at first. If
                the bytes are unchanged, nothing is written.
            durable: whether the change must survive a loss of power.

        Raises:
            OSError: if it cannot be read or written; it is as it was, or damaged.
        """
