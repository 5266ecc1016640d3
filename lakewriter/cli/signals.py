"""How a command that runs for long is asked to stop."""

import asyncio
import logging
import signal


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` on SIGINT and SIGTERM, instead of dying by them."""
    loop = asyncio.get_running_loop()

    def stopping(name: str) -> None:
        if stop.is_set():
            logging.getLogger("lakewriter").warning(
                "%s: already stopping; what is buffered is being flushed", name
            )
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping, signal.Signals(number).name)
