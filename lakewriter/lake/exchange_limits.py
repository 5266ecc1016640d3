"""What the processes of this host spend of one pool of request weight: one small file.

    _lakewriter/weight/rest-futures.json

Who changes it holds its lock for the microseconds of reading and writing a
page, never while waiting for a disk or for anybody. What the bytes mean is
said by whoever asks the exchange. Losing it costs a refusal, never a candle.
"""

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from lakewriter.errors import LakeError
from lakewriter.lake.storage import make_directories, sync_directory
from lakewriter.regular_file import open_lock, read_regular

WEIGHT_DIRECTORY = "_lakewriter/weight"

# One page, so that a write is in the file whole or not at all, whenever its
# writer is killed; what is shorter is padded.
FILE_BYTES = 4096

# The lock is held for microseconds; a process that was stopped while it holds
# it must not stop the others.
LOCK_S = 1.0
_LOOK_S = 0.001

_NAME_MAX = 100

# Source: proc(5). Elsewhere a boot is told by times that lie in the future.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class WeightFile:
    """The file of one pool; a `Slate`.

    Args:
        root: the lake's root.
        pool: its name ("REST futures").
    """

    def __init__(self, root: Path, pool: str) -> None:
        self._root = root
        name = re.sub(r"[^a-z0-9.]+", "-", pool.lower())[:_NAME_MAX]
        self.path = root / WEIGHT_DIRECTORY / f"{name}.json"
        self._boot = _boot()

    @property
    def boot(self) -> str:
        """Which run of this machine it is."""
        return self._boot

    def change(self, turn: Callable[[bytes], bytes], *, durable: bool = False) -> None:
        """Hand over the bytes, none at first, and keep what is returned.

        Raises:
            OSError: if they cannot be read or written, or if somebody holds the lock for long.

        Crash: what was there before, or this; after a loss of power perhaps
        neither, unless it was durable.
        """
        fd = self._open()
        try:
            _lock(fd)
            before = os.pread(fd, FILE_BYTES, 0).rstrip(b"\n")
            after = turn(before).rstrip(b"\n")
            if after != before:
                _write(fd, after)
            fcntl.flock(fd, fcntl.LOCK_UN)
            if durable:
                os.fsync(fd)
                sync_directory(self.path.parent)
        finally:
            os.close(fd)

    def _open(self) -> int:
        try:
            return open_lock(self.path)
        except FileNotFoundError:
            try:
                make_directories(self._root, self.path.parent)
            except LakeError as error:
                raise FileNotFoundError(errno.ENOENT, error.what) from None
            return open_lock(self.path)


def _boot() -> str:
    try:
        return read_regular(_BOOT_ID, FILE_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _lock(fd: int) -> None:
    for _ in range(int(LOCK_S / _LOOK_S)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S)
        else:
            return
    raise BlockingIOError(errno.EAGAIN, "another process does not let go of it")


def _write(fd: int, data: bytes) -> None:
    page = data.ljust(FILE_BYTES, b"\n")
    if len(page) > FILE_BYTES or os.pwrite(fd, page, 0) != FILE_BYTES:
        raise OSError(errno.EFBIG, f"{len(data)} bytes do not fit into it")
