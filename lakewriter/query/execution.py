"""One attempt at a statement: a cursor of the lake's engine, rows in batches, and Ctrl-C.

A statement runs twice: first on no rows, to learn which partitions it needs,
then on the files of these.

Memory is what `limits` allows, or DuckDB's default limit (80 % of RAM), plus
one batch of rows; what does not fit is spilled to the system's temporary
directory, never to the lake.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from lakewriter.errors import LakeError, LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL
from lakewriter.query.engine import EngineKey, engine_of
from lakewriter.query.errors import (
    ENGINE_ERRORS,
    FileGoneError,
    FileReplacedError,
    QueryError,
    UnreadableAsIsError,
    as_lakewriter_error,
    is_about_values,
    is_fault_of_sql,
    names_a_file,
)
from lakewriter.query.guard import ParsedStatement, check
from lakewriter.query.limits import QueryLimits
from lakewriter.query.macros import create_macros
from lakewriter.query.retry import RetryHints
from lakewriter.query.scan.held_files import HeldFiles, can_hold
from lakewriter.query.scan.scan_sql import ScanSource
from lakewriter.query.scan.snapshot import (
    EMPTY_SNAPSHOT,
    Snapshot,
    any_modified_since,
    files_with_other_schema,
    take_snapshot,
)
from lakewriter.query.scan.tables import create_candles, create_tables

# The kernel stamps files by a clock that ticks up to this much behind time.time_ns.
_TICK_NS = 20_000_000

BATCH_ROWS = 50_000

# The caller waits so long for an interrupted statement to stop. After that a thread goes on.
_STOP_PATIENCE_S = 0.05
_STOP_PAUSE_S = 0.02

# Statements that were left and have not stopped yet.
_stopping: set[Future[None]] = set()

T = TypeVar("T")


class RowStream:
    """The rows of a statement that runs, in the order that it gives them.

    Args:
        schema: their names (no two alike) and Arrow types.
        batches: the rows; each batch is fetched when it is asked for.
        explain_empty: when they were all fetched, tells in one line why no candles were
            found; "" if some were, or if that is not known.
    """

    def __init__(
        self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], explain_empty: Callable[[], str] = str
    ) -> None:
        self.schema = schema
        self.batches = batches
        self.explain_empty = explain_empty


class Execution:
    """A cursor of the engine, and the thread that it works in.

    Args:
        hints: what the attempts before it found.
        limits: its bounds, if any.
        streamed: whether rows are used before the last one is here: then it is too late
            for another attempt.
    """

    def __init__(
        self, store: LakeStore, hints: RetryHints, limits: QueryLimits | None, *, streamed: bool = False
    ) -> None:
        self._limits = limits or QueryLimits()
        self._store = store
        # The root of a local lake. Of a remote one only its journals have local paths.
        self._root = store.state_dir
        self._hints = hints
        self._streamed = streamed
        self._snapshot: Snapshot = EMPTY_SNAPSHOT
        self._filters: Sequence[Any] | None = None  # of FilterPruner; see _choose_files
        self._found = False
        self._since_ns = 0
        self._source: ScanSource | None = None
        made_for = EngineKey(self._root, readable=not store.is_remote, memory=self._limits.memory)
        self._engine = engine_of(made_for)
        self._connection = self._engine.cursor(progress=limits is not None)
        self._limits.attach(self._connection)
        self._held_files = HeldFiles(self._root)
        # The engine looks at signals in some of its loops only: it works in a
        # thread, and the thread that gets Ctrl-C waits where it can be woken.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="query")
        self._working: Future[Any] = Future()
        self._working.set_result(None)
        self._rows: pa.RecordBatchReader | None = None
        self._first: pa.RecordBatch | None = None

    def __enter__(self) -> "Execution":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._source is not None:
            self._source.stop()
        self._limits.detach()
        finished = self._rows is None and self._working.done()
        closing = self._worker.submit(self._close)
        self._worker.shutdown(wait=False)
        # Ctrl-C may come while work is handed over: then the thread has more than it seems.
        if finished and wait([closing], _STOP_PATIENCE_S).done:
            return
        if not self._interrupt_until(closing, _STOP_PATIENCE_S):
            _stopping.add(closing)
            closing.add_done_callback(_stopping.discard)
            threading.Thread(
                target=self._interrupt_until, args=(closing, math.inf), name="stopping", daemon=True
            ).start()

    def _close(self) -> None:
        # While rows are left, the engine works on behind its back: dropping them waits for that.
        self._rows = None
        self._connection.close()
        self._held_files.close()

    def _interrupt_until(self, closed: Future[None], patience_s: float) -> bool:
        """Interrupt the statement until its cursor is closed; return whether it was in time."""
        until_s = time.monotonic() + patience_s
        while time.monotonic() < until_s:
            # Again and again: the engine forgets an interrupt between two of its tasks.
            with contextlib.suppress(duckdb.ConnectionException):  # closed meanwhile
                self._connection.interrupt()
            if wait([closed], _STOP_PAUSE_S).done:
                return True
        return False

    def start(self, sql: str, params: Mapping[str, Any]) -> RowStream:
        """Run a statement until its first rows are here.

        Raises:
            the errors of `session.run`; MovedError and DoubtError, to be tried again.
        """
        _check_text(sql, *params.values())
        given = self._interruptible(lambda: self._begin(sql, params))
        names = unique_names(given.names)
        schema = pa.schema([field.with_name(name) for field, name in zip(given, names, strict=True)])
        return RowStream(schema, self._batches(schema), self._explain_empty)

    def raise_if_files_replaced(self) -> None:
        """See to it that the answer, if all of it is here, is of one moment.

        Raises:
            MovedError: if a file that is not held was replaced; the next attempt holds all
                that it may.
        """
        if self._rows is not None or self._hints.files_replaced or not self._may_hold():
            return
        unheld = [name for name in self._snapshot.own if name not in self._held_files.names]
        if any_modified_since(self._root, unheld, self._since_ns):
            raise FileReplacedError("lake: files were replaced while they were read", "try again")

    def _may_hold(self) -> bool:
        # What is fetched from far is fetched in one piece.
        return not self._store.is_remote and can_hold(self._root)

    def _begin(self, sql: str, params: Mapping[str, Any]) -> pa.Schema:
        statement = check(self._connection, sql)
        _check_params(statement, params)
        create_tables(self._connection, self._store, statement.tables, all_names=statement.reads_catalog)
        create_macros(self._engine, self._connection, statement.macros)
        if "candles" in statement.tables:
            self._choose_files(statement, params)
        elif statement.reads_catalog:
            create_candles(self._connection, self._store, EMPTY_SNAPSHOT, self._held_files)
        answer = self._connection.sql(sql, params=dict(params) or None)
        if answer is None:
            raise QueryError("sql: the statement gives no rows")
        self._rows = answer.to_arrow_reader(BATCH_ROWS)
        given = self._rows.schema
        self._first = self._next()
        return given

    def _choose_files(self, statement: ParsedStatement, params: Mapping[str, Any]) -> None:
        # Arrow's datasets, and pandas with them, take longer than all else that is
        # imported; a statement without candles does without.
        from lakewriter.query.scan.kept_filters import find_filters  # noqa: PLC0415

        filters = find_filters(
            self._engine, self._connection, statement.select, params, repeatable=statement.repeatable
        )
        # A file's stamp tells whether it was replaced since, so the clock is read before the files are listed.
        self._since_ns = time.time_ns() - _TICK_NS
        self._snapshot = take_snapshot(
            self._store, (ALL,) if filters.everything else filters.pruners, self._hints.read_as_foreign
        )
        if self._may_hold() and (self._hints.files_replaced or self._streamed):
            self._held_files.hold(self._snapshot.own, time.time(), hold_all=self._hints.files_replaced)
        self._filters = filters.pruners
        if self._store.is_remote:
            from lakewriter.query.scan.object_scan import ObjectScanner  # noqa: PLC0415

            self._source = ObjectScanner(self._store)
        create_candles(self._connection, self._store, self._snapshot, self._held_files, self._source)

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        batch = self._first
        while batch is not None:
            self._found = self._found or batch.num_rows > 0
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            batch = self._interruptible(self._next)

    def _explain_empty(self) -> str:
        # An object store would be listed, which costs requests. A count of nothing is a row, too.
        files = self._snapshot.own or self._snapshot.foreign
        if self._store.is_remote or self._filters is None or (self._found and files):
            return ""
        from lakewriter.query.empty_answer import explain_empty  # noqa: PLC0415 - few answers need it

        # It looks where the statement did not: what cannot be read there takes nothing from the answer.
        with contextlib.suppress(OSError, LakeError):
            return explain_empty(self._store, self._filters, found=self._found)
        return ""

    def _next(self) -> pa.RecordBatch | None:
        """Return the engine's next rows, in whose thread this is called; None if there are no more."""
        assert self._rows is not None
        try:
            return self._rows.read_next_batch()
        except StopIteration:
            self._rows = None
            return None

    def _interruptible(self, work: Callable[[], T]) -> T:
        try:
            working = self._worker.submit(work)
            self._working = working
            return self._limits.wait(working)
        except ENGINE_ERRORS as error:
            raise self._classify_error(error) from None
        except KeyboardInterrupt:
            self._connection.interrupt()
            raise

    def _classify_error(self, error: Exception) -> LakewriterError:
        """Return whose fault the engine's error is: of files that move, of a file, or of the SQL."""
        if self._source is not None:
            return self._source.classify_error(error)
        error = self._held_files.with_lake_names(error)
        ours = as_lakewriter_error(error, self._root)
        torn = is_about_values(error) and not self._hints.files_replaced
        if isinstance(ours, FileGoneError) or (is_fault_of_sql(error, self._root) and not torn):
            return ours
        named = names_a_file(error, self._root)
        # What was held is what was there, and fails again; but if it names a file, that may be mended by now.
        suspects = [name for name in self._snapshot.own if named or name not in self._held_files.names]
        if any_modified_since(self._root, suspects, self._since_ns):
            reason = ours.what.removeprefix("sql: ")
            return FileReplacedError(f"lake: files were replaced while they were read: {reason}", "try again")
        if named:
            try:
                doubtful = files_with_other_schema(self._root, self._snapshot.own)
            except FileNotFoundError as gone:
                return as_lakewriter_error(gone, self._root)
            return UnreadableAsIsError(doubtful, ours) if doubtful else ours
        return ours


def has_pending() -> bool:
    """Return whether a statement that was left still runs; the exit of the process waits for it."""
    return bool(_stopping)


def unique_names(names: list[str]) -> list[str]:
    """Return the names with `_1`, `_2` … behind those that came before."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        result.append(candidate)
    return result


def _check_text(*texts: object) -> None:
    for text in texts:
        try:
            if isinstance(text, str):
                text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"query: {text!a:.60} is not UTF-8 text") from None


def _check_params(statement: ParsedStatement, params: Mapping[str, Any]) -> None:
    for name in params:
        if name not in statement.parameters:
            known = ", ".join(sorted(statement.parameters)) or "none"
            raise UsageError(f"query: there is no parameter {name}", f"parameters: {known}")
    for name in sorted(statement.parameters):
        if name not in params:
            raise UsageError(f"query: ${name} has no value", f"-p {name}=VALUE")
