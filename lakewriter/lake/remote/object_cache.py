"""Objects of stores, cached on the local disk with their ETags.

Strategy: a listing has the ETag of each object. If the entry of an object has the same
ETag, the object has the same bytes, and needs no request. An entry is only a copy, so
anything wrong with it is a miss.

- An object has at most one entry. A newer version replaces it.
- An entry is written beside its place and renamed. It is not synced: its length and its
  checksum show what a crash of the machine left.
- Lakes and processes may share a directory. An entry names its lake and its object, which
  are compared, and so does the hash that is its file's name.
- Only this user may read or write the directory. Entries have no credentials.
- If the directory cannot be used, or the disk is full, one warning says so. Objects then
  come from the store.

Crash: a temporary file is left, which a later process removes.
"""

import contextlib
import hashlib
import math
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.lake.cache_place import CachePlace
from lakewriter.lake.durable import temporary_name
from lakewriter.lake.remote.cache_space import CacheSpace, Usage
from lakewriter.lake.storage import FILE_BYTES_MAX, StoredBytes
from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import read_regular, write_all

# The directory of entries in this format. Another format gets another directory.
ENTRIES_DIRECTORY = "objects-1"

# The first line: these words, the CRC-32 of all other lines, and their length.
_MAGIC = b"lakewriter-object 1 "
_FIRST_LINE = len(_MAGIC) + len("01234567 000000000000\n")

# After a failure nothing is written for this time: the disk may have space again.
PAUSE_S = 600.0

_ENTRY_BYTES_MAX = FILE_BYTES_MAX + 65_536

# https://bford.info/cachedir/: programs that back up leave such a directory out.
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Objects of lakewriter's lakes.\n"

_OFF = "name another --cache-dir, or switch it off: --no-cache"


class _Header(msgspec.Struct, frozen=True):
    """What an entry is a copy of."""

    lake: str
    name: str
    version: str
    modified_ms: int


class CacheReport(NamedTuple):
    """The state of a cache.

    Args:
        directory: the directory of the cache.
        usage: the space of the entries of all lakes.
        bytes_max: its limit.
        problem: why the directory cannot be used, or "".
    """

    directory: Path
    usage: Usage
    bytes_max: int
    problem: str = ""


class ObjectCache:
    """The cached objects of one lake. Any thread may use it.

    Args:
        place: the directory, which may not exist, and its limit.
        lake: the lake, its endpoint, region and account, as one text.
        space: counts the entries; None is the usual one.
        now_s: returns the time of a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        place: CachePlace,
        lake: str,
        space: CacheSpace | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._directory = place.directory / ENTRIES_DIRECTORY
        self._lake = lake
        self._space = space or CacheSpace(self._directory, place.bytes_max)
        self._starting = threading.Lock()
        self._is_readable: bool | None = None  # None is unknown
        self._now_s = now_s
        self._pause_until_s = -math.inf

    def read(self, name: str, version: str) -> StoredBytes | None:
        """Return the cached bytes of a version of an object, or None.

        Args:
            version: the object's version in a listing.
        """
        e_tag = strong_e_tag(version)
        if not e_tag or not self._start():
            return None
        path = self._path(name)
        try:
            entry = read_regular(path, _ENTRY_BYTES_MAX)
        except OSError:
            return None
        found = _decode(entry)
        if found is None:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - text, as below
            return None
        header, data = found
        if (header.lake, header.name) != (self._lake, name) or strong_e_tag(header.version) != e_tag:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of its last use, by which entries are removed
        return StoredBytes(data, header.version, header.modified_ms)

    def write(self, name: str, found: StoredBytes) -> None:
        """Cache an object. A failure is logged once, and no object is cached for the next PAUSE_S then."""
        if self._now_s() < self._pause_until_s or not strong_e_tag(found.version) or not self._start():
            return
        header = _Header(self._lake, name, found.version, found.modified_ms)
        start = msgspec.json.encode(header) + b"\n"
        checksum = zlib.crc32(found.data, zlib.crc32(start))
        first = _MAGIC + b"%08x %012d\n" % (checksum, len(start) + len(found.data))
        try:
            if self._space.reserve(len(first) + len(start) + len(found.data)):
                _write(self._path(name), first + start + found.data)
        except FileNotFoundError:
            self._is_readable = None  # the directory was removed; the next call creates it
        except OSError as error:
            self._pause_until_s = self._now_s() + PAUSE_S
            warn_once(f"cache: {self._place.directory}: {error.strerror}, so nothing is added; {_OFF}")

    def report(self) -> CacheReport:
        """Create the directory if necessary, and return its state."""
        usage = Usage(0, 0)
        problem = self._prepare()
        try:
            if not problem:
                usage = self._space.usage()
        except OSError as error:
            problem = error.strerror or str(error)
        return CacheReport(self._place.directory, usage, self._place.bytes_max, problem)

    def _start(self) -> bool:
        """Return whether the directory can be read. Create it at the first call."""
        if self._is_readable is None:
            with self._starting:
                if self._is_readable is None:
                    problem = self._prepare()
                    if problem:
                        warn_once(f"cache: {self._directory}: {problem}, so nothing is cached; {_OFF}")
                    self._is_readable = not problem
        return self._is_readable

    def _prepare(self) -> str:
        """Create the directory if necessary. Return why it cannot be used, or ""."""
        try:
            self._place.directory.parent.mkdir(parents=True, exist_ok=True)
            for directory in (self._place.directory, self._directory):
                with contextlib.suppress(FileExistsError):
                    directory.mkdir(mode=0o700)
            status = self._directory.stat()
            if not stat.S_ISDIR(status.st_mode):
                return "is no directory"
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return "other users may write it"  # and so put rows into answers
            with contextlib.suppress(OSError):
                if not (self._directory / "CACHEDIR.TAG").exists():
                    _write(str(self._directory / "CACHEDIR.TAG"), _TAG)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _path(self, name: str) -> str:
        key = hashlib.blake2b(f"{self._lake}\n{name}".encode(), digest_size=20).hexdigest()
        return f"{self._directory}/{key[:2]}/{key[2:]}"


def strong_e_tag(version: str) -> str:
    """Return the ETag of a version without quotes; "" if it has none, or a weak one.

    Azure's listings leave the quotes out. A weak ETag may stay while the bytes change.
    The generation of Google's versions is not needed, and its listings lack it: an ETag
    is the hash of the bytes there, or is made from the generation.
    """
    e_tag = version.partition(" ")[0]
    return "" if e_tag.startswith("W/") else e_tag.strip('"')


def _decode(entry: bytes) -> tuple[_Header, bytes] | None:
    """Return an entry's header and data, or None if it is damaged."""
    try:
        checksum, length = entry[len(_MAGIC) : _FIRST_LINE].split()
        rest = memoryview(entry)[_FIRST_LINE:]
        if not entry.startswith(_MAGIC) or int(length) != len(rest) or int(checksum, 16) != zlib.crc32(rest):
            return None
        start = entry.index(b"\n", _FIRST_LINE) + 1
        return msgspec.json.decode(entry[_FIRST_LINE:start], type=_Header), entry[start:]
    except (ValueError, msgspec.DecodeError):
        return None


def _write(path: str, data: bytes) -> None:
    """Write a private file beside its place, and rename it. Create its directory if necessary.

    Raises:
        OSError: if it cannot be written. No temporary file is left then.
    """
    temporary = temporary_name(path)
    fd = _create(temporary)
    try:
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def _create(path: str, *, is_retry: bool = False) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        if is_retry:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(path.rpartition("/")[0], 0o700)  # noqa: PTH102
    return _create(path, is_retry=True)
