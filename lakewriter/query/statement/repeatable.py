"""The check for repeatable statements, which push down the same filters in every run.

The filters of such a statement are found once and cached (see `kept_filters`). It reads
only `candles` among the lake's tables. Its functions do not depend on the time, on random
numbers or on the session. A function outside the list makes a statement not repeatable.
So a new function of DuckDB costs time, but never makes an answer wrong.
"""

from collections.abc import Iterable
from typing import Any

from lakewriter.query.engine import nodes
from lakewriter.query.macros import MACROS
from lakewriter.query.statement.relative_times import TIME_ARGUMENTS, is_absolute

# Operators, aggregates, windows and scalar functions. Their results depend only on their
# arguments and on the time zone, which is always UTC.
_STABLE = """
    + - * / // % ^ ** || ~~ ~~* !~~ !~~* ~~~ ! & | ^@
    abs any_value approx_count_distinct arg_max arg_min avg bool_and bool_or ceil
    coalesce concat contains corr count count_if count_star covar_pop covar_samp date_diff
    date_part date_sub date_trunc datediff datepart datesub datetrunc day dayofweek dayofyear
    ends_with epoch epoch_ms epoch_ns epoch_us error exp first floor greatest hex hour if isfinite
    isinf isnan kurtosis last least left len length list list_contains list_filter list_value ln
    log log10 log2 lower ltrim mad make_date map max max_by median min min_by minute mode month
    nullif pow power prefix product quantile_cont quantile_disc quarter range regexp_extract
    regexp_full_match regexp_matches regexp_replace regr_slope replace right
    round row rtrim second sign skewness sqrt starts_with stddev stddev_pop stddev_samp strftime
    string_split strlen struct_pack substr substring suffix sum time_bucket timezone to_days
    to_hours to_milliseconds to_minutes to_months to_seconds to_timestamp to_weeks to_years trim
    trunc unnest upper var_pop var_samp variance week year
"""
STABLE_FUNCTIONS = frozenset(_STABLE.split())

# DuckDB reads these as calls if no column has the name.
_CALLS_WITHOUT_PARENTHESES = frozenset(
    (
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    )
)


def is_repeatable(tables: frozenset[str], tree_nodes: Iterable[dict[str, Any]]) -> bool:
    """Return whether a statement pushes down the same filters in every run.

    Args:
        tables: the lake's tables that the statement reads.
        tree_nodes: the nodes of the statement's syntax tree, as DuckDB prints it.
    """
    found = list(tree_nodes)
    return tables <= {"candles"} and calls_only_stable(found) and _has_fixed_times(found)


def calls_only_stable(tree_nodes: Iterable[dict[str, Any]]) -> bool:
    """Return whether all functions of a statement are stable, apart from the times of macros."""
    for node in tree_nodes:
        kind = node.get("class")
        if kind == "FUNCTION":
            names = {str(node["function_name"]).lower(), str(node["qualified_name"]["path"][-1]).lower()}
            if not all(name in STABLE_FUNCTIONS or name in MACROS for name in names):
                return False
        elif kind == "COLUMN_REF" and not _CALLS_WITHOUT_PARENTHESES.isdisjoint(
            str(name).lower() for name in node["column_names"]
        ):
            return False
    return True


def time_arguments(function: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the expressions of a macro's arguments that take times."""
    return [each["expression"] for each in function["arguments"] if each["name"].lower() in TIME_ARGUMENTS]


def _has_fixed_times(tree_nodes: Iterable[dict[str, Any]]) -> bool:
    calls = (node for node in tree_nodes if node.get("class") == "FUNCTION")
    return all(_is_fixed(each) for function in calls for each in time_arguments(function))


def _is_fixed(expression: dict[str, Any]) -> bool:
    """Return whether a macro's time is not relative. `relative_times` resolves parameters."""
    for node in nodes(expression):
        kind = node.get("class", "PARAMETER")
        if kind == "CONSTANT" and not is_absolute(node["literal"].get("text", "")):
            return False
        if kind not in ("CONSTANT", "CAST", "PARAMETER", "TYPE"):
            return False
    return True
