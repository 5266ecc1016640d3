"""Drawings of characters: a grid of cells, each with a role that the printer colours.

A drawing says the same without its colours. `CharSet` has the characters for a
terminal with colours, for one without, and for one that shows ASCII only.
"""

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Literal, NamedTuple

Role = Literal[
    "", "title", "dim", "up", "down", "gap", "open gap", "never",
    "level 0", "level 1", "level 2", "level 3", "level 4", "level 5", "level 6",
    "open 0", "open 1", "open 2", "open 3", "open 4", "open 5", "open 6",
]  # fmt: skip


class Cells(NamedTuple):
    """A piece of a line with one role."""

    text: str
    role: Role = ""


Line = Sequence[Cells]


class Screen(NamedTuple):
    """The size and abilities of the place where a drawing is shown.

    Args:
        columns, lines: the size in characters.
        colours: whether roles are coloured.
        ascii_only: whether only ASCII characters can be shown.
    """

    columns: int
    lines: int
    colours: bool = False
    ascii_only: bool = False


class Canvas:
    """A grid of characters with roles, from the top left.

    Args:
        columns, lines: the size in characters.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.columns = columns
        self._chars = [[" "] * columns for _ in range(lines)]
        self._roles: list[list[Role]] = [[""] * columns for _ in range(lines)]

    def put(self, column: int, line: int, text: str, role: Role = "") -> None:
        """Write characters; those outside of the grid are left out."""
        for at, char in enumerate(text, column):
            if 0 <= at < self.columns and 0 <= line < len(self._chars):
                self._chars[line][at] = char
                self._roles[line][at] = role

    def rows(self) -> list[Line]:
        """Return the lines without trailing spaces."""
        rows: list[Line] = []
        for chars, roles in zip(self._chars, self._roles, strict=True):
            width = len("".join(chars).rstrip())
            pairs = zip(chars[:width], roles[:width], strict=True)
            rows.append(
                [
                    Cells("".join(char for char, _ in group), role)
                    for role, group in groupby(pairs, key=lambda pair: pair[1])
                ]
            )
        return rows


def cell_width(text: str) -> int:
    """Return the width of a text in characters of a terminal; Chinese ones are two wide."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def plain(line: Line) -> str:
    """Return a line without roles."""
    return "".join(cells.text for cells in line)


def flowed(parts: Sequence[Line], columns: int, gap: str = "  ") -> list[Line]:
    """Return parts side by side, in as many lines as they need.

    Args:
        columns: the width of a line in characters. A longer part has its own line.
        gap: the text between two parts.
    """
    lines: list[list[Cells]] = []
    width = 0
    for part in parts:
        taken = cell_width(plain(part))
        if lines and width + len(gap) + taken <= columns:
            lines[-1] += [Cells(gap), *part]
            width += len(gap) + taken
        else:
            lines.append(list(part))
            width = taken
    return list(lines)
