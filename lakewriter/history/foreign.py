"""Files of candles that somebody else made → the lake.

Contract: a file is refused whole or taken whole; one that is refused keeps
none of the others out. Each of its days is merged like any other rows, so
nothing that is better known already is overwritten, and importing a file again
changes nothing.
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
from lakewriter.history.naming import Told
from lakewriter.history.reading import SUFFIXES, ReadFile, read_file
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, LakeStore, Merged
from lakewriter.partition import Partition, day_of
from lakewriter.series import Series

# Files that are read while others are merged.
READ_AHEAD_FILES = 4

Rows = list[tuple[Partition, pa.Table]]


class Imported(NamedTuple):
    """What became of one file.

    Args:
        path: which.
        series: whose candles it holds; None if that could not be told.
        rows: candles in it.
        partitions: the days that they are of.
        added, replaced, corrections: as in `Merged`, of all its days.
        error: why nothing of it was imported, "" if all went well.
        hint: what to do about the error.
    """

    path: Path
    series: Series | None = None
    rows: int = 0
    partitions: int = 0
    added: int = 0
    replaced: int = 0
    corrections: int = 0
    error: str = ""
    hint: str = ""


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files to import: those named, and below directories each that can be one, sorted.

    Raises:
        UsageError: if a path is not there.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(
                each
                for each in path.rglob("*")
                if each.name.endswith(SUFFIXES) and not each.name.startswith((".", "_")) and each.is_file()
            )
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path}: is not there")


def import_file(store: LakeStore, path: Path, told: Told = Told()) -> Imported:  # noqa: B008 - immutable
    """Bring the candles of one file into the lake.

    Raises:
        LakewriterError: if it cannot be read, or holds a row that cannot be a
            candle; nothing of it is imported. Or if a partition cannot be merged;
            others of its days may be by then.
        OSError: if the disk does not give or take it.

    Crash: each of its days is as before or as after, whole; importing it again
    finishes the work.
    """
    file = read_file(path, told)
    return _sum(path, file, store.merge_many(days_of(file)))


def check_files(paths: Iterable[Path], told: Told) -> Iterator[Imported]:
    """Read and check many files, yielding in order what would become of each."""
    for path, file in _read_ahead(paths, told):
        yield file if isinstance(file, Imported) else _sum(path, file, [])


def import_files(store: LakeStore, paths: Iterable[Path], told: Told) -> Iterator[Imported]:
    """Bring the candles of many files into the lake, yielding in order what became of each."""
    batch: list[tuple[Path, ReadFile]] = []
    seen: set[Partition] = set()
    for path, file in _read_ahead(paths, told):
        partitions = set() if isinstance(file, Imported) else {partition for partition, _ in days_of(file)}
        # A batch has each partition once, and is merged when it is as large as may be.
        full = seen & partitions or len(seen) + len(partitions) > BATCH_PARTITIONS_MAX
        if full or isinstance(file, Imported):
            yield from _merge(store, batch)
            batch, seen = [], set()
        if isinstance(file, Imported):
            yield file
        else:
            batch.append((path, file))
            seen |= partitions
    yield from _merge(store, batch)


def days_of(file: ReadFile) -> Rows:
    """Return the file's rows by partition."""
    market, symbol, interval = file.series
    days = int_column(file.rows, "candle_begin_time") // DAY_MS
    firsts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)] if len(days) else [0]
    return [
        (
            Partition(market, symbol, interval, day_of(int(days[first]) * DAY_MS)),
            file.rows.slice(first, stop - first),
        )
        for first, stop in pairwise(firsts)
    ]


def _read_ahead(paths: Iterable[Path], told: Told) -> Iterator[tuple[Path, ReadFile | Imported]]:
    waiting: deque[tuple[Path, Future[ReadFile]]] = deque()
    remaining = iter(paths)
    with ThreadPoolExecutor(1) as reader:
        while True:
            for path in islice(remaining, READ_AHEAD_FILES - len(waiting)):
                waiting.append((path, reader.submit(read_file, path, told)))
            if not waiting:
                return
            path, future = waiting.popleft()
            try:
                yield path, future.result()
            except (LakewriterError, OSError) as error:
                yield path, _failed(path, error)


def _merge(store: LakeStore, batch: list[tuple[Path, ReadFile]]) -> Iterator[Imported]:
    days = [days_of(file) for _, file in batch]
    try:
        merged = iter(store.merge_many([each for of_file in days for each in of_file]))
    except (LakewriterError, OSError):
        # One of them is at fault; each on its own tells which, and keeps the others out of it.
        for path, file in batch:
            yield _merge_alone(store, path, file)
        return
    for (path, file), of_file in zip(batch, days, strict=True):
        yield _sum(path, file, list(islice(merged, len(of_file))))


def _merge_alone(store: LakeStore, path: Path, file: ReadFile) -> Imported:
    try:
        return _sum(path, file, store.merge_many(days_of(file)))
    except (LakewriterError, OSError) as error:
        return _failed(path, error)


def _sum(path: Path, file: ReadFile, merged: list[Merged]) -> Imported:
    return Imported(
        path,
        file.series,
        file.rows.num_rows,
        len(days_of(file)),
        sum(each.added for each in merged),
        sum(each.replaced for each in merged),
        sum(each.corrections for each in merged),
    )


def _failed(path: Path, error: LakewriterError | OSError) -> Imported:
    if isinstance(error, LakewriterError):
        return Imported(path, error=error.what, hint=error.hint)
    return Imported(path, error=f"{error.filename or path}: {error.strerror or error}")
