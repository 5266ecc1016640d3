"""Statements without the conditions that their files fulfil by their paths.

DuckDB evaluates a condition on a path's columns for each file. A list of 200 symbols and
6,000 files takes it as long as reading a column. If only files were chosen whose paths
fulfil the conditions, the statement has the same answer without them.

Strategy: the conditions are removed from the syntax tree, and DuckDB prints the tree as
SQL. The SQL is used only if DuckDB parses it to the same tree again.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb

from lakewriter.query.engine import nodes
from lakewriter.query.statement.shape import PATH_COLUMNS, SERIES_COLUMNS
from lakewriter.query.statement.where_tree import SimpleWhere

# For fewer files the conditions take less time than their removal.
FILES_MIN = 64

_CACHED_MAX = 256

_LOCATIONS = frozenset(("query_location", "query_location_length"))


class Reduced(NamedTuple):
    """A statement without some conditions.

    Args:
        sql: the statement.
        parameters: the names that it still uses as $name.
    """

    sql: str
    parameters: frozenset[str]

    def params(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values of the parameters that are left; None without any."""
        return {name: value for name, value in params.items() if name in self.parameters} or None


# Statement, and whether conditions on dates are removed → its reduced form, or None.
_CACHE: dict[tuple[str, bool], Reduced | None] = {}


def without_path_conditions(
    connection: duckdb.DuckDBPyConnection, sql: str, where: SimpleWhere, *, with_dates: bool
) -> Reduced | None:
    """Return a statement without its conditions on the columns of paths; None if there are none.

    Args:
        sql: the statement, which identifies it.
        where: its conditions.
        with_dates: whether the conditions on `date` are removed, too.
    """
    key = (sql, with_dates)
    if key not in _CACHE:
        if len(_CACHE) >= _CACHED_MAX:
            _CACHE.clear()
        _CACHE[key] = _reduced(connection, where.without(PATH_COLUMNS if with_dates else SERIES_COLUMNS))
    return _CACHE[key]


def _reduced(connection: duckdb.DuckDBPyConnection, statement: dict[str, Any] | None) -> Reduced | None:
    if statement is None:
        return None
    named = sorted({str(node["identifier"]) for node in nodes(statement) if node.get("class") == "PARAMETER"})
    # The parser numbers parameters by their order in the text, which the conditions may have changed.
    if len(named) > 1:
        return None
    statement = {**statement, "named_param_map": [{"key": name, "value": 1} for name in named]}
    whole = {"error": False, "statements": [statement]}
    try:
        [(sql,)] = connection.execute(
            "SELECT json_deserialize_sql($tree::JSON)", {"tree": json.dumps(whole)}
        ).fetchall()
        [(text,)] = connection.execute("SELECT json_serialize_sql($sql::VARCHAR)", {"sql": sql}).fetchall()
    except (
        duckdb.ParserException,
        duckdb.InvalidInputException,
        duckdb.BinderException,
        duckdb.InternalException,
    ):
        return None
    if _without_locations(json.loads(text)) != _without_locations(whole):
        return None
    return Reduced(sql, frozenset(named))


def _without_locations(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_locations(part) for name, part in tree.items() if name not in _LOCATIONS}
    return [_without_locations(part) for part in tree] if isinstance(tree, list) else tree
