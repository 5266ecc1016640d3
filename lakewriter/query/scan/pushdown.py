"""The filters that the engine pushes down to each scan of `candles`, found before files are listed.

Strategy: the statement runs once on an empty `candles`, an Arrow dataset. For each
scan the engine asks the dataset for a scanner, with the filter that it pushed down
to that scan. The dataset records these filters. A row that fails the filter of its
scan cannot change the answer, whatever the lake contains: the engine knows the
columns of the dataset, and not that it is empty.

DuckDB does not promise to use a dataset in this way. So it prints its plan as well.
Unless each scan of the plan was recorded exactly once, every file is read. Joins
and LIMITs also pass filters to scans at run time. Here these would come from no
rows, so they are disabled.
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

# What a plan calls the scan of a dataset.
_DATASET_SCAN = "PYTHON_ARROW_SCAN"

# A statement that takes longer than this without a row of the lake reads every file.
TIME_MS_MAX = 500

# A statement with one scan and no filter.
_UNFILTERED = "SELECT market FROM candles"

# Scans below it run once a round, so their count proves nothing.
_RECURSION = "RECURSIVE"

# Errors of statements that are wrong on any lake.
_STATEMENT_ERRORS = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


class FilterProbe(ds.InMemoryDataset):  # type: ignore[misc]
    """A table that records the filters of its scans.

    Args:
        table: its rows; only tests have some.
    """

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table)
        self.filters: list[pc.Expression | None] = []

    def scanner(self, *args: Any, **kwargs: Any) -> ds.Scanner:
        """Return a scanner; the engine calls this for each scan."""
        pushed = kwargs.get("filter")
        self.filters.append(pushed if isinstance(pushed, pc.Expression) else None)
        return super().scanner(*args, **kwargs)


class PushedFilters(NamedTuple):
    """The filters of a statement on `candles`.

    Args:
        filters: a row that passes none of them is not needed.
        everything: whether any row may be needed; then there are no filters.
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
) -> PushedFilters:
    """Return the filters that a statement pushes down to `candles`, and begin its transaction.

    The statement runs later in the same transaction, in which `now()` is the same.

    Args:
        connection: a cursor of the engine, without a table `candles`; all other
            tables already have their rows.
        schema: the columns of `candles`.
        sql: a statement that reads, without EXPLAIN.

    Raises:
        duckdb.Error: if the statement is wrong on any lake, or was interrupted.
    """
    probe = FilterProbe(schema.empty_table())
    started_s = time.monotonic()
    try:
        with engine.without_runtime_filters(), _installed(connection, probe):
            return _probe_filters(connection, probe, sql, params)
    except _STATEMENT_ERRORS:
        raise
    except (duckdb.Error, RuntimeError, ValueError, LookupError, TypeError) as error:
        took_ms = (time.monotonic() - started_s) * 1000
        if isinstance(error, duckdb.InterruptException) and took_ms < TIME_MS_MAX:
            raise
        return EVERYTHING


def _probe_filters(
    connection: duckdb.DuckDBPyConnection, probe: FilterProbe, sql: str, params: Mapping[str, Any]
) -> PushedFilters:
    try:
        plan = _run(connection, sql, params)
    except _STATEMENT_ERRORS:
        # Plan it once more, for an error that shows the statement as written.
        connection.execute("ROLLBACK; BEGIN")
        connection.sql(sql, params=dict(params) or None)
        return EVERYTHING
    pushed = filters_from_plan(plan, probe.filters)
    # No scan in both is also what an engine with other plans would show.
    if (
        pushed == NO_SCANS
        and filters_from_plan(_run(connection, _UNFILTERED, {}), probe.filters) != EVERYTHING
    ):
        return EVERYTHING
    return pushed


def filters_from_plan(plan: Any, filters: Sequence[pc.Expression | None]) -> PushedFilters:
    """Return the filters of a statement, if its plan confirms the recorded ones.

    Args:
        filters: one for each scan that began; None for a scan without a filter.
    """
    operators = list(nodes(plan))
    scans = sum(_function(operator) == _DATASET_SCAN for operator in operators)
    if any(_RECURSION in str(operator.get("type", "")) for operator in operators):
        # Of two scans one may have run twice, and the other never.
        if scans != 1 or not filters:
            return EVERYTHING
    elif scans != len(filters):
        return EVERYTHING
    # Expressions are compared, because Arrow truncates a long IN in texts.
    distinct: list[pc.Expression] = []
    for pushed in filters:
        if pushed is None:
            return EVERYTHING
        if not any(pushed.equals(other) for other in distinct):
            distinct.append(pushed)
    return PushedFilters(tuple(distinct))


@contextlib.contextmanager
def _installed(connection: duckdb.DuckDBPyConnection, probe: FilterProbe) -> Iterator[None]:
    connection.register("candles", probe)
    try:
        connection.execute("BEGIN")
        with time_limited(connection, TIME_MS_MAX):
            yield
    finally:
        try:
            connection.unregister("candles")
        except duckdb.TransactionException:  # the statement failed, and the transaction with it
            connection.execute("ROLLBACK; BEGIN")
            connection.unregister("candles")


def _run(connection: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> Any:
    """Run a statement and return its plan."""
    answer = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", dict(params) or None)
    return json.loads(answer.fetchall()[0][1])


def _function(operator: dict[str, Any]) -> object:
    extra = operator.get("extra_info")
    return extra.get("Function") if isinstance(extra, dict) else None
