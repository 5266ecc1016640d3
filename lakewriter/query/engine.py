"""The engine, which is one DuckDB in memory for each lake and process.

Each statement has its own cursor of the engine.

Creating an engine takes longer than most statements, so engines are cached.
Statements share only the engine's settings. Their tables and views are temporary,
and belong to their cursors.

The engine can open only the lake's files and its own spill files. External access
is disabled, and DuckDB cannot enable it again. The guard refuses SET, so no
statement changes a setting.
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
from lakewriter.interruptible import result_of

Version = tuple[int, int]

# The guard reads the trees that these releases print, and `pushdown` their plans.
OLDEST: Version = (2, 0)
REFUSED: Version = (3, 0)

_INSTALL = "pip install 'duckdb>=2.0,<3'"

# Maximum number of cached engines. A process that reads more lakes creates engines repeatedly.
KEPT_ENGINES_MAX = 8

# These optimizers let joins and LIMITs pass filters to scans at run time.
_AT_RUN_TIME = "join_filter_pushdown,top_n"


class EngineKey(NamedTuple):
    """The lake and the limits of an engine.

    Args:
        root: the lake's directory.
        readable: whether the engine may open files below `root`.
        memory: the memory limit in DuckDB's notation; "" is DuckDB's default.
    """

    root: Path
    readable: bool
    memory: str = ""


class Engine:
    """A DuckDB in memory that can open the files of one lake. Any thread may use it.

    Raises:
        LakewriterError: if this DuckDB is too old or too new.
        UsageError: if the memory limit is invalid.
    """

    def __init__(self, key: EngineKey) -> None:
        with settings_required():
            self._connection = _connected()
            restrict_files(self._connection, key.root, readable=key.readable)
        if key.memory:
            try:
                self._connection.execute(f"SET memory_limit='{key.memory}'")
            except duckdb.Error as error:
                raise UsageError(f"memory limit: {key.memory}: {error}", "512MB, 2GB") from None
        # The names of its macros; `making_macros` guards changes.
        self.macros: set[str] = set()
        self.making_macros = threading.Lock()
        self._probe_lock = threading.Lock()

    def cursor(self, *, progress: bool = False) -> duckdb.DuckDBPyConnection:
        """Return a connection with its own tables, views and variables.

        Args:
            progress: whether the connection measures the progress of its statements.
        """
        cursor = self._connection.cursor()
        if progress:
            cursor.execute("SET enable_progress_bar=true; SET enable_progress_bar_print=false")
        return cursor

    @contextlib.contextmanager
    def without_runtime_filters(self) -> Iterator[None]:
        """Disable run-time filters of joins and LIMITs during the block.

        Only one thread at a time can be in the block. The setting belongs to the whole
        engine. A statement that another thread plans meanwhile runs without these filters.
        """
        with self._probe_lock, self._connection.cursor() as settings:
            settings.execute(f"SET disabled_optimizers='{_AT_RUN_TIME}'")
            try:
                yield
            finally:
                settings.execute("RESET disabled_optimizers")


class _KeptEngines:
    """The cached engines of this process, the most recently used last.

    A forked child starts with an empty cache.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[EngineKey, Engine] = {}

    def get(self, key: EngineKey) -> Engine:
        """Return the engine of a lake. An engine with a memory limit is new, and not cached."""
        if key.memory:
            return Engine(key)
        with self._lock:
            engine = self._kept.pop(key, None) or Engine(key)
            self._kept[key] = engine
            # Cursors of running statements keep its database open.
            for oldest in list(self._kept)[:-KEPT_ENGINES_MAX]:
                del self._kept[oldest]
            return engine

    def forget(self, engine: Engine) -> None:
        """Remove an engine from the cache."""
        with self._lock:
            self._kept = {key: kept for key, kept in self._kept.items() if kept is not engine}

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        # A fork copies no threads. Closing an engine without its threads would never
        # return, so the child never closes it.
        for engine in self._kept.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
        self.__init__()  # type: ignore[misc]


_KEPT = _KeptEngines()
os.register_at_fork(
    before=_KEPT.before_fork,
    after_in_parent=_KEPT.after_fork_in_parent,
    after_in_child=_KEPT.after_fork_in_child,
)

# The database that a thread creates while the process imports other modules.
_PREFETCHED: list["Future[duckdb.DuckDBPyConnection]"] = []
_PREFETCHING: list[threading.Thread] = []


def engine_of(key: EngineKey) -> Engine:
    """Return the cached engine of a lake, or a new one.

    Raises:
        LakewriterError: if this DuckDB is too old or too new.
    """
    return _KEPT.get(key)


def forget_engine(engine: Engine) -> None:
    """Remove an engine from the cache, because its DuckDB may be broken.

    Statements that already use the engine continue.
    """
    _KEPT.forget(engine)


def prefetch_engine() -> None:
    """Start a thread that creates the database of this process's first engine."""
    future: Future[duckdb.DuckDBPyConnection] = Future()

    def work() -> None:
        try:
            future.set_result(_database())
        except Exception as error:  # noqa: BLE001 - raised when the database is used
            future.set_exception(error)

    thread = threading.Thread(target=work, name="engine", daemon=True)
    with contextlib.suppress(RuntimeError):  # the process may start no more threads; the engine creates it
        thread.start()
        _PREFETCHING.append(thread)
        _PREFETCHED.append(future)


def has_pending() -> bool:
    """Return whether a thread is still creating a database.

    Python ends its threads at exit. DuckDB aborts the process if one of them runs its code.
    """
    return any(thread.is_alive() for thread in _PREFETCHING)


def _connected() -> duckdb.DuckDBPyConnection:
    try:
        future = _PREFETCHED.pop()
    except IndexError:
        return _database()
    return result_of(future)


def _database() -> duckdb.DuckDBPyConnection:
    check_release()
    connection = duckdb.connect(
        ":memory:",
        config={
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # It caches by path, so one read could mix an old and a new version of a file.
            "enable_external_file_cache": False,
            # An internal error ends only its own statement. See `forget_engine`.
            "disable_database_invalidation": True,
        },
    )
    connection.execute("SET GLOBAL TimeZone='UTC'")
    return connection


def restrict_files(connection: duckdb.DuckDBPyConnection, root: Path, *, readable: bool) -> None:
    """Restrict an engine permanently to its spill files, and to files below the root if it is readable."""
    allowed = _quoted(str(root)) if readable else ""
    connection.execute(
        f"SET temp_directory={_quoted(_spill_directory(root))};"
        f" SET allowed_directories=[{allowed}]; SET enable_external_access=false"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _spill_directory(root: Path) -> str:
    """Return the directory that the engine creates for its spill files; "" if it must not spill."""
    temporary = Path(tempfile.gettempdir()).resolve()
    if temporary.is_relative_to(root):
        return ""
    return str(temporary / f"lakewriter-query-{secrets.token_hex(8)}")


@contextlib.contextmanager
def time_limited(connection: duckdb.DuckDBPyConnection, limit_ms: int) -> Iterator[None]:
    """Interrupt the connection's statement if the block takes longer than `limit_ms` milliseconds."""
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
        # The timer must not interrupt statements after the block.
        with lock:
            over = True
        timer.cancel()


def parse_version(text: str) -> Version:
    """Return the first two numbers of a version, (2, 0) for "2.0.0.dev7"; (0, 0) if it is invalid."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check_release(text: str = duckdb.__version__) -> None:
    """Raise LakewriterError if a DuckDB release is too old or too new.

    The guard reads the syntax tree that DuckDB prints of a statement. Other releases
    may print other trees.
    """
    version = parse_version(text)
    if not OLDEST <= version < REFUSED:
        age = "new" if version >= REFUSED else "old"
        raise LakewriterError(f"query: DuckDB {text} is too {age}", _INSTALL)


@contextlib.contextmanager
def settings_required() -> Iterator[None]:
    """Raise LakewriterError if this DuckDB lacks a setting that the block uses."""
    try:
        yield
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise LakewriterError(f"query: DuckDB {duckdb.__version__}: {first}", _INSTALL) from None


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON tree that the engine printed, without recursion."""
    pending = [tree]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield part
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
