"""Verification of a lake alone. Each partition is read once, for all checks.

A symbol is read day by day with all of its intervals. A longer candle is compared with the
shorter ones of its day. Partitions of months and years are kept for later days. Daily
candles are kept for weeks and months, and a window of candles for jumps.

`checks`, `aggregates`, `price_jumps` and `footer_statistics` have the rules. Candles
in a journal are not checked.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby

import msgspec

from lakewriter.candle import int_column
from lakewriter.candle_arrays import Columns, by_day, columns_of, concatenated
from lakewriter.engines.engine import Engine, ignore
from lakewriter.interval import DAY_MS, INTERVALS, Interval
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.open import open_in_worker
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.partition import Partition
from lakewriter.series import Series
from lakewriter.verify.aggregates import compare_intervals, sources_of
from lakewriter.verify.checks import check_candles, check_header, check_not_future, check_rows, is_on_grid
from lakewriter.verify.findings import LOCAL_CHECKS, Check, Defect, VerifyReport, file_defect
from lakewriter.verify.footer_statistics import StatisticsWorkers, check_statistics
from lakewriter.verify.partition_contents import Contents, read_contents, series_partitions
from lakewriter.verify.price_jumps import DEVIATIONS, find_jumps, window_ms


class VerifyOptions(msgspec.Struct, frozen=True):
    """The options of a verification.

    Args:
        checks: the checks to run, among LOCAL_CHECKS. An unreadable file is always a finding.
        deviations: the minimum deviations of a jump; 0 to skip the check for jumps.
        now_ms: the present; None to skip the check for future candles.
    """

    checks: frozenset[Check] = frozenset(LOCAL_CHECKS)
    deviations: float = DEVIATIONS
    now_ms: int | None = None


DEFAULT = VerifyOptions()


def verify(
    store: LakeStore, report: VerifyReport, selection: PartitionFilter = ALL, options: VerifyOptions = DEFAULT
) -> Iterator[Partition]:
    """Check the partitions and add findings to the report; yield each finished partition.

    Raises:
        LakeError: if a partition's files keep changing.
    """
    of_all = series_partitions(store, selection)
    with StatisticsWorkers() as workers:
        for _, of_symbol in groupby(of_all, key=lambda each: (each[0].market, each[0].symbol)):
            verifiers = [
                (_SeriesVerifier(series, report, selection, options, workers), partitions)
                for series, partitions in of_symbol
            ]
            yield from _verify_symbol(store, verifiers, report, options)


def symbols_of(store: LakeStore, selection: PartitionFilter) -> list[tuple[str, str]]:
    """Return the markets and symbols that the selection has, sorted."""
    return list(dict.fromkeys((each.market, each.symbol) for each in store.series(selection)))


def verify_by_symbol(
    store: LakeStore,
    report: VerifyReport,
    symbols: Iterable[tuple[str, str]],
    selection: PartitionFilter,
    options: VerifyOptions,
    engine: Engine,
    advance: Callable[[int], None] = ignore,
) -> None:
    """Check the symbols' partitions on an engine, and add findings to the report, as `verify` does.

    A repeated task changes no count: only one of its reports is used, and a check changes nothing.

    Args:
        symbols: markets and symbols, as of `symbols_of`.
        advance: is called with the number of symbols that are newly done.

    Raises:
        LakewriterError: if the engine fails, or a partition's files keep changing.
    """
    task = partial(_verify_symbols, store.uri, report.findings_max, selection, options)
    for part in engine.map(task, symbols, chunk=1, advance=advance):
        report.merge(part)


def _verify_symbols(
    uri: str,
    findings_max: int,
    selection: PartitionFilter,
    options: VerifyOptions,
    symbols: list[tuple[str, str]],
) -> list[VerifyReport]:
    """Check symbols in a worker process, which may be on another host; return a report for each."""
    store = open_in_worker(uri)
    reports = []
    for market, symbol in symbols:
        report = VerifyReport(findings_max)
        chosen = msgspec.structs.replace(selection, markets=(market,), symbols=(symbol,))
        for _ in verify(store, report, chosen, options):
            pass
        reports.append(report)
    return reports


class _SeriesVerifier:
    """Checks one series, partition by partition.

    Args:
        report: receives the findings.
        selection: the days to check.
        workers: processes that read the statistics of files.
    """

    def __init__(
        self,
        series: Series,
        report: VerifyReport,
        selection: PartitionFilter,
        options: VerifyOptions,
        workers: StatisticsWorkers,
    ) -> None:
        self.series = series
        self.grid: Interval = series.grid
        self._report = report
        self._selection = selection
        self._options = options
        self._workers = workers
        self._anchored = False
        self._window: list[Columns] = []
        self._last_candle: Columns | None = None

    def verify_partition(self, partition: Partition, contents: Contents) -> Columns:
        """Check one partition; return its candles on the grid in the selected days."""
        self._anchor_grid(contents)
        self._check_files(contents)
        candles = columns_of(contents.rows)
        placed = is_on_grid(partition, self.grid, candles.begin)
        start_ms, stop_ms = self._selection.clipped(partition.start_ms, partition.stop_ms)
        placed &= (candles.begin >= start_ms) & (candles.begin < stop_ms)
        candles = candles if placed.all() else candles.where(placed)
        if "candle" in self._options.checks:
            self._report.counts_of(self.series, "candle").checked += len(candles.begin)
            self._report.add(self.series, check_candles(candles, self.series.market))
            if self._options.now_ms is not None:
                self._report.add(self.series, check_not_future(candles, self._options.now_ms))
            self._report.add_unknown(candles)
        for of_day in by_day(candles):
            self._add_to_window(of_day)
        return candles

    def _anchor_grid(self, contents: Contents) -> None:
        begins = int_column(contents.rows, "candle_begin_time")
        on_days = begins[begins % DAY_MS == 0]
        if not self._anchored and len(on_days):
            self.grid = self.grid.anchored(int(on_days[0]))
            self._anchored = True

    def _check_files(self, contents: Contents) -> None:
        defects = _unreadable_defects(contents)
        if "partition" in self._options.checks:
            defects += _foreign_defects(contents)
            for place, file in contents.own:
                if file.rows is not None and file.header is not None:
                    defects += check_header(place, file.header)
                    defects += check_statistics(self._workers, place, file)
                    defects += check_rows(place, self.grid, file.rows)
        if defects or "partition" in self._options.checks:
            self._report.counts_of(self.series, "partition").checked += 1
            self._report.add(self.series, defects)

    def _add_to_window(self, candles: Columns) -> None:
        if "jumps" not in self._options.checks or not self._options.deviations:
            return
        if self._window and candles.begin[0] - self._window[0].begin[0] >= window_ms(self.grid):
            self.check_window()
        self._window.append(candles)

    def check_window(self) -> None:
        """Check the window for jumps, and begin a new window with the next candle."""
        if not self._window:
            return
        candles = concatenated(self._window)
        comparison = find_jumps(self.grid, self._last_candle, candles, self._options.deviations)
        self._report.counts_of(self.series, "jumps").checked += comparison.compared
        self._report.add(self.series, comparison.defects)
        self._last_candle, self._window = candles.where(slice(-1, None)), []


def _verify_symbol(
    store: LakeStore,
    verifiers: list[tuple[_SeriesVerifier, list[PartitionDirs]]],
    report: VerifyReport,
    options: VerifyOptions,
) -> Iterator[Partition]:
    by_interval = {verifier.series.interval: verifier for verifier, _ in verifiers}
    ordered = sorted((dirs for _, partitions in verifiers for dirs in partitions), key=_by_date)
    long_candles: dict[str, list[Columns]] = {}
    # Candles whose comparison is pending, by day and interval.
    pending: dict[int, dict[str, Columns]] = {}
    for start_ms, of_date in groupby(ordered, key=lambda dirs: dirs.partition.start_ms):
        # Later partitions have no candles of earlier days.
        for day in _popped_before(pending, start_ms // DAY_MS):
            _compare_intervals(by_interval, day, report)
        for dirs in of_date:
            interval = dirs.partition.interval
            candles = by_interval[interval].verify_partition(dirs.partition, read_contents(store, dirs))
            if _is_longer_than_day(interval) or interval == "1d":
                long_candles.setdefault(interval, []).append(candles)
            if not _is_longer_than_day(interval) and "intervals" in options.checks:
                for of_day in by_day(candles):
                    pending.setdefault(int(of_day.begin[0]) // DAY_MS, {})[interval] = of_day
            yield dirs.partition
    for day in _popped_before(pending, None):
        _compare_intervals(by_interval, day, report)
    if "intervals" in options.checks:
        # Ten years have a few thousand daily candles.
        _compare_intervals(
            by_interval, {interval: concatenated(parts) for interval, parts in long_candles.items()}, report
        )
    for verifier in by_interval.values():
        verifier.check_window()


def _popped_before(pending: dict[int, dict[str, Columns]], stop: int | None) -> Iterator[dict[str, Columns]]:
    """Remove and yield the pending candles of each day before `stop`, ascending; None for all days."""
    for day in sorted(day for day in pending if stop is None or day < stop):
        yield pending.pop(day)


def _by_date(dirs: PartitionDirs) -> tuple[object, ...]:
    return dirs.partition.date, list(INTERVALS).index(dirs.partition.interval)


def _is_longer_than_day(interval: str) -> bool:
    """Return whether the interval is longer than a day."""
    return sources_of(interval) == ["1d"]


def _compare_intervals(
    verifiers: dict[str, _SeriesVerifier], candles: dict[str, Columns], report: VerifyReport
) -> None:
    for interval, longer in candles.items():
        source = next((name for name in sources_of(interval) if name in candles), None)
        if source is None or not len(longer.begin):
            continue
        verifier = verifiers[interval]
        comparison = compare_intervals(verifier.grid, longer, source, candles[source])
        report.counts_of(verifier.series, "intervals").checked += comparison.compared
        report.add(verifier.series, comparison.defects)


def _unreadable_defects(contents: Contents) -> list[Defect]:
    return [
        file_defect(place.start_ms, "unreadable", file.error)
        for place, file in contents.files
        if file.rows is None
    ]


def _foreign_defects(contents: Contents) -> list[Defect]:
    return [
        file_defect(
            place.start_ms, "foreign", f"{file.name} is a foreign file; lakewriter compact folds it in"
        )
        for place, file in contents.foreign
        if file.rows is not None
    ]
