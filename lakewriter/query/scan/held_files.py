"""Files held open, so that a statement reads what they are now, whoever replaces them.

The engine opens a file for its footer and again for its pages, and each scan of
a statement opens it anew. Were it replaced in between, one answer would be made
of two files. A descriptor stays with the file that it was opened on, and Linux
has a path for each descriptor: the engine is given these instead of names.

What it may read it may read by these, too: it looks at where they lead.

Elsewhere nothing is held.
"""

import errno
import os
import re
import resource
import stat
import threading
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

# Where Linux shows this process what it has open.
FD_DIRECTORY = "/proc/self/fd"

# A file that was touched so lately is recently_modified: flushes are seldom further apart.
_RECENT_S = 2 * 3600

# So many are held at most, and never more than half of what the process may open;
# so many are left for whatever else it opens.
HELD_FILES_MAX = 16_384
FD_RESERVE = 256

_ANYWHERE = Path("/")

# Two threads must not both take what is left.
_FD_LOCK = threading.Lock()
# A fork copies no thread that would give it back.
os.register_at_fork(
    before=_FD_LOCK.acquire, after_in_parent=_FD_LOCK.release, after_in_child=_FD_LOCK.release
)

_FD_PATH = re.compile(rf"{FD_DIRECTORY}/(\d+)")

_OUT_OF_FDS = (errno.EMFILE, errno.ENFILE)


class HeldFiles:
    """The files of a lake that one statement holds.

    Args:
        root: the lake's.
    """

    def __init__(self, root: Path) -> None:
        # Name, relative to the root → descriptor.
        self._held: dict[str, int] = {}
        self.root = root

    @property
    def names(self) -> Set[str]:
        """Which files are held, relative to the root."""
        return self._held.keys()

    def path(self, name: str) -> str:
        """Return by which path to read a file of the lake."""
        held = self._held.get(name)
        return f"{self.root}/{name}" if held is None else f"{FD_DIRECTORY}/{held}"

    def hold(self, names: Iterable[str], now_s: float, *, hold_all: bool = False) -> None:
        """Hold the recently_modified ones of some files, the newest days first, as many as the process may.

        Args:
            names: relative to the root.
            now_s: seconds since the epoch.
            hold_all: hold the others as well, after these.

        Raises:
            OSError: if one cannot be opened, or vanished.
        """
        found = [
            (is_restless, _day(name), name)
            for is_restless, name in _regular_files(self.root, names, now_s)
            if is_restless or hold_all
        ]
        if found:
            with _FD_LOCK:
                self._hold(name for _, _, name in sorted(found, reverse=True)[: _fd_budget()])

    def _hold(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                # What is no file any more must not be waited for.
                held = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in _OUT_OF_FDS:
                    return
                raise
            self._held[name] = held

    def close(self) -> None:
        """Close them all."""
        while self._held:
            os.close(self._held.popitem()[1])

    def with_lake_names(self, error: Exception) -> Exception:
        """Return an error of the engine with the names of the lake's files in it."""
        names = {held: name for name, held in self._held.items()}

        def name_of(shown: re.Match[str]) -> str:
            name = names.get(int(shown[1]))
            return shown[0] if name is None else f"{self.root}/{name}"

        text = str(error)
        named = _FD_PATH.sub(name_of, text)
        return error if named == text else type(error)(named)


def can_hold(root: Path = _ANYWHERE) -> bool:
    """Tell whether the engine can read a file of a lake that is held."""
    # Of a backslash in what it may read the engine makes a slash, but not of one in where a link leads.
    return "\\" not in str(root) and os.path.isdir(FD_DIRECTORY)  # noqa: PTH112 - asked for each statement


def recently_modified(root: Path, names: Iterable[str], now_s: float) -> Iterator[str]:
    """Return those files that may be replaced soon, since they were touched lately.

    Raises:
        FileNotFoundError: if one vanished.
    """
    return (name for is_restless, name in _regular_files(root, names, now_s) if is_restless)


def _regular_files(root: Path, names: Iterable[str], now_s: float) -> Iterator[tuple[bool, str]]:
    """Yield the regular files, and whether each is recently_modified."""
    since_s = now_s - _RECENT_S
    for name in names:
        status = os.lstat(f"{root}/{name}")
        if stat.S_ISREG(status.st_mode):
            # A rename keeps the time of the last write, and stamps the other one.
            yield max(status.st_mtime, status.st_ctime) >= since_s, name


def _day(name: str) -> str:
    return name.rsplit("/", 2)[-2]


def _fd_budget() -> int:
    """Return how many files may be held."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return HELD_FILES_MAX
    open_now = sum(1 for _ in Path(FD_DIRECTORY).iterdir())
    return max(0, min(HELD_FILES_MAX, most // 2, most - open_now - FD_RESERVE))
