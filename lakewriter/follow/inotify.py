"""Linux's inotify: the kernel reports changes of directories and files.

Three system calls by ctypes. An inotify descriptor can be polled.
"""

import ctypes
import errno
import functools
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

from lakewriter.errors import LakeError, UsageError

# Source: inotify(7).
MODIFY = 0x2
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000

_HEAD = struct.Struct("iIII")
_READ_BYTES = 64 * 1024

_LIMITS = {
    errno.EMFILE: "this user has no inotify instance left: sysctl fs.inotify.max_user_instances",
    errno.ENOSPC: "this user has no inotify watch left: sysctl fs.inotify.max_user_watches",
}


class Event(NamedTuple):
    """One change.

    Args:
        watch: the watch that noticed it; -1 for an overflow.
        mask: the kind of the change.
        name: the name in the watched directory; "" for the watched thing itself.
    """

    watch: int
    mask: int
    name: str


class Inotify:
    """An inotify instance.

    Raises:
        UsageError: on a system without inotify.
        LakeError: if the user has too many instances.
    """

    def __init__(self) -> None:
        self._libc = _libc()
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "follow")

    def watch(self, path: Path, mask: int) -> int | None:
        """Watch a directory or file, and return the watch; None if the path does not exist.

        A path that is watched already keeps its watch, with the new mask.

        Raises:
            LakeError: if the user may not read the path, or has too many watches.
        """
        watch = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if watch < 0 and ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR):
            return None
        return self._checked(watch, str(path))

    def unwatch(self, watch: int) -> None:
        """Remove a watch. The kernel may have removed it already."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """Return the changes since the last call, without waiting."""
        events: list[Event] = []
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return events
            at = 0
            while at < len(data):
                watch, mask, _, size = _HEAD.unpack_from(data, at)
                at += _HEAD.size + size
                events.append(Event(watch, mask, os.fsdecode(data[at - size : at].rstrip(b"\0"))))

    def close(self) -> None:
        """Close the descriptor, and remove all watches."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _checked(self, result: int, what: str) -> int:
        if result >= 0:
            return result
        number = ctypes.get_errno()
        raise LakeError(f"{what}: cannot be watched: {os.strerror(number)}", _LIMITS.get(number, ""))


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        raise UsageError("follow: this system has no inotify", "follow on the recorder's own Linux machine")
    return libc
