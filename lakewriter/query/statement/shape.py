"""The shape of statements that read `candles` alone, by their syntax tree.

Any doubt is an UnclearError or a False, which costs time, but never makes an answer wrong.
"""

from typing import Any

from lakewriter.partition import LEVELS
from lakewriter.query.engine import nodes
from lakewriter.query.schema import COLUMNS
from lakewriter.series import Series

SERIES_COLUMNS = frozenset(Series._fields)
PATH_COLUMNS = frozenset(LEVELS)

# The columns whose conditions select partitions.
SELECTING = PATH_COLUMNS | {"candle_begin_time", "candle_end_time"}

# The nodes of a simple statement that are not expressions.
_KINDS = frozenset(
    (
        "SELECT_NODE",
        "BASE_TABLE",
        "ORDER_MODIFIER",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "DISTINCT_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
    )
)

# The expressions of a statement that needs few partitions. A STAR has all columns, and a window counts rows.
_PLAIN_EXPRESSIONS = frozenset(
    (
        "BETWEEN",
        "CASE",
        "CAST",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "OPERATOR",
        "PARAMETER",
        "POSITIONAL_REFERENCE",
        "TYPE",
    )
)
# Functions whose result for a row follows from their arguments.
_SCALARS = frozenset(
    [
        "+",
        "-",
        "*",
        "/",
        "||",
        "~~",
        "!~~",
        "~~*",
        "!~~*",
        "^@",
        "concat",
        "contains",
        "date_diff",
        "datediff",
        "day",
        "ends_with",
        "left",
        "length",
        "lower",
        "ltrim",
        "month",
        "prefix",
        "regexp_extract",
        "regexp_matches",
        "regexp_replace",
        "replace",
        "right",
        "rtrim",
        "starts_with",
        "strftime",
        "strlen",
        "substr",
        "substring",
        "suffix",
        "trim",
        "upper",
        "year",
    ]
)
# Aggregates that repeated rows do not change.
_EXTREMES = frozenset(("min", "max"))


class UnclearError(Exception):
    """A part of a statement that this module does not understand."""


def alias_of_only_table(node: dict[str, Any]) -> str:
    """Return the alias of `candles`; raise UnclearError if the statement reads anything else."""
    table = node["from_table"]
    tables = 0
    for part in nodes(node):
        kind = part.get("type")
        if "class" in part:
            if part["class"] == "SUBQUERY":
                raise UnclearError
        elif isinstance(kind, str) and kind not in _KINDS:
            raise UnclearError
        tables += "class" not in part and kind in ("SELECT_NODE", "BASE_TABLE")
    if node["type"] != "SELECT_NODE" or table["type"] != "BASE_TABLE" or tables != 2:
        raise UnclearError
    if node["cte_map"]["map"] or node["sample"] is not None or table["sample"] is not None:
        raise UnclearError
    if table["at_clause"] is not None or table["column_name_alias"]:
        raise UnclearError
    alias = str(table["alias"] or "candles").lower()
    if table["qualified_name"]["path"][-1].lower() != "candles" or alias in SELECTING:
        raise UnclearError
    return alias


def column_of(reference: dict[str, Any], alias: str) -> str:
    """Return the name of a column of `candles`."""
    *table, name = (str(part).lower() for part in reference["column_names"])
    if table not in ([], [alias]) or name == alias:
        raise UnclearError
    return name


def needs_ends_only(node: dict[str, Any], alias: str) -> bool:
    """Return whether a statement has the same answer over the first and the last rows of each series.

    Such a statement reads only the columns of paths. Repeated rows do not change its
    answer, and of the days of a series it needs only the first and the last.

    Args:
        node: a SELECT from `candles` alone.
        alias: the name of `candles` in it.

    Raises:
        UnclearError: if a column belongs to no known table.
    """
    found = list(
        nodes({**node, "where_clause": None, "modifiers": list(map(_without_all, node["modifiers"]))})
    )
    functions = [part for part in found if part.get("class") == "FUNCTION"]
    if any(part["class"] not in _PLAIN_EXPRESSIONS for part in found if "class" in part):
        return False
    if node["qualify"] is not None or not all(_ignores_repetition(part, alias) for part in functions):
        return False
    named = {str(part["alias"]).lower() for part in node["select_list"] if part["alias"]}
    columns = [column_of(part, alias) for part in found if part.get("class") == "COLUMN_REF"]
    if not named.isdisjoint(COLUMNS) or not PATH_COLUMNS.union(named).issuperset(columns):
        return False
    extremes = [part for part in functions if _name(part) in _EXTREMES]
    of_days = [part for part in extremes if _is_day(part["arguments"][0]["expression"], alias)]
    return len(of_days) == columns.count("date") and (_is_grouped(node, functions) or _is_distinct(node))


def _without_all(modifier: dict[str, Any]) -> dict[str, Any]:
    """Return a modifier without ORDER BY ALL, which has the columns of the answer."""
    if modifier["type"] != "ORDER_MODIFIER":
        return modifier
    orders = [order for order in modifier["orders"] if not _is_all(order["expression"])]
    return {**modifier, "orders": orders}


def _is_all(node: dict[str, Any]) -> bool:
    return node["class"] == "STAR" and node["expr"] is None


def _ignores_repetition(function: dict[str, Any], alias: str) -> bool:
    """Return whether repeated rows do not change the result of a function."""
    if function["filter"] is not None or function["order_bys"]["orders"]:
        return False
    name, arguments = _name(function), function["arguments"]
    if name in _EXTREMES:
        return len(arguments) == 1
    if name == "count" and function["distinct"]:
        counted = [part for part in nodes(arguments) if part.get("class") == "COLUMN_REF"]
        return len(arguments) == 1 and all(column_of(part, alias) in SERIES_COLUMNS for part in counted)
    return name in _SCALARS and not function["distinct"]


def _name(function: dict[str, Any]) -> str:
    """Return the name of a function; "" if it has several."""
    names = {str(function["function_name"]).lower(), str(function["qualified_name"]["path"][-1]).lower()}
    return names.pop() if len(names) == 1 else ""


def _is_day(node: dict[str, Any], alias: str) -> bool:
    return node["class"] == "COLUMN_REF" and column_of(node, alias) == "date"


def _is_grouped(node: dict[str, Any], functions: list[dict[str, Any]]) -> bool:
    is_grouped = bool(node["group_expressions"]) or node["aggregate_handling"] == "FORCE_AGGREGATES"
    return is_grouped or any(_name(part) not in _SCALARS for part in functions)


def _is_distinct(node: dict[str, Any]) -> bool:
    return any(
        part["type"] == "DISTINCT_MODIFIER" and not part["distinct_on_targets"] for part in node["modifiers"]
    )
