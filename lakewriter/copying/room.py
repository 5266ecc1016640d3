"""A limit on the rows that are in memory at one time, over all threads."""

import contextlib
import threading
from collections.abc import Iterator


class Room:
    """Room for a number of rows. A thread waits until there is room for its own.

    Args:
        rows_max: the number of rows. A thread with more rows waits until it is alone.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._rows = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, rows: int) -> Iterator[None]:
        """Take room for rows until the block ends."""
        rows = min(rows, self._rows_max)
        with self._changed:
            self._changed.wait_for(lambda: self._rows + rows <= self._rows_max)
            self._rows += rows
        try:
            yield
        finally:
            with self._changed:
                self._rows -= rows
                self._changed.notify_all()
