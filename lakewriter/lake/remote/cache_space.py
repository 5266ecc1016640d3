"""The space of a cache directory: its bytes and files are counted, and the entries unused for longest removed.

Strategy: one small file has the sum of all entries. A writer adds its entry to the sum
before it writes the entry. Replaced entries make the sum too large. At the limit the
directory is listed, which corrects the sum, and old entries are removed until a tenth of
the limit is free. The sum then lacks entries that other threads are about to write; they
fit into that tenth.

Each change of the sum holds a lock. A writer that does not get the lock in time does not
write its entry.
"""

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lakewriter.lake.durable import is_temporary
from lakewriter.regular_file import open_lock

# Maximum number of entries.
FILES_MAX = 100_000

# The part of a limit that a removal leaves.
_KEPT = 0.9

# Entries are not written to a disk with less free space: recorders need it for journals.
FREE_BYTES_MIN = 1_000_000_000
# Small disks need the twentieth part.
_FREE_PART = 20

# Disks give space in blocks.
_BLOCK = 4096

# Maximum wait for the lock. A listing of FILES_MAX entries takes as long.
LOCK_WAIT_S = 1.0
_LOCK_PAUSE_S = 0.002

# The writer of an older temporary file is dead.
_TEMPORARY_AGE_S = 3600.0

_USAGE = re.compile(rb"(\d{19}) (\d{12})\n")
_USAGE_BYTES = 33


class Usage(NamedTuple):
    """The disk space and the number of entries."""

    bytes: int
    files: int


class _Entry(NamedTuple):
    used_ns: int
    bytes: int
    path: str


class CacheSpace:
    """The space of a directory of entries, which several processes may share.

    Args:
        directory: has directories of entries. It exists when `reserve` is called.
        bytes_max: maximum of the entries' bytes on the disk.
        files_max: maximum number of entries.
        free_bytes_min: minimum of the disk's free bytes.
    """

    def __init__(
        self,
        directory: Path,
        bytes_max: int,
        *,
        files_max: int = FILES_MAX,
        free_bytes_min: int = FREE_BYTES_MIN,
    ) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._free_bytes_min = free_bytes_min
        self._lock = threading.Lock()

    def reserve(self, size: int) -> bool:
        """Count a new entry, and remove old ones if there is no space for it.

        Args:
            size: the entry's bytes.

        Returns:
            whether it may be written. It may not if it is larger than the limit, or if
            another process holds the lock.

        Raises:
            OSError: if the disk has too little free space, or the directory is not writable.
        """
        new = _on_disk(size)
        if new > _KEPT * self._bytes_max:
            return False
        disk = os.statvfs(self._directory)
        least = min(self._free_bytes_min, disk.f_blocks * disk.f_frsize // _FREE_PART)
        if disk.f_bavail * disk.f_frsize < least + new:
            raise OSError(errno.ENOSPC, f"less than {least / 1e6:,.0f} MB of the disk are free")
        with self._lock, self._locked() as fd:
            if fd is None:
                return False
            usage = _parse(os.pread(fd, _USAGE_BYTES, 0))
            if usage is None or usage.bytes + new > self._bytes_max or usage.files >= self._files_max:
                usage = self._remove_oldest(new)
            # The length never changes: ext4 writes a file to the disk at once if it was truncated.
            os.pwrite(fd, b"%019d %012d\n" % (usage.bytes + new, usage.files + 1), 0)
        return True

    def usage(self) -> Usage:
        """Return the space of all entries, from a listing.

        Raises:
            OSError: if the directory cannot be listed.
        """
        entries = list(self._entries())
        return Usage(sum(entry.bytes for entry in entries), len(entries))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        """Yield the descriptor of the locked sum, or None if the lock was not free in time."""
        fd = open_lock(self._directory / "usage", 0o600)
        try:
            until_s = time.monotonic() + LOCK_WAIT_S
            while not _try_lock(fd):
                if time.monotonic() > until_s:
                    yield None
                    return
                time.sleep(_LOCK_PAUSE_S)
            yield fd
        finally:
            os.close(fd)

    def _remove_oldest(self, new: int) -> Usage:
        """Remove the entries unused for longest if an entry lacks space; return the space of the others."""
        entries = sorted(self._entries())
        size, count = sum(entry.bytes for entry in entries), len(entries)
        if size + new <= self._bytes_max and count < self._files_max:
            return Usage(size, count)
        for entry in entries:
            if size + new <= _KEPT * self._bytes_max and count < max(1, _KEPT * self._files_max):
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)  # noqa: PTH108 - pathlib takes three times as long
            size, count = size - entry.bytes, count - 1
        return Usage(size, count)

    def _entries(self) -> Iterator[_Entry]:
        """Yield all entries and new temporary files. Old temporary files are removed."""
        since_ns = time.time_ns() - int(_TEMPORARY_AGE_S * 1e9)
        with os.scandir(self._directory) as found:
            directories = [each.path for each in found if each.is_dir(follow_symlinks=False)]
        for directory in directories:
            with os.scandir(directory) as found:
                for entry in found:
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if is_temporary(entry.name) and status.st_mtime_ns < since_ns:
                            os.unlink(entry.path)  # noqa: PTH108
                            continue
                    except FileNotFoundError:
                        continue  # removed or renamed meanwhile
                    yield _Entry(status.st_mtime_ns, _on_disk(status.st_size), entry.path)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(text: bytes) -> Usage | None:
    found = _USAGE.fullmatch(text)
    return Usage(int(found[1]), int(found[2])) if found else None


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
