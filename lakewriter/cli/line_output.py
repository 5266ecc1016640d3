"""The output of lines that come for ever: to standard output, or appended to a file.

A reader of a pipe may be slow, or go away. A write waits for the reader, and for a signal.
"""

import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lakewriter.errors import LakewriterError, UsageError

# A pipe that is ready takes so many bytes without blocking. Source: pipe(7), PIPE_BUF.
_PART_BYTES = 4096

_READ_BYTES = 1 << 20


class Stopped(Exception):  # noqa: N818 - it is no error
    """A signal asked to stop."""


class StopSignals:
    """SIGINT and SIGTERM, as a descriptor that becomes readable. Nothing is interrupted by them."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.is_set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def _stop(self, _number: int, _frame: object) -> None:
        self.is_set = True


class LineOutput:
    """A descriptor that gets lines.

    Args:
        fd: the descriptor.
        stop: ends a write that waits for its reader.
    """

    def __init__(self, fd: int, stop: StopSignals) -> None:
        self.fd = fd
        self._stop = stop

    def write(self, lines: Sequence[bytes], written: Callable[[int], None]) -> None:
        """Write lines. After each part, report how many of the lines are written.

        Raises:
            Stopped: if a signal came. No line is cut.
            BrokenPipeError: if the reader is gone.
            OSError: if the disk refuses.
        """
        at = 0
        while at < len(lines):
            if self._stop.is_set:
                raise Stopped
            part, size = at + 1, len(lines[at])
            while part < len(lines) and size + len(lines[part]) <= _PART_BYTES:
                size += len(lines[part])
                part += 1
            self._write_part(b"".join(lines[at:part]))
            written(part)
            at = part

    def is_broken(self) -> bool:
        """Return whether the reader is gone."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))

    def _write_part(self, data: bytes) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        poll.register(self._stop.fd, select.POLLIN)
        view = memoryview(data)
        while view:
            ready = dict(poll.poll())
            # A part that was begun is written to its end, so that no line is cut.
            if self._stop.is_set and len(view) == len(data):
                raise Stopped
            if self._stop.is_set:
                poll.unregister(self._stop.fd)
            if self.fd in ready:
                view = view[os.write(self.fd, view) :]


def standard_lines(stop: StopSignals) -> LineOutput:
    """Return the output to standard output.

    Raises:
        UsageError: if standard output is closed.
    """
    if sys.stdout is None:
        raise UsageError("output: standard output is closed", "-o FILE.ndjson")
    return LineOutput(sys.stdout.fileno(), stop)


@contextmanager
def appended_lines(path: Path, stop: StopSignals) -> Iterator[LineOutput]:
    """Yield the output to the end of a file. The file is created if necessary, and locked.

    Raises:
        UsageError: if the file cannot be opened, is no regular file, or has another writer.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UsageError(f"output: {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"output: {path}: another follower writes into it") from None
        except OSError as error:
            raise UsageError(f"output: {path}: {error.strerror}") from None
        if not path.is_file():
            raise UsageError(f"output: {path}: is no regular file", "leave -o out, and redirect")
        yield LineOutput(fd, stop)
    finally:
        os.close(fd)


def lines_after(fd: int, at: int) -> Iterator[bytes]:
    """Yield the whole lines of a file after a place, and cut off an unfinished last one.

    A place behind the end means that the file was replaced: it is read from its start.

    Raises:
        LakewriterError: if the file cannot be read or cut.
    """
    try:
        size = os.fstat(fd).st_size
        at = at if at <= size else 0
        rest = b""
        while data := os.pread(fd, _READ_BYTES, at):
            at += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        if rest:
            os.ftruncate(fd, at - len(rest))
    except OSError as error:
        raise LakewriterError(f"output: {error.strerror}") from None
