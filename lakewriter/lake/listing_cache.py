"""Directory listings that stay valid while their directory does not change.

A directory's times change when a name in it is added, removed or replaced. A
listing is used again under these conditions:

- The directory has the same inode, size and times as before the listing.
- It had not changed for some seconds by then, so a later change has another time.
- It is on a local disk. Other file systems may show old times for a while.
- It has no symbolic links, whose targets change without it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

LISTINGS_MAX = 16_384

# Clocks of file systems tick every two seconds at most.
SETTLED_S = 10.0

# Other kinds lie on other machines, or do not say on which device a directory is.
LOCAL_DISKS = frozenset(("ext2", "ext3", "ext4", "xfs", "f2fs"))

_MOUNTS = Path("/proc/self/mountinfo")

Version = tuple[int, ...]


class ListingCache(Generic[T]):
    """Listings by path. Any thread may use it.

    Args:
        is_local: whether a device is a local disk.
        now_s: the clock, in seconds since the epoch.
    """

    def __init__(
        self, is_local: Callable[[int], bool] | None = None, now_s: Callable[[], float] = time.time
    ) -> None:
        self._is_local = is_local or LocalDevices().__contains__
        self._now_s = now_s
        self._listings: dict[str, tuple[Version, T]] = {}

    def get(self, path: str, status: os.stat_result) -> T | None:
        """Return the listing of a directory; None if it has to be listed.

        Args:
            status: of the directory, now.
        """
        known = self._listings.get(path)
        return known[1] if known is not None and known[0] == _version(status) else None

    def add(self, path: str, status: os.stat_result, listing: T) -> None:
        """Keep a listing, if it can be used again.

        Args:
            status: of the directory, before it was listed.
        """
        age_s = self._now_s() - max(status.st_mtime, status.st_ctime)
        if age_s < SETTLED_S or not self._is_local(status.st_dev):
            return
        if len(self._listings) >= LISTINGS_MAX:
            self._listings.clear()
        self._listings[path] = (_version(status), listing)


class LocalDevices:
    """The devices that are local disks, as Linux lists its mounts.

    Args:
        mounts: the kernel's table of mounts.
    """

    def __init__(self, mounts: Path = _MOUNTS) -> None:
        self._mounts = mounts
        self._known: dict[int, bool] = {}

    def __contains__(self, device: int) -> bool:
        if device not in self._known:
            self._known[device] = self._file_systems(device) <= LOCAL_DISKS
        return self._known[device]

    def _file_systems(self, device: int) -> set[str]:
        """Return the kinds of file systems on a device; of an unknown device the kind is ""."""
        number = f"{os.major(device)}:{os.minor(device)}"
        try:
            lines = self._mounts.read_text("utf-8", "surrogateescape").splitlines()
        except OSError:
            return {""}
        fields = (line.split(" ") for line in lines)
        # Fields: id, parent, major:minor, root, mount point, options, tags…, "-", type, source.
        return {each[each.index("-") + 1] for each in fields if each[2] == number} or {""}


def _version(status: os.stat_result) -> Version:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
