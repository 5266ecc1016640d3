"""How long tests take: short forms in `make test`, long forms in `make test-all`."""

import os

from hypothesis import settings

# Set by `make test-all`.
LONG = os.environ.get("LAKEWRITER_LONG") == "1"


def either(short: int, long: int) -> int:
    """Return how often something is tried: so often in a short run, so often in a long one."""
    return long if LONG else short


def examples(short: int, long: int, **changes: object) -> settings:
    """Return hypothesis' settings with so many examples; disks and slow machines have no deadline."""
    return settings(max_examples=either(short, long), deadline=None, **changes)  # type: ignore[arg-type]
