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
DIRECTORY = "/proc/self/fd"

# A file that was touched so lately is restless: flushes are seldom further apart.
_RESTLESS_S = 2 * 3600

# So many are held at most, and never more than half of what the process may open;
# so many are left for whatever else it opens.
HELD_MAX = 16_384
LEFT = 256

_ANYWHERE = Path("/")

# Two threads must not both take what is left.
_HOLDING = threading.Lock()
# A fork copies no thread that would give it back.
os.register_at_fork(
    before=_HOLDING.acquire, after_in_parent=_HOLDING.release, after_in_child=_HOLDING.release
)

_SHOWN = re.compile(rf"{DIRECTORY}/(\d+)")

_NONE_LEFT = (errno.EMFILE, errno.ENFILE)


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
        return f"{self.root}/{name}" if held is None else f"{DIRECTORY}/{held}"

    def hold(self, names: Iterable[str], now_s: float, *, calm: bool = False) -> None:
        """Hold the restless ones of some files, the newest days first, as many as the process may.

        Args:
            names: relative to the root.
            now_s: seconds since the epoch.
            calm: hold the others as well, after these.

        Raises:
            OSError: if one cannot be opened, or vanished.
        """
        found = [
            (is_restless, _day(name), name)
            for is_restless, name in _told_apart(self.root, names, now_s)
            if is_restless or calm
        ]
        if found:
            with _HOLDING:
                self._hold(name for _, _, name in sorted(found, reverse=True)[: _room()])

    def _hold(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                # What is no file any more must not be waited for.
                held = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in _NONE_LEFT:
                    return
                raise
            self._held[name] = held

    def let_go(self) -> None:
        """Close them all."""
        while self._held:
            os.close(self._held.popitem()[1])

    def in_the_lake(self, error: Exception) -> Exception:
        """Return an error of the engine with the names of the lake's files in it."""
        names = {held: name for name, held in self._held.items()}

        def name_of(shown: re.Match[str]) -> str:
            name = names.get(int(shown[1]))
            return shown[0] if name is None else f"{self.root}/{name}"

        text = str(error)
        named = _SHOWN.sub(name_of, text)
        return error if named == text else type(error)(named)


def can_hold(root: Path = _ANYWHERE) -> bool:
    """Tell whether the engine can read a file of a lake that is held."""
    # Of a backslash in what it may read the engine makes a slash, but not of one in where a link leads.
    return "\\" not in str(root) and os.path.isdir(DIRECTORY)  # noqa: PTH112 - asked for each statement


def restless(root: Path, names: Iterable[str], now_s: float) -> Iterator[str]:
    """Return those files that may be replaced soon, since they were touched lately.

    Raises:
        FileNotFoundError: if one vanished.
    """
    return (name for is_restless, name in _told_apart(root, names, now_s) if is_restless)


def _told_apart(root: Path, names: Iterable[str], now_s: float) -> Iterator[tuple[bool, str]]:
    """Yield the regular files, and whether each is restless."""
    since_s = now_s - _RESTLESS_S
    for name in names:
        status = os.lstat(f"{root}/{name}")
        if stat.S_ISREG(status.st_mode):
            # A rename keeps the time of the last write, and stamps the other one.
            yield max(status.st_mtime, status.st_ctime) >= since_s, name


def _day(name: str) -> str:
    return name.rsplit("/", 2)[-2]


def _room() -> int:
    """Return how many files may be held."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return HELD_MAX
    open_now = sum(1 for _ in Path(DIRECTORY).iterdir())
    return max(0, min(HELD_MAX, most // 2, most - open_now - LEFT))
