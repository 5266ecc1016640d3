"""The values of the options that `lakewriter query`, `shell` and `serve` share."""

from collections.abc import Iterable
from pathlib import Path

from lakewriter.errors import UsageError


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
