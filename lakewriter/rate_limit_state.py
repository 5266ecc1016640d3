"""The rate limit state of this IP address, which all processes of a host share. Pure."""

from collections.abc import Callable
from typing import Protocol

import msgspec


class RateLimitState(msgspec.Struct):
    """The bans and connection attempts of this IP address, stored because they must outlive a crash.

    Without this state, a recorder in a restart loop would connect during every ban. The
    exchange makes each ban longer than the previous one.

    Args:
        held_until_s: end of the ban on connections by host, in Unix time.
        attempts_s: times of connection attempts by host, in Unix time, the oldest first.
    """

    held_until_s: dict[str, float] = {}
    attempts_s: dict[str, list[float]] = {}


class SharedFile(Protocol):
    """A small file that the processes of this host change, one process at a time."""

    @property
    def boot(self) -> str:
        """The id of this boot. Monotonic times are comparable within one boot."""

    def change(self, turn: Callable[[bytes], bytes], *, durable: bool = False) -> None:
        """Replace the file's bytes by the result of a function of them. The call blocks.

        Args:
            turn: the function from the present bytes to the new ones; it runs while all
                other processes wait. A new file has no bytes. If it returns the same bytes,
                the file is not written.
            durable: whether the change must survive a power cut.

        Raises:
            OSError: if the file cannot be read or written. A failed write may damage the file.
        """
