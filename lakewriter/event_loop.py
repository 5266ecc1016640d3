"""The event loop of a command: uvloop of the extra `fast`, or asyncio's own.

Behind a proxy it is asyncio's: uvloop tries the addresses of a proxy one after the other,
and the first one may be dead.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.request import getproxies

from lakewriter.fast_packages import fast_package

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, as `asyncio.run` does."""
    uvloop = fast_package("uvloop") if getproxies().keys() <= {"no"} else None
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        return runner.run(main)
