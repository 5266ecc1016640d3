"""The functions that run one statement.

Each statement has its own cursor of the lake's engine. Its tables use a new listing
of the partitions that it may need. Any thread may run statements.

A statement reads a snapshot of the lake:

- A whole answer is read from the files in place. If one of them was replaced
  meanwhile, the statement runs again over held files (see `held_files`).
- A streamed answer holds files that may be replaced soon, from its beginning.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from lakewriter.lake.lake import LakeStore
from lakewriter.query.engine import EngineKey, engine_of
from lakewriter.query.execution import Execution, RowStream
from lakewriter.query.limits import QueryLimits
from lakewriter.query.own_tables import arrow_tables
from lakewriter.query.retry import RetryHints, retry_while_files_move
from lakewriter.query.statement.pivot import name_values


def run(
    store: LakeStore,
    sql: str,
    params: Mapping[str, Any] | None = None,
    limits: QueryLimits | None = None,
    tables: Mapping[str, Any] | None = None,
    explain: Callable[[str], None] | None = None,
) -> pa.Table:
    """Return all rows of one statement that reads.

    Args:
        params: a value for each $name in the statement.
        limits: the timeout and the memory limit; None sets no limit.
        tables: frames that the statement may read too, by name; see `own_tables`.
        explain: is called with the reason for an answer without candles, if it is known.

    Raises:
        QueryError: if the SQL is invalid, does more than read, or fails.
        UsageError: if a parameter is missing or unknown, or a table cannot be used.
        LakeError: if the lake cannot be read.
    """
    own_tables = arrow_tables(tables)
    sql = _with_pivot_values(store, sql, params or {}, limits, own_tables)

    def attempt(hints: RetryHints) -> tuple[pa.Table, str]:
        with Execution(store, hints, limits, own_tables=own_tables) as execution:
            answer = execution.start(sql, params or {})
            table = pa.Table.from_batches(list(answer.batches), schema=answer.schema)
            execution.raise_if_files_replaced()
            return table, "" if explain is None else answer.explain_empty()

    table, reason = retry_while_files_move(attempt)
    if explain is not None and reason:
        explain(reason)
    return table


@contextlib.contextmanager
def stream(
    store: LakeStore,
    sql: str,
    params: Mapping[str, Any] | None = None,
    limits: QueryLimits | None = None,
    tables: Mapping[str, Any] | None = None,
) -> Iterator[RowStream]:
    """Run one statement that reads, and yield its rows as they arrive.

    If a file is replaced before the first rows arrive, the statement is retried with a
    new listing. After that the caller gets FileReplacedError, because it has used some
    rows. Only files that are not held can cause this error.

    Raises:
        the errors of `run`, also while the batches are fetched.
    """
    own_tables = arrow_tables(tables)
    sql = _with_pivot_values(store, sql, params or {}, limits, own_tables)

    def attempt(hints: RetryHints) -> tuple[contextlib.ExitStack, RowStream]:
        with contextlib.ExitStack() as stack:
            execution = stack.enter_context(
                Execution(store, hints, limits, streamed=True, own_tables=own_tables)
            )
            answer = execution.start(sql, params or {})
            execution.raise_if_files_replaced()
            return stack.pop_all(), answer

    stack, answer = retry_while_files_move(attempt)
    with stack:
        yield answer


def _with_pivot_values(
    store: LakeStore,
    sql: str,
    params: Mapping[str, Any],
    limits: QueryLimits | None,
    tables: Mapping[str, pa.Table],
) -> str:
    """Return the statement with the values of each PIVOT, which other statements find first."""

    def find_values(statement: str) -> list[str]:
        used = {name: value for name, value in params.items() if re.search(rf"\${name}\b", statement)}
        found: list[str] = run(store, statement, used, limits, tables).column(0).to_pylist()
        return found

    return name_values(sql, find_values)


def make_engine(store: LakeStore) -> None:
    """Create the engine of a lake before its first statement."""
    engine_of(EngineKey(store.state_dir, readable=not store.is_remote))
