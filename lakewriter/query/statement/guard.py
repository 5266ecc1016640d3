"""The check that SQL is one statement that reads the allowed tables and nothing else.

Strategy: DuckDB parses the statement and prints its syntax tree. Every node of the
tree must be on a list below. So the guard refuses every new kind of node. An example
is `WITH x AS (COPY …) SELECT …`, which is new in DuckDB 2.0. The engine also
restricts its own file access. Guard and engine do not rely on each other.
"""

import json
import re
from typing import Any, NamedTuple

import duckdb

from lakewriter.query.engine import nodes
from lakewriter.query.errors import QueryError
from lakewriter.query.macros import MACROS
from lakewriter.query.statement.repeatable import is_repeatable, time_arguments
from lakewriter.query.statement.where_tree import SimpleWhere, read_where

TABLES = ("candles", "partitions", "gaps", "coverage", "instruments", "subscriptions", "forgotten")

# Nodes that are not expressions, by the field `type`.
_NODES = frozenset(
    [
        "SELECT_NODE",
        "SET_OPERATION_NODE",
        "RECURSIVE_CTE_NODE",
        "CTE_NODE",
        "BASE_TABLE",
        "SUBQUERY",
        "JOIN",
        "TABLE_FUNCTION",
        "EXPRESSION_LIST",
        "EMPTY",
        "EMPTY_FROM",
        "PIVOT",
        "SHOW_REF",
        "ORDER_MODIFIER",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "DISTINCT_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
    ]
)

# Expressions, by the field `class`.
_EXPRESSIONS = frozenset(
    [
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "DEFAULT",
        "FUNCTION",
        "LAMBDA",
        "LAMBDA_REF",
        "OPERATOR",
        "PARAMETER",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    ]
)

# Functions in FROM. They compute their rows from their arguments or the catalog.
_TABLE_FUNCTIONS = frozenset(
    [
        "range",
        "generate_series",
        "unnest",
        "repeat",
        "repeat_row",
        "json_each",
        "json_tree",
        "generate_subscripts",
        "regexp_split_to_table",
        "duckdb_functions",
        "duckdb_types",
        "duckdb_keywords",
        "duckdb_columns",
        "duckdb_settings",
        "icu_calendar_names",
        "pg_timezone_names",
        "pragma_version",
    ]
)

# Scalar functions that have side effects, or show facts about the process.
_REFUSED_FUNCTIONS = frozenset(
    [
        "getenv",
        "getvariable",
        "write_log",
        "nextval",
        "setval",
        "currval",
        # The results of these differ between the two runs of a statement.
        "current_query",
        "current_query_id",
        "current_setting",
    ]
)

_SHOW = frozenset(("", "tables", "__show_tables_expanded"))
_INFORMATION_SCHEMA = frozenset(("tables", "columns", "schemata"))
# These show the existing tables.
_CATALOG = _SHOW | _INFORMATION_SCHEMA | {"duckdb_columns"}
_OUR_SCHEMAS = frozenset(((), ("main",)))

# DuckDB could read a file if a name contained a dot or a slash.
_NAME = re.compile(r"\w+")

# If a text has a syntax error, each further WITH directly in a WITH takes DuckDB's parser six
# times as long, and as much memory: 1.5 GB for seven. No limit of the engine holds while it
# parses. So the words are counted before, also those in comments and quotes.
_WITHS_MAX = 5
_WITH = re.compile(r"\bwith\b(?!\s+time\s+zone\b)", re.IGNORECASE)

_EXPLAIN = re.compile(r"explain\s+(analyze\s+)?", re.IGNORECASE)

_OWN_HINT = "a file is one with --table NAME=FILE, a frame with tables={…}"

_CHANGE_HINT = "queries only read the lake; lakewriter query … -o FILE saves an answer"


class ParsedStatement(NamedTuple):
    """The tables, parameters and macros of an allowed statement.

    Args:
        tables: the names in TABLES that the statement reads.
        own_tables: the names of the caller's tables that the statement reads.
        parameters: the names that the statement uses as $name.
        select: the statement without EXPLAIN.
        reads_catalog: whether the statement lists tables.
        macros: the names in MACROS that the statement calls or lists.
        times: the parameters that the statement uses as times of macros.
        repeatable: whether the statement pushes down the same filters each time, if
            these parameters are absolute times.
        where: the conditions of a simple statement that select partitions; None for others.
    """

    tables: frozenset[str]
    own_tables: frozenset[str]
    parameters: frozenset[str]
    select: str
    reads_catalog: bool
    macros: frozenset[str]
    times: frozenset[str]
    repeatable: bool
    where: SimpleWhere | None


# Programs repeat statements. The result of a check depends only on the text and the names.
_CACHE: dict[tuple[str, frozenset[str]], ParsedStatement] = {}
_CACHED_MAX = 256
_CACHED_CHARS_MAX = 10_000


def check(
    connection: duckdb.DuckDBPyConnection, sql: str, own_tables: frozenset[str] = frozenset()
) -> ParsedStatement:
    """Parse a statement and check that it only reads.

    Args:
        connection: the connection whose parser is used.
        own_tables: the lower-case names of the caller's tables, which it may read too.

    Raises:
        QueryError: if the SQL is not exactly one statement, or does anything but read
            TABLES and `own_tables`.
        duckdb.Error: if the SQL cannot be parsed.
    """
    key = (sql, own_tables)
    statement = _CACHE.get(key)
    if statement is None:
        statement = _parse(connection, sql, own_tables)
        if len(_CACHE) >= _CACHED_MAX:
            _CACHE.clear()
        if len(sql) <= _CACHED_CHARS_MAX:
            _CACHE[key] = statement
    return statement


def _parse(connection: duckdb.DuckDBPyConnection, sql: str, own_tables: frozenset[str]) -> ParsedStatement:
    if len(_WITH.findall(sql)) > _WITHS_MAX:
        raise QueryError(
            f"sql: more than {_WITHS_MAX} WITH", "one WITH takes several tables: WITH a AS (…), b AS (…)"
        )
    statements = connection.extract_statements(sql)
    if not statements:
        raise QueryError("sql: there is no statement", 'lakewriter query "SELECT count(*) FROM candles"')
    if len(statements) > 1:
        raise QueryError(
            f"sql: one statement at a time, not {len(statements)}",
            "lakewriter shell < FILE.sql runs several",
        )
    statement = statements[0]
    kind = statement.type
    if kind == duckdb.StatementType.EXPLAIN:
        explained = _EXPLAIN.match(statement.query)
        if explained is None:
            raise QueryError("sql: EXPLAIN takes no options here", "EXPLAIN [ANALYZE] SELECT …")
        # Its plan is that of the statement as it is written.
        return check(connection, statement.query[explained.end() :], own_tables)._replace(where=None)
    if kind != duckdb.StatementType.SELECT:
        raise _not_reading(kind.name, sql)
    tree = _tree(connection, statement.query)
    try:
        read = _tables_read(tree, own_tables)
        reads_catalog = not read.isdisjoint(_CATALOG)
        repeatable = not reads_catalog and is_repeatable(read & frozenset(TABLES), nodes(tree))
    except (LookupError, TypeError):
        raise _unknown_tree() from None
    return ParsedStatement(
        read & frozenset(TABLES),
        read & own_tables,
        frozenset(statement.named_parameters),
        statement.query,
        reads_catalog=reads_catalog,
        macros=frozenset(MACROS) & (frozenset(MACROS) if "duckdb_functions" in read else read),
        times=_time_parameters(tree),
        repeatable=repeatable,
        where=read_where(tree[0]) if read == {"candles"} else None,
    )


def _not_reading(kind: str, sql: str) -> QueryError:
    if "pivot" in sql.lower():
        return QueryError(
            "sql: PIVOT needs its values named", "PIVOT … ON symbol IN ('BTCUSDT', 'ETHUSDT') USING …"
        )
    return QueryError(f"sql: {kind} is not allowed", _CHANGE_HINT)


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    answer = connection.execute("SELECT json_serialize_sql($sql::VARCHAR)", {"sql": sql}).fetchall()
    try:
        tree = json.loads(answer[0][0])
    except RecursionError:
        raise QueryError("sql: nested too deeply") from None
    if tree["error"] or len(tree["statements"]) != 1:
        raise QueryError(f"sql: {tree.get('error_message', 'one statement at a time')}", _CHANGE_HINT)
    return tree["statements"]


def _tables_read(tree: Any, own_tables: frozenset[str]) -> frozenset[str]:
    """Return the tables and table functions of a tree.

    Raises:
        QueryError: if a node of the tree is on no list.
    """
    if tree[0]["node"]["type"] not in _NODES:
        raise _unknown_tree()
    found = list(nodes(tree))
    named_here = {str(entry["key"]).lower() for node in found for entry in _ctes(node)}
    behind_from = {id(node["function"]) for node in found if node.get("type") == "TABLE_FUNCTION"}
    read: set[str] = set()
    for node in found:
        _check_kind(node)
        kind = node.get("type")
        if "class" in node:
            if node["class"] == "FUNCTION" and id(node) not in behind_from:
                _check_scalar(node)
        elif kind == "TABLE_FUNCTION":
            read |= _checked_table_function(node["function"])
        elif kind == "SHOW_REF":
            read.add(_checked_show(node, own_tables))
        elif kind == "BASE_TABLE":
            read.add(_checked_table(node, named_here, own_tables))
    return frozenset(read)


def _time_parameters(tree: Any) -> frozenset[str]:
    calls = [node["function"] for node in nodes(tree) if node.get("type") == "TABLE_FUNCTION"]
    return frozenset(
        str(expression["identifier"])
        for function in calls
        if _names(function, "function_name") <= MACROS.keys()
        for expression in time_arguments(function)
        if expression["class"] == "PARAMETER"
    )


def _unknown_tree() -> QueryError:
    return QueryError(
        f"sql: DuckDB {duckdb.__version__} prints this statement in a way that is not known here",
        _CHANGE_HINT,
    )


def _ctes(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = node.get("cte_map")
    return list(found["map"]) if isinstance(found, dict) else []


def _check_kind(node: dict[str, Any]) -> None:
    if "class" in node:
        if node["class"] not in _EXPRESSIONS:
            raise QueryError(f"sql: {node['class']} expressions are not supported here", _CHANGE_HINT)
    elif isinstance(node.get("type"), str) and node["type"] not in _NODES:
        raise QueryError(f"sql: {node['type'].removesuffix('_QUERY_NODE')} is not allowed", _CHANGE_HINT)


def _check_scalar(function: dict[str, Any]) -> None:
    for name in _names(function, "function_name"):
        if name in MACROS:
            raise QueryError(
                f"sql: {name} returns rows, and belongs after FROM", f"FROM {MACROS[name].signature}"
            )
        if name in _REFUSED_FUNCTIONS:
            raise QueryError(f"sql: function {name} is not available here")


def _checked_table_function(function: dict[str, Any]) -> set[str]:
    names = _names(function, "function_name")
    if names <= MACROS.keys():
        return {*names, "candles"}
    for name in names:
        if name not in _TABLE_FUNCTIONS:
            raise QueryError(
                f"sql: FROM {name}(…) is not available here",
                f"tables to read: {', '.join(TABLES)}, and {', '.join(MACROS)}(…)",
            )
    return names


def _checked_table(node: dict[str, Any], named_here: set[str], own_tables: frozenset[str]) -> str:
    written = [str(part) for part in _path(node)]
    path = tuple(part.lower() for part in written)
    name = path[-1]
    if path[:-1] == ("information_schema",) and name in _INFORMATION_SCHEMA:
        return name
    known = name in TABLES or name in named_here or name in own_tables
    if path[:-1] not in _OUR_SCHEMAS or not known or not _NAME.fullmatch(name):
        raise QueryError(
            f"sql: there is no table {'.'.join(written)}",
            f"tables to read: {', '.join((*TABLES, *sorted(own_tables)))}; {_OWN_HINT}",
        )
    return name


def _checked_show(node: dict[str, Any], own_tables: frozenset[str]) -> str:
    name = str(node.get("table_name", "")).strip('"').lower()
    if name not in _SHOW and name not in TABLES and name not in own_tables:
        raise QueryError(f"sql: cannot show {name}", "SHOW TABLES, or DESCRIBE candles")
    return name


def _path(node: dict[str, Any]) -> list[str]:
    """Return the parts of a qualified name."""
    return list(node["qualified_name"]["path"])


def _names(node: dict[str, Any], field: str) -> set[str]:
    return {str(node.get(field, "")).lower(), str(_path(node)[-1]).lower()}
