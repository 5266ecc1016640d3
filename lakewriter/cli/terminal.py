"""What commands share on a terminal: stderr lines, log format, signals."""

import asyncio
import logging
import signal
import sys
import time


class _Formatter(logging.Formatter):
    default_msec_format = "%s.%03d"

    def converter(self, seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "lakewriter.recorded":
            return record.getMessage()  # says its own time
        return super().format(record)


def log_to_stderr(*, quiet: bool = False, handler: logging.Handler | None = None) -> None:
    """Send our log to stderr, a line each; warnings and worse only if `quiet`."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lakewriter")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


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
