"""The commands of README and docs: what a reader would type, and what the page says is printed."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from support.running import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]

# What ends a command in a line of a shell: a pipe, a redirection, the background.
_END = re.compile(r"^([|&;]|[0-9]?>)")


class Typed(NamedTuple):
    """A command of a page.

    Args:
        words: of its first command.
        rest: the words after these: a pipe, a redirection, the background.
        printed: the lines that the page shows below it.
    """

    words: list[str]
    rest: list[str]
    printed: list[str]


def typed_commands(text: str) -> list[Typed]:
    """Return the commands in a page's console blocks, and those of its lines for cron."""
    # A block in a list is indented.
    blocks = re.findall(r"^( *)```console\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    consoles = [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]
    shells = [
        f"{line}\n{rest}"
        for console in consoles
        for line, rest in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)
    ]
    cron = re.findall(r"^    (?:\S+ ){5} *(lakewriter .*)$", text, re.MULTILINE)
    return [typed for shell in [*shells, *cron] if (typed := _typed(shell)).words]


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each `lakewriter …` in a page's console blocks and lines for cron."""
    return [typed.words for typed in typed_commands(text) if typed.words[0] == "lakewriter"]


def _typed(shell: str) -> Typed:
    """Return the first command of a shell's input, and the output below it."""
    lines = shell.rstrip("\n").split("\n")
    for count in range(1, len(lines) + 1):
        if lines[count - 1].endswith("\\"):
            continue
        try:
            words = shlex.split("\n".join(lines[:count]).replace("\\\n", " "), comments=True)
        except ValueError:
            continue  # a quote is open
        end = next((at for at, word in enumerate(words) if _END.match(word)), len(words))
        return Typed(words[:end], words[end:], lines[count:])
    raise AssertionError(f"no whole command: {shell}")


def masked(line: str) -> str:
    """Return a line of output without what differs from run to run: numbers, times, paths, widths."""
    line = re.sub(r"(?<![\w.])/[\w./~-]+", "/PATH", line)
    line = re.sub(r"[\w.-]+-[0-9a-f]{6}\b", "RECORDER", line)
    line = re.sub(r"\d[\d.,:-]*", "0", line).replace("0 rows)", "0 row)")
    return " ".join(re.sub(r"─+", "─", line).split())


def page_name(page: Path) -> str:
    """Return a page's path in the repository."""
    return str(page.relative_to(REPOSITORY))
