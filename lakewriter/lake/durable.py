"""Durable writes: atomic replacement of small files, and synced directories.

This module takes no locks and compares no versions; `storage` does.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from lakewriter.errors import LakeError
from lakewriter.regular_file import write_all

_TEMPORARY_MARK = ".tmp-"

# An attempt fails if another process pruned the empty parent meanwhile.
MAKE_TRIES_MAX = 100


def is_temporary(file: str) -> bool:
    """Return whether a file's name has the form of our temporary files."""
    return file.startswith(".") and _TEMPORARY_MARK in file


def sync_directory(path: Path | str) -> None:
    """Write a directory's new names, renames and removals to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file of ours as a whole, and sync it and its directory.

    Crash: the old file or the new one is there, whole.
    """
    with written_beside(path, data) as temporary:
        temporary.rename(path)
    sync_directory(path.parent)


@contextlib.contextmanager
def written_beside(target: Path, data: bytes) -> Iterator[Path]:
    """Write and sync a temporary file beside the target, for the block to rename. Remove it on errors."""
    temporary = Path(temporary_name(str(target)))
    try:
        with temporary.open("xb", buffering=0) as file:
            write_all(file.fileno(), data)
            os.fsync(file.fileno())
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def temporary_name(target: str) -> str:
    """Return a new name for a temporary file beside the target."""
    directory, _, name = target.rpartition("/")
    return f"{directory}/.{name}{_TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}"


def make_directories(root: Path, directory: Path) -> None:
    """Create a directory and its missing parents below `root`, and sync their parents.

    Raises:
        LakeError: if the root is gone.

    Crash: some of them are there; the next call creates the others.
    """
    for parent in make_missing(str(root), str(directory)):
        sync_directory(parent)


def make_missing(root: str, directory: str) -> list[str]:
    """Create a directory and its missing parents below `root`; return the directories to sync, in order.

    Raises:
        LakeError: if the root is gone.
    """
    made: list[str] = []
    parent = directory.rpartition("/")[0] or "/"
    for tries_left in reversed(range(MAKE_TRIES_MAX)):
        if os.path.isdir(directory):  # noqa: PTH112 - a flush asks this of thousands of directories
            break
        if directory == root:
            raise LakeError(f"lake: {root} is gone")
        made += make_missing(root, parent)
        try:
            os.mkdir(directory)  # noqa: PTH102
        except FileExistsError:
            pass
        except FileNotFoundError:
            # `prune` may have removed the parent in between. Below /proc every attempt fails.
            if not tries_left:
                raise
            continue
        made.append(parent)
        break
    return made
