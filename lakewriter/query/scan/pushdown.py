"""The filters that the engine pushes down to each scan of `candles`, found before the listing.

Strategy: the statement runs once on an empty `candles`, which is an Arrow dataset.
For each scan the engine requests a scanner from the dataset, with the filter for that
scan. The dataset records these filters. The engine does not know
that the dataset is empty. So in any lake, a row that fails the filter of its scan
cannot change the answer.

The caller's own tables are such datasets too, so the filters hold for any rows of them.

DuckDB does not promise to use a dataset in this way. So DuckDB also prints its plan.
Unless each scan of the plan was recorded exactly once, every file is read. Joins
and LIMITs also pass filters to scans at run time. These filters are disabled, because
an empty dataset would make them wrong.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from lakewriter.query.engine import Engine, nodes, time_limited

# The name of a dataset's scan in a plan.
_DATASET_SCAN = "PYTHON_ARROW_SCAN"

# Maximum time of a statement on the empty dataset. A slower statement reads every file.
TIME_MS_MAX = 500

NO_SCHEMAS: Mapping[str, pa.Schema] = {}

# A statement with one scan and no filter.
_UNFILTERED = "SELECT market FROM candles"

# Scans below this operator run once in each round, so their number proves nothing.
_RECURSION = "RECURSIVE"

# Errors of statements that are wrong on any lake.
_STATEMENT_ERRORS = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


class FilterProbe(ds.InMemoryDataset):  # type: ignore[misc]
    """A table that records the filters of its scans.

    Args:
        table: the rows of the table. Only tests use a table with rows.
    """

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table)
        self.filters: list[pc.Expression | None] = []

    def scanner(self, *args: Any, **kwargs: Any) -> ds.Scanner:
        """Record the filter and return a scanner. The engine calls this method for each scan."""
        pushed = kwargs.get("filter")
        self.filters.append(pushed if isinstance(pushed, pc.Expression) else None)
        return super().scanner(*args, **kwargs)


class PushedFilters(NamedTuple):
    """The filters of a statement on `candles`.

    Args:
        filters: the filters. The statement does not need a row that passes no filter.
        everything: whether the statement may need every row. Then `filters` is empty.
    """

    filters: tuple[pc.Expression, ...] = ()
    everything: bool = False


EVERYTHING = PushedFilters(everything=True)
NO_SCANS = PushedFilters()


def pushed_filters(
    engine: Engine,
    connection: duckdb.DuckDBPyConnection,
    schema: pa.Schema,
    sql: str,
    params: Mapping[str, Any],
    own_schemas: Mapping[str, pa.Schema] = NO_SCHEMAS,
) -> PushedFilters:
    """Return the filters that a statement pushes down to `candles`, and start its transaction.

    The statement runs later in the same transaction, so `now()` returns the same time.

    Args:
        connection: a cursor of the engine without a table `candles`, and without the
            caller's tables. All other tables already have their rows.
        schema: the columns of `candles`.
        sql: a statement that reads, without EXPLAIN.
        own_schemas: the columns of the caller's tables that the statement reads, by name.

    Raises:
        duckdb.Error: if the statement is wrong on any lake, or was interrupted.
    """
    probe = FilterProbe(schema.empty_table())
    started_s = time.monotonic()
    try:
        own = {name: FilterProbe(own.empty_table()) for name, own in own_schemas.items()}
        with engine.without_runtime_filters(), _installed(connection, {"candles": probe, **own}):
            return _probe_filters(connection, probe, tuple(own.values()), sql, params)
    except _STATEMENT_ERRORS:
        raise
    except (duckdb.Error, RuntimeError, ValueError, LookupError, TypeError) as error:
        took_ms = (time.monotonic() - started_s) * 1000
        if isinstance(error, duckdb.InterruptException) and took_ms < TIME_MS_MAX:
            raise
        return EVERYTHING


def _probe_filters(
    connection: duckdb.DuckDBPyConnection,
    probe: FilterProbe,
    own: Sequence[FilterProbe],
    sql: str,
    params: Mapping[str, Any],
) -> PushedFilters:
    try:
        plan = _run(connection, sql, params)
    except _STATEMENT_ERRORS:
        # Plan the statement again, for an error that shows it as the user wrote it.
        connection.execute("ROLLBACK; BEGIN")
        connection.sql(sql, params=dict(params) or None)
        return EVERYTHING
    pushed = filters_from_plan(plan, probe.filters, sum(len(each.filters) for each in own))
    # An engine with other plans would show no scans either, so a known scan is tested too.
    if (
        pushed == NO_SCANS
        and filters_from_plan(_run(connection, _UNFILTERED, {}), probe.filters) != EVERYTHING
    ):
        return EVERYTHING
    return pushed


def filters_from_plan(
    plan: Any, filters: Sequence[pc.Expression | None], own_scans: int = 0
) -> PushedFilters:
    """Return the recorded filters of a statement if its plan confirms them; EVERYTHING otherwise.

    Args:
        filters: one filter for each scan that began; None for a scan without a filter.
        own_scans: the number of scans of the caller's tables that began.
    """
    operators = list(nodes(plan))
    scans = sum(_function(operator) == _DATASET_SCAN for operator in operators) - own_scans
    if any(_RECURSION in str(operator.get("type", "")) for operator in operators):
        # One of two scans may have run twice, and the other never.
        if scans != 1 or not filters:
            return EVERYTHING
    elif scans != len(filters):
        return EVERYTHING
    # Texts of expressions cannot be compared, because Arrow truncates a long IN in them.
    distinct: list[pc.Expression] = []
    for pushed in filters:
        if pushed is None:
            return EVERYTHING
        if not any(pushed.equals(other) for other in distinct):
            distinct.append(pushed)
    return PushedFilters(tuple(distinct))


@contextlib.contextmanager
def _installed(connection: duckdb.DuckDBPyConnection, probes: Mapping[str, FilterProbe]) -> Iterator[None]:
    for name, probe in probes.items():
        connection.register(name, probe)
    try:
        connection.execute("BEGIN")
        with time_limited(connection, TIME_MS_MAX):
            yield
    finally:
        for name in probes:
            try:
                connection.unregister(name)
            except duckdb.TransactionException:  # the statement failed, which aborted the transaction
                connection.execute("ROLLBACK; BEGIN")
                connection.unregister(name)


def _run(connection: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> Any:
    """Run a statement and return its plan."""
    answer = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", dict(params) or None)
    return json.loads(answer.fetchall()[0][1])


def _function(operator: dict[str, Any]) -> object:
    extra = operator.get("extra_info")
    return extra.get("Function") if isinstance(extra, dict) else None
