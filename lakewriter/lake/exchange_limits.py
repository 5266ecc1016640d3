"""The state of the exchange's rate limits for this host's address: two kinds of small files.

    _lakewriter/weight/rest-futures.json    the spent request weight of one pool
    _lakewriter/restraint.json              the connection attempts and bans of stream hosts

A weight file is one page. All processes of the host change it under its lock. They
hold the lock for microseconds, and release it before they wait for a disk.
`binance.weight_budget` reads and writes the page's content. Each recorder replaces the
other file, and the last write counts. If either file is lost, the exchange may refuse
one request; no candle is lost.
"""

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.durable import make_directories, sync_directory, write_durably
from lakewriter.rate_limit_state import RateLimitState
from lakewriter.regular_file import open_lock, read_regular

WEIGHT_DIRECTORY = "_lakewriter/weight"
RATE_LIMITS_FILE = "_lakewriter/restraint.json"

# The size of a page: a write of one page is atomic, even if its writer is killed.
# Shorter content is padded.
PAGE_BYTES = 4096

# A process holds the lock for microseconds. If a process is stopped while it holds the
# lock, it must not block other processes for longer than this.
LOCK_S = 1.0
_LOOK_S = 0.001

_NAME_MAX = 100

# Enough for a few hosts, with 300 attempts each.
_RATE_LIMITS_BYTES_MAX = 1024 * 1024

# Source: proc(5). On systems without this file, a time in the future is of another boot.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class WeightFile:
    """The weight file of one pool: a `SharedFile`.

    Args:
        root: the directory that has `_lakewriter`.
        pool: the pool's name, such as "REST futures".
    """

    def __init__(self, root: Path, pool: str) -> None:
        self._root = root
        name = re.sub(r"[^a-z0-9.]+", "-", pool.lower())[:_NAME_MAX]
        self.path = root / WEIGHT_DIRECTORY / f"{name}.json"
        self._boot = _boot()

    @property
    def boot(self) -> str:
        """The id of the machine's current boot, or "" if the id is unknown."""
        return self._boot

    def change(self, update: Callable[[bytes], bytes], *, durable: bool = False) -> None:
        """Replace the content by the result of `update`.

        Args:
            update: returns the new content for the current one, which is empty at first.
            durable: whether to sync the file and its directory.

        Raises:
            OSError: if the file cannot be read or written, or another process holds the
                lock for more than LOCK_S seconds.

        Crash: the old content or the new one is there; after a loss of power perhaps
        neither, unless the write was durable.
        """
        fd = self._open()
        try:
            _lock(fd)
            before = os.pread(fd, PAGE_BYTES, 0).rstrip(b"\n")
            after = update(before).rstrip(b"\n")
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


def read_rate_limits(root: Path) -> RateLimitState:
    """Return the state that an earlier recorder wrote. An unreadable file gives an empty state."""
    try:
        data = read_regular(root / RATE_LIMITS_FILE, _RATE_LIMITS_BYTES_MAX)
        return msgspec.json.decode(data, type=RateLimitState)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return RateLimitState()


def write_rate_limits(root: Path, state: RateLimitState) -> None:
    """Write the state for the next recorder.

    Raises:
        OSError: if the disk refuses.

    Crash: the old file or the new one is there, whole.
    """
    write_durably(root / RATE_LIMITS_FILE, msgspec.json.encode(state) + b"\n")


def _boot() -> str:
    try:
        return read_regular(_BOOT_ID, PAGE_BYTES).decode("ascii").strip()
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
    raise BlockingIOError(errno.EAGAIN, "another process holds its lock")


def _write(fd: int, data: bytes) -> None:
    page = data.ljust(PAGE_BYTES, b"\n")
    if len(page) > PAGE_BYTES or os.pwrite(fd, page, 0) != PAGE_BYTES:
        raise OSError(errno.EFBIG, f"{len(data)} bytes do not fit into it")
