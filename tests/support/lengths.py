"""Short forms of tests for `make test`, long forms for `make test-all`."""

import os

from hypothesis import settings

# Set by `make test-all`.
LONG = os.environ.get("LAKEWRITER_LONG") == "1"


def either(short: int, long: int) -> int:
    """Return the first number in a short run, the second in a long one."""
    return long if LONG else short


def examples(short: int, long: int, **changes: object) -> settings:
    """Return hypothesis' settings with this many examples and no deadline."""
    return settings(max_examples=either(short, long), deadline=None, **changes)  # type: ignore[arg-type]
