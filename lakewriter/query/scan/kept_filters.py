"""The filters of a statement: from its syntax tree, from a cache, or from a run without rows.

A run without rows takes about as long as a selective statement itself. A simple
statement needs none (see `where_tree`). Programs repeat the others, so the filters of
repeatable ones are cached.
"""

from collections.abc import Hashable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from lakewriter.query.engine import Engine
from lakewriter.query.scan.constant_pruner import ConstantPruner
from lakewriter.query.scan.pruning import CANDLES_SCHEMA, FilterPruner
from lakewriter.query.scan.pushdown import NO_SCHEMAS, pushed_filters
from lakewriter.query.statement.where_tree import SimpleWhere

KEPT_MAX = 256
KEPT_CHARS_MAX = 10_000

Pruner = FilterPruner | ConstantPruner

# Types whose text contains the whole value.
_PLAIN_TYPES = (str, int, float, bool, date, datetime, type(None))


class StatementFilters(NamedTuple):
    """The filters of a statement on `candles`.

    Args:
        everything: whether the statement may need every row.
        pruners: one pruner for each filter. The statement does not need a row that
            passes no filter.
        exact: whether a selected partition fulfils the conditions on series, and a
            selected day those on dates.
    """

    everything: bool
    pruners: tuple[Pruner, ...]
    exact: bool = False


_KEPT: dict[Hashable, StatementFilters] = {}


def find_filters(
    engine: Engine,
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    params: Mapping[str, Any],
    *,
    repeatable: bool,
    own_schemas: Mapping[str, pa.Schema] = NO_SCHEMAS,
    where: SimpleWhere | None = None,
) -> StatementFilters:
    """Return the filters of a statement, from its conditions, from the cache or from `pushed_filters`.

    Args:
        repeatable: whether the statement has the same filters in every run.
        own_schemas: the columns of the caller's tables that the statement reads, by name.
        where: the conditions of a simple statement.

    Raises:
        the errors of `pushed_filters`.
    """
    bound = None if where is None else where.bind(params)
    if where is not None and bound is not None:
        return StatementFilters(False, (ConstantPruner(bound, needs_ends=where.needs_ends),), exact=True)
    key = _key(sql, params, own_schemas) if repeatable else None
    kept = None if key is None else _KEPT.get(key)
    if kept is not None:
        return kept
    pushed = pushed_filters(engine, connection, CANDLES_SCHEMA, sql, params, own_schemas)
    filters = StatementFilters(pushed.everything, tuple(map(FilterPruner, pushed.filters)))
    # Without filters the statement may only have been too slow this time.
    if key is not None and not pushed.everything:
        if len(_KEPT) >= KEPT_MAX:
            _KEPT.clear()
        _KEPT[key] = filters
    return filters


def _key(sql: str, params: Mapping[str, Any], own_schemas: Mapping[str, pa.Schema]) -> Hashable | None:
    """Return the cache key of a statement with its parameters and the columns of its tables.

    Returns:
        the key; None if the filters cannot be cached.
    """
    if any(type(value) not in _PLAIN_TYPES for value in params.values()):
        return None
    # The text of a datetime contains its offset from UTC. Its repr contains the repr of its
    # time zone, which may be an address.
    try:
        values = tuple(sorted((name, type(value).__name__, str(value)) for name, value in params.items()))
    except ValueError:  # an int has more digits than Python converts to text
        return None
    columns = tuple(sorted((name, str(schema.remove_metadata())) for name, schema in own_schemas.items()))
    chars = len(sql) + sum(len(text) for *_, text in (*values, *columns))
    return (sql, values, columns) if chars <= KEPT_CHARS_MAX else None
