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
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

# Whatever makes filters while a statement runs.
_AT_RUN_TIME = "join_filter_pushdown,top_n"

# A statement that works longer than this without a row of the lake is asked no further.
TIME_MS_MAX = 500

_SCAN = "PYTHON_ARROW_SCAN"

# What is below it runs once a round: a count of scans proves nothing.
_RECURSION = "RECURSIVE"

# Wrong statements; they would be on a full lake.
_WRONG = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


class Recorder(ds.InMemoryDataset):  # type: ignore[misc]
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


class Asked(NamedTuple):
    """What a statement asks of `candles`.

    Args:
        filters: a row that passes none of them is not needed.
        everything: whether any row may be needed instead.
    """

    filters: tuple[pc.Expression, ...] = ()
    everything: bool = False


EVERYTHING = Asked(everything=True)
NOTHING = Asked()


def ask(
    connection: duckdb.DuckDBPyConnection, schema: pa.Schema, sql: str, params: Mapping[str, Any]
) -> Asked:
    """Return what a statement asks of `candles`, which is to be replaced after this.

    To be called in a transaction in which the statement is run afterwards, for
    then `now()` is the same both times. If the statement fails on the empty
    table, that transaction is rolled back and a new one begun.

    Args:
        connection: all other tables are committed, and hold what they will hold.
        schema: the columns of `candles`.
        sql: a statement that reads, without EXPLAIN.

    Raises:
        duckdb.Error: if the statement is wrong on any lake, or was interrupted.
    """
    recorder = Recorder(schema.empty_table())
    started_s = time.monotonic()
    with _recording(connection, recorder):
        try:
            return _asked(connection, recorder, sql, params)
        except _WRONG:
            raise
        except (duckdb.Error, RuntimeError) as error:
            took_ms = (time.monotonic() - started_s) * 1000
            if isinstance(error, duckdb.InterruptException) and took_ms < TIME_MS_MAX:
                raise
            return EVERYTHING


@contextlib.contextmanager
def _recording(connection: duckdb.DuckDBPyConnection, recorder: Recorder) -> Iterator[None]:
    connection.register("recorder", recorder)
    connection.execute(f"SET disabled_optimizers='{_AT_RUN_TIME}'; SET max_execution_time={TIME_MS_MAX}")
    connection.execute("CREATE OR REPLACE VIEW candles AS FROM recorder")
    try:
        yield
    finally:
        try:
            connection.execute("RESET disabled_optimizers; RESET max_execution_time")
        except duckdb.TransactionException:  # the statement failed, and took the view along
            connection.rollback()
            connection.begin()
            connection.execute("RESET disabled_optimizers; RESET max_execution_time")
        connection.unregister("recorder")


def _asked(
    connection: duckdb.DuckDBPyConnection, recorder: Recorder, sql: str, params: Mapping[str, Any]
) -> Asked:
    scans, recursive = _scans(connection, sql, params)
    filters = list(recorder.filters)
    if scans != len(filters) and not (recursive and scans == 1 and filters):
        return EVERYTHING
    if recursive and scans > 1:
        return EVERYTHING
    if not scans:
        # Nothing seen, twice, proves nothing about an engine that has changed.
        works = _scans(connection, "SELECT market FROM candles", {}) == (1, False)
        return NOTHING if works and len(recorder.filters) == 1 else EVERYTHING
    # Compared as they are: printed, a long IN would be cut short.
    known: list[pc.Expression] = []
    for each in filters:
        if each is None:
            return EVERYTHING
        if not any(each.equals(other) for other in known):
            known.append(each)
    return Asked(tuple(known))


def _scans(connection: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> tuple[int, bool]:
    """Run a statement; return how many scans of `candles` its plan has, and whether any is repeated."""
    answer = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", dict(params) or None)
    operators = list(_dicts(json.loads(answer.fetchall()[0][1])))
    scans = sum(_function(operator) == _SCAN for operator in operators)
    return scans, any(_RECURSION in str(operator.get("type")) for operator in operators)


def _function(operator: dict[str, Any]) -> object:
    extra = operator.get("extra_info")
    return extra.get("Function") if isinstance(extra, dict) else None


def _dicts(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
