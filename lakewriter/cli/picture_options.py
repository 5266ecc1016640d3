"""The options of pictures in files."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from lakewriter.errors import UsageError
from lakewriter.pictures.look import FORMATS, SIDE_MAX, SIDE_MIN, Look

_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")


class PictureOptions(NamedTuple):
    """The raw values of the options of a picture in a file.

    Args:
        path: the file; None draws in the terminal.
        size: such as "1200x675"; None is the picture's own size.
        dark: whether the background is dark.
        force: whether to replace an existing file.
    """

    path: Path | None
    size: str | None
    dark: bool
    force: bool

    @property
    def format_name(self) -> str:
        """The format by the file's suffix."""
        return "" if self.path is None else self.path.suffix.lower().removeprefix(".")

    def look(self, default: tuple[int, int]) -> Look:
        """Return the look of the picture.

        Args:
            default: the width and height in pixels without --size.

        Raises:
            UsageError: if an option is invalid, or needs -o.
        """
        if self.path is None:
            for option, is_given in (("--size", self.size), ("--dark", self.dark), ("--force", self.force)):
                if is_given:
                    raise UsageError(f"{option}: only a picture in a file has it", "-o FILE.png")
        elif self.format_name not in FORMATS:
            raise UsageError(
                f"output: {self.path.name}: {self.path.suffix or 'no suffix'} is not a known format",
                " or ".join(f"-o {self.path.stem or 'FILE'}.{name}" for name in FORMATS),
            )
        width, height = default if self.size is None else _parse_size(self.size)
        return Look(width, height, self.dark)


def _parse_size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f"--size: {text!r} is not WIDTHxHEIGHT in pixels", "--size 1200x675")
    width, height = int(found[1]), int(found[2])
    if not (SIDE_MIN <= width <= SIDE_MAX and SIDE_MIN <= height <= SIDE_MAX):
        raise UsageError(
            f"--size: {text} is not from {SIDE_MIN}x{SIDE_MIN} to {SIDE_MAX}x{SIDE_MAX}", "--size 1200x675"
        )
    return width, height


def with_picture(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a picture in a file.

    The command takes them as the keyword argument `picture`.
    """

    @functools.wraps(function)
    def with_options(output: str | None, size: str | None, dark: bool, force: bool, **others: Any) -> Any:
        if output == "":
            raise UsageError("output: -o '' names no file", "-o FILE.png")
        path = None if output is None else Path(output)
        return function(picture=PictureOptions(path, size, dark, force), **others)

    for option in (
        click.option("--force", is_flag=True, help="Overwrite the file of -o if it exists."),
        click.option("--dark", is_flag=True, help="With -o: a dark background."),
        click.option("--size", metavar="WIDTHxHEIGHT", help="With -o: the size in pixels."),
        click.option("-o", "--output", metavar="FILE", help="Write a picture, FILE.png or FILE.svg."),
    ):
        option(with_options)
    return with_options
