"""Running one statement.

Each statement has a cursor of the lake's engine, and tables of its own over a
fresh listing of the partitions that it can need. Any thread may ask at any time.

All that a statement looks at is to be of one moment. One whose answer is given
whole reads the lake's files as they lie there; if one of them was replaced
meanwhile, it runs again over files that are held (see `held_files`). One whose rows are
used while they come holds from the beginning what may be replaced.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from lakewriter.lake.lake import LakeStore
from lakewriter.query.engine import EngineKey, engine_of
from lakewriter.query.execution import Execution, RowStream
from lakewriter.query.limits import QueryLimits
from lakewriter.query.retry import RetryHints, retry_while_files_move


def run(
    store: LakeStore, sql: str, params: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
) -> pa.Table:
    """Return all rows of one reading statement.

    Args:
        params: a value for each $name in it.
        limits: its bounds; None sets it none.

    Raises:
        QueryError: if the SQL is broken, does more than read, or failed.
        UsageError: if a parameter is missing or unknown.
        LakeError: if the lake cannot be read.
    """

    def attempt(hints: RetryHints) -> pa.Table:
        with Execution(store, hints, limits) as running:
            answer = running.start(sql, params or {})
            table = pa.Table.from_batches(list(answer.batches), schema=answer.schema)
            running.raise_if_files_replaced()
            return table

    return retry_while_files_move(attempt)


@contextlib.contextmanager
def stream(
    store: LakeStore, sql: str, params: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
) -> Iterator[RowStream]:
    """Run one reading statement and give its rows while they come.

    A file that moves before the first rows are there is no matter: the lake is
    listed again. After that MovedError reaches the caller, who has used some
    rows already; only files that could not be held can move then.

    Raises:
        the errors of `run`; while the batches are fetched, too.
    """

    def attempt(hints: RetryHints) -> tuple[contextlib.ExitStack, RowStream]:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(Execution(store, hints, limits, streamed=True))
            answer = running.start(sql, params or {})
            running.raise_if_files_replaced()
            return stack.pop_all(), answer

    stack, answer = retry_while_files_move(attempt)
    with stack:
        yield answer


def make_engine(store: LakeStore) -> None:
    """Make the engine of a lake before its first statement needs it."""
    engine_of(EngineKey(store.state_dir, readable=not store.is_remote))
