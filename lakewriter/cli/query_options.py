"""The options that `lakewriter query` and `lakewriter shell` share. `query_values` has their meaning."""

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


def queries_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--queries DIR` to a command, which takes it as the keyword argument `queries`."""
    return click.option(
        "--queries",
        metavar="DIR",
        envvar="LAKEWRITER_QUERIES",
        help="Your saved queries, NAME.sql.  [default: `queries` of lakewriter.toml]",
    )(function)
