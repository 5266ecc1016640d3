"""The event loop of a command: uvloop of the extra `fast`, or asyncio's own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from lakewriter.fast_packages import loop_package

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, as `asyncio.run` does."""
    uvloop = loop_package()
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        return runner.run(main)
