"""The one seam to storage: list, read with a version, replace if unchanged, delete.

Strategy: a storage holds named bytes. A name is replaced whole or not at all,
and only if it still has the version that its replacer read. Local disk is the
storage of today; an object store fits the same five verbs (a version is its
ETag, `exclusive` locks nothing, `replace` is one conditional PUT).

Nobody else opens, renames or unlinks files of partitions.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from lakewriter.errors import LakeError

LOCKS = 256
_TEMPORARY_MARK = ".tmp-"

# A crashed writer's temporary file is swept when no writer can still own it:
# a merge lives for seconds.
TEMPORARY_AGE_S = 3600.0


class ChangedError(Exception):
    """The name no longer has the version it was expected to have."""


class Found(NamedTuple):
    """What a read found: the bytes, and the version they are."""

    data: bytes
    version: str


class Listing(NamedTuple):
    """The names directly below a directory, sorted; directories and files apart."""

    directories: list[str]
    files: list[str]


class Storage(Protocol):
    """Named bytes below one root; names use `/` and never leave it."""

    def entries(self, directory: str) -> Listing:
        """Return what is directly below; nothing if there is no such directory."""

    def read(self, name: str) -> Found | None:
        """Return the bytes and their version; None if there is no such name."""

    def version(self, name: str) -> str | None:
        """Return the version without reading; None if there is no such name."""

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        """Replace the whole name and return its new version.

        Args:
            expected: the version that was read; None if there was none.

        Raises:
            ChangedError: if the name has another version by now; nothing is written.
        """

    def delete(self, name: str) -> None:
        """Remove the name, if it is there."""

    def exclusive(self, directory: str) -> contextlib.AbstractContextManager[None]:
        """Keep other writers of the directory out, where the storage can."""

    def sweep(self, directory: str, now_s: float, *, dry_run: bool = False) -> list[str]:
        """Remove what crashed writers left in the directory; return the names."""


class LocalStorage:
    """A directory on a local disk.

    Args:
        root: the lake's root; must exist.
        locks: where the lock files are.
    """

    def __init__(self, root: Path, locks: Path) -> None:
        self.root = root
        self._locks = locks

    def entries(self, directory: str) -> Listing:
        """Return what is directly below; nothing if there is no such directory."""
        directories: list[str] = []
        files: list[str] = []
        try:
            # Text, not a Path: surveys and queries list directories by the ten thousand.
            with os.scandir(f"{self.root}/{directory}") as entries:
                for entry in entries:
                    (directories if entry.is_dir() else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return Listing([], [])
        return Listing(sorted(directories), sorted(files))

    def read(self, name: str) -> Found | None:
        """Return the bytes and their version; None if there is no such name."""
        path = self.root / name
        try:
            named = path.lstat()
            with path.open("rb", buffering=0) as file:
                opened = os.fstat(file.fileno())
                return Found(file.read(), _version(named if stat.S_ISLNK(named.st_mode) else opened))
        except FileNotFoundError:
            return None

    def version(self, name: str) -> str | None:
        """Return the version without reading; None if there is no such name."""
        try:
            return _version((self.root / name).lstat())
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        """Replace the file whole and return its new version.

        Raises:
            ChangedError: if the name has another version by now; nothing is written.

        Crash: until the rename, a temporary file that no reader's glob matches
        may be left, whole or torn; readers see the old file. After it they see
        the new one, whose bytes were on the disk before its name was. The
        directory is synced last: only then is the return a promise.
        """
        target = self.root / name
        make_directories(self.root, target.parent)
        with _written_beside(target, data) as temporary:
            version = _version(temporary.stat())
            if self.version(name) != expected:
                raise ChangedError(name)
            temporary.rename(target)
        sync_directory(target.parent)
        return version

    def delete(self, name: str) -> None:
        """Remove the file, if it is there, for good.

        Crash: the file is there or not; nothing else depends on which.
        """
        path = self.root / name
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)

    @contextlib.contextmanager
    def exclusive(self, directory: str) -> Iterator[None]:
        """Keep other writers of the directory out while inside.

        One of 256 lock files is chosen by the directory's name, so that there
        are never more. Hold one at a time. A dead owner holds nothing: the
        kernel drops its lock.
        """
        lock = self._locks / f"{zlib.crc32(directory.encode()) % LOCKS:02x}"
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # a lake that was copied without our own directory
            self._locks.mkdir(parents=True, exist_ok=True)
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def sweep(self, directory: str, now_s: float, *, dry_run: bool = False) -> list[str]:
        """Remove temporary files older than an hour; return their names."""
        swept = []
        for file in self.entries(directory).files:
            if not is_temporary(file):
                continue
            name = f"{directory}/{file}"
            try:
                age_s = now_s - (self.root / name).stat().st_mtime
            except FileNotFoundError:
                continue
            if age_s > TEMPORARY_AGE_S:
                swept.append(name)
                if not dry_run:
                    self.delete(name)
        return swept


def is_temporary(file: str) -> bool:
    """Tell whether a file's name is one that a writer of ours makes beside its target."""
    return file.startswith(".") and _TEMPORARY_MARK in file


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable: new names, renames, removals."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file of our own, whole, and sync it and its directory.

    Crash: the old file or the new one is there, whole.
    """
    with _written_beside(path, data) as temporary:
        temporary.rename(path)
    sync_directory(path.parent)


@contextlib.contextmanager
def _written_beside(target: Path, data: bytes) -> Iterator[Path]:
    """Write and sync a temporary file beside the target; gone after the block, unless renamed."""
    temporary = target.parent / f".{target.name}{_TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with temporary.open("xb", buffering=0) as file:
            _write_all(file.fileno(), data)
            os.fsync(file.fileno())
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _version(status: os.stat_result) -> str:
    # The inode tells two files of one size and one clock tick apart.
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def make_directories(root: Path, directory: Path) -> None:
    """Make the missing directories down from `root`, each synced into its parent.

    Crash: some of them are there; whoever comes next makes the others.
    """
    if directory.is_dir():
        return
    if directory == root:
        raise LakeError(f"lake: {root} is gone")
    make_directories(root, directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
    sync_directory(directory.parent)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
