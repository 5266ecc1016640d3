"""What the exchange counts of this address, beyond the life of a process. Pure."""

import msgspec


class Restraint(msgspec.Struct):
    """What the exchange counts of this address, for the process that comes after a crash.

    Without it a recorder that is started again and again would ask through
    every ban, and each ban is longer than the one before.

    Args:
        held_until_s: pool or host → until when nothing may be asked there, Unix time.
        attempts_s: host → when connections were tried, Unix time, the oldest first.
    """

    held_until_s: dict[str, float] = {}
    attempts_s: dict[str, list[float]] = {}
