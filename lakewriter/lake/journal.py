"""The journal: the write-ahead log of candles that are not in their partitions yet.

Contract: `commit` returns after the candles are durable, or raises. A committed
candle stays readable in the journal until its flush calls `drop`. Each living
recorder has one directory, and keeps the lock file in it locked. A segment is one
file of lines; `segments` reads it.

    _lakewriter/journal/lock                          locked to create, adopt or remove a journal
    _lakewriter/journal/<recorder>/lock               locked by the recorder until it exits; has the commit mark
    _lakewriter/journal/<recorder>/00000001.ndjson    a segment
    _lakewriter/journal/<recorder>/status.json        the recorder's status; see `recorder_status_file`

If a journal is deleted or moved while its recorder lives, the next commit restores it.
`lost` is set if the journal had candles: then only the recorder's memory has them.
`unflushed` reads the journals of all recorders.

This module knows no partitions; its callers merge.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.commit_mark import CommitMark, write_mark
from lakewriter.lake.durable import make_directories, sync_directory
from lakewriter.lake.journal_directories import (
    JOURNAL_DIRECTORY,
    LOCK_NAME,
    SEGMENT_SUFFIX,
    lock_journals,
    recorder_directories,
    segment_paths,
    try_lock,
)
from lakewriter.lake.recorder_status_file import remove_status
from lakewriter.lake.segments import SEGMENT_BYTES_MAX, encode_line
from lakewriter.regular_file import names_open_file, write_all

log = logging.getLogger(__name__)

# The depth of a recorder's directory below the lake's root.
_DEPTH = 1 + JOURNAL_DIRECTORY.count("/") + 1

# Names have at most eight digits: enough for three hundred years of flushes.
_SEGMENTS_MAX = 10**8

_SAFE = "nothing that was logged as recorded is lost"


class DiskRefusedError(LakeError):
    """The disk refused a write. None of its candles is committed, and the caller may retry."""


class Journal:
    """The journal of one living recorder.

    Args:
        directory: the recorder's directory.
        lock_fd: descriptor of its lock file, which stays locked until `close`.
    """

    def __init__(self, directory: Path, lock_fd: int) -> None:
        self.directory = directory
        self._lock_fd = lock_fd
        self._number = 0
        self._fd: int | None = None
        self._path: Path | None = None  # the open segment
        self._bytes = 0
        # The bytes of each segment that this object wrote and that is not dropped yet.
        self._undropped: dict[Path, int] = {}
        self._lost = False

    def commit(self, candles: Iterable[Candle]) -> int:
        """Append the candles, make them durable, and return the bytes written.

        Raises:
            DiskRefusedError: if the disk refused the write, for example because it
                is full or read-only. The caller may retry the commit.
            LakeError: if the disk failed to sync. A retry could succeed although the
                kernel dropped pages that it never wrote.
            After either error none of these candles is committed, and earlier ones still
            are. No line is appended after a torn one.

        Crash: some of the lines may be there, the last of them torn; a reader drops a torn
        line, and none of the lines is committed.
        """
        lines = b"".join(encode_line(candle) for candle in candles)
        try:
            fd = self._open_segment()
            write_all(fd, lines)
        except OSError as error:
            self._truncate_failed_write()
            raise DiskRefusedError(f"journal: {self.directory}: {error.strerror}", _SAFE) from error
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._close_segment()
            raise LakeError(f"journal: {self.directory}: sync failed: {error.strerror}", _SAFE) from error
        if not self._is_in_place():
            self._close_segment()
            self._lost = True
            raise DiskRefusedError(
                f"journal: {self.directory}: its segment or its lock was deleted or moved", _SAFE
            )
        self._bytes += len(lines)
        if self._path is not None:
            self._undropped[self._path] = self._bytes
        # Only followers need the mark. Without it they see these candles after the next flush.
        with contextlib.suppress(OSError):
            write_mark(self._lock_fd, CommitMark(self._number % _SEGMENTS_MAX, self._bytes))
        return len(lines)

    @property
    def segment_bytes(self) -> int:
        """The size of the open segment in bytes, or 0 without an open segment."""
        return self._bytes

    @property
    def undropped_bytes(self) -> int:
        """The size in bytes of all segments that are not dropped yet. Any thread may read it."""
        return sum(tuple(self._undropped.values()))

    @property
    def lost(self) -> bool:
        """Whether committed candles may no longer be in any segment."""
        return self._lost

    def check(self) -> None:
        """Restore the journal if it was deleted or moved, and set `lost` if it had candles.

        If the journal cannot be restored now, a later check or commit restores it.
        """
        if self._fd is not None and not self._is_in_place():
            self._close_segment()
            self._lost = True
        if not all(map(os.path.exists, self._undropped)):
            self._lost = True
        with contextlib.suppress(OSError, DiskRefusedError):
            self._restore_directory()

    def roll(self) -> list[Path]:
        """Close the open segment, and return all segments, oldest first.

        The next commit opens a new segment. If the segments cannot be listed, none is
        returned, and their candles count as lost. A later call returns them.
        """
        self._close_segment()
        try:
            segments = self.segments()
        except OSError as error:
            log.warning("journal: %s cannot be listed: %s", self.directory, error.strerror)
            segments = []
        if not self._undropped.keys() <= set(segments):
            self._lost = True
            self._undropped = {path: size for path, size in self._undropped.items() if path in segments}
        return segments

    def segments(self) -> list[Path]:
        """Return all segments, oldest first.

        Raises:
            OSError: if the directory cannot be listed.
        """
        return segment_paths(self.directory)

    def clear_lost(self) -> None:
        """Clear `lost`. By now each lost candle is in a partition or a new segment."""
        self._lost = False

    def drop(self, segments: Iterable[Path]) -> None:
        """Remove closed segments whose candles are all in partitions.

        A segment that cannot be removed is logged, and the next `roll` returns it.

        Crash: a segment that stays is flushed again, which changes nothing.
        """
        refused: list[OSError] = []
        for segment in segments:
            try:
                segment.unlink(missing_ok=True)
            except OSError as error:
                refused.append(error)
            else:
                self._undropped.pop(segment, None)
        try:
            sync_directory(self.directory)
        except FileNotFoundError:
            pass  # The directory itself was deleted.
        except OSError as error:
            refused.append(error)
        if refused:
            log.warning(
                "journal: %s: flushed segments cannot be deleted, and stay: %s",
                self.directory,
                refused[0].strerror,
            )

    def close(self) -> None:
        """Close and unlock the journal, and remove its directory if it has no segments.

        Crash: an unlocked directory is a dead recorder's, and adopted by the next.
        """
        self._close_segment()
        # The directory stays if it has other files, such as a .bad file, or if the disk is
        # read-only now. It has no candles for the next recorder to flush.
        with contextlib.suppress(OSError), lock_journals(self.directory.parent):
            remove_status(self.directory)
            if not segment_paths(self.directory):
                (self.directory / LOCK_NAME).unlink(missing_ok=True)
                self.directory.rmdir()
        os.close(self._lock_fd)

    def _is_in_place(self) -> bool:
        """Return whether the paths of the segment and the lock still name the open files."""
        assert self._fd is not None
        assert self._path is not None
        return names_open_file(self._path, self._fd) and names_open_file(self._lock_path, self._lock_fd)

    @property
    def _lock_path(self) -> Path:
        return self.directory / LOCK_NAME

    def _close_segment(self) -> None:
        if self._fd is not None:
            fd, self._fd, self._path, self._bytes = self._fd, None, None, 0
            with contextlib.suppress(OSError):  # every promised line is synced
                os.close(fd)

    def _open_segment(self) -> int:
        if self._bytes >= SEGMENT_BYTES_MAX:
            self._close_segment()
        if self._fd is None:
            self._restore_directory()
            self._number += 1
            path = self.directory / f"{self._number % _SEGMENTS_MAX:08d}{SEGMENT_SUFFIX}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                sync_directory(self.directory)
            except OSError as error:
                os.close(fd)
                raise LakeError(f"journal: {self.directory}: sync failed: {error.strerror}", _SAFE) from error
            self._fd, self._path = fd, path
            self._undropped[path] = 0
        return self._fd

    def _restore_directory(self) -> None:
        """Create the directory and its lock file again, if they were deleted or moved.

        Raises:
            DiskRefusedError: if the lake's root is gone, or another process is
                adopting the journal.
            OSError: if the disk refuses.

        Crash: a directory whose lock no process holds is a dead recorder's.
        """
        if names_open_file(self._lock_path, self._lock_fd):
            return
        journals = self.directory.parent
        try:
            make_directories(self.directory.parents[_DEPTH - 1], journals)
        except LakeError as gone:
            raise DiskRefusedError(gone.what, _SAFE) from None
        with lock_journals(journals):
            self.directory.mkdir(exist_ok=True)
            fd = try_lock(self.directory)
            if fd is None:
                raise DiskRefusedError(f"journal: {self.directory} is being taken over", _SAFE)
            try:
                sync_directory(self.directory)
                sync_directory(journals)
            except OSError:
                os.close(fd)
                raise
        fd, self._lock_fd = self._lock_fd, fd
        os.close(fd)
        log.warning("journal: %s was deleted or moved, and was created again", self.directory)

    def _truncate_failed_write(self) -> None:
        """Remove the bytes after the last commit from the segment. No line then follows a torn one."""
        if self._fd is None:
            return
        try:
            os.ftruncate(self._fd, self._bytes)
            os.lseek(self._fd, self._bytes, os.SEEK_SET)
        except OSError:
            self._close_segment()


def journal_name(kind: str = "") -> str:
    """Return a name for this process's journal: the kind, the host and the process id.

    Args:
        kind: the first part of the name, or "" for a recorder.
    """
    # The name is that of a directory, so keep only letters, digits and dashes of the host's name.
    host = "".join(char for char in socket.gethostname() if char.isalnum() or char == "-")[:32] or "host"
    return "-".join(filter(None, (kind, host, str(os.getpid()))))


def create_journal(root: Path, name: str) -> Journal:
    """Create the journal of a new recorder.

    Args:
        root: the directory that has `_lakewriter`.
        name: the prefix of the journal directory's name, from `journal_name`.

    Crash: a directory whose lock no process holds is a dead recorder's.
    """
    journals = root / JOURNAL_DIRECTORY
    make_directories(root, journals)
    directory = journals / f"{name}-{secrets.token_hex(3)}"
    with lock_journals(journals):
        directory.mkdir()
        fd = try_lock(directory)
        sync_directory(directory)
        sync_directory(journals)
    if fd is None:
        raise LakeError(f"journal: {directory} is held by another process")
    return Journal(directory, fd)


def _log_refused(directory: Path, error: OSError) -> None:
    log.error("journal: %s cannot be taken over: %s", directory, error.strerror)


def adopt_dead(root: Path, refused: Callable[[Path, OSError], None] = _log_refused) -> list[Journal]:
    """Lock and return the journals of dead recorders.

    Args:
        root: the directory that has `_lakewriter`.
        refused: called for each journal that cannot be locked.

    Returns:
        the journal of each dead recorder. The caller flushes its segments, then calls
        `drop` and `close`.
    """
    journals = root / JOURNAL_DIRECTORY
    if not journals.is_dir():
        return []
    adopted = []
    with lock_journals(journals):
        for directory in recorder_directories(root):
            try:
                fd = try_lock(directory)
            except OSError as error:
                refused(directory, error)
                continue
            if fd is not None:
                # Otherwise its recorder would look alive while this lock is held.
                with contextlib.suppress(OSError):
                    remove_status(directory)
                adopted.append(Journal(directory, fd))
    return adopted
