"""The listing of a lake: its series, its partitions, and their files.

Strategy: a directory is listed only if a filter wants it. If a filter wants a few days
only, their series is not listed: the paths of the days are known. `remote.catalogue`
lists an object store, where each listing takes a round trip.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.lake.storage import NO_VERSIONS, Storage
from lakewriter.partition import (
    LEVELS,
    Partition,
    is_candle_file,
    is_series,
    level_value,
    parse_date_value,
    period_date,
    series_path,
)
from lakewriter.series import Series

# Our files without rows are smaller, and those with a row are larger. `forget` leaves the
# former on an object store, from where a lake may be copied to a disk.
EMPTY_BYTES_MAX = 2048


class PartitionDirs(NamedTuple):
    """A partition and its directories.

    Args:
        partition: the partition.
        directories: paths relative to the root. The first is the partition's own, which may
            not exist. The others are percent-encoded by another program, or of other days
            of the period.
        versions: the candle files in the directories with their versions, as in
            `PartitionFiles`; only an object store lists them here.
    """

    partition: Partition
    directories: tuple[str, ...]
    versions: Mapping[str, str] = NO_VERSIONS


class PartitionFiles(NamedTuple):
    """A partition that has files.

    Args:
        partition: the partition.
        names: its visible `.parquet` files, own and foreign, sorted. They are relative
            to the root.
        versions: the files' versions for `Storage.read_listed`; only an object store lists them.
    """

    partition: Partition
    names: tuple[str, ...]
    versions: Mapping[str, str] = NO_VERSIONS


class Catalogue(Protocol):
    """The interface to list the partitions of a lake."""

    def files(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield the partitions that have files, sorted by path."""

    def newest(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield, for each series, the newest partition that has its own file, and all later ones with files.

        One of them has the series' newest candle: foreign files may have no rows, and an own file
        counts only if it is larger than EMPTY_BYTES_MAX. A local lake does not list the
        files of older partitions.
        """

    def ends(
        self, wanted: PartitionSelection, has_rows: Callable[[str], bool], *, of_days: bool
    ) -> Iterator[PartitionFiles]:
        """Yield partitions that include the first and the last wanted rows of each series, sorted by path.

        Args:
            has_rows: returns whether one of our own files has rows.
            of_days: whether not all days are wanted. A file of a longer period may have
                rows of other days only.
        """

    def partitions(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionDirs]:
        """Yield every partition, sorted by path. On a disk a partition may have no files."""

    def partition_sizes(self) -> Iterator[tuple[Partition, list[int]]]:
        """Yield every partition that has files, and the size of each file in bytes. No file is opened.

        Raises:
            FileNotFoundError: if a file vanished meanwhile.
        """

    def series(self, wanted: PartitionSelection = ALL) -> list[Series]:
        """Return the series that have a directory, sorted. A local lake lists no days for this."""


class LocalCatalogue:
    """The catalogue of a lake on a disk.

    Args:
        storage: the lake's storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def files(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield the partitions that have files, sorted by path."""
        for found in _days(self._storage, wanted, list_all=False):
            partition = _with_files(self._storage, found)
            if partition.names:
                yield partition

    def newest(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield, for each series, the newest partition that has its own file, and all later ones with files."""
        for series, directories in _all_series(self._storage, wanted):
            found = []
            for day in _days_of(
                self._storage, series, directories, wanted, list_all=False, newest_first=True
            ):
                partition = _with_files(self._storage, day)
                if partition.names:
                    found.append(partition)
                own = partition.partition.file
                if own in partition.names and _surely_has_rows(self._storage.root / own):
                    break
            yield from reversed(found)

    def ends(
        self, wanted: PartitionSelection, has_rows: Callable[[str], bool], *, of_days: bool
    ) -> Iterator[PartitionFiles]:
        """Yield the partitions up to each series' first own file with rows, and those from its last."""
        for series, directories in _all_series(self._storage, wanted):
            days = list(_days_of(self._storage, series, directories, wanted, list_all=False))
            if of_days and series.grid.file_period != "day":
                yield from filter(_has_names, (_with_files(self._storage, day) for day in days))
                continue
            head: list[PartitionFiles] = []
            stop = _take_to_rows(self._storage, days, has_rows, head)
            tail: list[PartitionFiles] = []
            _take_to_rows(self._storage, list(reversed(days[stop:])), has_rows, tail)
            yield from head
            yield from reversed(tail)

    def partitions(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionDirs]:
        """Yield every partition that has a directory, sorted by path."""
        return _days(self._storage, wanted, list_all=True)

    def partition_sizes(self) -> Iterator[tuple[Partition, list[int]]]:
        """Yield every partition that has files, and the size of each file in bytes. No file is opened."""
        for partition, names, _ in self.files():
            yield partition, [_file_bytes(self._storage.root / name) for name in names]

    def series(self, wanted: PartitionSelection = ALL) -> list[Series]:
        """Return the series that have a directory, sorted. No days are listed."""
        return [series for series, _ in _all_series(self._storage, wanted)]


def candle_files(storage: Storage, directories: Iterable[str]) -> list[str]:
    """Return the candle files in the directories of a partition."""
    return [
        f"{directory}/{file}"
        for directory in directories
        for file in storage.entries(directory).files
        if is_candle_file(file)
    ]


def candle_files_versions(storage: Storage, directories: Iterable[str]) -> dict[str, str]:
    """Return the candle files in the directories of a partition, with their versions for `read_listed`."""
    return {
        f"{directory}/{file}": listing.versions.get(file, "")
        for directory in directories
        for listing in [storage.entries(directory)]
        for file in listing.files
        if is_candle_file(file)
    }


def _all_series(storage: Storage, wanted: PartitionSelection) -> Iterator[tuple[Series, list[str]]]:
    """Yield the series that have a directory, sorted, and their directories."""
    return _series_below(storage, [""], (), wanted)


def _has_names(found: PartitionFiles) -> bool:
    return bool(found.names)


def _with_files(storage: Storage, found: PartitionDirs) -> PartitionFiles:
    return PartitionFiles(found.partition, tuple(sorted(candle_files(storage, found.directories))))


def _take_to_rows(
    storage: Storage, days: list[PartitionDirs], has_rows: Callable[[str], bool], taken: list[PartitionFiles]
) -> int:
    """Append the partitions to the first one whose own file has rows; return the number of days that this took."""
    for number, day in enumerate(days, 1):
        partition = _with_files(storage, day)
        if partition.names:
            taken.append(partition)
        if partition.partition.file in partition.names and has_rows(partition.partition.file):
            return number
    return len(days)


def _days(storage: Storage, wanted: PartitionSelection, *, list_all: bool) -> Iterator[PartitionDirs]:
    for series, directories in _all_series(storage, wanted):
        yield from _days_of(storage, series, directories, wanted, list_all=list_all)


def _days_of(
    storage: Storage,
    series: Series,
    directories: list[str],
    wanted: PartitionSelection,
    *,
    list_all: bool,
    newest_first: bool = False,
) -> Iterator[PartitionDirs]:
    """Yield the partitions of a series.

    Args:
        list_all: whether to list the directories. Otherwise a few wanted days are
            yielded without a listing; they may not exist. No program percent-encodes
            a day, so their paths are known.
    """
    days = None if list_all else wanted.few_days(series.interval)
    if days is None:
        found = by_period(series, _below(storage, directories, LEVELS[-1]))
        days = wanted.keep_days(series.interval, sorted(found))
    else:
        found = by_period(
            series, {day: [f"{directory}/date={day}" for directory in directories] for day in days}
        )
    for name in reversed(days) if newest_first else days:
        day = parse_date_value(name)
        if day is not None:
            yield PartitionDirs(Partition(*series, day), tuple(found[name]))


def by_period(series: Series, directories: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return directories by the first day of their period.

    Older versions and other programs name a directory by any day of the period, so a
    period can have several directories. The partition's own one is always included. It
    may be created after the listing, and a compaction moves candles into it.

    Args:
        directories: directories by the day in their names. Names without a day are left out.
    """
    found: dict[str, list[str]] = {}
    prefix = f"{series_path(series)}/{LEVELS[-1]}="
    for name in sorted(directories):
        day = parse_date_value(name)
        if day is not None:
            first = period_date(series.interval, day).isoformat()
            own = prefix + first
            found.setdefault(first, [own]).extend(each for each in directories[name] if each != own)
    return found


def _series_below(
    storage: Storage, directories: list[str], values: tuple[str, ...], wanted: PartitionSelection
) -> Iterator[tuple[Series, list[str]]]:
    level = LEVELS[len(values)]
    children = _below(storage, directories, level)
    for value in wanted.keep(level, sorted(children)):
        below = (*values, value)
        if len(below) < len(LEVELS) - 1:
            yield from _series_below(storage, children[value], below, wanted)
        elif is_series(*below):  # other directories only resemble a series
            yield Series(*below), children[value]


def _below(storage: Storage, directories: list[str], level: str) -> dict[str, list[str]]:
    """Return the directories of a level, by the value in their names."""
    children: dict[str, list[str]] = {}
    for directory in directories:
        for name in storage.entries(directory).directories:
            value = level_value(level, name)
            if value is not None:
                children.setdefault(value, []).append(f"{directory}/{name}" if directory else name)
    return children


def _surely_has_rows(path: Path) -> bool:
    try:
        return _file_bytes(path) > EMPTY_BYTES_MAX
    except FileNotFoundError:
        return False


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        if path.is_symlink():
            return 0  # a broken link
        raise
