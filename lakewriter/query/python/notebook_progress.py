"""The progress of a slow statement in a Jupyter notebook, below its cell. It is removed at the end.

The thread that waits for the statement also draws, because a kernel shows the output of
other threads below any cell.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from lakewriter.interruptible import wait_for
from lakewriter.query.limits import QueryLimits

T = TypeVar("T")

# Time until the progress appears, so fast statements show none.
DELAY_S = 1.0
REFRESH_S = 0.25

# Shows HTML, or replaces what it showed last.
Show = Callable[[str], None]


class NotebookProgress(QueryLimits):
    """Limits without a timeout that show the progress of their statement.

    Args:
        show: shows HTML in the place of the last one.
        delay_s: the time until the progress appears, in seconds; None is DELAY_S.
    """

    def __init__(self, show: Show, delay_s: float | None = None) -> None:
        super().__init__()
        self._show = show
        self._delay_s = DELAY_S if delay_s is None else delay_s
        self._shown = False

    def wait(self, future: Future[T]) -> T:
        """Wait for the result of the engine's thread, and return it. The progress is shown meanwhile."""
        pause_s = max(0.0, self._delay_s - self.seconds())
        while not wait_for(future, pause_s):
            self._show(progress_html(self.fraction(), self.seconds()))
            self._shown = True
            pause_s = REFRESH_S
        return future.result()

    def hide(self) -> None:
        """Remove the progress."""
        if self._shown:
            self._show("")


def progress_html(fraction: float | None, seconds: float) -> str:
    """Return a bar and the seconds since the statement's start.

    Args:
        fraction: the finished part of the work, from 0 to 1; None if unknown.
    """
    value = "" if fraction is None else f' value="{fraction:.3f}"'
    percent = "" if fraction is None else f" {fraction:.0%},"
    return f"<progress{value}></progress>{percent} {seconds:.0f} s"


@contextlib.contextmanager
def notebook_progress() -> Iterator[NotebookProgress | None]:
    """Yield limits that show the progress of a statement, or None outside of a notebook."""
    show = _show_in_notebook()
    if show is None:
        yield None
        return
    progress = NotebookProgress(show)
    try:
        yield progress
    finally:
        progress.hide()


def _show_in_notebook() -> Show | None:
    """Return the function that shows HTML below the running cell; None outside of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if ipython is None or getattr(shell, "kernel", None) is None:
        return None
    handles: list[Any] = []

    def show(html: str) -> None:
        data = {"text/html": html, "text/plain": ""}
        if handles:
            handles[0].update(data, raw=True)
        else:
            handles.append(ipython.display.display(data, raw=True, display_id=True))

    return show
