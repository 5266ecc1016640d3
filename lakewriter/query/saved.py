"""Saved queries, which are SQL files that run by name.

A file begins with comments. The first comment is the title. Each line of the form
`-- :name = default   description` is a parameter, `$name` in the SQL. The engine
binds the values, so they never become part of the SQL.

    -- The volume-weighted average price of a series, day by day.
    -- :symbol = BTCUSDT   in either case
    SELECT … WHERE symbol = $symbol
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import lakewriter
from lakewriter.errors import UsageError
from lakewriter.regular_file import read_user_text

FILE_BYTES_MAX = 1024 * 1024

_PARAMETER = re.compile(r"--\s*:(?P<name>[a-z_][a-z0-9_]*)\s*=\s*(?P<default>.*?)(?:\s{2,}(?P<what>.*))?\s*")
_COMMENT = re.compile(r"--\s*(.*?)\s*")


class Parameter(NamedTuple):
    """A parameter of a saved query.

    Args:
        name: the name without the `$`.
        default: the default value as text, which the engine casts.
        what: a description for the help.
    """

    name: str
    default: str
    what: str


class SavedQuery(NamedTuple):
    """A saved query.

    Args:
        name: the file's name without `.sql`.
        title: one line about the answer.
        parameters: in the file's order.
        sql: the whole file.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    sql: str

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the given or default value of every parameter.

        Raises:
            UsageError: if a given parameter is unknown.
        """
        known = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in known:
                raise UsageError(
                    f"query {self.name}: there is no parameter {name}",
                    f"parameters: {', '.join(known) or 'none'}",
                )
        return {parameter.name: given.get(parameter.name, parameter.default) for parameter in self.parameters}


def parse_query(name: str, sql: str) -> SavedQuery:
    """Parse the comments at the beginning of a SQL file."""
    title = ""
    parameters = []
    for line in sql.splitlines():
        comment = _COMMENT.fullmatch(line)
        if comment is None:
            break
        found = _PARAMETER.fullmatch(line)
        if found:
            parameters.append(Parameter(found["name"], found["default"], found["what"] or ""))
        elif not title:
            title = comment[1]
    return SavedQuery(name, title, tuple(parameters), sql)


def saved_queries() -> list[SavedQuery]:
    """Return every saved query, sorted by name."""
    return [_load(path) for path in sorted(_directory().glob("*.sql"))]


def saved_query(name: str) -> SavedQuery:
    """Return the saved query with the given name.

    Raises:
        UsageError: if the query does not exist.
    """
    names = [path.stem for path in _directory().glob("*.sql")]
    if name not in names:
        import difflib  # noqa: PLC0415 - needed for mistakes only

        close = difflib.get_close_matches(name, names, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"query: {name} is neither SQL nor a saved query",
            f"{meant}lakewriter query --list shows them all",
        )
    return _load(_directory() / f"{name}.sql")


def _load(path: Path) -> SavedQuery:
    return parse_query(path.stem, read_user_text(path, FILE_BYTES_MAX))


def _directory() -> Path:
    """Return the directory of the SQL files, in the installed package or beside it in the repository."""
    package = Path(lakewriter.__file__).parent
    shipped = package / "queries"
    return shipped if shipped.is_dir() else package.parent / "queries"
