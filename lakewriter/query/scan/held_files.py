"""Files that a statement holds open, so it reads the same content even if they are replaced.

DuckDB opens a file for its footer, and again for its pages in each scan. If a flush
replaced the file in between, one answer would mix two versions. A held file is an
open descriptor, which stays with its version. Linux has a path for each descriptor,
and DuckDB gets this path instead of the file's name.

DuckDB's file restrictions also apply to held files, because DuckDB resolves these
paths. Systems other than Linux hold no files.
"""

import errno
import os
import re
import resource
import stat
import threading
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

# Linux lists the open descriptors of this process here.
FD_DIRECTORY = "/proc/self/fd"

# A file that changed within this time may be replaced soon. Flushes are rarely further apart.
_RECENT_S = 2 * 3600

# Maximum number of held files, which also use at most half of the process's limit.
# FD_RESERVE descriptors stay free for other files.
HELD_FILES_MAX = 16_384
FD_RESERVE = 256

_ANYWHERE = Path("/")

# Two threads must not use the last free descriptors at the same time.
_FD_LOCK = threading.Lock()
# A fork does not copy the thread that would release the lock.
os.register_at_fork(
    before=_FD_LOCK.acquire, after_in_parent=_FD_LOCK.release, after_in_child=_FD_LOCK.release
)

_FD_PATH = re.compile(rf"{FD_DIRECTORY}/(\d+)")

_OUT_OF_FDS = (errno.EMFILE, errno.ENFILE)


class HeldFiles:
    """The files of a lake that one statement holds open.

    Args:
        root: the lake's root directory.
    """

    def __init__(self, root: Path) -> None:
        # Name relative to the root → descriptor.
        self._held: dict[str, int] = {}
        self.root = root

    @property
    def names(self) -> Set[str]:
        """The names of the held files, relative to the root."""
        return self._held.keys()

    def path(self, name: str) -> str:
        """Return the path by which the engine reads a file of the lake."""
        held = self._held.get(name)
        return f"{self.root}/{name}" if held is None else f"{FD_DIRECTORY}/{held}"

    def hold(self, names: Iterable[str], now_s: float, *, hold_all: bool = False) -> None:
        """Hold the files that may be replaced soon, newest days first, until no descriptor is free.

        Args:
            names: the files' names, relative to the root.
            now_s: the current time in seconds since the epoch.
            hold_all: whether to hold all other files too, after the recently changed files.

        Raises:
            OSError: if a file cannot be opened, or vanished.
        """
        found = [
            (is_recent, _day(name), name)
            for is_recent, name in _regular_files(self.root, names, now_s)
            if is_recent or hold_all
        ]
        if found:
            with _FD_LOCK:
                self._hold(name for _, _, name in sorted(found, reverse=True)[: _fd_budget()])

    def _hold(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                # A FIFO may have replaced the file, and opening it must not block.
                held = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in _OUT_OF_FDS:
                    return
                raise
            self._held[name] = held

    def close(self) -> None:
        """Close all held files."""
        while self._held:
            os.close(self._held.popitem()[1])

    def with_lake_names(self, error: Exception) -> Exception:
        """Return an engine's error with the names of the lake's files instead of descriptors' paths."""
        names = {held: name for name, held in self._held.items()}

        def name_of(shown: re.Match[str]) -> str:
            name = names.get(int(shown[1]))
            return shown[0] if name is None else f"{self.root}/{name}"

        text = str(error)
        named = _FD_PATH.sub(name_of, text)
        return error if named == text else type(error)(named)


def can_hold(root: Path = _ANYWHERE) -> bool:
    """Return whether the engine can read held files of a lake."""
    # DuckDB turns a backslash into a slash in an allowed directory, but not in a link's target.
    return "\\" not in str(root) and os.path.isdir(FD_DIRECTORY)  # noqa: PTH112 - asked for each statement


def _regular_files(root: Path, names: Iterable[str], now_s: float) -> Iterator[tuple[bool, str]]:
    """Yield for each regular file whether it changed recently, and its name."""
    since_s = now_s - _RECENT_S
    for name in names:
        status = os.lstat(f"{root}/{name}")
        if stat.S_ISREG(status.st_mode):
            # A rename keeps mtime, and sets ctime.
            yield max(status.st_mtime, status.st_ctime) >= since_s, name


def _day(name: str) -> str:
    return name.rsplit("/", 2)[-2]


def _fd_budget() -> int:
    """Return the maximum number of files that the process may hold now."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return HELD_FILES_MAX
    open_now = sum(1 for _ in Path(FD_DIRECTORY).iterdir())
    return max(0, min(HELD_FILES_MAX, most // 2, most - open_now - FD_RESERVE))
