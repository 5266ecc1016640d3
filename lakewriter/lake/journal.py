"""The journal: closed candles that are safe but not yet in their partitions.

Contract: `commit` returns after the candles are on the disk, or raises; a
committed candle stays readable here until whoever flushed it calls `drop`.
One directory per living recorder, marked by a lock file that it holds; one
JSON object a line, each with a checksum of its candle, so that a torn or
flipped line is known for what it is. A segment is one file of lines.

    _lakewriter/journal/lock                          held while recorders come, go, or are counted
    _lakewriter/journal/<recorder>/lock
    _lakewriter/journal/<recorder>/00000001.ndjson

Nothing here knows of partitions; merging is the caller's.
"""

import contextlib
import fcntl
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.storage import sync_directory

JOURNAL_DIRECTORY = "_lakewriter/journal"
LOCK_NAME = "lock"
_SEGMENT_SUFFIX = ".ndjson"

# Flushes roll segments long before; this bounds what a reader loads at once.
SEGMENT_BYTES_MAX = 64 * 1024 * 1024

# Listing and reading race with recorders; each lap means that one of them flushed.
READ_LAPS_MAX = 100

# Names of at most eight digits: some three hundred years of flushes.
_SEGMENTS_MAX = 10**8


class _Line(msgspec.Struct):
    crc: int
    candle: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_candle = msgspec.json.Decoder(Candle).decode


class Segment(NamedTuple):
    """What one segment holds.

    Args:
        path: the file.
        candles: every whole line's candle, in the order of commit.
        torn: whether the last line is incomplete: its commit never returned.
        damaged: numbers (from 1) of whole lines that do not match their checksum.
    """

    path: Path
    candles: list[Candle]
    torn: bool
    damaged: list[int]


class Journal:
    """The journal of one living recorder.

    Args:
        directory: its own directory, made by `create_journal`.
        lock_fd: the lock, held until `close`.
    """

    def __init__(self, directory: Path, lock_fd: int) -> None:
        self.directory = directory
        self._lock_fd = lock_fd
        self._number = 0
        self._fd: int | None = None
        self._bytes = 0

    def commit(self, candles: Iterable[Candle]) -> int:
        """Append the candles, make them durable, and return the bytes written.

        Raises:
            LakeError: if the disk refused; none of these candles is promised,
                all earlier ones still are. A failed sync is never retried: what
                the kernel dropped would be taken for written.

        Crash: some of the lines may be there, the last of them torn; a reader
        drops a torn line, and no promise was made for any of them.
        """
        lines = b"".join(encode_line(candle) for candle in candles)
        try:
            fd = self._open_segment()
            _append(fd, lines, self._bytes)
            self._sync(fd)
        except OSError as error:
            raise LakeError(
                f"journal: {self.directory}: {error.strerror}", "nothing that was logged as recorded is lost"
            ) from error
        self._bytes += len(lines)
        return len(lines)

    @property
    def segment_bytes(self) -> int:
        """The size of the open segment; 0 if none is open."""
        return self._bytes

    def roll(self) -> list[Path]:
        """Close the open segment and return every closed one, oldest first.

        The next commit opens a new segment.
        """
        self._close_segment()
        return _segments(self.directory)

    def drop(self, segments: Iterable[Path]) -> None:
        """Delete closed segments, whose candles all are in partitions by now.

        Crash: a segment that stays is flushed again, which changes nothing.
        """
        for segment in segments:
            segment.unlink(missing_ok=True)
        sync_directory(self.directory)

    def close(self) -> None:
        """Give the journal up; the directory goes if nothing is left in it.

        Crash: an unlocked directory is a dead recorder's, and adopted by the next.
        """
        self._close_segment()
        with _membership(self.directory.parent):
            if not _segments(self.directory):
                (self.directory / LOCK_NAME).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something else is in it: a .bad file
                    self.directory.rmdir()
            os.close(self._lock_fd)

    def _sync(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError:
            self._close_segment()  # what it holds by now is unknown: nothing goes behind it
            raise

    def _close_segment(self) -> None:
        if self._fd is not None:
            fd, self._fd, self._bytes = self._fd, None, 0
            with contextlib.suppress(OSError):  # all that was promised is synced
                os.close(fd)

    def _open_segment(self) -> int:
        if self._bytes >= SEGMENT_BYTES_MAX:
            self._close_segment()
        if self._fd is None:
            self._number += 1
            path = self.directory / f"{self._number % _SEGMENTS_MAX:08d}{_SEGMENT_SUFFIX}"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            sync_directory(self.directory)
        return self._fd


def create_journal(root: Path, name: str) -> Journal:
    """Make a new recorder's journal below the lake's root.

    Args:
        root: the lake's root, or the local state directory.
        name: a prefix that tells a person which recorder it is.

    Crash: a directory that has no lock held is a dead recorder's.
    """
    journals = root / JOURNAL_DIRECTORY
    journals.mkdir(parents=True, exist_ok=True)
    directory = journals / f"{name}-{secrets.token_hex(3)}"
    with _membership(journals):
        directory.mkdir()
        fd = _try_lock(directory)
        sync_directory(directory)
        sync_directory(journals)
    if fd is None:
        raise LakeError(f"journal: {directory} is held by another process")
    return Journal(directory, fd)


def adopt_dead(root: Path) -> list[Journal]:
    """Take over the journals whose recorders no longer live.

    Returns:
        one per dead recorder, locked by us; flush its `roll()`, `drop`, `close`.
    """
    journals = root / JOURNAL_DIRECTORY
    if not journals.is_dir():
        return []
    with _membership(journals):
        tried = [(directory, _try_lock(directory)) for directory in _recorders(root)]
    return [Journal(directory, fd) for directory, fd in tried if fd is not None]


def read_hot(root: Path) -> list[Candle]:
    """Return every committed candle that is still in any recorder's journal.

    A candle may come twice, and may be in its partition already. Read this
    before listing files: a candle that leaves the journal meanwhile is in its
    partition by then.
    """
    for _ in range(READ_LAPS_MAX):
        candles: list[Candle] = []
        try:
            for directory in _recorders(root):
                for segment in _segments(directory):
                    candles += read_segment(segment).candles
        except FileNotFoundError:
            # A segment was dropped; rows of it that could not be merged are in
            # a newer one by now, which our listing may not have seen.
            continue
        return candles
    raise LakeError(f"journal: {root / JOURNAL_DIRECTORY} does not hold still")


def read_segment(path: Path) -> Segment:
    """Return what a segment holds; safe while its recorder appends to it.

    Raises:
        FileNotFoundError: if it was dropped.
    """
    candles: list[Candle] = []
    damaged = []
    with path.open("rb") as file:
        data = file.read()
    lines = data.split(b"\n")
    torn = bool(lines.pop())
    for line_number, line in enumerate(lines, 1):
        candle = decode_line(line)
        if candle is None:
            damaged.append(line_number)
        else:
            candles.append(candle)
    return Segment(path, candles, torn, damaged)


def encode_line(candle: Candle) -> bytes:
    """Return the candle's line, newline included."""
    body = _encode(candle)
    return b'{"crc":%d,"candle":%b}\n' % (zlib.crc32(body), body)


def decode_line(line: bytes) -> Candle | None:
    """Return the line's candle; None if the line is not what was written."""
    try:
        read = _decode_line(line)
        if zlib.crc32(read.candle) != read.crc:
            return None
        return _decode_candle(read.candle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _append(fd: int, lines: bytes, at: int) -> None:
    view = memoryview(lines)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        # What was written of them must not stand before later lines.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, at)
            os.lseek(fd, at, os.SEEK_SET)
        raise


@contextlib.contextmanager
def _membership(journals: Path) -> Iterator[None]:
    """Let one process at a time come, go, or look who lives."""
    fd = os.open(journals / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _try_lock(directory: Path) -> int | None:
    """Return the held lock of a recorder's directory; None if its owner lives."""
    fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _recorders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in (root / JOURNAL_DIRECTORY).iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def _segments(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix == _SEGMENT_SUFFIX)
