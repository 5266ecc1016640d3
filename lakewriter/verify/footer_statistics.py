"""Whether the statistics at a file's end are those of its rows.

Nothing in Parquet guards them, and much depends on them: readers skip whole
files by them, and `coverage` counts by them. A file that is byte for byte what
`encode` makes of its rows has the right ones. Only if it is not, because another
version wrote it or because it is damaged, are they read; and then in a child,
because a damaged end can abort whoever reads it.
"""

import os
import resource
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import pyarrow as pa

from lakewriter.candle import SCHEMA
from lakewriter.lake.compact import die_with_parent
from lakewriter.lake.parquet import WRITER_KEY, Statistics, encode, read_statistics, shift_of
from lakewriter.partition import Partition
from lakewriter.verify.findings import Defect, of_file
from lakewriter.verify.partition_contents import PartitionFile


class StatisticsWorkers:
    """Children that read statistics, one at a time; each lives until a file kills it."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "StatisticsWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, data: bytes) -> dict[str, Statistics] | None:
        """Return a file's statistics by column; None if they cannot be read."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_ready_to_die)
        try:
            return self._pool.submit(_read, data).result()
        except BrokenProcessPool:
            self._end()
            return None

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _ready_to_die() -> None:
    """Let this child die unheard, without a core, and with its parent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    die_with_parent()


def _read(data: bytes) -> dict[str, Statistics] | None:
    try:
        return read_statistics(data)
    except (pa.ArrowException, OSError, ValueError):
        return None


def check_statistics(asked: StatisticsWorkers, partition: Partition, file: PartitionFile) -> list[Defect]:
    """Check the statistics of a file of ours; of anybody else's they are his."""
    rows, label = file.rows, file.label
    if rows is None or label is None or WRITER_KEY not in label.said or not label.schema.equals(SCHEMA):
        return []
    if encode(rows, partition, shift_of(file.data)) == file.data:
        return []
    said = asked.read(file.data)
    if said is None:
        what = "its statistics cannot be read"
    else:
        wrong = [name for name in SCHEMA.names if name not in said or not _hold(said[name], rows[name])]
        what = f"its statistics of {', '.join(wrong)} are not those of its rows" if wrong else ""
    return [of_file(partition.start_ms, "statistics", f"{file.name}: {what}")] if what else []


def _hold(said: Statistics, column: pa.ChunkedArray) -> bool:
    # We always write them, so that none at all is wrong too.
    return (said.nulls or 0) == column.null_count and (said.least, said.greatest) == _bounds(column)


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Return the least and greatest value as Parquet stores them; NaN is neither."""
    filled, kind = column.drop_null(), column.type
    if pa.types.is_string(kind):
        texts = filled.unique().to_pylist()
        return (min(texts).encode(), max(texts).encode()) if texts else (None, None)
    values = filled.to_numpy() if pa.types.is_floating(kind) else filled.cast(pa.int64()).to_numpy()
    values = values[values == values]
    return (values.min(), values.max()) if len(values) else (None, None)
