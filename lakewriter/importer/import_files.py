"""Import files of candles from other tools into the lake.

Contract: a file is imported or refused as a whole. A refused file does not stop the import
of other files. If the options select none of a file's series, a file named by the user is
refused. In this case, a file found in a directory is only skipped. The rows of a file are
merged like any other rows. Better rows are never overwritten, and importing a file again
changes nothing.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from lakewriter.errors import LakewriterError, UsageError, os_error_text
from lakewriter.evidence.choice import OtherSeriesError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.file_candles import FileCandles, LeftOut, read_candles
from lakewriter.importer.file_table import FOUND_SUFFIXES
from lakewriter.interruptible import result_of
from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, BATCH_ROWS_MAX, LakeStore, Merged
from lakewriter.lake.open import open_in_worker
from lakewriter.partition import Partition, split_by_partition
from lakewriter.series import Series
from lakewriter.without_pandas import without_pandas

# The maximum files of one merge. A file can have a single row.
BATCH_FILES_MAX = 512

# The maximum files that are prefetched while a batch is merged. The limit of bytes applies
# only to more than one file.
PREFETCH_FILES_MAX = BATCH_PARTITIONS_MAX
PREFETCH_BYTES_MAX = 1 << 23

PartitionRows = list[tuple[Partition, pa.Table]]


class FileResult(NamedTuple):
    """The result of importing one file.

    Args:
        path: the file.
        series: the series of its candles; empty for unknown series.
        rows: the number of its candles.
        partitions: the number of their partitions.
        added, replaced, corrections, disputed: as in `Merged`, summed over its partitions.
        left_out: counts of its rows that were not imported.
        notes: remarks for the user on the reading of the file.
        other_series: whether the file was skipped because the options select none of its series.
        error: the reason of a refusal; "" for an imported file.
        hint: the hint of the error.
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
    """The settings of an import.

    Args:
        options: the user's options.
        now_ms: the present; a candle that ends later is not closed.
        named: files named by the user; the others were found in directories.
        doubt_last: see `read_candles`.
    """

    options: ImportOptions
    now_ms: int
    named: frozenset[Path] = frozenset()
    doubt_last: bool = False


class ImportPlace(NamedTuple):
    """The lake and the files, as each worker reaches them.

    Args:
        uri: the lake; None only checks the files.
        directory: the directory at which relative paths start.
    """

    uri: str | None
    directory: str


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files to import, sorted: named files, and all files with a known suffix below directories.

    Raises:
        UsageError: if a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(
                file
                for file in path.rglob("*")
                if file.name.lower().endswith(FOUND_SUFFIXES)
                and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
                and file.is_file()
            )
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path}: does not exist")


def check_files(paths: Iterable[Path], job: ImportJob) -> Iterator[FileResult]:
    """Read and check files without importing them; yield their results in order."""
    for file in _prefetched(paths, job):
        yield file if isinstance(file, FileResult) else file.result([])


def import_files(store: LakeStore, paths: Iterable[Path], job: ImportJob) -> Iterator[FileResult]:
    """Import files into the lake; yield their results in order.

    Crash: each partition is whole, as before or as after; importing the files again finishes the work.
    """
    batch = _Batch()
    for file in _prefetched(paths, job):
        if isinstance(file, FileResult) or not batch.add(file):
            yield from _merge(store, batch.files)
            batch = _Batch()
            if isinstance(file, FileResult):
                yield file
            else:
                batch.add(file)
    yield from _merge(store, batch.files)


def import_in_worker(place: ImportPlace, job: ImportJob, paths: list[Path]) -> list[FileResult]:
    """Import files into a lake, or only check them, in a worker process; return their results in order.

    A worker may import files again, also at once with another one: the second import changes
    nothing. Only its counts of changes differ.

    Raises:
        LakewriterError: if this host does not see the lake or the directory.
    """
    try:
        # A file's name and its directories count, so relative paths stay as they are.
        inside = contextlib.chdir(place.directory)
        with without_pandas(), inside:
            if place.uri is None:
                return list(check_files(paths, job))
            return list(import_files(open_in_worker(place.uri), paths, job))
    except OSError as error:
        raise LakewriterError(
            f"import: {os_error_text(error)}", "each worker must see the files at the same path"
        ) from None


class _FileToMerge:
    """The rows of one file by partition, ready to be merged."""

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
            sum(day.added for day in merged),
            sum(day.replaced for day in merged),
            sum(day.corrections for day in merged),
            sum(day.disputed for day in merged),
            self.read.left_out,
            self.read.notes,
        )


class _Batch:
    """Files that are merged together. Files of one partition are merged with one write."""

    def __init__(self) -> None:
        self.files: list[_FileToMerge] = []
        self._partitions: set[Partition] = set()
        self._rows = 0

    def add(self, file: _FileToMerge) -> bool:
        """Add a file, if it fits within the limits of files, partitions and rows. An empty batch takes any file.

        Returns:
            whether the file was added.
        """
        partitions = self._partitions.union(partition for partition, _ in file.days)
        rows = self._rows + file.read.rows
        if self.files and (
            len(self.files) == BATCH_FILES_MAX
            or len(partitions) > BATCH_PARTITIONS_MAX
            or rows > BATCH_ROWS_MAX
        ):
            return False
        self.files.append(file)
        self._partitions, self._rows = partitions, rows
        return True


def rows_by_partition(file: FileCandles) -> PartitionRows:
    """Return the file's rows by partition."""
    return [part for series, rows in file.parts for part in split_by_partition(series, rows)]


def _prefetched(paths: Iterable[Path], job: ImportJob) -> Iterator[_FileToMerge | FileResult]:
    pending: deque[tuple[Path, int, Future[_FileToMerge | FileResult]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for path in paths:
            file_bytes = _size(path)
            while pending and (
                len(pending) == PREFETCH_FILES_MAX
                or file_bytes + sum(size for _, size, _ in pending) > PREFETCH_BYTES_MAX
            ):
                yield _result(*pending.popleft())
            pending.append((path, file_bytes, reader.submit(_read, path, job)))
        for item in pending:
            yield _result(*item)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it raises the error


def _result(path: Path, _: int, future: "Future[_FileToMerge | FileResult]") -> _FileToMerge | FileResult:
    try:
        return result_of(future)
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
