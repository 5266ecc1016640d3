"""Showing what is longer than the screen, by the pager that the person likes."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator

# As git has it: leave if it fits, keep colours, do not fold, leave the screen as it is.
_LESS = "FRSX"


def page(text: bytes) -> bool:
    """Show a text in $PAGER, or else in less; tell whether somebody saw it.

    An empty PAGER is none.
    """
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:
        return False
    if not command:
        return False
    environment = {"LESS": _LESS, "LESSCHARSET": "utf-8"} | os.environ
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - the person's own
    except OSError:
        return False
    with _ctrl_c_is_the_pagers(), contextlib.suppress(BrokenPipeError):
        pager.communicate(text)
    pager.wait()
    return True


@contextlib.contextmanager
def _ctrl_c_is_the_pagers() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
