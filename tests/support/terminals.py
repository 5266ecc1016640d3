"""Commands on a terminal of a chosen size, and what it shows."""

import os
import pty
import termios
from pathlib import Path

from support import warm_processes
from support.running import PATIENCE_S


def on_terminal(*arguments: str, screen: tuple[int, int] = (24, 80), **environment: str) -> tuple[int, str]:
    """Return a command's exit code, and its output and errors on one terminal.

    Args:
        screen: the terminal's lines and columns.
        environment: variables that replace those of this process.
    """
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, screen)
    # The environment of these tests may set the size of the screen.
    ours = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    with Path(os.devnull).open("rb") as null:
        running = warm_processes.start(
            arguments, stdin=null.fileno(), stdout=child, stderr=child, environment=ours | environment
        )
    os.close(child)
    shown = b""
    try:
        while part := os.read(parent, 65536):
            shown += part
    except OSError:
        pass  # the other end of a terminal that closed
    code = running.wait(PATIENCE_S)
    os.close(parent)
    return code, shown.decode().replace("\r\n", "\n")
