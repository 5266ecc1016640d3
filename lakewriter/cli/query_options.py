"""The options that `lakewriter query` and `lakewriter shell` share."""

from collections.abc import Callable
from typing import Any

import click


def table_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--table NAME=FILE` to a command, which takes them as the keyword argument `table_files`."""
    return click.option(
        "--table",
        "table_files",
        multiple=True,
        metavar="NAME=FILE",
        help="A file as a table: .csv, .tsv, .ndjson, .json, .parquet, .arrow; repeatable.",
    )(function)
