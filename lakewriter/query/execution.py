"""One execution of a statement, with its cursor, its batches of rows, and Ctrl-C.

A statement runs twice. The first run has no rows, and finds the partitions that the
statement needs. The second run reads their files. A simple statement (see `where_tree`)
skips the first run. So does a repeated one, because its filters are cached.

An execution uses the memory limit in `limits`, or DuckDB's default (80 % of RAM),
plus one batch of rows. DuckDB spills to the system's temporary directory, never to
the lake.
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
from lakewriter.query.engine import EngineKey, engine_of, forget_engine
from lakewriter.query.errors import (
    ENGINE_ERRORS,
    FileGoneError,
    FileReplacedError,
    QueryError,
    UnreadableAsIsError,
    as_lakewriter_error,
    is_about_values,
    is_fault_of_engine,
    is_fault_of_sql,
    names_a_file,
)
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
from lakewriter.query.statement.guard import ParsedStatement, check
from lakewriter.query.statement.path_conditions import FILES_MIN, Reduced, without_path_conditions
from lakewriter.query.statement.relative_times import is_absolute, resolved
from lakewriter.query.values import plain_parameters

# Maximum lag of the kernel's clock for file times behind time.time_ns.
_TICK_NS = 20_000_000

BATCH_ROWS = 50_000

# Maximum time in which further batches are fetched before the first of them is returned.
_FETCH_S = 0.01

NO_TABLES: Mapping[str, pa.Table] = {}

# Maximum wait of the caller for an interrupted statement. After it, a thread interrupts
# the statement in the background.
_STOP_TIMEOUT_S = 0.05
_INTERRUPT_EVERY_S = 0.02

# Abandoned statements that are still running.
_stopping: set[Future[None]] = set()

T = TypeVar("T")


class RowStream:
    """The rows of a running statement, in its order.

    Args:
        schema: the unique names and the Arrow types of the columns.
        batches: the rows; each batch is fetched on demand.
        explain_empty: returns one line with the reason for an answer without candles.
            It returns "" for other answers, or if the reason is unknown. The caller has
            to fetch all batches first.
    """

    def __init__(
        self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], explain_empty: Callable[[], str] = str
    ) -> None:
        self.schema = schema
        self.batches = batches
        self.explain_empty = explain_empty


class Execution:
    """A cursor of the engine, and the thread that uses it.

    Args:
        hints: the findings of failed executions of the same statement.
        limits: the timeout and the memory limit; None sets no limit.
        streamed: whether the caller uses rows before the last row arrives. Then a
            retry is impossible.
        own_tables: the caller's tables, by lower-case name.
    """

    def __init__(
        self,
        store: LakeStore,
        hints: RetryHints,
        limits: QueryLimits | None,
        *,
        streamed: bool = False,
        own_tables: Mapping[str, pa.Table] = NO_TABLES,
    ) -> None:
        self._limits = limits or QueryLimits()
        self._store = store
        # The root of a local lake. In a remote lake only journals have local paths.
        self._root = store.state_dir
        self._hints = hints
        self._streamed = streamed
        self._own_tables = own_tables
        self._snapshot: Snapshot = EMPTY_SNAPSHOT
        self._reduced: Reduced | None = None
        self._filters: Sequence[Any] | None = None  # of FilterPruner; see _choose_files
        self._any_rows = False
        self._since_ns = 0
        self._source: ScanSource | None = None
        made_for = EngineKey(self._root, readable=not store.is_remote, memory=self._limits.memory)
        self._engine = engine_of(made_for)
        self._connection = self._engine.cursor(progress=limits is not None)
        self._limits.attach(self._connection)
        self._held_files = HeldFiles(self._root)
        # DuckDB checks for signals only in some of its loops. So it runs in its own
        # thread. The thread that gets Ctrl-C waits for it, and wakes at the signal.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="query")
        self._running: Future[Any] = Future()
        self._running.set_result(None)
        self._reader: pa.RecordBatchReader | None = None
        self._first_batch: pa.RecordBatch | None = None

    def __enter__(self) -> "Execution":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._source is not None:
            self._source.stop()
        self._limits.detach()
        finished = self._reader is None and self._running.done()
        closing = self._worker.submit(self._close)
        self._worker.shutdown(wait=False)
        # After a Ctrl-C during `submit` the thread may have a task besides `_running`.
        if finished and wait([closing], _STOP_TIMEOUT_S).done:
            return
        if not self._interrupt_until(closing, _STOP_TIMEOUT_S):
            _stopping.add(closing)
            closing.add_done_callback(_stopping.discard)
            threading.Thread(
                target=self._interrupt_until, args=(closing, math.inf), name="stopping", daemon=True
            ).start()

    def _close(self) -> None:
        # The engine fetches remaining rows in the background; dropping the reader waits for it.
        self._reader = None
        self._connection.close()
        self._held_files.close()

    def _interrupt_until(self, closed: Future[None], timeout_s: float) -> bool:
        """Interrupt the statement until its cursor is closed, and return False after a timeout."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            # The engine loses an interrupt between two of its tasks, so one is not enough.
            with contextlib.suppress(duckdb.ConnectionException):  # closed meanwhile
                self._connection.interrupt()
            if wait([closed], _INTERRUPT_EVERY_S).done:
                return True
        return False

    def start(self, sql: str, params: Mapping[str, Any]) -> RowStream:
        """Run a statement until its first rows arrive.

        Raises:
            the errors of `session.run`.
            FileReplacedError, UnreadableAsIsError: if the statement needs a retry.
        """
        params = plain_parameters(params)
        _check_text(sql, *params.values())
        fields = self._interruptible(lambda: self._begin(sql, params))
        names = unique_names(fields.names)
        schema = pa.schema([field.with_name(name) for field, name in zip(fields, names, strict=True)])
        return RowStream(schema, self._batches(schema), self._explain_empty)

    def raise_if_files_replaced(self) -> None:
        """Raise FileReplacedError if a file changed while a complete answer was read.

        Held files do not change. The retry holds as many files as the process may open.
        """
        if self._reader is not None or self._hints.files_replaced or not self._may_hold():
            return
        unheld = [name for name in self._snapshot.own if name not in self._held_files.names]
        if any_modified_since(self._root, unheld, self._since_ns):
            raise FileReplacedError("lake: files were replaced while they were read", "try again")

    def _may_hold(self) -> bool:
        # One request reads a whole remote file, so no version can be mixed.
        return not self._store.is_remote and can_hold(self._root)

    def _begin(self, sql: str, params: Mapping[str, Any]) -> pa.Schema:
        statement = check(self._connection, sql, frozenset(self._own_tables))
        _check_params(statement, params)
        params = resolved(params, statement.times)
        create_tables(self._connection, self._store, statement.tables, all_names=statement.reads_catalog)
        create_macros(self._engine, self._connection, statement.macros)
        if "candles" in statement.tables:
            self._choose_files(statement, params)  # before the registration of own tables
        elif statement.reads_catalog:
            create_candles(self._connection, self._store, EMPTY_SNAPSHOT, self._held_files)
        for name, table in self._own_tables.items():
            if name in statement.own_tables or statement.reads_catalog:
                self._connection.register(name, table)
        answer = self._planned_without_path_conditions(params)
        if answer is None:
            answer = self._connection.sql(sql, params=dict(params) or None)
        if answer is None:
            raise QueryError("sql: the statement returns no table")
        self._reader = answer.to_arrow_reader(BATCH_ROWS)
        schema = self._reader.schema
        self._first_batch = self._next_batch()
        return schema

    def _choose_files(self, statement: ParsedStatement, params: Mapping[str, Any]) -> None:
        # Arrow's datasets import pandas, and take longer to import than all other
        # modules. Statements without candles do not need them.
        from lakewriter.query.scan.kept_filters import find_filters  # noqa: PLC0415

        filters = find_filters(
            self._engine,
            self._connection,
            statement.select,
            params,
            repeatable=statement.repeatable and all(is_absolute(params[name]) for name in statement.times),
            own_schemas={name: self._own_tables[name].schema for name in statement.own_tables},
            where=statement.where,
        )
        # `raise_if_files_replaced` compares file times with it, so it precedes the listing.
        self._since_ns = time.time_ns() - _TICK_NS
        self._snapshot = take_snapshot(
            self._store, (ALL,) if filters.everything else filters.pruners, self._hints.read_as_foreign
        )
        if self._may_hold() and (self._hints.files_replaced or self._streamed):
            self._held_files.hold(self._snapshot.own, time.time(), hold_all=self._hints.files_replaced)
        self._filters = filters.pruners
        if self._store.is_remote:
            from lakewriter.query.scan.object_scan import ObjectScanner  # noqa: PLC0415

            self._source = ObjectScanner(self._store, self._snapshot.versions)
        create_candles(self._connection, self._store, self._snapshot, self._held_files, self._source)
        if filters.exact and statement.where is not None and len(self._snapshot.own) >= FILES_MIN:
            self._reduced = without_path_conditions(
                self._connection, statement.select, statement.where, with_dates=self._snapshot.is_of_days
            )

    def _planned_without_path_conditions(self, params: Mapping[str, Any]) -> duckdb.DuckDBPyRelation | None:
        """Return the statement without the conditions that its files fulfil; None if that is impossible."""
        if self._reduced is None:
            return None
        try:
            return self._connection.sql(self._reduced.sql, params=self._reduced.params(params))
        except duckdb.Error:
            return None  # the whole statement raises an error that shows it as the user wrote it

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        batches = [] if self._first_batch is None else [self._first_batch]
        while batches:
            for batch in batches:
                self._any_rows = self._any_rows or batch.num_rows > 0
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            batches = self._interruptible(self._next_batches)

    def _explain_empty(self) -> str:
        # Listing an object store costs requests. A count of no candles has a row, too.
        files = self._snapshot.own or self._snapshot.foreign
        if self._store.is_remote or self._filters is None or (self._any_rows and files):
            return ""
        from lakewriter.query.empty_answer import explain_empty  # noqa: PLC0415 - needed for few answers

        # `explain_empty` reads other directories than the statement. Their errors do not
        # concern the answer.
        with contextlib.suppress(OSError, LakeError):
            return explain_empty(self._store, self._filters, found=self._any_rows)
        return ""

    def _next_batches(self) -> list[pa.RecordBatch]:
        """Return the next batches, or none after the last one. Only the engine's thread calls this."""
        # The engine returns a small batch for each small file. Each change of the thread costs as much.
        until_s = time.monotonic() + _FETCH_S
        batches: list[pa.RecordBatch] = []
        rows = 0
        while self._reader is not None and rows < BATCH_ROWS:
            batch = self._next_batch()
            if batch is not None:
                batches.append(batch)
                rows += batch.num_rows
            if time.monotonic() >= until_s:
                break
        return batches

    def _next_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, or None after the last one. Only the engine's thread calls this."""
        assert self._reader is not None
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            self._reader = None
            return None

    def _interruptible(self, work: Callable[[], T]) -> T:
        try:
            running = self._worker.submit(work)
            self._running = running
            return self._limits.wait(running)
        except ENGINE_ERRORS as error:
            raise self._classify_error(error) from None
        except KeyboardInterrupt:
            self._connection.interrupt()
            raise

    def _classify_error(self, error: Exception) -> LakewriterError:
        """Return an engine's error as an error about replaced files, a file, or the SQL."""
        if is_fault_of_engine(error):
            forget_engine(self._engine)
        if self._source is not None:
            return self._source.classify_error(error)
        error = self._held_files.with_lake_names(error)
        ours = as_lakewriter_error(error, self._root)
        torn = is_about_values(error) and not self._hints.files_replaced
        if isinstance(ours, FileGoneError) or (is_fault_of_sql(error, self._root) and not torn):
            return ours
        named = names_a_file(error, self._root)
        # Held files would fail again. But a file that the error names may be repaired meanwhile.
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
    """Return whether an abandoned statement is still running. The process waits for it at exit."""
    return bool(_stopping)


def unique_names(names: list[str]) -> list[str]:
    """Return the names, with `_1`, `_2` … appended to repeated names."""
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
