"""The root of a lake on a disk: its path, and checks that it is a lake.

A lake has the directory `_lakewriter` or the directory of a market; a copy may lack
the first. No other directory is a lake, not even an empty one.
"""

import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lakewriter.errors import LakeError, LakewriterError, UsageError
from lakewriter.market import MARKETS
from lakewriter.partition import LEVELS

STATE_DIRECTORY = "_lakewriter"
LOCKS_DIRECTORY = f"{STATE_DIRECTORY}/locks"

# The state directory of lakes on object stores. `--state-dir` sets it for this process and its children.
STATE_VARIABLE = "LAKEWRITER_STATE_DIR"

# The hint names a lake if it is among this many subdirectories.
_CHILDREN_MAX = 100

_OURS = (STATE_DIRECTORY, *(f"{LEVELS[0]}={market}" for market in MARKETS))
# A mistake that would name a directory.
_STORE_WITH_ONE_SLASH = re.compile(r"(s3|gs|az):/?(?!/)", re.IGNORECASE)
_EXAMPLE = "lakewriter record spot:BTCUSDT:1m"


class HomelessError(UsageError):
    """This user has no home directory, as in some containers."""


def local_root(uri: str) -> Path:
    """Return the resolved path of the directory that a URI names. The directory may not exist.

    Raises:
        LakewriterError: if the URI is on an object store, or is no valid path.
        UsageError: if it is a store's URI with a mistake.
    """
    check_file_names()
    if "://" in uri:
        raise LakewriterError(
            f"lake: {uri}: this command needs a lake on a disk so far", "give a local directory with --lake"
        )
    if written := _STORE_WITH_ONE_SLASH.match(uri):
        raise UsageError(
            f"lake: {uri} is neither a directory nor a store", f"{written[1]}://{uri[written.end() :]}"
        )
    try:
        root = Path(uri).expanduser().resolve()
        str(root).encode()
        root.exists()
    except UnicodeEncodeError:
        # Recording would work, but neither DuckDB nor Arrow could read the lake.
        raise LakeError(f"lake: {uri!r} is not UTF-8", "give a directory whose path is UTF-8") from None
    except (RuntimeError, ValueError) as error:
        raise LakeError(f"lake: {uri!r}: {error}", "give a directory with --lake") from None
    except OSError as error:
        raise LakeError(f"lake: {uri!r}: {error.strerror}", "give a directory with --lake") from None
    return root


def check_file_names() -> None:
    """Raise if this process does not encode file names in UTF-8.

    The command line starts Python in UTF-8 mode.

    Raises:
        LakeError: if the encoding is another one.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise LakeError(
            f"lake: its file names are UTF-8, and Python's are {encoding} under this locale",
            "export PYTHONUTF8=1, or start python -X utf8",
        )


def check_is_lake(root: Path, uri: str) -> None:
    """Raise if a directory is not a lake; the error's hint names a lake nearby.

    Args:
        uri: the root as the user wrote it.

    Raises:
        LakeError: if the directory is absent, a file, or not a lake.
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
    """Raise if a new lake at a root would lie in another lake's own directories.

    Args:
        uri: the root as the user wrote it.

    Raises:
        LakeError: if a parent is another lake's state directory or the directory of a market.
    """
    for parent in root.parents:
        first = root.relative_to(parent).parts[0]
        ours = first == STATE_DIRECTORY or first.startswith(f"{LEVELS[0]}=")
        if ours and not _is_lake(root) and (parent / STATE_DIRECTORY / "lake.json").exists():
            raise LakeError(f"lake: {uri} lies inside of a lake", f"--lake {parent}")


def state_path(*parts: str) -> Path:
    """Return a path below lakewriter's directory for local state, by the XDG Base Directory Specification.

    The path may not exist.

    Raises:
        UsageError: if the user has no home directory, as in some containers.
    """
    try:
        home = _xdg_home("XDG_STATE_HOME", "~/.local/state")
    except RuntimeError:
        raise UsageError(
            "state: this user has no home directory", "export XDG_STATE_HOME=/var/lib/lakewriter"
        ) from None
    return home.joinpath("lakewriter", *parts)


def _xdg_home(variable: str, default: str) -> Path:
    """Return a base directory of the user. By the XDG rules a relative path in the variable is ignored.

    Raises:
        RuntimeError: if the user has no home directory.
    """
    chosen = os.environ.get(variable, "")
    return Path(chosen) if chosen.startswith("/") else Path(default).expanduser()


def cache_path() -> Path:
    """Return lakewriter's directory for caches, by the XDG Base Directory Specification. It may not exist.

    Raises:
        HomelessError: if the user has no home directory.
    """
    try:
        home = _xdg_home("XDG_CACHE_HOME", "~/.cache")
    except RuntimeError:
        raise HomelessError(
            "cache: this user has no home directory", "--cache-dir DIR, or --no-cache"
        ) from None
    return home / "lakewriter"


def remote_state_path(*parts: str) -> Path:
    """Return the state directory of a lake on an object store: `LAKEWRITER_STATE_DIR`, or its own default.

    Args:
        parts: the parts of the lake's URI.

    Raises:
        UsageError: as `state_path`.
    """
    chosen = os.environ.get(STATE_VARIABLE, "")
    return Path(chosen).expanduser().absolute() if chosen else state_path("lakes", *parts)


def _is_lake(directory: Path) -> bool:
    return any((directory / name).is_dir() for name in _OURS)


def _seems_lake(directory: Path) -> bool:
    """Return whether a directory is readable and a lake."""
    try:
        return _is_lake(directory)
    except OSError:
        return False


def _children(root: Path) -> Iterator[Path]:
    try:
        return islice(root.iterdir(), _CHILDREN_MAX)
    except OSError:
        return iter(())
