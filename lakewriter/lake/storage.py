"""The storage interface: list, read with a version, replace if unchanged, and delete.

Strategy: a storage has bytes under names. A replacement is atomic, and fails if the
name no longer has the version that the caller read. `LocalStorage` is a local disk.
`remote.object_store` is an object store: its versions are ETags, and `exclusive` takes no
lock. `lake.open` chooses the storage for a URI.

No other module opens, renames or unlinks the files of partitions.
"""

import contextlib
import errno
import fcntl
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from lakewriter.errors import LakeError
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

# A partition has at most 86,400 candles of about 50 bytes. Foreign files may have
# duplicates, more columns and no compression.
FILE_BYTES_MAX = 256 * 1024 * 1024

# Several concurrent syncs take little more time than one.
SYNC_THREADS = 8

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# The writer of an older temporary file is dead: a merge takes seconds.
TEMPORARY_AGE_S = 3600.0

_LISTINGS_MAX = 16_384


class ChangedError(Exception):
    """A name has another version than expected."""


class StoreError(LakeError):
    """A refusal of an object store.

    Args:
        what, hint: as for a LakewriterError. They name the key.
        reason: the message without the key, so that errors of many keys can be one line.
    """

    def __init__(self, what: str, hint: str, reason: str) -> None:
        super().__init__(what, hint)
        self.reason = reason


class InvalidKeyError(StoreError):
    """A listing with a key that is no path. Its other keys cannot be listed either."""


class StoreAwayError(StoreError):
    """An object store that does not answer, or cannot serve requests now. It may be back later."""


class StoredBytes(NamedTuple):
    """The content of a name.

    Args:
        data: all bytes.
        version: their version.
        modified_ms: when they were written, by the clock of the disk or the store.
    """

    data: bytes
    version: str
    modified_ms: int = 0


class Replacement(NamedTuple):
    """The arguments of `Storage.replace`."""

    name: str
    data: bytes
    expected: str | None


# The versions of a listing that has none.
NO_VERSIONS: Mapping[str, str] = {}


class Listing(NamedTuple):
    """The names in a directory, sorted: its directories and its regular files.

    Args:
        versions: the files' versions for `Storage.read_listed`; only an object store lists them.
    """

    directories: list[str]
    files: list[str]
    versions: Mapping[str, str] = NO_VERSIONS


class Storage(Protocol):
    """Named bytes below one root; names use `/` and never leave it.

    Attributes:
        is_remote: whether the files are on an object store. Each listing and each
            read then takes a round trip, and no file has a local path.
    """

    is_remote: bool

    @property
    def root(self) -> Path:
        """The local directory that has the files.

        Raises:
            LakeError: if the storage is remote.
        """

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """Yield the result of `read` for each thing, in order. A remote storage prefetches the results."""

    def local_copy(
        self, directories: Sequence[str], suffix: str, *, whole: bool = False
    ) -> contextlib.AbstractContextManager[Path]:
        """Return a context with a local root that has the current files of the directories.

        Args:
            suffix: the end of the names of the needed files; the root may lack others.
            whole: whether a directory that cannot be listed is an error. Otherwise it is left
                out, with a warning.
        """

    def entries(self, directory: str) -> Listing:
        """Return the names in a directory. An absent directory has no names."""

    def read(self, name: str) -> StoredBytes | None:
        """Return a name's bytes and version, or None if the name does not exist."""

    def read_listed(self, name: str, version: str) -> StoredBytes | None:
        """Return a name's bytes, or None if the name does not exist; a remote storage may have cached them.

        The bytes are those of the version, or newer ones.

        Args:
            version: the name's version in a recent listing, or "" if the listing had none.
        """

    def version(self, name: str) -> str | None:
        """Return a name's version without reading its bytes, or None if the name does not exist."""

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        """Replace all bytes of a name, and return its new version.

        Args:
            expected: the version that the caller read, or None if the name did not exist.

        Raises:
            ChangedError: if the name has another version now. Nothing is written then.
        """

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:
        """Replace many names; this takes less time than one `replace` for each.

        Returns:
            the new version of each name, or None if the name did not have the expected version.
        """

    def delete(self, name: str) -> None:
        """Remove a name, if it exists."""

    def delete_unchanged(self, versions: Mapping[str, str]) -> list[str]:
        """Remove each name that has its version, and return the removed names.

        This takes less time than one `delete` for each.
        """

    def prune(self, directory: str) -> bool:
        """Remove a directory if it is empty, then each parent that is empty.

        Returns:
            whether the directory itself does not exist afterwards.
        """

    def exclusive(self, *directories: str) -> contextlib.AbstractContextManager[None]:
        """Return a context that excludes other writers of the directories, by locks if the storage has them."""

    def sweep(self, directory: str, now_s: float, *, dry_run: bool = False) -> list[str]:
        """Remove temporary files of crashed writers from a directory, and return their names.

        Args:
            now_s: the time of the clock that stamps files, in seconds since the epoch.
            dry_run: whether to return the names only.
        """


class LocalStorage:
    """A directory on a local disk.

    Args:
        root: the lake's root, which must exist.
        locks: the directory of the lock files.
        sync_threads: the maximum number of concurrent syncs.
    """

    is_remote = False

    def __init__(self, root: Path, locks: Path, sync_threads: int = SYNC_THREADS) -> None:
        self._root = root
        # Text is faster than a Path: a flush, a survey or a query names tens of thousands of files.
        self._root_text = str(root)
        self._prefix = f"{root}/"
        self._locks_prefix = f"{locks}/"
        self._locks = locks
        self._sync_threads = sync_threads
        self._listings: UnchangedCache[Listing] | None = None

    def keep_listings(self) -> None:
        """Start to cache listings, for a reader that often lists the same directories."""
        if self._listings is None:
            self._listings = UnchangedCache(_LISTINGS_MAX)

    @property
    def root(self) -> Path:
        """The local directory that has the files."""
        return self._root

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """Yield the result of `read` for each thing, in order, one after another."""
        return map(read, things)

    @contextlib.contextmanager
    def local_copy(
        self,
        directories: Sequence[str],  # noqa: ARG002
        suffix: str,  # noqa: ARG002
        *,
        whole: bool = False,  # noqa: ARG002
    ) -> Iterator[Path]:
        """Yield the root itself."""
        yield self.root

    def entries(self, directory: str) -> Listing:
        """Return the names in a directory. An absent directory has no names."""
        path = self._prefix + directory
        try:
            if self._listings is not None:
                return self._list_if_changed(path, self._listings)
            return self._list(path, path)[0]
        except (FileNotFoundError, NotADirectoryError):
            return Listing([], [])

    def _list(self, path: str, opened: str | int) -> tuple[Listing, bool]:
        """Return a listing, and whether all its entries are files and directories without links.

        Args:
            path: the directory.
            opened: its path or descriptor.
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
        # The descriptor makes status and names those of one directory, even if another replaces it.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            read_s, status = kept.now_s(), os.fstat(fd)
            listing, is_plain = self._list(path, fd)
        finally:
            os.close(fd)
        # The target of a link can change while the directory's times stay the same.
        if is_plain:
            kept.add(path, status, read_s, listing)
        return listing

    def _list_for(
        self, path: str, entry: "os.DirEntry[str]", directories: list[str], files: list[str]
    ) -> list[str] | None:
        """Return the list that gets an entry, or None for a pipe, a socket or a device.

        A broken link counts as a file: its target's disk may be unmounted, and a read
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
        """Return a name's bytes and version, or None if the name does not exist."""
        path = self._prefix + name
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
            opened = os.fstat(fd)
            version = _version(named if is_link else opened)
            data = read_all(fd, path, FILE_BYTES_MAX)
            return StoredBytes(data, version, opened.st_mtime_ns // 10**6)
        finally:
            os.close(fd)

    def read_listed(self, name: str, version: str) -> StoredBytes | None:  # noqa: ARG002
        """Return a name's bytes, or None if the name does not exist."""
        return self.read(name)

    def version(self, name: str) -> str | None:
        """Return a name's version without reading its bytes, or None if the name does not exist."""
        try:
            return _version(os.lstat(self._prefix + name))
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        """Replace a whole file, and return its new version.

        Raises:
            ChangedError: if the name has another version now. Nothing is written then.

        Crash: until the rename, a temporary file that no reader's glob matches may be left,
        whole or torn; readers see the old file. After it they see the new one, whose bytes
        were on the disk before its name was. The directory is synced last: the call returns
        only after that.
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
        """Replace many whole files, with concurrent syncs.

        All temporary files are open at once, so the caller limits their number.

        Returns:
            the new version of each file, or None if the file did not have the expected
            version. Such a file stays as it is.

        Raises:
            OSError: if the disk refuses a write. Renamed files are replaced by then;
                the temporary files of the others are removed.

        Crash: as for each alone: no bytes get their name before they are on the disk, so
        each file is the old one or the new one, whole. Their directories are synced last:
        the call returns only after that.
        """
        targets = [self._prefix + each.name for each in replacements]
        directories = dict.fromkeys(target.rpartition("/")[0] for target in targets)
        left: dict[str, int] = {}  # descriptors of temporary files that are not renamed yet
        try:
            with self._parallel_sync(len(targets)) as sync_all:
                made = [parent for each in directories for parent in make_missing(self._root_text, each)]
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
        os.rename(temporary, target)  # noqa: PTH104 - a flush renames thousands of files
        os.close(left.pop(temporary))
        return version

    @contextlib.contextmanager
    def _parallel_sync(self, count: int) -> Iterator[Callable[[Callable[[Any], None], Iterable[Any]], None]]:
        """Yield a function that syncs many things concurrently, and waits for all of them."""
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
        """Remove a file durably, if it exists.

        Crash: the file is whole or absent; nothing else depends on which.
        """
        path = self.root / name
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)

    def delete_unchanged(self, versions: Mapping[str, str]) -> list[str]:
        """Remove each file that has its version durably, and return the removed names.

        Each directory is synced once, after its last removal.

        Crash: each file is whole or absent; nothing else depends on which.
        """
        removed: list[str] = []
        try:
            for name, version in versions.items():
                if self.version(name) != version:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._prefix + name)  # noqa: PTH108 - pathlib takes three times as long
                    removed.append(name)
        finally:
            for directory in {name.rpartition("/")[0]: None for name in removed}:
                sync_directory(self._prefix + directory)
        return removed

    def prune(self, directory: str) -> bool:
        """Remove a directory if it is empty, then each parent that is empty; the root stays.

        The caller excludes writers of the directory itself. If a parent is removed
        while another writer uses it, that writer creates it again.

        Returns:
            whether the directory itself does not exist afterwards.

        Crash: some of the directories are gone; readers ignore empty ones.
        """
        pruned = self.root / directory
        while directory:
            path = self.root / directory
            try:
                path.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                break  # it is not empty, or this user may not remove it
            else:
                with contextlib.suppress(FileNotFoundError):
                    sync_directory(path.parent)
            directory = directory.rpartition("/")[0]
        return not pruned.exists()

    @contextlib.contextmanager
    def exclusive(self, *directories: str) -> Iterator[None]:
        """Hold the locks of the directories until the block ends.

        A hash of a directory's name selects one of 256 lock files. A writer takes
        all its locks in one call. Every writer takes them in the same order, so no
        deadlock occurs. The kernel releases the locks of a dead process.
        """
        with contextlib.ExitStack() as held:
            for number in sorted(set(map(lock_number, directories))):
                held.callback(os.close, self._lock(f"{self._locks_prefix}{number:02x}"))
            yield

    def _lock(self, lock: str) -> int:
        """Lock a lock file, and return its descriptor.

        Raises:
            LakeError: if the lake's root is gone. It is not created again.
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
        """Remove temporary files that are older than an hour, and return their names."""
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


def lock_number(directory: str) -> int:
    """Return the number of the lock file of a directory, from its hash."""
    return zlib.crc32(directory.encode()) % LOCKS


def _sync_each(sync: Callable[[Any], None], things: Iterable[Any]) -> None:
    for thing in things:
        sync(thing)


def _version(status: os.stat_result) -> str:
    # Two files of one size and one clock tick differ in their inodes.
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
