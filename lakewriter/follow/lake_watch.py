"""The watch on a lake: the kernel wakes a follower when a writer has done something.

    _lakewriter/journal/<recorder>/lock     changes with each commit: the commit mark
    _lakewriter/locks/00 … ff               closed after each merge into partitions

A lock file's name tells which partitions may have changed. So one watch serves all
partitions of a lake, and nothing is polled. A path that does not exist yet is awaited at
its nearest parent.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lakewriter.follow.inotify import (
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    Inotify,
)
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY, LOCK_NAME, recorder_directories
from lakewriter.lake.root import LOCKS_DIRECTORY
from lakewriter.lake.storage import LOCKS

ALL_LOCKS = frozenset(range(LOCKS))

_NAMES = CREATE | DELETE | MOVED_FROM | MOVED_TO | DELETE_SELF | MOVE_SELF
_LOCK_FILE = MODIFY | CLOSE_WRITE
_LOCKS = CLOSE_WRITE | DELETE_SELF | MOVE_SELF

# A directory can vanish while its watch is added. Each repetition is caused by that.
_LAPS_MAX = 100


class Changes(NamedTuple):
    """The changes since the last call.

    Args:
        recorders: whether a recorder may have started or ended.
        locks: the numbers of the lock files whose partitions may have changed.
    """

    recorders: bool
    locks: frozenset[int]


class LakeWatch:
    """The watch on one lake.

    Args:
        root: the directory that has, or will have, `_lakewriter`.

    Raises:
        UsageError: on a system without inotify.
        LakeError: if a directory cannot be watched.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._journals = root / JOURNAL_DIRECTORY
        self._locks = root / LOCKS_DIRECTORY
        self._inotify = Inotify()
        self._watches: dict[int, Path] = {}
        try:
            self._renew()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with a change."""
        return self._inotify.fd

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    def changes(self) -> Changes:
        """Return the changes since the last call, without waiting.

        Raises:
            LakeError: if a new directory cannot be watched.
        """
        locks: set[int] = set()
        recorders = renew = False
        for event in self._inotify.read():
            if event.mask & OVERFLOW:
                locks, recorders, renew = set(ALL_LOCKS), True, True
                continue
            path = self._watches.get(event.watch)
            if event.mask & IGNORED:
                self._watches.pop(event.watch, None)
                renew = True
            elif path == self._locks and event.name:
                locks.update(_lock_numbers(event.name))
            elif path is not None and path.name == LOCK_NAME:
                recorders |= bool(event.mask & CLOSE_WRITE)
            elif path is None or path.parent != self._journals or event.name == LOCK_NAME:
                # Other files of a recorder's directory come and go; its lock is of interest.
                renew = True
        if renew:
            recorders = True
            if self._renew():
                locks = set(ALL_LOCKS)
        return Changes(recorders, frozenset(locks))

    def _renew(self) -> bool:
        """Watch what is to be watched now; return whether the locks' directory is watched anew."""
        before = set(self._watches.values())
        watches: dict[int, Path] = {}
        for path, mask in self._wanted():
            watch = self._inotify.watch(path, mask)
            if watch is not None:
                watches[watch] = path
        for watch in self._watches.keys() - watches.keys():
            self._inotify.unwatch(watch)
        self._watches = watches
        return self._locks not in before and self._locks in watches.values()

    def _wanted(self) -> Iterator[tuple[Path, int]]:
        """Yield what to watch. Each directory is watched before it is listed, so nothing new is overlooked."""
        awaited = {self._nearest(self._locks), self._nearest(self._journals)}
        for path in sorted(awaited - {self._locks, self._journals}):
            yield path, _NAMES
        if self._locks in awaited:
            yield self._locks, _LOCKS
        if self._journals in awaited:
            yield self._journals, _NAMES
            for directory in recorder_directories(self._root):
                yield directory, _NAMES
                yield directory / LOCK_NAME, _LOCK_FILE

    def _nearest(self, path: Path) -> Path:
        """Return the path, or its nearest parent that exists and is watched now."""
        for _ in range(_LAPS_MAX):
            if path.is_dir():
                return path
            found = next(each for each in path.parents if each.is_dir())
            # Watch first, then look again: the next directory may be created in between.
            watch = self._inotify.watch(found, _NAMES)
            if watch is not None:
                self._watches.setdefault(watch, found)
                if not (found / path.relative_to(found).parts[0]).is_dir():
                    return found
        return path


def _lock_numbers(name: str) -> Iterator[int]:
    try:
        number = int(name, 16)
    except ValueError:
        return
    if number in ALL_LOCKS:
        yield number
