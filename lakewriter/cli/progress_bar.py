"""Progress bars on stderr, and log lines that scroll above them."""

import logging

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class ConsoleHandler(logging.Handler):
    """A log handler that prints above the live display of its `console`."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(stderr=True, highlight=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log line, with a warning in yellow, and an error in red."""
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > 30 else ""
        self.console.print(Text(self.format(record), style=style), soft_wrap=True)


def progress_bar(verb: str) -> Progress:
    """Return a bar that counts steps and vanishes at its end. It is disabled without a terminal.

    Args:
        verb: the label, such as "compacting".
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
