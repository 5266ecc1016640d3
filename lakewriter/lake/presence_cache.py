"""A cache of the candles in each partition, by which an unchanged file is not read again.

    _lakewriter/presence.cache

`presence` reads the files. An entry holds while the partition's directories and files have
the versions that they had before the read. Anything wrong with the cache is a miss:

- On a disk a version has the inode, size and times of a file, or of a directory, whose times
  change with the names in it. The time of the last change cannot be set back. It was some
  seconds before the read, so a later change has another time.
- Only local disks count. Other file systems may show stale times.
- Links, files that were left out, and files that changed during the read make no entry.
- On an object store the version is the ETag in the listing, and that of the bytes that were read.
- The file has the CRC-32 of its content. One of another format, lake or version of lakewriter
  is ignored. Each write replaces it; of two processes the last one wins, and both are right.
- The file is not written where this user may not, or where no command that changes the lake
  was run before. Files are read each time then.

`verify` reads every file and uses no cache. The file can be deleted at any time.
"""

import logging
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from lakewriter import __version__
from lakewriter.candle import IntArray
from lakewriter.errors import LakeError
from lakewriter.lake.durable import write_durably
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import ROWS_MAX, Footer
from lakewriter.lake.published import lake_of_state
from lakewriter.lake.remote.object_cache import strong_e_tag
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import NO_VERSIONS
from lakewriter.lake.unchanged import SETTLED_S, LocalDevices
from lakewriter.partition import FILE_NAME, LEVELS, is_candle_file, series_path
from lakewriter.regular_file import read_regular
from lakewriter.series import Series

log = logging.getLogger(__name__)

CACHE_NAME = "presence.cache"

# An entry has about 100 bytes. A larger file is ignored, and none is written.
CACHE_BYTES_MAX = 512 * 1024 * 1024

# The first line: these words, the CRC-32 of all that follows, and its length.
_MAGIC = b"lakewriter-presence 1 "
_FIRST_LINE = len(_MAGIC) + len("01234567 000000000000\n")

# The file is written again if one of so many entries changed. To read the others again takes
# less time than to write all.
_REWRITE_SHARE = 128

# Begin times are kept as runs of one spacing, up to so many runs.
_RUNS_MAX = 64

_STATUS = struct.Struct("<Qqqq").pack


class PartitionPresence(NamedTuple):
    """The candles of a partition: a footer, or the begin times if no footer suffices.

    Args:
        footer: the footer of the partition's only file, or None.
        begins: the begin times, or None if they were not read.
        is_as_listed: whether the files have this content in the versions of the listing.
            A file that was left out makes it False.
    """

    footer: Footer | None
    begins: IntArray | None
    is_as_listed: bool = False


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The candles of a partition while it has this version.

    Args:
        version: the version of its directories and files.
        files: its files; None is its own file alone.
        footer: as in `PartitionPresence`.
        begins: the first begin time, then pairs of a spacing and its number, as 64-bit integers.
    """

    version: bytes
    files: tuple[str, ...] | None
    footer: tuple[int, int, int] | None
    begins: bytes | None


class _File(msgspec.Struct, array_like=True):
    """The content of the file.

    Args:
        writer: the version of lakewriter. Another one may read a foreign file in another way.
        lake: the name and endpoint of an object store's lake; "" on a disk.
        entries: the number of entries.
        series: the entries of each series by their first day, encoded.
    """

    writer: str
    lake: str
    entries: int
    series: dict[str, msgspec.Raw]


class PresenceCache:
    """The cache of one lake. A thread at a time may use it.

    Args:
        store: the lake.
        is_local: returns whether a device is a local disk.
        now_s: returns the time, in seconds since the epoch.
    """

    def __init__(
        self,
        store: LakeStore,
        is_local: Callable[[int], bool] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.now_s = now_s
        self.store = store
        self.is_local = is_local or LocalDevices().__contains__
        self._path = store.state_dir / STATE_DIRECTORY / CACHE_NAME
        self._lake = f"{store.name} {store.endpoint}" if store.is_remote else ""
        self._old = self._read()
        self._new: dict[str, msgspec.Raw] = {}
        self._entries = self._changed = 0

    def of(
        self, series: Series, days: Iterable[str], listed: Mapping[str, Mapping[str, str]] | None = None
    ) -> "SeriesPresenceCache":
        """Return the cache of a series.

        Args:
            days: the first days of its partitions. Entries of other days are removed.
            listed: on an object store, the files of each day with their versions.
        """
        encoded = self._old.series.get(_key(series))
        try:
            known = {} if encoded is None else msgspec.msgpack.decode(encoded, type=dict[str, _Entry])
        except msgspec.DecodeError:
            known = {}
        kept = {day: known[day] for day in days if day in known}
        return SeriesPresenceCache(self, series, kept, listed, removed=len(known) - len(kept))

    def put(self, cached: "SeriesPresenceCache") -> None:
        """Put the cache of a series back, with what was read meanwhile. Later reads are not kept."""
        key, entries = _key(cached.series), cached.entries
        self._changed += cached.changed
        self._entries += len(entries)
        if cached.changed or key not in self._old.series:
            self._old.series.pop(key, None)
            if entries:
                self._new[key] = msgspec.Raw(msgspec.msgpack.encode(entries))
        else:
            self._new[key] = self._old.series.pop(key)

    def write(self, *, everything: bool) -> None:
        """Replace the file, if enough entries changed. A refusal of the disk is logged for debugging.

        Args:
            everything: whether all series of the lake were put back. Otherwise the others are kept.

        Crash: the old file or the new one is there, whole; either is right, since an entry
        holds only for its version.
        """
        if everything:
            gone = len(self._old.series)
            entries = self._entries
        else:
            gone = 0
            self._new |= self._old.series
            entries = max(self._entries, self._old.entries)
        if (self._changed + gone) * _REWRITE_SHARE <= self._old.entries or not (self._changed or gone):
            return
        content = msgspec.msgpack.encode(_File(__version__, self._lake, entries, self._new))
        head = b"%b%08x %012d\n" % (_MAGIC, zlib.crc32(content), len(content))
        try:
            if _FIRST_LINE + len(content) <= CACHE_BYTES_MAX and self._may_write():
                write_durably(self._path, head + content)
        except OSError as error:
            log.debug("presence: %s: %s; files are read again each time", self._path, error.strerror)

    def _may_write(self) -> bool:
        """Return whether the state directory exists, and is this lake's. A reader creates none."""
        if not self.store.is_remote:
            return self._path.parent.is_dir()
        try:
            return lake_of_state(self.store.state_dir) == self.store.name
        except LakeError:
            return False

    def _read(self) -> _File:
        """Return the content of the file; without entries if it is absent or not usable."""
        nothing = _File(__version__, self._lake, 0, {})
        try:
            data = read_regular(self._path, CACHE_BYTES_MAX)
            head, content = data[:_FIRST_LINE], memoryview(data)[_FIRST_LINE:]
            if head != b"%b%08x %012d\n" % (_MAGIC, zlib.crc32(content), len(content)):
                return nothing
            found = msgspec.msgpack.decode(content, type=_File)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return nothing
        return found if (found.writer, found.lake) == (__version__, self._lake) else nothing


class SeriesPresenceCache:
    """The cache of one series. Several threads may use it, each for other partitions.

    Args:
        cache: the cache of the lake.
        series: the series.
        entries: its entries by the first day of the partition.
        listed: as for `PresenceCache.of`; None on a disk.
        removed: number of entries that were removed.
    """

    def __init__(
        self,
        cache: PresenceCache,
        series: Series,
        entries: dict[str, _Entry],
        listed: Mapping[str, Mapping[str, str]] | None,
        removed: int,
    ) -> None:
        self.series = series
        self.entries = entries
        self._removed = removed
        self._added: set[str] = set()
        self.now_s = cache.now_s
        self._listed = listed
        self._prefix = "" if cache.store.is_remote else f"{cache.store.root}/"
        self._is_local = cache.is_local
        self._directory = f"{series_path(series)}/{LEVELS[-1]}="

    @property
    def changed(self) -> int:
        """The number of entries that were removed, added or replaced."""
        return self._removed + len(self._added)

    def listed(self, day: str) -> Mapping[str, str] | None:
        """Return the listed files of a partition on an object store with their versions; None on a disk."""
        return None if self._listed is None else self._listed.get(day, NO_VERSIONS)

    def get(self, day: str, directories: Sequence[str]) -> PartitionPresence | None:
        """Return the candles of a partition, or None if it changed or is unknown."""
        entry = self.entries.get(day)
        if entry is None:
            return None
        if self._listed is not None:
            version = self._listed_version(day)
        else:
            files = (f"{self._directory}{day}/{FILE_NAME}",) if entry.files is None else entry.files
            version = _version_of(self._statuses(directories, files))
        return _presence(entry) if version and version == entry.version else None

    def version(
        self, day: str, directories: Sequence[str], files: Iterable[str], read_s: float
    ) -> bytes | None:
        """Return the version of a partition for `add`, or None if a later one could be the same.

        Call this after the listing, and before the files are read.

        Args:
            files: the partition's files.
            read_s: `now_s()` before the listing. The process may have been stopped since.
        """
        if self._listed is not None:
            return self._listed_version(day)
        statuses = self._statuses(directories, files)
        changed_s = max((time_s for each in statuses for time_s in (each.st_mtime, each.st_ctime)), default=0)
        if read_s - changed_s < SETTLED_S or not self._has_only(directories, files):
            return None
        return _version_of(statuses)

    def _listed_version(self, day: str) -> bytes | None:
        """Return the version of a partition on an object store, or None if not only its own file is listed."""
        assert self._listed is not None
        listed = self._listed.get(day, NO_VERSIONS)
        e_tag = strong_e_tag(listed.get(f"{self._directory}{day}/{FILE_NAME}", ""))
        return e_tag.encode() if e_tag and len(listed) == 1 else None

    def add(
        self,
        day: str,
        version: bytes | None,
        directories: Sequence[str],
        files: Iterable[str],
        found: PartitionPresence,
    ) -> None:
        """Add the candles of a partition, if its files were read as they were listed.

        Args:
            version: the result of `version` before the read.
            directories, files: the partition's directories and files.
        """
        if not version or not found.is_as_listed:
            return
        # The clock may have been set back, or a directory may have taken another's place and left.
        if self._listed is None and _version_of(self._statuses(directories, files)) != version:
            return
        known = self.entries.get(day)
        footer, begins = found.footer, None if found.begins is None else _encode_begins(found.begins)
        if footer is None and known is not None and known.version == version and known.footer is not None:
            footer = Footer(*known.footer)
        if footer is None and begins is None:
            return
        names = tuple(files)
        alone = names == (f"{self._directory}{day}/{FILE_NAME}",)
        entry = _Entry(version, None if alone else names, footer, begins)
        if entry != known:
            self.entries[day] = entry
            self._added.add(day)

    def _statuses(self, directories: Iterable[str], files: Iterable[str]) -> list[os.stat_result]:
        """Return the statuses of a partition's directories that exist, and of its files.

        They are none if a file is gone or a link, or if something is not on a local disk.
        """
        prefix, is_local, statuses = self._prefix, self._is_local, []
        try:
            for directory in directories:
                try:
                    statuses.append(os.stat(prefix + directory))  # noqa: PTH116 - pathlib takes three times as long
                except (FileNotFoundError, NotADirectoryError):
                    continue
            for file in files:
                status = os.lstat(prefix + file)
                if not stat.S_ISREG(status.st_mode):
                    return []
                statuses.append(status)
        except (OSError, ValueError):  # ValueError: a name with a NUL
            return []
        return statuses if all(is_local(device) for device in {each.st_dev for each in statuses}) else []

    def _has_only(self, directories: Iterable[str], files: Iterable[str]) -> bool:
        """Return whether directories have no other names of candle files, such as those of pipes."""
        found = set()
        for directory in directories:
            try:
                names = os.listdir(self._prefix + directory)  # noqa: PTH208 - text, as above
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return False
            found |= {f"{directory}/{name}" for name in names if is_candle_file(name)}
        return found == set(files)


def _key(series: Series) -> str:
    return "/".join(series)


def _version_of(statuses: Iterable[os.stat_result]) -> bytes:
    """Return facts of directories and files that change with their content; b"" if a time is beyond 2262."""
    try:
        return b"".join(
            [_STATUS(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in statuses]
        )
    except struct.error:
        return b""


def _presence(entry: _Entry) -> PartitionPresence | None:
    """Return the candles of an entry, or None if its begin times are not valid."""
    try:
        begins = None if entry.begins is None else _decode_begins(entry.begins)
    except ValueError:
        return None
    return PartitionPresence(None if entry.footer is None else Footer(*entry.footer), begins)


def _encode_begins(begins: IntArray) -> bytes | None:
    """Return sorted and unique begin times as runs of one spacing, or None if they have too many runs."""
    if not len(begins):
        return b""
    steps = np.diff(begins)
    edges = np.flatnonzero(np.diff(steps)) + 1
    starts = np.concatenate(([0], edges)) if len(steps) else np.empty(0, np.int64)
    if len(starts) > _RUNS_MAX:
        return None
    counts = np.diff(np.append(starts, len(steps)))
    runs = np.column_stack((steps[starts], counts)).ravel() if len(starts) else starts
    return np.concatenate((begins[:1], runs)).astype("<i8").tobytes()


def _decode_begins(encoded: bytes) -> IntArray:
    """Return the begin times of runs.

    Raises:
        ValueError: if the text is not a result of `_encode_begins`.
    """
    numbers = np.frombuffer(encoded, "<i8").astype(np.int64)
    if not len(numbers):
        return numbers
    steps, counts = numbers[1::2], numbers[2::2]
    rows = counts.tolist()
    if len(steps) != len(rows) or min(rows, default=1) < 1 or sum(rows) >= ROWS_MAX:
        raise ValueError("these are no runs")
    return np.cumsum(np.concatenate((numbers[:1], np.repeat(steps, counts))))
