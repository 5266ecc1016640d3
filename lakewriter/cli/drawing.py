"""The output of drawings on standard output, in colours if it is a terminal that has them."""

import shutil
import sys

from rich.console import Console
from rich.text import Text

from lakewriter.cli.terminal import ignore_broken_pipe, standard_output
from lakewriter.errors import printable
from lakewriter.pictures.canvas import Line, Screen

# The size of a drawing that goes to a pipe or a file.
PIPE_COLUMNS = 80
PIPE_LINES = 24

_PROMPT_LINES = 2

# Role → style. Blue and orange differ for every kind of colour-blindness, and on light
# and dark terminals. Shades of blue mean candles that are there, orange a missing reason.
_STYLES = {
    "title": "bold", "dim": "dim", "up": "color(32)", "down": "color(166)",
    "gap": "bright_black", "open gap": "color(172)", "never": "bright_black",
    "level 0": "bright_black", "level 1": "color(183)", "level 2": "color(147)", "level 3": "color(111)",
    "level 4": "color(75)", "level 5": "color(39)", "level 6": "color(32)",
    "open 0": "color(160)", "open 1": "color(166)", "open 2": "color(202)", "open 3": "color(208)",
    "open 4": "color(214)", "open 5": "color(215)", "open 6": "color(215)",
}  # fmt: skip


def screen(*, ascii_only: bool = False) -> Screen:
    """Return the size and abilities of standard output.

    Args:
        ascii_only: whether the user wants ASCII only.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    size = shutil.get_terminal_size((PIPE_COLUMNS, PIPE_LINES))
    # The last lines belong to the prompt.
    return Screen(
        size.columns,
        size.lines - _PROMPT_LINES if is_terminal else PIPE_LINES,
        _has_colours(_console()),
        ascii_only or not encoding.startswith("utf"),
    )


def print_drawing(lines: list[Line]) -> None:
    """Print a drawing on standard output."""
    console = _console()
    with ignore_broken_pipe(), standard_output() as out:
        for line in lines:
            text = Text()
            for cells in line:
                text.append(printable(cells.text), _STYLES.get(cells.role, "") if cells.role else "")
            with console.capture() as shown:  # rich exits the process on a broken pipe
                console.print(text, soft_wrap=True)
            out.write(shown.get().encode(sys.stdout.encoding or "ascii", "replace"))


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def _has_colours(console: Console) -> bool:
    return console.color_system is not None and not console.no_color
