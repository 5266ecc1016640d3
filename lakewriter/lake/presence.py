"""Presence: the candles of a series that are in the lake.

Healing, `coverage` and `gaps` use this module. The footer of our own file suffices
if no candle is missing between the file's first and last. Its rows are sorted and
unique, so their number is compared with the grid. Begin times are read only from
incomplete files and foreign ones.

This module does not know why a candle is absent; `gaps` does.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from lakewriter.candle import Candle, IntArray, int_column
from lakewriter.errors import LakeError
from lakewriter.interval import Interval
from lakewriter.lake.foreign import read_or_leave_out
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import by_period, candle_files_versions
from lakewriter.lake.parquet import Footer, read_begins, read_footer
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence_cache import PartitionPresence, SeriesPresenceCache
from lakewriter.lake.remote.object_cache import strong_e_tag
from lakewriter.lake.storage import NO_VERSIONS
from lakewriter.partition import LEVELS, Partition, day_range, partition_at, series_path
from lakewriter.ranges import Range, union, within
from lakewriter.series import Series

# Each repetition is caused by a compaction that folded a file while we read.
READ_LAPS_MAX = 20

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

_NONE: IntArray = np.empty(0, np.int64)
# Begin times of a file that was left out. It is told from other empty arrays by identity.
_LEFT_OUT: IntArray = np.empty(0, np.int64)


class SurveyResult(NamedTuple):
    """The result of a survey of a series.

    Args:
        first_ms, last_ms: the first and last begin time in the lake, or None without
            any candle.
        missing: the runs of absent candles, sorted. Each is from the begin time of its
            first candle to the end time of its last.
        before_ms: the last begin time before the range, or None without an earlier candle.
    """

    first_ms: int | None
    last_ms: int | None
    missing: list[Range]
    before_ms: int | None = None


def survey(
    store: LakeStore, series: Series, start_ms: int, stop_ms: int, unflushed: Iterable[Candle] = ()
) -> SurveyResult:
    """Return the absent candles that begin in a range, from the series' first candle on.

    Args:
        unflushed: the journal's candles, read before this call. Those of other series
            are ignored; for many series, group them first.

    Raises:
        LakeError: if a file cannot be read.
    """
    presence = presence_of(store, series, unflushed)
    if presence.first_ms is None or presence.last_ms is None:
        return SurveyResult(None, None, [])
    missing = presence.missing(max(start_ms, presence.first_ms), stop_ms)
    return SurveyResult(presence.first_ms, presence.last_ms, missing, presence.last_before(start_ms))


def presence_of(store: LakeStore, series: Series, unflushed: Iterable[Candle] = ()) -> "Presence":
    """Return the presence of one series. Its directories are listed, and no file is opened."""
    if not series.symbol.isascii():
        # Other programs percent-encode such a symbol in the directory's name.
        wanted = PartitionFilter((series.market,), (series.symbol,), (series.interval,))
        found = {each.partition.date.isoformat(): each.directories for each in store.partitions(wanted)}
        return Presence(store, series, found, unflushed)
    directory = series_path(series)
    days = {}
    for name in store.storage.entries(directory).directories:
        level, _, day = name.partition("=")
        if level == LEVELS[-1] and _DATE.fullmatch(day):
            days[day] = [f"{directory}/{name}"]
    return Presence(store, series, by_period(series, days), unflushed)


class Presence:
    """The candles of one series. A file is read at first use, and again if its footer does not suffice.

    Args:
        store: the lake.
        series: the series.
        days: directories by the first day of their partition, such as "2024-06-30".
        unflushed: the journal's candles, read before the days were listed.
        read: already read partitions, by their first day.
        cache: the cache of the series, or None to read every file.
    """

    def __init__(
        self,
        store: LakeStore,
        series: Series,
        days: Mapping[str, Sequence[str]],
        unflushed: Iterable[Candle] = (),
        read: Mapping[str, PartitionPresence] | None = None,
        cache: SeriesPresenceCache | None = None,
    ) -> None:
        self.series = series
        self._cache = cache
        self._store = store
        self._days = days
        self._read = dict(read or {})
        begins = [
            candle.begin_ms
            for candle in unflushed
            if (candle.symbol, candle.interval, candle.market)
            == (series.symbol, series.interval, series.market)
        ]
        self._unflushed = np.unique(np.array(begins, np.int64)) if begins else _NONE

    @cached_property
    def first_ms(self) -> int | None:
        """The first begin time, or None without any candle."""
        ends = [*self._ends(sorted(self._days)), *self._unflushed[:1].tolist()]
        return min(ends, default=None)

    @cached_property
    def last_ms(self) -> int | None:
        """The last begin time, or None without any candle."""
        ends = [*self._ends(sorted(self._days, reverse=True)), *self._unflushed[-1:].tolist()]
        return max(ends, default=None)

    @cached_property
    def candles(self) -> int:
        """The number of distinct candles, on the grid or not."""
        unflushed: dict[str, list[int]] = {}
        for begin_ms in self._unflushed.tolist():
            unflushed.setdefault(self._name(begin_ms), []).append(begin_ms)
        total = 0
        for day in self._days.keys() | unflushed.keys():
            footer = self._day(day).footer if day not in unflushed else None
            if footer is not None:
                total += footer.rows
            else:
                total += len(np.union1d(self._begins(day), unflushed.get(day, [])))
        return total

    def last_before(self, moment_ms: int) -> int | None:
        """Return the last begin time before a moment, or None without an earlier candle."""
        found = self._unflushed[self._unflushed < moment_ms][-1:].tolist()
        for day in reversed(self._between(0, moment_ms)):
            begins = self._begins(day)
            earlier = begins[begins < moment_ms]
            if len(earlier):
                found.append(int(earlier[-1]))
                break
        return max(found, default=None)

    @cached_property
    def grid(self) -> Interval:
        """The series' grid, anchored at the first candle if its interval is `3d`."""
        grid = self.series.grid
        return grid if self.first_ms is None else grid.anchored(self.first_ms)

    def begins(self, start_ms: int, stop_ms: int) -> IntArray:
        """Return the begin times in a range, sorted and unique."""
        parts = [self._unflushed, *(self._begins(day) for day in self._between(start_ms, stop_ms))]
        begins = np.unique(np.concatenate(parts))
        return begins[(begins >= start_ms) & (begins < stop_ms)]

    def ranges(self, start_ms: int, stop_ms: int) -> list[Range]:
        """Return the runs of candles on the grid that begin in a range.

        Each run is from the begin time of its first candle to the end time of its last.
        """
        found = self._runs(self._unflushed)
        for day in self._between(start_ms, stop_ms):
            footer = self._day(day).footer
            if footer is not None and self._is_run(footer):
                found.append((footer.first_ms, self.grid.end(footer.last_ms)))
            else:
                found += self._runs(self._begins(day))
        return within(union(found), self.grid.ceil(start_ms), self.grid.ceil(stop_ms))

    def missing(self, start_ms: int, stop_ms: int) -> list[Range]:
        """Return the runs of absent candles of the grid that begin in a range.

        Each run is from the begin time of its first candle to the end time of its last.
        """
        at_ms, end_ms = self.grid.ceil(start_ms), self.grid.ceil(stop_ms)
        absent = []
        for low_ms, high_ms in (*self.ranges(start_ms, stop_ms), (end_ms, end_ms)):
            if at_ms < low_ms:
                absent.append((at_ms, low_ms))
            at_ms = high_ms
        return absent

    def count(self, day: date) -> int:
        """Return the number of distinct candles on the grid that begin on a UTC day."""
        start_ms, stop_ms = day_range(day)
        footer = self._day(self._name(start_ms)).footer
        unflushed = self._unflushed
        if len(unflushed):  # comparisons of an empty array take as long as all else here
            unflushed = unflushed[(unflushed >= start_ms) & (unflushed < stop_ms)]
        if footer is not None and not footer.rows:
            return len(self._on_grid(unflushed))
        if footer is not None and self._is_run(footer):
            rows = self.grid.count(max(start_ms, footer.first_ms), min(stop_ms, footer.last_ms + 1))
            if not len(unflushed):
                return rows
            return rows + int(np.count_nonzero((unflushed < footer.first_ms) | (unflushed > footer.last_ms)))
        if (
            footer is not None
            and not len(unflushed)
            and start_ms <= footer.first_ms
            and footer.last_ms < stop_ms
            and footer.rows <= self.grid.count(footer.first_ms, footer.last_ms + 1)
        ):
            return footer.rows
        return len(self._on_grid(self.begins(start_ms, stop_ms)))

    def _ends(self, days: list[str]) -> Iterator[int]:
        """Yield the first and last begin time in the first of these partitions that has candles, if any has."""
        for day in days:
            footer, begins, _ = self._day(day)
            if footer is not None and footer.rows:
                yield from (footer.first_ms, footer.last_ms)
                return
            if begins is not None and len(begins):
                yield from (int(begins[0]), int(begins[-1]))
                return

    def _is_run(self, footer: Footer) -> bool:
        """Return whether no candle is missing between a file's first and last."""
        return footer.rows > 0 and footer.rows == self.grid.count(footer.first_ms, footer.last_ms + 1)

    def _runs(self, begins: IntArray) -> list[Range]:
        """Return the runs of candles on the grid, each from its first begin time to its last end time."""
        grid, on_grid = self.grid, self._on_grid(begins)
        if not grid.length_ms:
            return union((begin, grid.end(begin)) for begin in on_grid.tolist())
        if not len(on_grid):
            return []
        breaks = np.flatnonzero(np.diff(on_grid) != grid.length_ms)
        starts = on_grid[np.append(0, breaks + 1)].tolist()
        lasts = on_grid[np.append(breaks, len(on_grid) - 1)].tolist()
        return [(start, last + grid.length_ms) for start, last in zip(starts, lasts, strict=True)]

    def _on_grid(self, begins: IntArray) -> IntArray:
        grid = self.grid
        if grid.length_ms:
            on_grid: IntArray = begins[(begins - grid.anchor_ms) % grid.length_ms == 0]
            return on_grid
        return np.array([begin_ms for begin_ms in begins.tolist() if grid.on_grid(begin_ms)], np.int64)

    def _between(self, start_ms: int, stop_ms: int) -> list[str]:
        if start_ms >= stop_ms:
            return []
        first, last = self._name(start_ms), self._name(stop_ms - 1)
        return sorted(day for day in self._days if first <= day <= last)

    def _name(self, time_ms: int) -> str:
        """Return the first day of a moment's partition, such as "2024-06-30"."""
        return partition_at(self.series, time_ms).date.isoformat()

    def _begins(self, day: str) -> IntArray:
        read = self._day(day)
        if read.begins is None:
            read = self._read[day] = self._read_partition(day, self._days[day], exactly=True)
        assert read.begins is not None
        return read.begins

    def _day(self, day: str) -> PartitionPresence:
        if day not in self._read:
            directories = self._days.get(day)
            if directories is None:
                return PartitionPresence(Footer(0, 0, 0), _NONE)
            self._read[day] = self._read_partition(day, directories)
        return self._read[day]

    def _read_partition(
        self, day: str, directories: Sequence[str], *, exactly: bool = False
    ) -> PartitionPresence:
        if self._cache is None:
            return read_partition_presence(self._store, self.series, day, directories, exactly=exactly)
        return read_with_cache(self._store, self.series, day, directories, self._cache, exactly=exactly)


def read_with_cache(
    store: LakeStore,
    series: Series,
    day: str,
    directories: Sequence[str],
    cache: SeriesPresenceCache,
    *,
    exactly: bool = False,
) -> PartitionPresence:
    """Return the candles of a partition from the cache, or read its files and add them to the cache.

    The arguments and errors are those of `read_partition_presence`.
    """
    known = cache.get(day, directories)
    if known is not None and (known.begins is not None or not exactly):
        return known
    read_s = cache.now_s()
    listed = cache.listed(day)
    if listed is None:
        listed = candle_files_versions(store.storage, directories)
    version = cache.version(day, directories, listed, read_s)
    found = read_partition_presence(store, series, day, directories, exactly=exactly, listed=listed)
    cache.add(day, version, directories, listed, found)
    return found


def read_partition_presence(
    store: LakeStore,
    series: Series,
    day: str,
    directories: Sequence[str],
    *,
    exactly: bool = False,
    listed: Mapping[str, str] = NO_VERSIONS,
) -> PartitionPresence:
    """Read the candles of a partition from its files.

    Args:
        day: the partition's first day, such as "2024-06-30".
        directories: the partition's directories.
        exactly: whether to read all begin times even if the footer suffices.
        listed: the partition's files from a recent listing, with their versions; empty to list them.

    Raises:
        LakeError: if our own file cannot be read, or the files change at every attempt.
            A foreign file that cannot be read is logged and left out.
    """
    try:
        partition = Partition(*series, date.fromisoformat(day))
    except ValueError:
        return PartitionPresence(Footer(0, 0, 0), _NONE)  # the directory only resembles a partition
    for lap in range(READ_LAPS_MAX):
        files = listed if listed and not lap else candle_files_versions(store.storage, directories)
        parts = []
        is_as_listed = not lap
        for name, version in files.items():
            if name != partition.file:
                read = partial(_foreign_begins, partition=partition)
                begins = read_or_leave_out(store, partition, name, read, _LEFT_OUT, version)
                if begins is None:
                    break  # it was folded into the own file, which may have been read before
                is_as_listed = is_as_listed and begins is not _LEFT_OUT
                parts.append(_inside(partition, begins))
                continue
            found = store.storage.read_listed(name, version)
            if found is None:
                break
            if version:
                is_as_listed = is_as_listed and strong_e_tag(found.version) == strong_e_tag(version)
            path = f"{store.name}/{name}"
            footer = read_footer(found.data, path) if len(files) == 1 and not exactly else None
            if footer is not None and _is_inside(partition, footer):
                return PartitionPresence(footer, None, is_as_listed)
            parts.append(_inside(partition, read_begins(found.data, path)))
        else:
            begins = np.unique(np.concatenate(parts)) if parts else _NONE
            return PartitionPresence(None, begins, is_as_listed)
    raise LakeError(f"{series} {day}: its files changed during every attempt to read them")


def _inside(partition: Partition, begins: IntArray) -> IntArray:
    """Return the begin times in the partition's period. A foreign file may have others."""
    return begins[(begins >= partition.start_ms) & (begins < partition.stop_ms)]


def _is_inside(partition: Partition, footer: Footer) -> bool:
    return not footer.rows or partition.start_ms <= footer.first_ms <= footer.last_ms < partition.stop_ms


def _foreign_begins(data: bytes, name: str, partition: Partition) -> IntArray:
    from lakewriter.lake.foreign_rows import foreign_rows  # noqa: PLC0415 - most lakes have no such files

    return np.unique(int_column(foreign_rows(data, name, partition), "candle_begin_time"))
