"""A cache of facts about directories and files, each valid until its source changes.

The times of a file change with its content. Those of a directory change when a name
in it is added, removed or replaced. A fact is used again under these conditions:

- Its source has the same inode, size and times as at the read.
- The source's last change was some seconds before the read, so a later change has
  another time.
- The source is on a local disk. Other file systems may show stale times for a while,
  or times that can be set back.
"""

import os
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

# The clocks of file systems tick at least every two seconds.
SETTLED_S = 10.0

# File systems of other kinds are on other machines, or do not show a directory's device.
LOCAL_DISKS = frozenset(("ext2", "ext3", "ext4", "xfs", "f2fs"))

_MOUNTS = Path("/proc/self/mountinfo")

Version = tuple[int, ...]


class UnchangedCache(Generic[T]):
    """Facts about directories or files. Any thread may use the cache.

    Args:
        kept_max: the maximum number of facts.
        is_local: returns whether a device is a local disk.
        now_s: returns the time, in seconds since the epoch.
    """

    def __init__(
        self,
        kept_max: int,
        is_local: Callable[[int], bool] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.now_s = now_s
        self._kept_max = kept_max
        self._is_local = is_local or LocalDevices().__contains__
        self._kept: dict[Hashable, tuple[Version, T]] = {}

    def get(self, key: Hashable, status: os.stat_result) -> T | None:
        """Return the fact of a key, or None if the cache has no valid one.

        Args:
            status: the current status of the directory or file.
        """
        known = self._kept.get(key)
        return known[1] if known is not None and known[0] == version_of(status) else None

    def add(self, key: Hashable, status: os.stat_result, read_s: float, fact: T) -> None:
        """Add a fact, if it can be used again.

        Args:
            status: the status of the directory or file before the read.
            read_s: `now_s()` before the read. The process may have been stopped since.
        """
        age_s = read_s - max(status.st_mtime, status.st_ctime)
        if age_s < SETTLED_S or not self._is_local(status.st_dev):
            return
        if len(self._kept) >= self._kept_max:
            self._kept.clear()
        self._kept[key] = (version_of(status), fact)


class LocalDevices:
    """The devices that are local disks, by Linux's table of mounts.

    Args:
        mounts: the path of the table.
    """

    def __init__(self, mounts: Path = _MOUNTS) -> None:
        self._mounts = mounts
        self._known: dict[int, bool] = {}

    def __contains__(self, device: int) -> bool:
        if device not in self._known:
            self._known[device] = self._file_systems(device) <= LOCAL_DISKS
        return self._known[device]

    def _file_systems(self, device: int) -> set[str]:
        """Return the kinds of file systems on a device. An unknown device has the kind ""."""
        number = f"{os.major(device)}:{os.minor(device)}"
        try:
            lines = self._mounts.read_text("utf-8", "surrogateescape").splitlines()
        except OSError:
            return {""}
        fields = (line.split(" ") for line in lines)
        # Fields: id, parent, major:minor, root, mount point, options, tags…, "-", type, source.
        return {each[each.index("-") + 1] for each in fields if each[2] == number} or {""}


def version_of(status: os.stat_result) -> Version:
    """Return facts of a file or directory that change with its content."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
