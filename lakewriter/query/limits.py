"""What bounds a statement while it runs, and tells how far it is.

One object for each statement. Any thread may ask it; the session alone lends
it its engine, and takes that back before it closes it.
"""

import re
import threading
import time
from concurrent.futures import Future, wait
from typing import TypeVar

import duckdb

from lakewriter.errors import UsageError
from lakewriter.query.errors import QueryError

T = TypeVar("T")

_MEMORY = re.compile(r"\d{1,9}(\.\d{1,9})?\s?([KMGT]i?B)", re.IGNORECASE)


class QueryLimits:
    """The bounds of one statement, which begins now.

    Args:
        timeout_s: it is stopped when it has not given all its rows by then; None
            lets it take as long as it likes.
        memory: of the engine, as it writes it: "512MB", "2GiB"; what needs more is
            spilled to disk, or fails. "" is the engine's default, 80 % of RAM.

    Raises:
        UsageError: if one of them cannot be.
    """

    def __init__(self, *, timeout_s: float | None = None, memory: str = "") -> None:
        if memory and not _MEMORY.fullmatch(memory.strip()):
            raise UsageError(f"memory limit: {memory!r} is no size", "512MB, 2GB")
        if timeout_s is not None and timeout_s <= 0:
            raise UsageError("timeout: has to be longer than nothing", "30s, 5m")
        self._timeout_s = timeout_s
        self.memory = memory.strip()
        self._started_s = time.monotonic()
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Take the statement's cursor, to interrupt it and to ask how far it is."""
        with self._lock:
            self._connection = connection

    def detach(self) -> None:
        """Let go of the engine, which is about to be closed."""
        with self._lock:
            self._connection = None

    def wait(self, future: Future[T]) -> T:
        """Return what the engine's thread returns.

        Raises:
            QueryError: if the time is over, with the engine interrupted.
        """
        if self._timeout_s is None:
            return future.result()
        left_s = self._started_s + self._timeout_s - time.monotonic()
        # The result itself may be a TimeoutError: of a disk that is far away.
        if wait([future], max(0, left_s)).done:
            return future.result()
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()
        raise QueryError(
            f"sql: not done after {self._timeout_s:g} s",
            "a longer --timeout, or fewer files: WHERE symbol = …",
        )

    def fraction(self) -> float | None:
        """Return how much of the statement is done, by the engine's guess; None if it has none."""
        with self._lock:
            if self._connection is None:
                return None
            percent = float(self._connection.query_progress())
        return percent / 100 if 0 < percent <= 100 else None
