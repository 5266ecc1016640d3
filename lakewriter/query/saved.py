"""Saved queries, which are SQL files that run by name.

A file begins with comments. The first comment is the title. Each line of the form
`-- :name = default   description` is a parameter, `$name` in the SQL. The engine
binds the values, so they never become part of the SQL. Users have files of their own in
a directory that they name. A file there precedes a shipped one of the same name.

    -- The volume-weighted average price of a series, day by day.
    -- :symbol = BTCUSDT   in either case
    SELECT … WHERE symbol = $symbol
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lakewriter
from lakewriter.errors import UsageError
from lakewriter.regular_file import read_user_text

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 1024 * 1024

_PARAMETER = re.compile(r"--\s*:(?P<name>[a-z_][a-z0-9_]*)\s*=\s*(?P<default>.*?)(?:\s{2,}(?P<what>.*))?\s*")
_NAME = re.compile(r"\w+")
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

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given or default value of every parameter.

        A query without parameters in its comments takes any values. The engine checks them.

        Raises:
            UsageError: if a given parameter is unknown.
        """
        if not self.parameters:
            return dict(given)
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


def saved_queries(directory: Path | None = None) -> list[SavedQuery]:
    """Return every saved query, sorted by name. A file that cannot be read is left out with a warning.

    Args:
        directory: the user's own directory of SQL files.

    Raises:
        UsageError: if the directory cannot be read.
    """
    loaded = []
    for _, path in sorted(_paths(directory).items()):
        try:
            loaded.append(_load(path))
        except UsageError as error:
            log.warning("%s", error)
    return loaded


def saved_query(name: str, directory: Path | None = None) -> SavedQuery:
    """Return the saved query with the given name.

    Args:
        directory: the user's own directory of SQL files.

    Raises:
        UsageError: if the query does not exist, or cannot be read.
    """
    paths = _paths(directory)
    if name not in paths:
        import difflib  # noqa: PLC0415 - needed for mistakes only

        close = difflib.get_close_matches(name, paths, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"query: {name} is neither SQL nor a saved query",
            f"{meant}lakewriter query --list shows them all",
        )
    return _load(paths[name])


def is_name(sql: str) -> bool:
    """Return whether a text is the name of a saved query. No statement is one word."""
    return _NAME.fullmatch(sql.strip()) is not None


def resolved(
    sql: str, params: Mapping[str, Any] | None, directory: Path | None = None
) -> tuple[str, Mapping[str, Any] | None]:
    """Return a statement with its parameters, or those of the saved query of this name.

    Raises:
        UsageError: if one of them has a wrong type.
        the errors of `saved_query` and `SavedQuery.values`.
    """
    if not isinstance(sql, str):
        raise UsageError(f"query: {sql!r:.60} is no SQL", 'lake.query("FROM candles LIMIT 5")')
    if params is not None and not isinstance(params, Mapping):
        raise UsageError(f"query: {params!r:.60} names no parameters", '{"symbol": "BTCUSDT"} for $symbol')
    if not is_name(sql):
        return sql, params
    query = saved_query(sql.strip(), directory)
    return query.sql, query.values(params or {})


def _paths(directory: Path | None) -> dict[str, Path]:
    """Return the paths of the saved queries by name."""
    paths = {path.stem: path for path in _shipped().glob("*.sql")}
    if directory is not None:
        try:
            own = [path for path in directory.expanduser().iterdir() if path.suffix == ".sql"]
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"queries: {directory}: {reason}", "--queries DIR names a directory") from None
        paths |= {path.stem: path for path in own if _NAME.fullmatch(path.stem)}
    return paths


def _load(path: Path) -> SavedQuery:
    try:
        return parse_query(path.stem, read_user_text(path, FILE_BYTES_MAX))
    except UnicodeDecodeError:
        raise UsageError(f"query {path.stem}: {path}: is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"query {path.stem}: {path}: {error.strerror}") from None


def _shipped() -> Path:
    """Return the directory of the SQL files, in the installed package or beside it in the repository."""
    package = Path(lakewriter.__file__).parent
    shipped = package / "queries"
    return shipped if shipped.is_dir() else package.parent / "queries"
