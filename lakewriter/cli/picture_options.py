"""The options of pictures in files. `picture_file` has their meaning."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from lakewriter.errors import UsageError


class PictureOptions(NamedTuple):
    """The raw values of the options of a picture in a file."""

    output: str | None
    size: str | None
    dark: bool
    force: bool


def with_picture(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a picture in a file.

    The command takes them as the keyword argument `picture_options`.
    """

    @functools.wraps(function)
    def with_options(output: str | None, size: str | None, dark: bool, force: bool, **others: Any) -> Any:
        if output == "":
            raise UsageError("output: -o '' names no file", "-o FILE.png")
        return function(picture_options=PictureOptions(output, size, dark, force), **others)

    for option in (
        click.option("--force", is_flag=True, help="Overwrite the file of -o if it exists."),
        click.option("--dark", is_flag=True, help="With -o: a dark background."),
        click.option("--size", metavar="WIDTHxHEIGHT", help="With -o: the size in pixels."),
        click.option("-o", "--output", metavar="FILE", help="Write a picture, FILE.png or FILE.svg."),
    ):
        option(with_options)
    return with_options
