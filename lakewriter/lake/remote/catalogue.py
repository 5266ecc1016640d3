"""The listing of a lake on an object store.

Strategy: each listing takes a round trip, but thirty concurrent ones take as long as
one. So all requests of a level are concurrent. A level is not listed if its wanted
names are known. A few wanted days are listed directly. Otherwise all days of a series
are listed recursively, with a thousand keys in each request. If every interval is wanted,
all series of a symbol are listed recursively.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from lakewriter.interval import INTERVALS
from lakewriter.lake.listing import EMPTY_BYTES_MAX, PartitionDirs, PartitionFiles
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.lake.remote.object_store import Object, ObjectStorage
from lakewriter.lake.storage import InvalidKeyError
from lakewriter.market import MARKETS, is_symbol
from lakewriter.partition import (
    LEVELS,
    Partition,
    is_candle_file,
    is_series,
    level_value,
    parse_date_value,
    partition_on,
)
from lakewriter.series import Series

# The maximum number of wanted intervals that are tried without a listing of their symbol.
FEW_INTERVALS = 2


class _Series(NamedTuple):
    """A series, or a prefix of its levels with all series below it, and its possible directories.

    Other programs percent-encode some names, so a series may have several directories.

    Args:
        values: the values of the first levels; for a series the market, symbol and interval.
        directories: the directories, relative to the root.
    """

    values: tuple[str, ...]
    directories: tuple[str, ...]


class RemoteCatalogue:
    """The catalogue of a lake on an object store.

    Args:
        objects: the lake's storage.
    """

    def __init__(self, objects: ObjectStorage) -> None:
        self._objects = objects

    def files(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield the partitions that have files, sorted by path."""
        for partition, objects in self._found(wanted):
            yield _with_versions(partition, objects)

    def newest(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield, for each series, the newest partition whose own file has rows, and all later ones with files."""
        for _, listed in groupby(self._found(wanted), key=lambda found: found[0].series):
            days = list(listed)
            owns = [
                number
                for number, (partition, objects) in enumerate(days)
                if any(each.name == partition.file and each.size > EMPTY_BYTES_MAX for each in objects)
            ]
            for partition, objects in days[owns[-1] if owns else 0 :]:
                yield _with_versions(partition, objects)

    def ends(
        self,
        wanted: PartitionSelection,
        has_rows: Callable[[str], bool],  # noqa: ARG002
        *,
        of_days: bool,  # noqa: ARG002
    ) -> Iterator[PartitionFiles]:
        """Yield all partitions that have files: a look into a file takes a request."""
        return self.files(wanted)

    def partitions(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionDirs]:
        """Yield every partition that has files, sorted by path."""
        for partition, objects in self._found(wanted):
            versions = {each.name: each.version for each in objects}
            yield PartitionDirs(partition, _directories(versions), versions)

    def partition_sizes(self) -> Iterator[tuple[Partition, list[int]]]:
        """Yield every partition that has files, and the size of each file in bytes. No file is opened."""
        for partition, objects in self._found(ALL):
            yield partition, [each.size for each in objects]

    def series(self, wanted: PartitionSelection = ALL) -> list[Series]:
        """Return the series that have files, sorted."""
        return sorted({partition.series for partition, _ in self._found(wanted)})

    def _found(self, wanted: PartitionSelection) -> Iterator[tuple[Partition, list[Object]]]:
        """Yield the wanted partitions that have files, and these files, sorted by path."""
        symbols = self._wanted_symbols(wanted)
        if _all_of_symbols(wanted, len(symbols)):
            series = symbols
            places = [(each, directory) for each in series for directory in each.directories]
        else:
            series = self._wanted_series(wanted, symbols)
            few = {interval: wanted.few_days(interval) for interval in {each.values[2] for each in series}}
            places = [
                (each, place)
                for each in series
                for directory in each.directories
                for place in _places(directory, few[each.values[2]], len(series))
            ]
        files = prefetch(lambda place: self._below(place[1]), places, PENDING_MAX)
        found: dict[Partition, list[Object]] = {}
        last: _Series | None = None
        for (each, _), objects in zip(places, files, strict=True):
            if each is not last:
                yield from _sorted(found)
                found, last = {}, each
            for interval, of_interval in _of_partitions(each, objects).items():
                days = sorted({partition.date.isoformat() for partition, _ in of_interval})
                kept = set(wanted.keep_days(interval, days))
                for partition, one in of_interval:
                    if partition.date.isoformat() in kept:
                        found.setdefault(partition, []).append(one)
        yield from _sorted(found)

    def _below(self, directory: str) -> list[Object]:
        """Return every key below a symbol, a series or one of its days.

        A key that is no path stops the listing of a symbol. Then its series are listed alone.
        """
        try:
            return self._objects.tree(directory)
        except InvalidKeyError:
            if directory.count("/") != 1:  # a symbol is below its market
                raise
            names = self._objects.entries(directory).directories
            series = [f"{directory}/{name}" for name in names if level_value(LEVELS[2], name) is not None]
            return [each for one in series for each in self._objects.tree(one)]

    def _wanted_symbols(self, wanted: PartitionSelection) -> list[_Series]:
        """Return the wanted symbols that may exist, sorted. Known names are not listed."""
        # Only three markets exist, and no program percent-encodes their names.
        found = [
            _Series((market,), (f"{LEVELS[0]}={market}",))
            for market in wanted.keep(LEVELS[0], sorted(MARKETS))
        ]
        symbols = wanted.names(LEVELS[1])
        if symbols is not None and all(symbol.isascii() for symbol in symbols):
            found = _below(found, LEVELS[1], [symbol for symbol in symbols if is_symbol(symbol)])
        else:
            found = self._listed(found, LEVELS[1], wanted)
        return sorted(found)

    def _wanted_series(self, wanted: PartitionSelection, symbols: list[_Series]) -> list[_Series]:
        """Return the wanted series of symbols that may exist, sorted. Known names are not listed."""
        intervals = wanted.keep(LEVELS[2], sorted(INTERVALS))
        if len(intervals) <= FEW_INTERVALS:
            found = _below(symbols, LEVELS[2], intervals)
        else:
            found = self._listed(symbols, LEVELS[2], wanted)
        return sorted(each for each in found if is_series(*each.values))

    def _listed(self, found: list[_Series], level: str, wanted: PartitionSelection) -> list[_Series]:
        """Return the wanted series of the next level, from a listing."""
        places = [(each, directory) for each in found for directory in each.directories]
        listings = prefetch(lambda place: self._objects.entries(place[1]), places, PENDING_MAX)
        children: dict[tuple[str, ...], list[str]] = {}
        for (each, directory), listing in zip(places, listings, strict=True):
            for name in listing.directories:
                value = level_value(level, name)
                if value is not None:
                    children.setdefault((*each.values, value), []).append(f"{directory}/{name}")
        kept = set(wanted.keep(level, sorted({values[-1] for values in children})))
        return [_Series(values, tuple(below)) for values, below in children.items() if values[-1] in kept]


def _with_versions(partition: Partition, objects: Iterable[Object]) -> PartitionFiles:
    versions = {each.name: each.version for each in objects}
    return PartitionFiles(partition, tuple(versions), versions)


def _directories(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name.rpartition("/")[0] for name in names}))


def _below(found: list[_Series], level: str, names: list[str]) -> list[_Series]:
    """Return the series of the next level with these names, without a listing."""
    return [
        _Series((*each.values, name), tuple(f"{directory}/{level}={name}" for directory in each.directories))
        for each in found
        for name in names
    ]


def _places(directory: str, days: list[str] | None, series: int) -> list[str]:
    """Return the directories to list of a series: the series' own, or some days if that is not slower.

    Args:
        directory: the series' directory.
        days: the wanted days, or None if they are not few.
        series: number of series to list.
    """
    if days is None or _are_many(days, series):
        return [directory]
    return [f"{directory}/{LEVELS[3]}={day}" for day in days]


def _are_many(days: list[str], series: int) -> bool:
    """Return whether a listing of each series takes less time than one of each day."""
    return len(days) > 1 and len(days) * series > PENDING_MAX


def _all_of_symbols(wanted: PartitionSelection, symbols: int) -> bool:
    """Return whether all series of each symbol would be listed whole.

    Then one listing of the symbol has their keys. It takes fewer requests than that of
    the symbol's intervals and those of the series. Each symbol has a series at least.
    """
    if len(wanted.keep(LEVELS[2], sorted(INTERVALS))) < len(INTERVALS):
        return False
    few = [days for days in map(wanted.few_days, INTERVALS) if days is not None]
    return all(_are_many(days, symbols) for days in few)


def _sorted(found: dict[Partition, list[Object]]) -> Iterator[tuple[Partition, list[Object]]]:
    for partition in sorted(found):
        yield partition, sorted(found[partition])


def _of_partitions(series: _Series, objects: Iterable[Object]) -> dict[str, list[tuple[Partition, Object]]]:
    """Return the objects that are candle files of a symbol or a series, with their partitions, by interval."""
    market, symbol = series.values[:2]
    found: dict[str, list[tuple[Partition, Object]]] = {}
    for each in objects:
        *above, day, file = each.name.split("/")
        interval = level_value(LEVELS[2], above[-1]) if len(above) == len(LEVELS) - 1 else None
        value = level_value(LEVELS[3], day)
        date = None if value is None else parse_date_value(value)
        if interval is None or date is None or not is_candle_file(file):
            continue
        if is_series(market, symbol, interval):  # other directories only resemble a series
            partition = partition_on((market, symbol, interval), date)
            found.setdefault(interval, []).append((partition, each))
    return found
