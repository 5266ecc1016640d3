"""The user's pager, for text that is longer than the screen."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator

# Git uses the same options. `less` exits if the text fits the screen, and keeps colours.
# It folds no lines, and does not clear the screen.
_LESS = "FRSX"


def page(text: bytes) -> bool:
    """Show a text in $PAGER, or in less by default. Return whether the pager started.

    An empty PAGER disables the pager.
    """
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:
        return False
    if not command:
        return False
    environment = {"LESS": _LESS, "LESSCHARSET": "utf-8"} | os.environ
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - the user's own
    except OSError:
        return False
    with _ignore_ctrl_c(), contextlib.suppress(BrokenPipeError):
        pager.communicate(text)
    pager.wait()
    return True


@contextlib.contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
