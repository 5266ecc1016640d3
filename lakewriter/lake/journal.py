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
import logging
import os
import secrets
import socket
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.storage import make_directories, sync_directory, write_durably

log = logging.getLogger(__name__)

JOURNAL_DIRECTORY = "_lakewriter/journal"
LOCK_NAME = "lock"
_SEGMENT_SUFFIX = ".ndjson"

# Flushes roll segments long before; this bounds what a reader loads at once.
SEGMENT_BYTES_MAX = 64 * 1024 * 1024

# Listing and reading race with recorders; each lap means that one of them flushed.
READ_LAPS_MAX = 100

# Names of at most eight digits: some three hundred years of flushes.
_SEGMENTS_MAX = 10**8


_SAFE = "nothing that was logged as recorded is lost"


class RefusedError(LakeError):
    """The disk did not take what was to be written; nothing was promised, it may be tried again."""


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
        damaged: whole lines that do not match their checksum, by their number from 1.
    """

    path: Path
    candles: list[Candle]
    torn: bool
    damaged: dict[int, bytes]


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
            RefusedError: if the disk refused to take them (full, read-only …);
                the same commit may be tried again.
            LakeError: if the disk failed to sync. That is never retried: what
                the kernel dropped would be taken for written.
            In both cases none of these candles is promised, all earlier ones
            still are, and nothing is appended behind what may be torn.

        Crash: some of the lines may be there, the last of them torn; a reader
        drops a torn line, and no promise was made for any of them.
        """
        lines = b"".join(encode_line(candle) for candle in candles)
        try:
            fd = self._open_segment()
            _append(fd, lines)
        except OSError as error:
            self._cut_back()
            raise RefusedError(f"journal: {self.directory}: {error.strerror}", _SAFE) from error
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._close_segment()
            raise LakeError(f"journal: {self.directory}: sync failed: {error.strerror}", _SAFE) from error
        if os.fstat(fd).st_nlink == 0:
            self._close_segment()
            raise RefusedError(f"journal: {self.directory}: somebody deleted the open segment", _SAFE)
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
        # It cannot go if something else is in it, like a .bad file, or the disk is
        # read-only by now: the next recorder finds nothing to flush in it.
        with contextlib.suppress(OSError), _membership(self.directory.parent):
            if not _segments(self.directory):
                (self.directory / LOCK_NAME).unlink(missing_ok=True)
                self.directory.rmdir()
        os.close(self._lock_fd)

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
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                sync_directory(self.directory)
            except OSError as error:
                os.close(fd)
                raise LakeError(f"journal: {self.directory}: sync failed: {error.strerror}", _SAFE) from error
            self._fd = fd
        return self._fd

    def _cut_back(self) -> None:
        """Take back what a failed write left, so that nothing is appended behind it."""
        if self._fd is None:
            return
        try:
            os.ftruncate(self._fd, self._bytes)
            os.lseek(self._fd, self._bytes, os.SEEK_SET)
        except OSError:
            self._close_segment()


def journal_name(kind: str = "") -> str:
    """Return a name for this process's journal, by which people tell machines and processes apart.

    Args:
        kind: what begins it; "" for a recorder's.
    """
    # A directory's name: letters, digits and dashes of the host's.
    host = "".join(char for char in socket.gethostname() if char.isalnum() or char == "-")[:32] or "host"
    return "-".join(filter(None, (kind, host, str(os.getpid()))))


def create_journal(root: Path, name: str) -> Journal:
    """Make a new recorder's journal below the lake's root.

    Args:
        root: the lake's root, or the local state directory.
        name: a prefix that tells a person which recorder it is.

    Crash: a directory that has no lock held is a dead recorder's.
    """
    journals = root / JOURNAL_DIRECTORY
    make_directories(root, journals)
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
    adopted = []
    with _membership(journals):
        for directory in _recorders(root):
            try:
                fd = _try_lock(directory)
            except OSError as error:
                log.error("journal: %s cannot be taken over: %s", directory, error.strerror)
                continue
            if fd is not None:
                adopted.append(Journal(directory, fd))
    return adopted


def living(root: Path) -> frozenset[str]:
    """Return the names of the journal directories whose recorders live.

    Nothing is made or left behind, so this works on a lake that one may only
    read. A directory whose lock nobody lets us try counts as living: what is
    not known to be dead is not taken over.
    """
    names = set()
    with _looking(root / JOURNAL_DIRECTORY):
        for directory in _recorders(root):
            try:
                fd = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                names.add(directory.name)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                names.add(directory.name)
            finally:
                os.close(fd)
    return frozenset(names)


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
    damaged: dict[int, bytes] = {}
    with path.open("rb") as file:
        data = file.read()
    lines = data.split(b"\n")
    torn = bool(lines.pop())
    for line_number, line in enumerate(lines, 1):
        candle = decode_line(line)
        if candle is None:
            damaged[line_number] = line
        else:
            candles.append(candle)
    return Segment(path, candles, torn, damaged)


def set_aside(segment: Segment) -> None:
    """Keep a segment's damaged lines in a `.bad` file beside it, for a person to look at.

    Crash: the file is there, whole, or not; the segment is as it was.
    """
    path = segment.path.with_name(segment.path.name + ".bad")
    write_durably(path, b"".join(line + b"\n" for line in segment.damaged.values()))


def encode_line(candle: Candle) -> bytes:
    """Return the candle's line, newline included."""
    body = _encode(candle)
    return b'{"crc":%d,"candle":%b}\n' % (zlib.crc32(body), body)


def decode_line(line: bytes) -> Candle | None:
    """Return the line's candle; None if the line is not what was written.

    Raises:
        LakeError: if it is what was written, but by another version, whose
            candles we cannot read.
    """
    try:
        read = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if zlib.crc32(read.candle) != read.crc:
        return None
    try:
        return _decode_candle(read.candle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LakeError(
            f"journal: a line of another version: {error}", "pip install --upgrade lakewriter"
        ) from None


def _append(fd: int, lines: bytes) -> None:
    view = memoryview(lines)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _membership(journals: Path) -> Iterator[None]:
    """Let one process at a time come, go, or look who lives."""
    fd = os.open(journals / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _looking(journals: Path) -> Iterator[None]:
    """Keep recorders from coming and going while looking, without making the lock's file.

    Without it a recorder could meet the lock of a dead one while we try it, and
    take it for living. Where it cannot be had, nobody can adopt anything either.
    """
    try:
        fd = os.open(journals / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
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
    return sorted(path for path in directory.iterdir() if path.suffix == _SEGMENT_SUFFIX and path.is_file())
