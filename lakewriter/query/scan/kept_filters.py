"""The filters of repeatable statements, kept for their next run.

To find a statement's filters takes about as long as a selective statement itself,
and programs repeat statements.
"""

from collections.abc import Hashable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import duckdb

from lakewriter.query.engine import Engine
from lakewriter.query.scan.pruning import CANDLES_SCHEMA, FilterPruner
from lakewriter.query.scan.pushdown import pushed_filters

KEPT_MAX = 256
KEPT_CHARS_MAX = 10_000

# The text of such a value is all of it.
_PLAIN_TYPES = (str, int, float, bool, date, datetime, type(None))


class StatementFilters(NamedTuple):
    """The filters of a statement on `candles`.

    Args:
        everything: whether every row may be needed.
        pruners: one for each filter; a row that passes none of them is not needed.
    """

    everything: bool
    pruners: tuple[FilterPruner, ...]


_KEPT: dict[Hashable, StatementFilters] = {}


def find_filters(
    engine: Engine,
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    params: Mapping[str, Any],
    *,
    repeatable: bool,
) -> StatementFilters:
    """Return the filters of a statement, from its last run or as `pushed_filters` finds them.

    Args:
        repeatable: whether the statement has the same filters each time.

    Raises:
        the errors of `pushed_filters`.
    """
    key = _key(sql, params) if repeatable else None
    kept = None if key is None else _KEPT.get(key)
    if kept is not None:
        return kept
    pushed = pushed_filters(engine, connection, CANDLES_SCHEMA, sql, params)
    filters = StatementFilters(pushed.everything, tuple(map(FilterPruner, pushed.filters)))
    # A statement that needs everything may only have been too slow to be understood.
    if key is not None and not pushed.everything:
        if len(_KEPT) >= KEPT_MAX:
            _KEPT.clear()
        _KEPT[key] = filters
    return filters


def _key(sql: str, params: Mapping[str, Any]) -> Hashable | None:
    """Return a statement and its parameters to compare; None if they cannot be compared."""
    if any(type(value) not in _PLAIN_TYPES for value in params.values()):
        return None
    # The text of a datetime has its offset from UTC; its repr has that of its time zone, which may be an address.
    try:
        values = tuple(sorted((name, type(value).__name__, str(value)) for name, value in params.items()))
    except ValueError:  # an int with more digits than Python writes
        return None
    chars = len(sql) + sum(len(text) for _, _, text in values)
    return (sql, values) if chars <= KEPT_CHARS_MAX else None
