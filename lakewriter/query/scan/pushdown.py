"""What each scan of `candles` needs, told by the engine before any file is listed.

Strategy: the statement runs once on an empty `candles`, an Arrow dataset of
ours. For each scan the engine asks a dataset for a scanner, with the filter
that it has pushed down to that scan; the filters are written down. A row that
fails the filter of its scan cannot matter to the answer, whatever the lake
holds: of a dataset the engine knows nothing but the columns, not even that it
is empty.

That a dataset is asked in this way is nowhere promised. So the engine is made
to show its plan as well, and unless each scan in it was recorded exactly once,
nothing is known and every file is to be read. What a join or a LIMIT learns
while it runs is no part of the statement, and here it would be learnt from
nothing: they are kept from passing it on to scans.
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

# A statement that works longer than this without a row of the lake is asked no further.
TIME_MS_MAX = 500

# It has one scan, without a filter.
_CONTROL = "SELECT market FROM candles"

# What is below it runs once a round: a count of scans proves nothing.
_RECURSION = "RECURSIVE"

# Wrong statements; they would be on a full lake.
_WRONG = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


class FilterProbe(ds.InMemoryDataset):  # type: ignore[misc]
    """A table that remembers what it was asked for.

    Args:
        table: its rows; none, but in tests.
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
    """What a statement asks of `candles`.

    Args:
        filters: a row that passes none of them is not needed.
        everything: whether any row may be needed instead.
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

    The statement runs later in the same transaction, so that `now()` is the same.

    Args:
        connection: a cursor of the engine, without a table `candles`; all other
            tables hold what they will hold.
        schema: the columns of `candles`.
        sql: a statement that reads, without EXPLAIN.

    Raises:
        duckdb.Error: if the statement is wrong on any lake, or was interrupted.
    """
    probe = FilterProbe(schema.empty_table())
    started_s = time.monotonic()
    try:
        with engine.without_runtime_filters(), _recording(connection, probe):
            return _asked(connection, probe, sql, params)
    except _WRONG:
        raise
    except (duckdb.Error, RuntimeError, ValueError, LookupError, TypeError) as error:
        took_ms = (time.monotonic() - started_s) * 1000
        if isinstance(error, duckdb.InterruptException) and took_ms < TIME_MS_MAX:
            raise
        return EVERYTHING


def _asked(
    connection: duckdb.DuckDBPyConnection, probe: FilterProbe, sql: str, params: Mapping[str, Any]
) -> PushedFilters:
    try:
        plan = _run(connection, sql, params)
    except _WRONG:
        # Once more, for an error that shows the statement as it was written.
        connection.execute("ROLLBACK; BEGIN")
        connection.sql(sql, params=dict(params) or None)
        return EVERYTHING
    asked = filters_from_plan(plan, probe.filters)
    # Nothing seen by either proves nothing about an engine that has changed.
    if asked == NO_SCANS and filters_from_plan(_run(connection, _CONTROL, {}), probe.filters) != EVERYTHING:
        return EVERYTHING
    return asked


def filters_from_plan(plan: Any, filters: Sequence[pc.Expression | None]) -> PushedFilters:
    """Return what is known of a statement from its plan, and from what was recorded while it ran.

    Args:
        filters: one for each time that a scan began; None if it had none.
    """
    operators = list(nodes(plan))
    scans = sum(_function(operator) == _DATASET_SCAN for operator in operators)
    if any(_RECURSION in str(operator.get("type", "")) for operator in operators):
        # One scan of two may have run twice, and the other not at all.
        if scans != 1 or not filters:
            return EVERYTHING
    elif scans != len(filters):
        return EVERYTHING
    # Compared as they are: printed, a long IN would be cut short.
    known: list[pc.Expression] = []
    for each in filters:
        if each is None:
            return EVERYTHING
        if not any(each.equals(other) for other in known):
            known.append(each)
    return PushedFilters(tuple(known))


@contextlib.contextmanager
def _recording(connection: duckdb.DuckDBPyConnection, probe: FilterProbe) -> Iterator[None]:
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
    """Run a statement, and return the plan that it ran by."""
    answer = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", dict(params) or None)
    return json.loads(answer.fetchall()[0][1])


def _function(operator: dict[str, Any]) -> object:
    extra = operator.get("extra_info")
    return extra.get("Function") if isinstance(extra, dict) else None
