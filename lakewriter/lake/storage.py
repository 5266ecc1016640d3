"""The one seam to storage: list, read with a version, replace if unchanged, delete.

Strategy: a storage holds named bytes. A replacement is atomic, and fails if the
name has another version than the replacer read. `LocalStorage` is a local disk.
`remote.object_store` is an object store, where a version is an ETag and
`exclusive` locks nothing; it is read-only. `lake.open` chooses the storage for a URI.

No other module opens, renames or unlinks the files of partitions.
"""

import contextlib
import errno
import fcntl
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from lakewriter.lake.durable import (
    is_temporary,
    make_directories,
    make_missing,
    sync_directory,
    temporary_name,
    written_beside,
)
from lakewriter.lake.unchanged import UnchangedCache
from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import (
    NotRegularError,
    names_open_file,
    open_lock,
    open_regular,
    read_all,
    write_all,
)

S = TypeVar("S")
T = TypeVar("T")

LOCKS = 256

# A partition has at most 86,400 candles of some 50 bytes. Foreign files may have
# duplicates, more columns and no compression.
FILE_BYTES_MAX = 256 * 1024 * 1024

# A disk makes several concurrent syncs in little more time than one.
SYNC_THREADS = 8

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# An older temporary file has no living writer: a merge takes seconds.
TEMPORARY_AGE_S = 3600.0

_LISTINGS_MAX = 16_384


class ChangedError(Exception):
    """The name has another version than expected."""


class StoredBytes(NamedTuple):
    """The content of a name, and its version."""

    data: bytes
    version: str


class Replacement(NamedTuple):
    """The arguments of `Storage.replace`."""

    name: str
    data: bytes
    expected: str | None


class Listing(NamedTuple):
    """The names in a directory, sorted: its directories and its regular files."""

    directories: list[str]
    files: list[str]


class Storage(Protocol):
    """Named bytes below one root; names use `/` and never leave it.

    Attributes:
        is_remote: whether each listing and each read costs a round trip, and no
            file has a local path.
    """

    is_remote: bool

    @property
    def root(self) -> Path:
        """The local directory below which the files are.

        Raises:
            LakeError: if there is no local directory.
        """

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """Yield the result of `read` for each thing, in order. A remote storage prefetches."""

    def local_copy(self, directories: Sequence[str], suffix: str) -> contextlib.AbstractContextManager[Path]:
        """Return a context with a local root below which the directories have their current files.

        Args:
            suffix: only files whose names end with this are needed.
        """

    def entries(self, directory: str) -> Listing:
        """Return the names in a directory; none if there is no such directory."""

    def read(self, name: str) -> StoredBytes | None:
        """Return the bytes and their version; None if there is no such name."""

    def version(self, name: str) -> str | None:
        """Return the version without reading; None if there is no such name."""

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        """Replace the whole name and return its new version.

        Args:
            expected: the version that was read; None if there was no such name.

        Raises:
            ChangedError: if the name has another version by now; nothing is written.
        """

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:
        """Replace many names, each as `replace` does, in less time.

        Returns:
            the new version of each; None if it had another version by now.
        """

    def delete(self, name: str) -> None:
        """Remove the name, if it is there."""

    def prune(self, directory: str) -> None:
        """Remove the directory and its parents, as long as they are empty."""

    def exclusive(self, *directories: str) -> contextlib.AbstractContextManager[None]:
        """Return a context that excludes other writers of the directories, if the storage can."""

    def sweep(self, directory: str, now_s: float, *, dry_run: bool = False) -> list[str]:
        """Remove temporary files of crashed writers from the directory; return their names."""


class LocalStorage:
    """A directory on a local disk.

    Args:
        root: the lake's root; must exist.
        locks: the directory of the lock files.
        sync_threads: at most so many files are synced at once.
    """

    is_remote = False

    def __init__(self, root: Path, locks: Path, sync_threads: int = SYNC_THREADS) -> None:
        self._root = root
        self._prefix = f"{root}/"
        self._locks = locks
        self._sync_threads = sync_threads
        self._listings: UnchangedCache[Listing] | None = None

    def keep_listings(self) -> None:
        """Cache listings, for a reader that lists the same directories often."""
        if self._listings is None:
            self._listings = UnchangedCache(_LISTINGS_MAX)

    @property
    def root(self) -> Path:
        """The local directory below which the files are."""
        return self._root

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """Yield the result of `read` for each thing, in order, one after another."""
        return map(read, things)

    @contextlib.contextmanager
    def local_copy(self, directories: Sequence[str], suffix: str) -> Iterator[Path]:  # noqa: ARG002
        """Yield the root itself."""
        yield self.root

    def entries(self, directory: str) -> Listing:
        """Return the names in a directory; none if there is no such directory."""
        # Text, not a Path: surveys and queries list directories by the ten thousand.
        path = self._prefix + directory
        try:
            if self._listings is not None:
                return self._list_if_changed(path, self._listings)
            return self._list(path, path)[0]
        except (FileNotFoundError, NotADirectoryError):
            return Listing([], [])

    def _list(self, path: str, opened: str | int) -> tuple[Listing, bool]:
        """Return a listing, and whether it has only files and directories, no links.

        Args:
            opened: the same directory, or its descriptor.
        """
        directories: list[str] = []
        files: list[str] = []
        is_plain = True
        with os.scandir(opened) as entries:
            for entry in entries:
                names = self._list_for(path, entry, directories, files)
                if names is not None:
                    names.append(entry.name)
                is_plain = is_plain and names is not None and not entry.is_symlink()
        return Listing(sorted(directories), sorted(files)), is_plain

    def _list_if_changed(self, path: str, kept: UnchangedCache[Listing]) -> Listing:
        listing = kept.get(path, os.stat(path))  # noqa: PTH116 - pathlib takes three times as long
        if listing is not None:
            return listing
        # By its descriptor, status and names are those of one directory, even if another is moved here.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            read_s, status = kept.now_s(), os.fstat(fd)
            listing, is_plain = self._list(path, fd)
        finally:
            os.close(fd)
        # The target of a link changes without the directory.
        if is_plain:
            kept.add(path, status, read_s, listing)
        return listing

    def _list_for(
        self, path: str, entry: "os.DirEntry[str]", directories: list[str], files: list[str]
    ) -> list[str] | None:
        """Return the list for an entry; None for a pipe, a socket or a device.

        A broken link counts as a file: its disk may be unmounted, and reading it
        must raise.
        """
        try:
            if entry.is_dir():
                return directories
            if entry.is_file() or not Path(path, entry.name).exists():
                return files
        except OSError:  # a cycle of links
            return files
        warn_once(f"lake: {Path(path, entry.name)} is left out: it is no regular file")
        return None

    def read(self, name: str) -> StoredBytes | None:
        """Return the bytes and their version; None if there is no such name."""
        path = f"{self.root}/{name}"
        try:
            named = os.lstat(path)
        except FileNotFoundError:
            return None
        is_link = stat.S_ISLNK(named.st_mode)
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            if is_link:
                raise NotRegularError(errno.ENOENT, "a link that leads nowhere", path) from None
            return None
        try:
            version = _version(named if is_link else os.fstat(fd))
            return StoredBytes(read_all(fd, path, FILE_BYTES_MAX), version)
        finally:
            os.close(fd)

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
        with written_beside(target, data) as temporary:
            version = _version(temporary.stat())
            if self.version(name) != expected:
                raise ChangedError(name)
            temporary.rename(target)
        sync_directory(target.parent)
        return version

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:
        """Replace many files whole, with concurrent syncs.

        All of them are open at once; the caller limits their number.

        Returns:
            the new version of each; None if it had another version by now, and
            stays as it is.

        Raises:
            OSError: if the disk refuses one. Files that are renamed by then are
                replaced; nothing is left of the others.

        Crash: as for each alone: no bytes get their name before they are on the
        disk, so each file is the old one or the new one, whole. Their directories
        are synced last: only then is the return a promise.
        """
        targets = [f"{self.root}/{each.name}" for each in replacements]
        directories = dict.fromkeys(target.rpartition("/")[0] for target in targets)
        left: dict[str, int] = {}  # temporary files, not renamed yet
        try:
            with self._parallel_sync(len(targets)) as sync_all:
                made = [parent for each in directories for parent in make_missing(self.root, Path(each))]
                sync_all(sync_directory, dict.fromkeys(made))
                for target, each in zip(targets, replacements, strict=True):
                    temporary = temporary_name(target)
                    left[temporary] = os.open(temporary, _NEW_FILE, 0o666)
                    write_all(left[temporary], each.data)
                sync_all(os.fsync, left.values())
                versions = [
                    self._rename(temporary, target, each, left)
                    for temporary, target, each in zip(list(left), targets, replacements, strict=True)
                ]
                sync_all(sync_directory, directories)
        finally:
            for temporary, fd in left.items():
                os.close(fd)
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
        return versions

    def _rename(
        self, temporary: str, target: str, replacement: Replacement, left: dict[str, int]
    ) -> str | None:
        if self.version(replacement.name) != replacement.expected:
            return None
        version = _version(os.fstat(left[temporary]))
        Path(temporary).rename(target)
        os.close(left.pop(temporary))
        return version

    @contextlib.contextmanager
    def _parallel_sync(self, count: int) -> Iterator[Callable[[Callable[[Any], None], Iterable[Any]], None]]:
        """Yield a function that syncs many things concurrently, and returns when all are synced."""
        threads = min(self._sync_threads, count)
        if threads <= 1:
            yield _sync_each
            return
        with ThreadPoolExecutor(threads) as pool:

            def sync_all(sync: Callable[[Any], None], things: Iterable[Any]) -> None:
                all_of_them = list(things)
                shares = [all_of_them[number::threads] for number in range(threads)]
                for done in [pool.submit(_sync_each, sync, share) for share in shares if share]:
                    done.result()

            yield sync_all

    def delete(self, name: str) -> None:
        """Remove the file durably, if it exists.

        Crash: the file is there or not; nothing else depends on which.
        """
        path = self.root / name
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)

    def prune(self, directory: str) -> None:
        """Remove the directory and its parents, as long as they are empty; the root stays.

        The caller excludes writers of the directory itself. Writers of its
        neighbours create a parent again if it is removed under them.

        Crash: some of them are gone; readers ignore empty directories.
        """
        while directory:
            path = self.root / directory
            try:
                path.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return  # it is not empty, or not ours to remove
            else:
                with contextlib.suppress(FileNotFoundError):
                    sync_directory(path.parent)
            directory = directory.rpartition("/")[0]

    @contextlib.contextmanager
    def exclusive(self, *directories: str) -> Iterator[None]:
        """Hold the locks of the directories while inside.

        A hash of its name assigns each directory one of 256 lock files. A writer
        takes all its locks in one call, in the same order as every other writer;
        so there is no deadlock. The kernel releases the locks of a dead process.
        """
        with contextlib.ExitStack() as held:
            for number in sorted({zlib.crc32(directory.encode()) % LOCKS for directory in directories}):
                held.callback(os.close, self._lock(self._locks / f"{number:02x}"))
            yield

    def _lock(self, lock: Path) -> int:
        """Lock a lock file and return its descriptor.

        Raises:
            LakeError: if the lake's root is gone; a lock does not create it again.
        """
        while True:
            try:
                fd = open_lock(lock)
            except FileNotFoundError:  # the lake was copied without `_lakewriter`
                make_directories(self.root, self._locks)
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)
            # A lock file that was deleted while we waited excludes no other writer.
            if names_open_file(lock, fd):
                return fd
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


def _sync_each(sync: Callable[[Any], None], things: Iterable[Any]) -> None:
    for thing in things:
        sync(thing)


def _version(status: os.stat_result) -> str:
    # Two files of one size and one clock tick differ in their inodes.
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
