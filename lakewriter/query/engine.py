"""The engine: one DuckDB in memory for each lake and process, and a cursor for each statement.

To make an engine takes longer than most statements take to run, so it is kept.
A statement shares nothing with others but the engine's settings: its tables and
views are temporary, and belong to its cursor.

The engine can open the lake's files and the files that it spills, and nothing
else. External access is switched off, and cannot be switched on again. The guard
refuses SET, so no statement changes a setting.
"""

import contextlib
import ctypes
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from lakewriter.errors import LakewriterError, UsageError

Version = tuple[int, int]

# The guard and the finding of filters read the trees and plans that these releases print.
OLDEST: Version = (2, 0)
REFUSED: Version = (3, 0)

_INSTALL = "pip install 'duckdb>=2.0,<3'"

# A process that reads more lakes than this makes an engine anew now and then.
KEPT_ENGINES_MAX = 8

# Optimizers that pass to a scan what a join or a LIMIT learns while a statement runs.
_AT_RUN_TIME = "join_filter_pushdown,top_n"


class EngineKey(NamedTuple):
    """What an engine is made for.

    Args:
        root: the lake's directory.
        readable: whether the engine opens files below `root` by itself.
        memory: the limit of its memory as DuckDB writes it; "" for DuckDB's default.
    """

    root: Path
    readable: bool
    memory: str = ""


class Engine:
    """A DuckDB in memory that can open the files of one lake. Any thread may use it.

    Raises:
        LakewriterError: if this DuckDB is too old or too new.
        UsageError: if the memory limit is no size.
    """

    def __init__(self, made_for: EngineKey) -> None:
        with prepared():
            self._connection = _connected()
            restrict_files(self._connection, made_for.root, readable=made_for.readable)
        if made_for.memory:
            try:
                self._connection.execute(f"SET memory_limit='{made_for.memory}'")
            except duckdb.Error as error:
                raise UsageError(f"memory limit: {made_for.memory}: {error}", "512MB, 2GB") from None
        # Names of the macros that it has; added to under the lock.
        self.macros: set[str] = set()
        self.making_macros = threading.Lock()
        self._finding_filters = threading.Lock()

    def cursor(self, *, progress: bool = False) -> duckdb.DuckDBPyConnection:
        """Return a connection with its own tables, views and variables.

        Args:
            progress: whether it measures the progress of its statements.
        """
        cursor = self._connection.cursor()
        if progress:
            cursor.execute("SET enable_progress_bar=true; SET enable_progress_bar_print=false")
        return cursor

    @contextlib.contextmanager
    def without_runtime_filters(self) -> Iterator[None]:
        """Keep joins and LIMITs from passing filters to scans in the block, one thread at a time.

        The setting is the whole engine's. A statement that another thread plans
        meanwhile runs without these two optimizers.
        """
        with self._finding_filters, self._connection.cursor() as settings:
            settings.execute(f"SET disabled_optimizers='{_AT_RUN_TIME}'")
            try:
                yield
            finally:
                settings.execute("RESET disabled_optimizers")


class _KeptEngines:
    """The engines of this process, the last used ones last. A fork starts with none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[EngineKey, Engine] = {}

    def get(self, made_for: EngineKey) -> Engine:
        """Return the engine of a lake. One with a memory limit is made anew, and not kept."""
        if made_for.memory:
            return Engine(made_for)
        with self._lock:
            engine = self._kept.pop(made_for, None) or Engine(made_for)
            self._kept[made_for] = engine
            # Statements that still run in it have cursors, which keep the database open.
            for oldest in list(self._kept)[:-KEPT_ENGINES_MAX]:
                del self._kept[oldest]
            return engine

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        # A fork copies no threads. An engine without its threads waits for them for
        # ever when it is closed, so the child never closes it.
        for engine in self._kept.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
        self.__init__()  # type: ignore[misc]


_KEPT = _KeptEngines()
os.register_at_fork(
    before=_KEPT.before_fork,
    after_in_parent=_KEPT.after_fork_in_parent,
    after_in_child=_KEPT.after_fork_in_child,
)

# A database that is being made while the process imports what else it needs.
_PREFETCHED: list["Future[duckdb.DuckDBPyConnection]"] = []


def engine_of(made_for: EngineKey) -> Engine:
    """Return the engine of a lake, kept from the statement before or made now.

    Raises:
        LakewriterError: if this DuckDB is too old or too new.
    """
    return _KEPT.get(made_for)


def prefetch_engine() -> None:
    """Begin to make a database in a thread, for the first engine of this process."""
    future: Future[duckdb.DuckDBPyConnection] = Future()

    def work() -> None:
        try:
            future.set_result(_database())
        except Exception as error:  # noqa: BLE001 - raised where the database is asked for
            future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # no more threads: it is made when it is needed
        threading.Thread(target=work, name="engine", daemon=True).start()
        _PREFETCHED.append(future)


def _connected() -> duckdb.DuckDBPyConnection:
    try:
        future = _PREFETCHED.pop()
    except IndexError:
        return _database()
    return future.result()


def _database() -> duckdb.DuckDBPyConnection:
    check_release()
    connection = duckdb.connect(
        ":memory:",
        config={
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # Kept by path: a file that is replaced could be read half old, half new.
            "enable_external_file_cache": False,
        },
    )
    connection.execute("SET GLOBAL TimeZone='UTC'")
    return connection


def restrict_files(connection: duckdb.DuckDBPyConnection, root: Path, *, readable: bool) -> None:
    """Allow the engine no files but those below a readable root, and those that it spills; for good."""
    allowed = _quoted(str(root)) if readable else ""
    connection.execute(
        f"SET temp_directory={_quoted(_spill_directory(root))};"
        f" SET allowed_directories=[{allowed}]; SET enable_external_access=false"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _spill_directory(root: Path) -> str:
    """Return where the engine may spill; it makes and removes the directory. "" is nowhere."""
    temporary = Path(tempfile.gettempdir()).resolve()
    if temporary.is_relative_to(root):
        return ""
    return str(temporary / f"lakewriter-query-{secrets.token_hex(8)}")


@contextlib.contextmanager
def time_limited(connection: duckdb.DuckDBPyConnection, limit_ms: int) -> Iterator[None]:
    """Interrupt what runs in the block after a time."""
    lock = threading.Lock()
    over = False

    def interrupt() -> None:
        with lock:
            if not over:
                connection.interrupt()

    timer = threading.Timer(limit_ms / 1000, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        # What runs after the block is no longer the timer's.
        with lock:
            over = True
        timer.cancel()


def parse_version(text: str) -> Version:
    """Return the release of a version: (2, 0) of "2.0.1" or "2.0.0.dev7"; (0, 0) if it is none."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check_release(text: str = duckdb.__version__) -> None:
    """Raise LakewriterError if a release is too old or too new.

    The guard decides from the tree that DuckDB prints of a statement. Other
    releases may print other trees.
    """
    version = parse_version(text)
    if not OLDEST <= version < REFUSED:
        age = "new" if version >= REFUSED else "old"
        raise LakewriterError(f"query: DuckDB {text} is too {age}", _INSTALL)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Raise a setting that this DuckDB lacks, in the block, as one line."""
    try:
        yield
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise LakewriterError(f"query: DuckDB {duckdb.__version__}: {first}", _INSTALL) from None


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a tree that the engine printed as JSON, without recursion."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
