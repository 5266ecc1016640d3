"""Relative times in the parameters of a statement, such as `since=7d`.

A relative time becomes an absolute one before the statement runs. So the engine's
filters depend on the text of the parameters alone.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lakewriter.clock import present_ms
from lakewriter.written_time import relative_time

# The arguments of macros that take a time. Parameters of these names take one as well.
TIME_ARGUMENTS = frozenset(("since", "until"))

_ABSOLUTE = re.compile(r"\s*\d{4,}-")


def is_absolute(value: Any) -> bool:
    """Return whether a value names the same time whenever it is evaluated."""
    return not isinstance(value, str) or _ABSOLUTE.match(value) is not None


def resolved(params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the parameters with ages and `now` as times in UTC.

    Args:
        names: the parameters that are times, beside those in TIME_ARGUMENTS.
    """
    times = TIME_ARGUMENTS.union(names)
    return {name: _resolved(value) if name in times else value for name, value in params.items()}


def _resolved(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    moment = relative_time(value, present_ms())
    return value if moment is None else moment.isoformat(" ", "milliseconds")
