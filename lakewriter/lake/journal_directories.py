"""The directories of journals: their locks, their segments, and the living recorders."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import open_lock, open_regular

JOURNAL_DIRECTORY = "_lakewriter/journal"
LOCK_NAME = "lock"
SEGMENT_SUFFIX = ".ndjson"


def living_recorders(root: Path) -> frozenset[str]:
    """Return the names of the living recorders' journal directories.

    No file is created, so this works with read access alone. If a lock cannot be
    tried, its recorder counts as living.
    """
    names = set()
    with _lock_journals_if_present(root / JOURNAL_DIRECTORY):
        for directory in recorder_directories(root):
            try:
                fd = open_regular(directory / LOCK_NAME)
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


def recorder_directories(root: Path) -> list[Path]:
    """Return the journal directories of all recorders, sorted.

    If they cannot be listed, a warning is logged and none is returned.
    """
    journals = root / JOURNAL_DIRECTORY
    try:
        return sorted(path for path in journals.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        warn_once(f"journal: {journals}: {error.strerror}; its candles are left out")
        return []


def segment_paths(directory: Path) -> list[Path]:
    """Return the segments of a recorder, oldest first."""
    return sorted(path for path in directory.iterdir() if path.suffix == SEGMENT_SUFFIX and path.is_file())


def try_lock(directory: Path) -> int | None:
    """Lock a recorder's directory, and return the lock's descriptor, or None if the recorder lives."""
    fd = open_lock(directory / LOCK_NAME)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


@contextlib.contextmanager
def lock_journals(journals: Path) -> Iterator[None]:
    """Hold the lock to create, adopt, remove or count journals."""
    fd = open_lock(journals / LOCK_NAME)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _lock_journals_if_present(journals: Path) -> Iterator[None]:
    """Hold the lock of `lock_journals`, if its file exists.

    Without the lock, two processes could try a dead recorder's lock at once. One of them
    would count the recorder as living. Without the file, no process adopts a journal.
    """
    try:
        fd = open_regular(journals / LOCK_NAME)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
