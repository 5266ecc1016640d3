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
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import duckdb

if TYPE_CHECKING:  # it imports Arrow, beside which an engine is to be made
    from lakewriter.query.scans import Recorder


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
        recorder: what is `candles` in it, if anything is.
    """

    connection: duckdb.DuckDBPyConnection
    root: Path | None = None
    recorder: "Recorder | None" = None


Further = Callable[[duckdb.DuckDBPyConnection], Engine]


class Spare:
    """At most one engine that waits for its statement. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making: threading.Thread | None = None
        self._engine: Engine | None = None

    def prepare(self, further: Further = Engine) -> None:
        """Begin to make one, unless there is one.

        Args:
            further: does to it what its statement would do.
        """
        with self._lock:
            if self._making is not None:
                return
            making = threading.Thread(target=self._make, args=(further,), name="engine")
            with contextlib.suppress(RuntimeError):  # no more threads, or the process is ending
                making.start()
                self._making = making

    def take(self, root: Path) -> Engine:
        """Return an engine for a lake that is nobody else's: the spare one, or one made now."""
        with self._lock:
            engine = self._taken()
        if engine is not None and engine.root not in (None, root):
            engine.connection.close()
            engine = None
        return engine or Engine(make_engine())

    def before_fork(self) -> None:
        """Close the spare one, and make none until the fork is done."""
        self._lock.acquire()
        engine = self._taken()
        if engine is not None:
            engine.connection.close()

    def after_fork(self) -> None:
        """Go on, in the parent and in the child."""
        self._lock.release()

    def _taken(self) -> Engine | None:
        if self._making is None:
            return None
        self._making.join()
        self._making = None
        engine, self._engine = self._engine, None
        return engine

    def _make(self, further: Further) -> None:
        # What goes wrong here goes wrong again, and is said, when an engine is taken.
        with contextlib.suppress(Exception):
            self._engine = further(make_engine())


SPARE = Spare()
os.register_at_fork(
    before=SPARE.before_fork, after_in_parent=SPARE.after_fork, after_in_child=SPARE.after_fork
)
