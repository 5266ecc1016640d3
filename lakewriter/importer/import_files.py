"""Files of candles that somebody else made → the lake.

Contract: a file is refused whole or taken whole; one that is refused keeps
none of the others out. A file in a directory that is of other series than the
options choose is left out; one that was named itself is refused. Each day of a
file is merged like any other rows, so nothing that is better known already is
overwritten, and importing a file again changes nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import int_column
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.choice import OtherSeriesError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.file_candles import FileCandles, LeftOut, read_candles
from lakewriter.importer.file_table import FOUND_SUFFIXES
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, BATCH_ROWS_MAX, LakeStore, Merged
from lakewriter.partition import Partition, day_of
from lakewriter.series import Series

# Files that are read while a batch is merged: so many, of so many bytes if there are several.
READ_AHEAD_FILES = BATCH_PARTITIONS_MAX
READ_AHEAD_BYTES_MAX = 1 << 23

PartitionRows = list[tuple[Partition, pa.Table]]


class FileResult(NamedTuple):
    """What became of one file.

    Args:
        path: which.
        series: whose candles it holds; empty if that could not be told.
        rows: candles in it.
        partitions: the days that they are of.
        added, replaced, corrections, disputed: as in `Merged`, of all its days.
        left_out: its rows that are not imported.
        notes: how it was understood, where that is not plain.
        other_series: whether it was left out, being of series that the options do not choose.
        error: why nothing of it was imported, "" if all went well.
        hint: what to do about the error.
    """

    path: Path
    series: tuple[Series, ...] = ()
    rows: int = 0
    partitions: int = 0
    added: int = 0
    replaced: int = 0
    corrections: int = 0
    disputed: int = 0
    left_out: LeftOut = LeftOut()
    notes: tuple[str, ...] = ()
    other_series: bool = False
    error: str = ""
    hint: str = ""


class ImportJob(NamedTuple):
    """How files are imported.

    Args:
        options: what the user asks for.
        now_ms: the present: a candle that ends later is not closed.
        named: files that were named themselves; the others were found in directories.
        doubt_last: see `read_file`.
    """

    options: ImportOptions
    now_ms: int
    named: frozenset[Path] = frozenset()
    doubt_last: bool = False


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files to import: those named, and below directories each that can be one, sorted.

    Raises:
        UsageError: if a path is not there.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(
                each
                for each in path.rglob("*")
                if each.name.lower().endswith(FOUND_SUFFIXES)
                and not any(part.startswith((".", "_")) for part in each.relative_to(path).parts)
                and each.is_file()
            )
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path}: is not there")


def check_files(paths: Iterable[Path], job: ImportJob) -> Iterator[FileResult]:
    """Read and check many files, yielding in order what would become of each."""
    for file in _read_ahead(paths, job):
        yield file if isinstance(file, FileResult) else file.result([])


def import_files(store: LakeStore, paths: Iterable[Path], job: ImportJob) -> Iterator[FileResult]:
    """Bring the candles of many files into the lake, yielding in order what became of each.

    Crash: each day is as before or as after, whole; importing the files again
    finishes the work.
    """
    batch: list[_FileToMerge] = []
    for file in _read_ahead(paths, job):
        if isinstance(file, FileResult) or not _fits(batch, file):
            yield from _merge(store, batch)
            batch = []
        if isinstance(file, FileResult):
            yield file
        else:
            batch.append(file)
    yield from _merge(store, batch)


class _FileToMerge:
    """A file that was read, by days."""

    def __init__(self, path: Path, read: FileCandles) -> None:
        self.path = path
        self.read = read
        self.days = rows_by_partition(read)

    def result(self, merged: list[Merged]) -> FileResult:
        return FileResult(
            self.path,
            tuple(series for series, _ in self.read.parts),
            self.read.rows,
            len(self.days),
            sum(each.added for each in merged),
            sum(each.replaced for each in merged),
            sum(each.corrections for each in merged),
            sum(each.disputed for each in merged),
            self.read.left_out,
            self.read.notes,
        )


def _fits(batch: list[_FileToMerge], file: _FileToMerge) -> bool:
    """Tell whether a file can be merged together with others: each partition is there once, and not too many."""
    both = [*batch, file]
    partitions = [partition for each in both for partition, _ in each.days]
    return (
        len(partitions) == len(set(partitions)) <= BATCH_PARTITIONS_MAX
        and sum(each.read.rows for each in both) <= BATCH_ROWS_MAX
    )


def rows_by_partition(file: FileCandles) -> PartitionRows:
    """Return the file's rows by partition."""
    return [day for series, rows in file.parts for day in _rows_by_day(series, rows)]


def _rows_by_day(series: Series, rows: pa.Table) -> PartitionRows:
    days = int_column(rows, "candle_begin_time") // DAY_MS
    firsts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)] if len(days) else [0]
    return [
        (Partition(*series, day_of(int(days[first]) * DAY_MS)), rows.slice(first, stop - first))
        for first, stop in pairwise(firsts)
    ]


def _read_ahead(paths: Iterable[Path], job: ImportJob) -> Iterator[_FileToMerge | FileResult]:
    waiting: deque[tuple[Path, int, Future[_FileToMerge | FileResult]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for path in paths:
            file_bytes = _size(path)
            while waiting and (
                len(waiting) == READ_AHEAD_FILES
                or file_bytes + sum(each[1] for each in waiting) > READ_AHEAD_BYTES_MAX
            ):
                yield _result(*waiting.popleft())
            waiting.append((path, file_bytes, reader.submit(_read, path, job)))
        for each in waiting:
            yield _result(*each)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # whoever reads it says why it cannot be read


def _result(path: Path, _: int, future: "Future[_FileToMerge | FileResult]") -> _FileToMerge | FileResult:
    try:
        return future.result()
    except (LakewriterError, OSError) as error:
        return _failed(path, error)


def _read(path: Path, job: ImportJob) -> _FileToMerge | FileResult:
    try:
        return _FileToMerge(path, read_candles(path, job.options, job.now_ms, doubt_last=job.doubt_last))
    except OtherSeriesError:
        if path in job.named:
            raise
        return FileResult(path, other_series=True)


def _merge(store: LakeStore, batch: list[_FileToMerge]) -> Iterator[FileResult]:
    results = iter(store.merge_many([day for file in batch for day in file.days]))
    for file in batch:
        of_file = list(islice(results, len(file.days)))
        error = next((result for result in of_file if isinstance(result, Exception)), None)
        if error is None:
            yield file.result([result for result in of_file if isinstance(result, Merged)])
        elif isinstance(error, (LakewriterError, OSError)):
            yield _failed(file.path, error)
        else:
            raise error


def _failed(path: Path, error: LakewriterError | OSError) -> FileResult:
    if isinstance(error, LakewriterError):
        return FileResult(path, error=error.what, hint=error.hint)
    return FileResult(path, error=f"{error.filename or path}: {error.strerror or error}")
