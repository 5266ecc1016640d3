"""The walk over a lake's levels: which partitions are there, and with which files.

Strategy: a level is listed only below what is wanted of the level above it. A
few days that are known beforehand are not listed at all, but looked into. How
a lake is searched whose every listing is a round trip is `remote`'s.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lakewriter.lake.partition_filter import PartitionSelection
from lakewriter.lake.storage import Storage
from lakewriter.partition import LEVELS, Partition, is_candle_file, is_series, level_value, parse_date_value
from lakewriter.series import Series


class PartitionFiles(NamedTuple):
    """A partition that has files.

    Args:
        partition: which.
        names: every visible `.parquet` file of it, relative to the root, sorted;
            its own file and foreign ones alike.
    """

    partition: Partition
    names: tuple[str, ...]


def files(storage: Storage, wanted: PartitionSelection) -> Iterator[PartitionFiles]:
    """Yield the partitions that have files, sorted by path."""
    for found in _days(storage, wanted, list_all=False):
        partition = _with_files(storage, *found)
        if partition.names:
            yield partition


def newest(storage: Storage, wanted: PartitionSelection) -> Iterator[PartitionFiles]:
    """Yield of each series the newest partition that has its own file, and what is after that."""
    for series, directories in all_series(storage, wanted):
        found = []
        for day in _days_of(storage, series, directories, wanted, list_all=False, newest_first=True):
            partition = _with_files(storage, *day)
            if partition.names:
                found.append(partition)
            if partition.partition.file in partition.names:
                break
        yield from reversed(found)


def partitions(storage: Storage, wanted: PartitionSelection) -> Iterator[tuple[Partition, list[str]]]:
    """Yield every partition and its directories, whatever is in them."""
    return _days(storage, wanted, list_all=True)


def all_series(storage: Storage, wanted: PartitionSelection) -> Iterator[tuple[Series, list[str]]]:
    """Yield the series that have a directory, sorted, and their directories."""
    return _series_below(storage, [""], (), wanted)


def candle_files(storage: Storage, directories: Iterable[str]) -> list[str]:
    """Return the names of the files with candles in the directories of a partition."""
    return [
        f"{directory}/{file}"
        for directory in directories
        for file in storage.entries(directory).files
        if is_candle_file(file)
    ]


def _with_files(storage: Storage, partition: Partition, directories: list[str]) -> PartitionFiles:
    return PartitionFiles(partition, tuple(sorted(candle_files(storage, directories))))


def _days(
    storage: Storage, wanted: PartitionSelection, *, list_all: bool
) -> Iterator[tuple[Partition, list[str]]]:
    for series, directories in all_series(storage, wanted):
        yield from _days_of(storage, series, directories, wanted, list_all=list_all)


def _days_of(
    storage: Storage,
    series: Series,
    directories: list[str],
    wanted: PartitionSelection,
    *,
    list_all: bool,
    newest_first: bool = False,
) -> Iterator[tuple[Partition, list[str]]]:
    """Yield partitions and their directories.

    Args:
        list_all: yield what is there; else few days are yielded unseen. No tool
            escapes a day, so they are where they would be.
    """
    days = None if list_all else wanted.few_days(series.interval)
    if days is None:
        found = _below(storage, directories, LEVELS[-1])
        days = wanted.keep_days(series.interval, sorted(found))
    else:
        found = {day: [f"{directory}/date={day}" for directory in directories] for day in days}
    for name in reversed(days) if newest_first else days:
        day = parse_date_value(name)
        if day is not None:
            yield Partition(*series, day), found[name]


def _series_below(
    storage: Storage, directories: list[str], values: tuple[str, ...], wanted: PartitionSelection
) -> Iterator[tuple[Series, list[str]]]:
    level = LEVELS[len(values)]
    children = _below(storage, directories, level)
    for value in wanted.keep(level, sorted(children)):
        below = (*values, value)
        if len(below) < len(LEVELS) - 1:
            yield from _series_below(storage, children[value], below, wanted)
        elif is_series(*below):  # else somebody's directory that only looks like one of ours
            yield Series(*below), children[value]


def _below(storage: Storage, directories: list[str], level: str) -> dict[str, list[str]]:
    """Return the directories of a level by what they are called."""
    children: dict[str, list[str]] = {}
    for directory in directories:
        for name in storage.entries(directory).directories:
            value = level_value(level, name)
            if value is not None:
                children.setdefault(value, []).append(f"{directory}/{name}" if directory else name)
    return children
