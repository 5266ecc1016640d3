"""Engines, made ahead of the statements that they will run.

To make an engine takes longer than most statements take to run. So the next
one is made while there is time for it, in a thread: when the command line
still imports what it needs, when an answer has just been given. At most one
waits, with 4 MB and some idle threads. A fork leaves none: it copies no
threads, and an engine without its own waits for them for ever.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import duckdb


def make_engine() -> duckdb.DuckDBPyConnection:
    """Return an engine in memory, whose settings are not locked yet."""
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
    connection.execute(
        "SET TimeZone='UTC'; SET enable_progress_bar=true; SET enable_progress_bar_print=false"
    )
    return connection


class Engine(NamedTuple):
    """An engine, and what has been done to it.

    Args:
        root: of the lake in which it is shut; None if it is not yet.
        witness: what is `candles` in it, if anything is; a `scans.Witness`, which
            is not imported here: it takes Arrow, beside which engines are made.
        foreseen: whether below it the view of that name is made already.
    """

    connection: duckdb.DuckDBPyConnection
    root: Path | None = None
    witness: Any = None
    foreseen: bool = False


Further = Callable[[duckdb.DuckDBPyConnection], Engine]


class Spare:
    """At most one engine that waits for its statement. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making: Future[Engine] | None = None
        self._thread = _one_thread()

    def prepare(self, further: Further = Engine) -> None:
        """Begin to make one, unless there is one.

        Args:
            further: does to it what its statement would do.
        """
        with self._lock, contextlib.suppress(RuntimeError):  # no more threads, or the process is ending
            if self._making is None:
                self._making = self._thread.submit(lambda: further(make_engine()))

    def take(self, root: Path) -> Engine:
        """Return an engine for a lake that is nobody else's: the spare one, or one made now."""
        with self._lock:
            engine = self._taken()
        if engine is not None and engine.root not in (None, root):
            engine.connection.close()
            engine = None
        return engine or Engine(make_engine())

    def close(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Close an engine that nothing runs in any more, behind the caller's back: that takes a while."""
        try:
            self._thread.submit(connection.close)
        except RuntimeError:
            connection.close()

    def before_fork(self) -> None:
        """Close the spare one, and make none until the fork is done."""
        self._lock.acquire()
        engine = self._taken()
        if engine is not None:
            engine.connection.close()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on, with a thread of one's own."""
        self._thread = _one_thread()
        self._lock.release()

    def _taken(self) -> Engine | None:
        making, self._making = self._making, None
        # What went wrong goes wrong again, and is said, when an engine is made for its statement.
        with contextlib.suppress(Exception):
            return making.result() if making is not None else None
        return None


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="engines")


SPARE = Spare()
os.register_at_fork(
    before=SPARE.before_fork,
    after_in_parent=SPARE.after_fork_in_parent,
    after_in_child=SPARE.after_fork_in_child,
)
