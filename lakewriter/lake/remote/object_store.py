"""An object store as a storage: keys below one prefix, and reads of whole objects.

It implements the interface of `storage`. One request returns an object's bytes and their
version, so no read sees parts of two objects. `conditional_put` replaces objects.

Requests run in worker threads: a request that waits does not hear Ctrl-C.
"""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import obstore
from obstore.exceptions import BaseError

from lakewriter.errors import LakeError, UnreadableError
from lakewriter.lake.prefetch import PENDING_MAX, prefetch, run_apart
from lakewriter.lake.remote.conditional_put import ConditionalWriter, version_of
from lakewriter.lake.remote.location import Location
from lakewriter.lake.remote.object_cache import ObjectCache, strong_e_tag
from lakewriter.lake.remote.store_errors import is_missing_bucket, store_error
from lakewriter.lake.storage import (
    FILE_BYTES_MAX,
    ChangedError,
    InvalidKeyError,
    Listing,
    Replacement,
    StoredBytes,
)
from lakewriter.lake.warn_once import named_in_warnings, warn_once

S = TypeVar("S")
T = TypeVar("T")

# The number of keys that a listing hands over at once. A request returns at most as many.
_KEYS = 1000

# Attempts to copy ledgers. Each repetition is caused by a take-over of a ledger.
_COPY_LAPS_MAX = 10

# A local file has no longer name. A longer key is none of ours.
NAME_BYTES_MAX = 255


class Object(NamedTuple):
    """A key of a listing, relative to the lake's root, its size in bytes, and its version.

    Google's listings have ETags and no generations, so the version may be a part of that of
    a read. It is no condition of a replacement.
    """

    name: str
    size: int
    version: str


class ObjectStorage:
    """The keys below one prefix.

    Args:
        location: the location of the lake's root.
        cache: has copies of objects; None is no cache.
    """

    is_remote = True

    def __init__(self, location: Location, cache: ObjectCache | None = None) -> None:
        self.cache = cache
        self._uri = location.uri
        self._store = location.store
        self._prefix = location.prefix
        self._process = os.getpid()
        # Several threads of a recorder may each have many requests pending.
        self._requests = threading.BoundedSemaphore(PENDING_MAX)
        writer = f"{_ascii(socket.gethostname())}-{self._process}"
        self._writer = ConditionalWriter(self._store, self._uri, self._prefix, writer)

    @property
    def root(self) -> Path:
        """Raise LakeError: an object store has no local directory."""
        raise LakeError(
            f"lake: {self._uri}: its files have no local path", "give a local directory with --lake"
        )

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """Yield the result of `read` for each thing, in order, with many reads pending."""
        return prefetch(read, things, PENDING_MAX)

    @contextlib.contextmanager
    def local_copy(self, directories: Sequence[str], suffix: str, *, whole: bool = False) -> Iterator[Path]:
        """Yield a temporary directory with the current files, each with the store's time of its object.

        Warnings name the store. A directory with a key that is no path cannot be listed.
        """
        absent: set[str] = set()
        for _ in range(_COPY_LAPS_MAX):
            files, read = self._read_all(directories, suffix, whole=whole)
            # A ledger that is gone was taken over: its entries are in another one. One that is
            # listed again and absent again has a key that the store's listing does not render.
            last, absent = (
                absent,
                {name for (name, _), found in zip(files, read, strict=True) if found is None},
            )
            if absent <= last:
                break
        for name in sorted(absent):
            warn_once(f"{self._uri}/{name}: left out; the store lists this key, but does not have it")
        with tempfile.TemporaryDirectory(prefix="lakewriter-") as root:
            for (name, _), found in zip(files, read, strict=True):
                if found is not None:
                    path = Path(root, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(found.data)
                    os.utime(path, ns=(found.modified_ms * 10**6,) * 2)
            with named_in_warnings(root, self._uri):
                yield Path(root)

    def _read_all(
        self, directories: Sequence[str], suffix: str, *, whole: bool
    ) -> tuple[list[tuple[str, str]], list[StoredBytes | None]]:
        listings = self.in_parallel(self.entries if whole else self._entries_or_none, directories)
        files = [
            (f"{directory}/{file}", listing.versions[file])
            for directory, listing in zip(directories, listings, strict=True)
            for file in listing.files
            if file.endswith(suffix) and not file.startswith(".") and self._fits_disk(directory, file)
        ]
        return files, list(self.in_parallel(lambda file: self.read_listed(*file), files))

    def _entries_or_none(self, directory: str) -> Listing:
        try:
            return self.entries(directory)
        except InvalidKeyError as error:
            warn_once(f"{error.what}, so this directory is left out; {error.hint}")
            return Listing([], [])

    def _fits_disk(self, directory: str, file: str) -> bool:
        if len(file.encode()) <= NAME_BYTES_MAX:
            return True
        name = f"{self._uri}/{directory}/{file[:40]}…"
        warn_once(f"{name}: left out; its name has more than {NAME_BYTES_MAX} bytes")
        return False

    def entries(self, directory: str) -> Listing:
        """Return the names in a directory. An absent directory has no names. Each thousand take one request."""
        key = self._key(directory)
        found = self._ask(directory, lambda: obstore.list_with_delimiter(self._store, key))
        directories = {path.rpartition("/")[2] for path in found["common_prefixes"]}
        versions = {
            each["path"].rpartition("/")[2]: version_of(each)
            for each in found["objects"]
            if each["path"] != key.removesuffix("/")
        }
        return Listing(sorted(directories), sorted(versions), versions)

    def tree(self, directory: str) -> list[Object]:
        """Return every key below a directory, sorted. Each thousand keys take one request."""
        key = self._key(directory)

        def list_all() -> list[Object]:
            pages = obstore.list(self._store, key, chunk_size=_KEYS)
            return [
                Object(each["path"][len(self._prefix) :], each["size"], version_of(each))
                for page in pages
                for each in page
                if each["path"] != key.removesuffix("/")
            ]

        return sorted(self._ask(directory, list_all))

    def read(self, name: str) -> StoredBytes | None:
        """Return a name's bytes and version, or None if the name does not exist. This takes one request.

        Raises:
            UnreadableError: if the object is too large.
            LakeError: if the store refuses.
        """
        key = self._key(name)

        def get() -> StoredBytes:
            found = obstore.get(self._store, key)
            if found.meta["size"] > FILE_BYTES_MAX:
                raise UnreadableError(f"lake: {self._uri}/{name}: larger than {FILE_BYTES_MAX:,} bytes")
            modified_ms = int(found.meta["last_modified"].timestamp() * 1000)
            return StoredBytes(bytes(found.bytes()), version_of(found.meta), modified_ms)

        return self._ask_or_none(name, get)

    def read_listed(self, name: str, version: str) -> StoredBytes | None:
        """Return a listed name's bytes, or None if the name does not exist any more.

        The bytes have the version, or a newer one. A cached object takes no request.

        Raises:
            the errors of `read`.
        """
        if self.cache is None or not strong_e_tag(version):
            return self.read(name)
        found = self.cache.read(name, version)
        if found is None:
            found = self.read(name)
            if found is not None:
                self.cache.write(name, found)
        return found

    def version(self, name: str) -> str | None:
        """Return a name's version, or None if the name does not exist. This takes one request."""
        key = self._key(name)
        return self._ask_or_none(name, lambda: version_of(obstore.head(self._store, key)))

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        """Replace an object, and return its new version.

        Raises:
            ChangedError: if the name has another version now.
            LakeError: if the store refuses.

        Crash: the object has the old or the new bytes, whole.
        """
        return self._ask(name, lambda: self._writer.put(Replacement(name, data, expected)))

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:
        """Replace many objects concurrently.

        Returns:
            the new version of each object, or None if it did not have the expected version.

        Raises:
            LakeError: the first one, after every replacement has ended.

        Crash: each object has the old or the new bytes, whole.
        """

        def put(replacement: Replacement) -> str | LakeError | None:
            try:
                return self._ask(replacement.name, lambda: self._writer.put(replacement))
            except ChangedError:
                return None
            except LakeError as error:
                return error

        versions: list[str | None] = []
        errors: list[LakeError] = []
        for done in prefetch(put, replacements, PENDING_MAX):
            if isinstance(done, LakeError):
                errors.append(done)
            else:
                versions.append(done)
        if errors:
            raise errors[0]
        return versions

    def check_conditions(self) -> None:
        """Write a probe, and raise LakeError if the store refuses it or ignores conditions."""
        self._ask("", self._writer.probe)

    def delete(self, name: str) -> None:
        """Remove an object, if it exists.

        Raises:
            LakeError: if the store refuses.
        """
        key = self._key(name)
        self._ask_or_none(name, lambda: obstore.delete(self._store, key))

    def delete_unchanged(self, versions: Mapping[str, str]) -> list[str]:
        """Remove each object that has its version, and return the removed names.

        A store deletes without a condition, so the version is asked for right before.

        Raises:
            LakeError: if the store refuses.
        """
        removed: list[str] = []
        for name, version in versions.items():
            if self.version(name) == version:
                self.delete(name)
                removed.append(name)
        return removed

    def prune(self, directory: str) -> bool:
        """Return whether a directory has no keys. An object store has no directories of its own."""
        return not self.tree(directory)

    def exclusive(self, *directories: str) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Return an empty context: an object store has no locks."""
        return contextlib.nullcontext()

    def sweep(self, directory: str, now_s: float, *, dry_run: bool = False) -> list[str]:  # noqa: ARG002
        """Return an empty list: an object store has no temporary files."""
        return []

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _ask_or_none(self, name: str, work: Callable[[], T]) -> T | None:
        """Return the result of requests, or None if the key does not exist."""

        def ask() -> T | None:
            try:
                return work()
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return None

        return self._ask(name, ask)

    def _ask(self, name: str, work: Callable[[], T]) -> T:
        """Return the result of requests.

        Raises:
            LakeError: if the store refuses; its text has one line.
        """
        if os.getpid() != self._process:
            # The store's own threads do not exist in a forked process: a request would wait forever.
            raise LakeError(
                f"lake: {self._uri}: it was opened before this process was forked",
                "multiprocessing.get_context('spawn')",
            )

        def limited() -> T:
            with self._requests:
                return work()

        try:
            return run_apart(limited)
        except (BaseError, OSError) as error:
            raise store_error(self._uri, name, error) from None


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
