"""The progress bar of a slow statement, one line on stderr that is removed before the answer."""

import os
import shutil
import sys
import threading
import time

from lakewriter.cli.terminal import stderr_is_terminal
from lakewriter.query.limits import QueryLimits

# Time until the bar appears, so fast statements show no bar.
DELAY_S = 1.0
REFRESH_S = 0.1

_WIDTH = 30


class QueryBar:
    """A context manager that shows a progress bar during the block, only on a terminal.

    Args:
        limits: the limits of the statement, which measure its progress.
    """

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "QueryBar":
        if stderr_is_terminal() and os.environ.get("TERM") != "dumb":
            self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.hide()

    def hide(self) -> None:
        """Remove the bar permanently."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _draw(self) -> None:
        started_s = time.monotonic()
        if self._done.wait(DELAY_S):
            return
        while True:
            line = bar_line(self._limits.fraction(), time.monotonic() - started_s)
            self._write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}")
            if self._done.wait(REFRESH_S):
                break
        self._write("\r\033[K")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # the terminal is gone, but the statement continues
            self._done.set()


def bar_line(fraction: float | None, seconds: float) -> str:
    """Return the text of the bar.

    Args:
        fraction: the finished part of the work, from 0 to 1; None if unknown.
        seconds: the time since the statement's start.
    """
    if fraction is None:
        return f"running {seconds:.0f} s"
    full = min(_WIDTH, int(fraction * _WIDTH))
    return f"{'━' * full}{'╺' if full < _WIDTH else ''}{'─' * (_WIDTH - full - 1)} {fraction:4.0%} {seconds:.0f} s"
