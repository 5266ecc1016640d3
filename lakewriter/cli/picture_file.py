"""The file of a picture, and its look, as the options choose them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lakewriter.cli.picture_options import PictureOptions
from lakewriter.cli.terminal import ignore_broken_pipe
from lakewriter.errors import UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.pictures.look import FORMATS, SIDE_MAX, SIDE_MIN, Look
from lakewriter.query.output.destination import open_destination

_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")


class Picture(NamedTuple):
    """What is chosen about a picture.

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


def picture_of(options: PictureOptions) -> Picture:
    """Return the picture that the options choose."""
    path = None if options.output is None else Path(options.output)
    return Picture(path, options.size, options.dark, options.force)


def write_picture(store: LakeStore, picture: Picture, draw: Callable[[Any, str], None]) -> None:
    """Write a picture to the file of `-o`.

    Args:
        draw: writes the picture to a binary stream, in the format of a name.

    Raises:
        the errors of `open_destination`.
    """
    assert picture.path is not None
    with (
        ignore_broken_pipe(),
        open_destination(picture.path, store.state_dir, overwrite=picture.force) as out,
    ):
        draw(out, picture.format_name)
