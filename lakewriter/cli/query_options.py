"""The options that `lakewriter query` and `lakewriter shell` share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from lakewriter.errors import UsageError


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


def queries_directory(queries: str | None) -> Path | None:
    """Return the user's directory of saved queries: the option's, or the one of lakewriter.toml."""
    if not queries:
        from lakewriter.config import Config, find_config

        queries = (find_config(None) or Config()).queries
    return Path(queries) if queries else None


def parsed_params(written: Iterable[str], example: str) -> dict[str, str]:
    """Return the values of parameters, written NAME=VALUE, by name.

    Raises:
        UsageError: if a text has another form.
    """
    given = {}
    for text in written:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"query: -p {text!r} is not NAME=VALUE", example)
        given[name.lstrip("$:")] = value
    return given
