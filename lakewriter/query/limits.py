"""The limits of a running statement, and its progress.

Each statement has one object, which any thread may use. The execution attaches its
cursor, and detaches the cursor before closing it.
"""

import math
import re
import threading
import time
from concurrent.futures import Future
from typing import TypeVar

import duckdb

from lakewriter.errors import UsageError
from lakewriter.interruptible import CHECK_EVERY_S, wait_for
from lakewriter.query.errors import QueryError

T = TypeVar("T")

_MEMORY = re.compile(r"\d{1,9}(\.\d{1,9})?\s?([KMGT]i?B)", re.IGNORECASE)


class QueryLimits:
    """The timeout and the memory limit of one statement. The timeout starts with the object.

    Args:
        timeout_s: the maximum time until all rows are returned, in seconds. After it
            the statement is interrupted. None is no timeout.
        memory: the engine's memory in DuckDB's notation, such as "512MB" or "2GiB". A
            statement that needs more spills to disk, or fails. "" is DuckDB's default,
            80 % of RAM.

    Raises:
        UsageError: if an argument is invalid.
    """

    def __init__(self, *, timeout_s: float | None = None, memory: str = "") -> None:
        if memory and not _MEMORY.fullmatch(memory.strip()):
            raise UsageError(f"memory limit: {memory!r} is no size", "512MB, 2GB")
        if timeout_s is not None and timeout_s <= 0:
            raise UsageError("timeout: must be longer than 0 s", "30s, 5m")
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self.memory = memory.strip()
        self._started_s = time.monotonic()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Set the cursor that is used for interrupts and progress."""
        with self._lock:
            self._connection = connection

    def detach(self) -> None:
        """Remove the cursor, because the execution closes it."""
        with self._lock:
            self._connection = None

    def wait(self, future: Future[T]) -> T:
        """Wait for the result of the engine's thread, and return it.

        Raises:
            QueryError: if the timeout ends before the result, or `cancel` is called. The
                engine is interrupted.
        """
        while not self._cancelled.is_set() and (left_s := self._timeout_s - self.seconds()) > 0:
            if wait_for(future, min(left_s, CHECK_EVERY_S)):
                return future.result()
        self._interrupt()
        if self._cancelled.is_set():
            raise QueryError("sql: cancelled")
        raise QueryError(
            f"sql: not done after {self._timeout_s:g} s",
            "a longer --timeout, or fewer files: WHERE symbol = …",
        )

    def cancel(self) -> None:
        """Interrupt the statement from another thread. Its caller gets a QueryError soon."""
        self._cancelled.set()
        self._interrupt()

    def _interrupt(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()

    def seconds(self) -> float:
        """Return the time since the statement's start."""
        return time.monotonic() - self._started_s

    def fraction(self) -> float | None:
        """Return the engine's estimate of the finished part, from 0 to 1; None if unknown."""
        with self._lock:
            if self._connection is None:
                return None
            percent = float(self._connection.query_progress())
        return percent / 100 if 0 < percent <= 100 else None
