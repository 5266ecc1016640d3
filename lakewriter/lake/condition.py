"""The condition of a lake's file system and state: writable, locks that exclude, leftovers of the dead.

The checks write one small temporary file and take locks on it. They change no candle, no
journal and no lock of the lake.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import NamedTuple

from lakewriter.errors import LakeError
from lakewriter.lake.durable import sync_directory, written_beside
from lakewriter.lake.journal_directories import living_recorders, recorder_directories, segment_paths
from lakewriter.regular_file import open_lock

PROBE_NAME = "probe"


class Leftovers(NamedTuple):
    """The recorders of a lake.

    Args:
        living: the names of living recorders.
        dead: the names of dead recorders that left candles in a journal.
        dead_bytes: the size of their journals.
    """

    living: tuple[str, ...]
    dead: tuple[str, ...]
    dead_bytes: int


def check_writes(directory: Path) -> float:
    """Write, sync and rename a small file as a merge does, then delete it; return the seconds.

    Raises:
        OSError: if the file system refuses one of the steps.

    Crash: a temporary file may remain in `_lakewriter`.
    """
    target = directory / f".{PROBE_NAME}-{os.getpid()}"
    began_s = time.monotonic()
    with written_beside(target, b"probe\n") as temporary:
        temporary.rename(target)
    try:
        sync_directory(directory)
    finally:
        target.unlink()
    return time.monotonic() - began_s


def check_locks(directory: Path) -> None:
    """Check that a lock excludes a second owner, and is free again after its owner closes it.

    Raises:
        LakeError: if the file system does not keep locks.
        OSError: if it refuses them.
    """
    path = directory / f".{PROBE_NAME}-{os.getpid()}.lock"
    try:
        first, second = open_lock(path), open_lock(path)
        try:
            fcntl.flock(first, fcntl.LOCK_EX)
            if _locks(second):
                raise LakeError(f"lake: {directory}: two owners get the same lock")
        finally:
            os.close(first)
            free = _locks(second)
            os.close(second)
        if not free:
            raise LakeError(f"lake: {directory}: a lock stays after its owner has closed it")
    finally:
        path.unlink(missing_ok=True)


def leftovers(root: Path) -> Leftovers:
    """Return the living recorders of a lake, and the dead ones that left candles."""
    living = living_recorders(root)
    sizes: dict[str, int] = {}
    for directory in recorder_directories(root):
        if directory.name not in living:
            with contextlib.suppress(OSError):
                size = sum(path.stat().st_size for path in segment_paths(directory))
                if size:
                    sizes[directory.name] = size
    return Leftovers(tuple(sorted(living)), tuple(sizes), sum(sizes.values()))


def _locks(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
