"""Verification of a lake by itself: every partition read once, every check fed from it.

A symbol is walked day by day, all its intervals together, since a longer candle
is compared with the shorter ones of its day. What is kept from day to day is
small: the last candles of each series until they are enough for a scale of
jumps, and the days themselves for weeks and months.

What is right is `checks`', `intervals`' and `jumps`'; this module reads and feeds.
Candles still in a journal are not looked at.
"""

from collections.abc import Iterator
from itertools import groupby

import msgspec

from lakewriter.candle import int_column
from lakewriter.candle_arrays import Columns, columns_of, concatenated
from lakewriter.interval import DAY_MS, INTERVALS, Interval
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.partition import Partition
from lakewriter.series import Series
from lakewriter.verify.aggregates import compare_intervals, sources_of
from lakewriter.verify.checks import check_begun, check_candles, check_label, check_rows, in_place
from lakewriter.verify.findings import LOCAL_CHECKS, Check, Defect, VerifyReport, of_file
from lakewriter.verify.footer_statistics import StatisticsWorkers, check_statistics
from lakewriter.verify.partition_contents import Contents, read_contents, series_places
from lakewriter.verify.price_jumps import DEVIATIONS, find_jumps, window_ms


class VerifyOptions(msgspec.Struct, frozen=True):
    """What to check.

    Args:
        checks: which of LOCAL_CHECKS. That a file can be read is always checked.
        deviations: how far a jump is; 0 for any is none.
        now_ms: the time; None to take no candle for one from the future.
    """

    checks: frozenset[Check] = frozenset(LOCAL_CHECKS)
    deviations: float = DEVIATIONS
    now_ms: int | None = None


DEFAULT = VerifyOptions()


def verify(
    store: LakeStore, report: VerifyReport, wanted: PartitionFilter = ALL, options: VerifyOptions = DEFAULT
) -> Iterator[Partition]:
    """Check the partitions, yielding each when it is done; what is found is in the report.

    Raises:
        LakeError: if a partition's files do not hold still.
    """
    of_all = series_places(store, wanted)
    with StatisticsWorkers() as asked:
        for _, of_symbol in groupby(of_all, key=lambda each: (each[0].market, each[0].symbol)):
            walked = [(_Walk(series, report, options, asked), places) for series, places in of_symbol]
            yield from _symbol(store, walked, report, options)


class _Walk:
    """One series, day by day.

    Args:
        report: what is found goes there.
        asked: who reads the statistics of files.
    """

    def __init__(
        self, series: Series, report: VerifyReport, options: VerifyOptions, asked: StatisticsWorkers
    ) -> None:
        self.series = series
        self.grid: Interval = series.grid
        self._report = report
        self._options = options
        self._asked = asked
        self._anchored = False
        self._window: list[Columns] = []
        self._before: Columns | None = None

    def day(self, partition: Partition, contents: Contents) -> Columns:
        """Check one partition; return its candles that are on the grid."""
        self._anchor(contents)
        self._partition(partition, contents)
        candles = columns_of(contents.rows)
        placed = in_place(partition, self.grid, candles.begin)
        candles = candles if placed.all() else candles.where(placed)
        if "candle" in self._options.checks:
            self._report.of(self.series, "candle").checked += len(candles.begin)
            self._report.add(self.series, check_candles(candles, self.series.market))
            if self._options.now_ms is not None:
                self._report.add(self.series, check_begun(candles, self._options.now_ms))
            self._report.add_unknown(candles)
        self._jumps(candles)
        return candles

    def _anchor(self, contents: Contents) -> None:
        begins = int_column(contents.rows, "candle_begin_time")
        on_days = begins[begins % DAY_MS == 0]
        if not self._anchored and len(on_days):
            self.grid = self.grid.anchored(int(on_days[0]))
            self._anchored = True

    def _partition(self, partition: Partition, contents: Contents) -> None:
        flaws = _unreadable(partition, contents)
        if "partition" in self._options.checks:
            flaws += _files(partition, contents)
            own = contents.own
            if own is not None and own.rows is not None and own.label is not None:
                flaws += check_label(partition, own.label)
                flaws += check_statistics(self._asked, partition, own)
                flaws += check_rows(partition, self.grid, own.rows)
        if flaws or "partition" in self._options.checks:
            self._report.of(self.series, "partition").checked += 1
            self._report.add(self.series, flaws)

    def _jumps(self, candles: Columns) -> None:
        if "jumps" not in self._options.checks or not self._options.deviations or not len(candles.begin):
            return
        if self._window and candles.begin[0] - self._window[0].begin[0] >= window_ms(self.grid):
            self.end()
        self._window.append(candles)

    def end(self) -> None:
        """Look for jumps in the window; the next candle begins another one, or none comes."""
        if not self._window:
            return
        candles = concatenated(self._window)
        compared = find_jumps(self.grid, self._before, candles, self._options.deviations)
        self._report.of(self.series, "jumps").checked += compared.candles
        self._report.add(self.series, compared.flaws)
        self._before, self._window = candles.where(slice(-1, None)), []


def _symbol(
    store: LakeStore,
    walked: list[tuple[_Walk, list[PartitionDirs]]],
    report: VerifyReport,
    options: VerifyOptions,
) -> Iterator[Partition]:
    walks = {walk.series.interval: walk for walk, _ in walked}
    todo = sorted((place for _, places in walked for place in places), key=_by_day)
    long: dict[str, list[Columns]] = {}
    for _, of_day in groupby(todo, key=lambda place: place.partition.date):
        day: dict[str, Columns] = {}
        for place in of_day:
            interval = place.partition.interval
            candles = walks[interval].day(place.partition, read_contents(store, place))
            if _of_days(interval) or interval == "1d":
                long.setdefault(interval, []).append(candles)
            if not _of_days(interval):
                day[interval] = candles
            yield place.partition
        if "intervals" in options.checks:
            _compare(walks, day, report)
    if "intervals" in options.checks:
        # Ten years of days are a few thousand candles.
        _compare(walks, {interval: concatenated(parts) for interval, parts in long.items()}, report)
    for walk in walks.values():
        walk.end()


def _by_day(place: PartitionDirs) -> tuple[object, ...]:
    return place.partition.date, list(INTERVALS).index(place.partition.interval)


def _of_days(interval: str) -> bool:
    """Tell whether the interval is longer than a day."""
    return sources_of(interval) == ["1d"]


def _compare(walks: dict[str, _Walk], candles: dict[str, Columns], report: VerifyReport) -> None:
    for interval, longer in candles.items():
        source = next((name for name in sources_of(interval) if name in candles), None)
        if source is None or not len(longer.begin):
            continue
        walk = walks[interval]
        compared = compare_intervals(walk.grid, longer, source, candles[source])
        report.of(walk.series, "intervals").checked += compared.candles
        report.add(walk.series, compared.flaws)


def _unreadable(partition: Partition, contents: Contents) -> list[Defect]:
    files = contents.foreign if contents.own is None else (contents.own, *contents.foreign)
    return [of_file(partition.start_ms, "unreadable", file.error) for file in files if file.rows is None]


def _files(partition: Partition, contents: Contents) -> list[Defect]:
    return [
        of_file(
            partition.start_ms, "foreign", f"{file.name} is somebody else's; lakewriter compact folds it in"
        )
        for file in contents.foreign
        if file.rows is not None
    ]
