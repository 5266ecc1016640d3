"""A standard error that never blocks.

A full pipe, a terminal stopped by Ctrl-S or a hung ssh blocks writes. A blocked write
would block a recorder, its signals and its exit.

Strategy: text goes into a bounded queue, and one thread writes it. Text that does
not fit is dropped. The number of its lines is written in its place.
"""

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TextIO

# Maximum pending text, about 10,000 lines of a log.
QUEUE_CHARS_MAX = 1 << 20

# Maximum time that `flush` waits for a stuck reader. Later calls do not wait for it.
FLUSH_S_MAX = 0.2

# Maximum time that the exit waits for a stuck reader.
END_S_MAX = 1.0

# Maximum time that the exit waits for the writing thread while the reader has room. A very
# busy machine runs that thread late.
BUSY_S_MAX = 15.0

# Writes of up to this size to a pipe are atomic.
_PART_BYTES = 4096


class Stderr(io.TextIOBase):
    """A text stream on a file descriptor. Only `end` blocks longer than FLUSH_S_MAX.

    Args:
        stream: the stream to replace, with an empty buffer.
        queue_chars_max: the maximum number of characters in the queue.

    Attributes:
        dropped_text: returns the line in place of a number of dropped lines.
    """

    def __init__(self, stream: TextIO, queue_chars_max: int = QUEUE_CHARS_MAX) -> None:
        super().__init__()
        self._fd = stream.fileno()
        self._encoding = stream.encoding
        self._queue_chars_max = queue_chars_max
        self.dropped_text = _dropped_text
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[str | int] = deque()  # text, or the number of dropped lines
        self._waiting_chars = 0
        self._dropped_lines = 0
        self._stuck = False
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the output."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """The handling of characters that the encoding lacks."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether the file descriptor is a terminal that still exists."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Add text to the queue. If the queue is full, drop the text and count its lines.

        Raises:
            TypeError: if `text` is not text. Click tests streams this way.
        """
        if not isinstance(text, str):
            raise TypeError(f"standard error takes text, not {type(text).__name__}")
        with self._changed:
            if self._waiting_chars + len(text) > self._queue_chars_max:
                self._dropped_lines += _lines(text)
            elif text:
                self._queue_dropped()
                self._put(text)
        return len(text)

    def flush(self) -> None:
        """Wait up to FLUSH_S_MAX until all text is written. Do not wait in an event loop or for a stuck reader."""
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:
            return
        with self._changed:
            self._wait_written(0.0 if self._stuck else FLUSH_S_MAX)

    def end(self) -> None:
        """Wait up to END_S_MAX until all text is written, and up to BUSY_S_MAX while there is room for it."""
        until_s = time.monotonic() + BUSY_S_MAX
        with self._changed:
            self._wait_written(END_S_MAX)
            while self._stuck and _has_room(self._fd) and time.monotonic() < until_s:
                self._wait_written(FLUSH_S_MAX)

    def _wait_written(self, timeout_s: float) -> None:
        self._stuck = not self._changed.wait_for(lambda: not self._waiting_chars, timeout_s)

    def _queue_dropped(self) -> None:
        if self._dropped_lines:
            self._put(self._dropped_lines)
            self._dropped_lines = 0

    def _put(self, item: str | int) -> None:
        if self._thread is None and not self._start():
            if select.select([], [self._fd], [], FLUSH_S_MAX)[1]:
                _write(self._fd, self._encoded([item]))
            return
        self._queue.append(item)
        self._waiting_chars += len(self._text(item))
        self._changed.notify_all()

    def _encoded(self, items: Iterable[str | int]) -> bytes:
        return "".join(map(self._text, items)).encode(self._encoding, self.errors)

    def _text(self, item: str | int) -> str:
        return item if isinstance(item, str) else self.dropped_text(item)

    def _start(self) -> bool:
        """Start the thread, and return False if the process may start no more threads."""
        thread = threading.Thread(target=self._write_all, name="stderr", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _write_all(self) -> None:
        """Write queued text until the process ends, in its own thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                items = list(self._queue)
                self._queue.clear()
            written = _write(self._fd, self._encoded(items))
            with self._changed:
                self._waiting_chars -= sum(len(self._text(item)) for item in items)
                if not written:  # a full disk may have space later
                    self._dropped_lines += sum(map(_lines, items))
                elif not self._queue:
                    self._queue_dropped()
                self._stuck = self._stuck and self._waiting_chars > 0
                self._changed.notify_all()


def _dropped_text(lines: int) -> str:
    return f"lakewriter: {lines} lines were dropped here: standard error was not read\n"


def _lines(item: str | int) -> int:
    return max(1, item.count("\n")) if isinstance(item, str) else item


def _write(fd: int, data: bytes) -> bool:
    """Write all bytes, and return whether that succeeded."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view[:_PART_BYTES]) :]
        except BlockingIOError:  # another process made the descriptor non-blocking
            select.select([], [fd], [])
        except OSError:
            return False
    return True


def _has_room(fd: int) -> bool:
    try:
        return bool(select.select([], [fd], [], 0)[1])
    except (OSError, ValueError):  # it is closed
        return False


def install() -> None:
    """Replace `sys.stderr` with a stream that never blocks."""
    if sys.stderr is not None and not isinstance(sys.stderr, Stderr):
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
            sys.stderr = Stderr(sys.stderr)


def end() -> None:
    """Wait until the pending text of standard error is written; see `Stderr.end`."""
    if isinstance(sys.stderr, Stderr):
        sys.stderr.end()
