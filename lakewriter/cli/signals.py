"""The signals that stop long-running commands."""

import asyncio
import logging
import signal
from collections.abc import Awaitable
from typing import Any


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` on SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()

    def stopping(name: str) -> None:
        if stop.is_set():
            logging.getLogger("lakewriter").warning(
                "%s: already stopping; buffered candles are being flushed", name
            )
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping, signal.Signals(number).name)


async def finish_unless_stopped(work: Awaitable[Any], stop: asyncio.Event) -> bool:
    """Run `work` until it ends or `stop` is set, and return whether it ended by itself."""
    working, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return False
    working.result()
    return True
