"""The options of commands that read many objects: where they are cached, and how many bytes of them."""

import os
from collections.abc import Callable
from typing import Any

import click

from lakewriter.errors import UsageError


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--cache-dir`, `--cache-size` and `--no-cache` to a command, which takes no argument for them.

    They set the environment variables that the opening of a lake reads.
    """

    def set_directory(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value == "":
            raise UsageError("--cache-dir: is empty", "give a directory, or --no-cache")
        if value is not None:
            from lakewriter.lake.cache_place import DIRECTORY_VARIABLE

            os.environ[DIRECTORY_VARIABLE] = value

    def set_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            from lakewriter.lake.cache_place import SIZE_VARIABLE, parse_cache_size

            parse_cache_size(value)
            os.environ[SIZE_VARIABLE] = value

    def switch_off(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            from lakewriter.lake.cache_place import SIZE_VARIABLE

            os.environ[SIZE_VARIABLE] = "0"

    function = click.option(
        "--no-cache", is_flag=True, expose_value=False, callback=switch_off, help="Cache no objects."
    )(function)
    function = click.option(
        "--cache-size",
        metavar="SIZE",
        expose_value=False,
        callback=set_size,
        help="The disk space of the cache: 500MB, 10GB.  [default: 2GB]",
    )(function)
    return click.option(
        "--cache-dir",
        metavar="DIR",
        expose_value=False,
        callback=set_directory,
        help="Cache of objects of a lake on an object store.  [default: ~/.cache/lakewriter]",
    )(function)
