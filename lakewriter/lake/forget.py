"""Forgetting: the only removal of candles from the lake.

Strategy: the remaining rows of a partition replace its file, by the same lock and
replacement as a merge. A partition without remaining rows loses its files and its
directory. The caller records the removal first (see `forgotten`).

An object store cannot delete an object under a condition. A candle that another host
merges right before a deletion would be lost. So on a store only a partition that is selected
whole is deleted. If the rows that exist happen to be all selected, a file without rows remains.

Rows in a journal stay: the next flush merges them. Healing and backfill may
fetch forgotten candles again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import Candle, IntArray, deduplicate, int_column
from lakewriter.candle_arrays import Bools, ends
from lakewriter.errors import LakeError
from lakewriter.interval import INTERVALS
from lakewriter.lake.forgotten import Removed, limited_ranges
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs, candle_files
from lakewriter.lake.parquet import decode, encode_next
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.storage import ChangedError
from lakewriter.partition import Partition, day_of
from lakewriter.ranges import Range
from lakewriter.series import Series


class Selection(NamedTuple):
    """A selection of candles to forget.

    Args:
        series: the series of the candles.
        start_ms: the earliest begin time, or None for no limit.
        stop_ms: the end of the range of begin times, exclusive, or None for no limit.
        sources: the sources of the candles, or () for any source.
    """

    series: tuple[Series, ...]
    start_ms: int | None = None
    stop_ms: int | None = None
    sources: tuple[str, ...] = ()

    def selects(self, candle: Candle) -> bool:
        """Return whether a candle is selected."""
        return (
            candle.series in self.series
            and (self.start_ms is None or candle.begin_ms >= self.start_ms)
            and (self.stop_ms is None or candle.begin_ms < self.stop_ms)
            and (not self.sources or candle.source in self.sources)
        )

    def selects_all(self, partition: Partition) -> bool:
        """Return whether the selection includes every candle that a partition can have."""
        return (
            not self.sources
            and (self.start_ms is None or self.start_ms <= partition.start_ms)
            and (self.stop_ms is None or self.stop_ms >= partition.stop_ms)
        )

    def rows(self, rows: pa.Table) -> Bools:
        """Return a mask of the selected rows. All rows are of one of the series."""
        begins = int_column(rows, "candle_begin_time")
        chosen = np.ones(len(begins), np.bool_)
        if self.start_ms is not None:
            chosen &= begins >= self.start_ms
        if self.stop_ms is not None:
            chosen &= begins < self.stop_ms
        if self.sources:
            chosen &= np.isin(rows["source"].to_numpy(zero_copy_only=False), self.sources)
        return chosen


class ForgetResult(NamedTuple):
    """The result of forgetting in one partition, or of its dry run.

    Args:
        partition: the partition.
        candles: number of removed candles.
        ranges: their begin times, as half-open ranges.
        removed: whether the whole partition was removed.
        unreadable: number of removed files that could not be read. Their candles are not counted.
        bytes_before, bytes_after: bytes of all its files.
        error: why nothing was changed, or "" without an error.
        hint: a remedy for the error.
    """

    partition: Partition
    candles: int = 0
    ranges: tuple[Range, ...] = ()
    removed: bool = False
    unreadable: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    error: str = ""
    hint: str = ""

    @property
    def has_effect(self) -> bool:
        """Whether candles or files are removed, or an error occurred."""
        return bool(self.candles or self.removed or self.error)


class _File(NamedTuple):
    """A file of a partition. If the file cannot be read, `rows` is None and `error` has the reason."""

    name: str
    version: str
    data: bytes
    rows: pa.Table | None
    error: str = ""


def partitions_to_forget(store: LakeStore, selection: Selection) -> Iterator[PartitionDirs]:
    """Yield the partitions that may have selected candles, by series. No file is opened."""
    since = None if selection.start_ms is None else day_of(selection.start_ms)
    until = None if selection.stop_ms is None else day_of(selection.stop_ms - 1)
    for market, symbol, interval in sorted(selection.series):
        wanted = PartitionFilter((market,), (symbol,), (interval,), since, until)
        yield from store.partitions(wanted)


def forget_partition(
    store: LakeStore, item: PartitionDirs, selection: Selection, *, dry_run: bool = False
) -> ForgetResult:
    """Remove the selected candles of a partition.

    Crash: before the replacement all is as it was, after it the selected rows
    are gone. Of a partition that is removed whole some files may be gone and
    others there: foreign ones go first, so that no reader sees a row that a better
    one had replaced. Running it again finishes the work.
    """
    partition = item.partition
    try:
        return store.change_partition(
            partition, lambda: _forget(store, item, selection, dry_run=dry_run), dry_run=dry_run
        )
    except LakeError as error:
        return ForgetResult(partition, error=error.what, hint=error.hint)


def outcomes_to_record(
    store: LakeStore,
    todo: Sequence[tuple[PartitionDirs, Selection]],
    planned: Sequence[ForgetResult],
    outcomes: Sequence[ForgetResult],
) -> list[ForgetResult]:
    """Return what was removed, and what may have been.

    A partition that failed, or was in work at an interruption, is looked at again. If a second
    dry run finds what the first one found, nothing was removed. Otherwise the plan is returned.

    Args:
        todo: the partitions and their selections.
        planned: the dry run of each partition.
        outcomes: the results of the finished partitions, in the same order.
    """
    found = []
    for at, plan in enumerate(planned[: len(outcomes) + 1]):
        if at < len(outcomes) and not outcomes[at].error:
            found.append(outcomes[at])
        elif forget_partition(store, *todo[at], dry_run=True) != plan:
            found.append(plan)
    return found


def removed_by_series(outcomes: Iterable[ForgetResult]) -> dict[Series, Removed]:
    """Return the removed candles of each series."""
    found: dict[Series, list[ForgetResult]] = {}
    for outcome in outcomes:
        if outcome.candles or outcome.removed:
            found.setdefault(outcome.partition.series, []).append(outcome)
    return {
        series: Removed(
            limited_ranges(each for outcome in of_series for each in _ranges_of(outcome)),
            sum(outcome.candles for outcome in of_series),
            sum(outcome.bytes_before - outcome.bytes_after for outcome in of_series),
        )
        for series, of_series in found.items()
    }


def _ranges_of(outcome: ForgetResult) -> tuple[Range, ...]:
    """Return the ranges of the removed candles.

    If a file could not be read, this is the partition's whole period.
    """
    if outcome.unreadable:
        return ((outcome.partition.start_ms, outcome.partition.stop_ms),)
    return outcome.ranges


def _forget(store: LakeStore, item: PartitionDirs, selection: Selection, *, dry_run: bool) -> ForgetResult:
    partition = item.partition
    files = _read(store, item)
    if not files:
        return ForgetResult(partition)
    if selection.selects_all(partition):
        return _remove(store, item, files, dry_run=dry_run)
    own = _own_file(partition, files)
    assert own.rows is not None
    chosen = selection.rows(own.rows)
    if not chosen.any():
        return ForgetResult(partition)
    # An object store cannot delete under a condition. There a file without rows replaces this one.
    if chosen.all() and not store.is_remote:
        return _remove(store, item, files, dry_run=dry_run)
    gone = np.unique(int_column(own.rows.filter(pa.array(chosen)), "candle_begin_time"))
    data = _encode_remaining(partition, deduplicate(own.rows.filter(pa.array(~chosen))), own.data)
    if not dry_run:
        store.storage.replace(partition.file, data, own.version)
    return ForgetResult(
        partition,
        candles=len(gone),
        ranges=_runs(partition, gone),
        bytes_before=len(own.data),
        bytes_after=len(data),
    )


def _read(store: LakeStore, item: PartitionDirs) -> list[_File]:
    files = []
    for name in candle_files(store.storage, item.directories):
        if (found := store.storage.read(name)) is not None:
            try:
                rows = decode(found.data, f"{store.name}/{name}")
            except LakeError as error:
                files.append(_File(name, found.version, found.data, None, error.what))
            else:
                files.append(_File(name, found.version, found.data, rows))
    return files


def _own_file(partition: Partition, files: list[_File]) -> _File:
    """Return the partition's own file.

    Raises:
        LakeError: if the file cannot be read, or the partition has foreign files.
    """
    foreign = [file.name for file in files if file.name != partition.file]
    if foreign:
        raise LakeError(
            f"{partition}: {foreign[0]} is a foreign file, from which single candles cannot be removed",
            "lakewriter compact folds it in; then run this again, or forget the whole day",
        )
    if files[0].rows is None:
        raise LakeError(
            files[0].error, "forget the whole day, then run lakewriter backfill to fetch it again"
        )
    return files[0]


def _encode_remaining(partition: Partition, kept: pa.Table, replaced: bytes) -> bytes:
    """Return the bytes of a file with the remaining rows.

    Raises:
        LakeError: if the bytes decode to other rows.
    """
    data = encode_next(kept, partition, replaced)
    if not decode(data, partition.file).equals(kept):
        raise LakeError(f"{partition}: the new file would not hold the same candles; nothing was changed")
    return data


def _remove(store: LakeStore, item: PartitionDirs, files: list[_File], *, dry_run: bool) -> ForgetResult:
    partition = item.partition
    begins = [int_column(file.rows, "candle_begin_time") for file in files if file.rows is not None]
    gone = np.unique(np.concatenate(begins)) if begins else np.empty(0, np.int64)
    if not dry_run:
        for file in files:
            if store.storage.version(file.name) != file.version:
                raise ChangedError(file.name)
        for file in sorted(files, key=lambda each: each.name == partition.file):
            store.storage.delete(file.name)
        for directory in item.directories:
            # We hold the partition's lock, so no temporary file here has a living writer.
            store.storage.sweep(directory, float("inf"))
            store.storage.prune(directory)
    return ForgetResult(
        partition,
        candles=len(gone),
        ranges=_runs(partition, gone),
        removed=True,
        unreadable=sum(file.rows is None for file in files),
        bytes_before=sum(len(file.data) for file in files),
    )


def _runs(partition: Partition, begins: IntArray) -> tuple[Range, ...]:
    """Return the runs of candles with these sorted, unique begin times."""
    if not len(begins):
        return ()
    stops = ends(INTERVALS[partition.interval], begins)
    breaks = np.flatnonzero(begins[1:] > stops[:-1]) + 1
    firsts = np.concatenate(([0], breaks))
    lasts = np.concatenate((breaks, [len(begins)])) - 1
    return tuple(zip(begins[firsts].tolist(), stops[lasts].tolist(), strict=True))
