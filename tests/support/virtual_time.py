"""An event loop in which waits take no time, for code without I/O."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from lakewriter.clock import Clock


class VirtualClock(Clock):
    """A clock that shows the time of the event loop."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances the time instead of waiting."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and no timer is set"
        ready = super().select(0)
        if not ready:
            self.now_s += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in virtual time, without real waits."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(work)
