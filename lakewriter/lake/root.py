"""The root of a lake on a disk: its path, and checks that it is one.

A lake has our own directory, or at least one of a market: what was copied without
the former is a lake too. Any other directory is none, and not an empty lake.
"""

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lakewriter.errors import LakeError, LakewriterError, UsageError
from lakewriter.market import MARKETS
from lakewriter.partition import LEVELS

STATE_DIRECTORY = "_lakewriter"

# Directories in which a lake is looked for that may have been meant.
_CHILDREN_MAX = 100

_OURS = (STATE_DIRECTORY, *(f"{LEVELS[0]}={market}" for market in MARKETS))
_EXAMPLE = "lakewriter record spot:BTCUSDT:1m"


def local_root(uri: str) -> Path:
    """Return the directory that a URI names, resolved; it need not be there.

    Raises:
        LakewriterError: if it is none.
    """
    check_file_names()
    if "://" in uri:
        raise LakewriterError(
            f"lake: {uri}: object stores can only be queried yet", "give a local directory with --lake"
        )
    try:
        root = Path(uri).expanduser().resolve()
        str(root).encode()
        root.exists()
    except UnicodeEncodeError:
        # It could be recorded into, but neither DuckDB nor Arrow could read it.
        raise LakeError(f"lake: {uri!r} is not UTF-8", "give a directory whose path is") from None
    except (RuntimeError, ValueError) as error:
        raise LakeError(f"lake: {uri!r}: {error}", "give a directory with --lake") from None
    except OSError as error:
        raise LakeError(f"lake: {uri!r}: {error.strerror}", "give a directory with --lake") from None
    return root


def check_file_names() -> None:
    """Raise if this process does not write names of files in UTF-8, as a lake has them.

    Raises:
        LakeError: if it does not; the command line starts Python so that it does.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise LakeError(
            f"lake: its file names are UTF-8, and Python's are {encoding} under this locale",
            "export PYTHONUTF8=1, or start python -X utf8",
        )


def check_is_lake(root: Path, uri: str) -> None:
    """Raise if there is no lake, and name the one that may be meant.

    Args:
        uri: what the user called the root.

    Raises:
        LakeError: if it is absent, a file, or another directory.
    """
    try:
        if _is_lake(root):
            return
    except OSError as error:
        raise LakeError(f"lake: {uri}: {error.strerror}", "name another --lake") from None
    above = next(filter(_seems_lake, root.parents), None)
    if not root.exists():
        hint = f"{_EXAMPLE} makes one" if above is None else f"--lake {above}"
        raise LakeError(f"lake: {uri} does not exist", hint)
    if not root.is_dir():
        raise LakeError(f"lake: {uri} is a file, not a directory", "give a directory with --lake")
    if above is not None:
        raise LakeError(f"lake: {uri} is no lake, but lies in one", f"--lake {above}")
    below = list(islice(filter(_seems_lake, _children(root)), 2))
    if len(below) == 1:
        raise LakeError(f"lake: {uri} is no lake, but contains one", f"--lake {below[0]}")
    raise LakeError(
        f"lake: {uri} is no lake: it has no {STATE_DIRECTORY}/ and no {LEVELS[0]}=…/",
        f"name another --lake; {_EXAMPLE} makes one",
    )


def check_can_be_lake(root: Path, uri: str) -> None:
    """Raise if a lake made here would lie among the partitions or the state of another.

    Raises:
        LakeError: if it would.
    """
    for parent in root.parents:
        first = root.relative_to(parent).parts[0]
        ours = first == STATE_DIRECTORY or first.startswith(f"{LEVELS[0]}=")
        if ours and not _is_lake(root) and (parent / STATE_DIRECTORY / "lake.json").exists():
            raise LakeError(f"lake: {uri} lies inside of a lake", f"--lake {parent}")


def state_path(*parts: str) -> Path:
    """Return a path below lakewriter's directory for local state, by the XDG rules; it may not exist.

    Raises:
        UsageError: if this user has no home directory, as in some containers.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The XDG rules ignore a relative path.
        home = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    except RuntimeError:
        raise UsageError(
            "state: this user has no home directory", "export XDG_STATE_HOME=/var/lib/lakewriter"
        ) from None
    return home.joinpath("lakewriter", *parts)


def _is_lake(directory: Path) -> bool:
    return any((directory / name).is_dir() for name in _OURS)


def _seems_lake(directory: Path) -> bool:
    """Return whether a directory that was not asked for is a lake, as far as we may look."""
    try:
        return _is_lake(directory)
    except OSError:
        return False


def _children(root: Path) -> Iterator[Path]:
    try:
        return islice(root.iterdir(), _CHILDREN_MAX)
    except OSError:
        return iter(())
