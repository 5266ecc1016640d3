"""Short forms of tests for `make test`, long forms for `make test-all`; and the seed of what they draw."""

import os
import random

from hypothesis import settings

# Set by `make test-all`.
LONG = os.environ.get("LAKEWRITER_LONG") == "1"


# A number that makes all draws repeatable; without it each run draws anew. Continuous
# integration sets it, so that no change is refused for a draw that is not its own.
SEED = os.environ.get("LAKEWRITER_SEED")


def drawn_seed() -> int:
    """Return LAKEWRITER_SEED, or a random seed; the caller prints it."""
    return random.randrange(2**32) if SEED is None else int(SEED)


def either(short: int, long: int) -> int:
    """Return the first number in a short run, the second in a long one."""
    return long if LONG else short


def examples(short: int, long: int, **changes: object) -> settings:
    """Return hypothesis' settings with this many examples and no deadline."""
    return settings(max_examples=either(short, long), deadline=None, **changes)  # type: ignore[arg-type]
