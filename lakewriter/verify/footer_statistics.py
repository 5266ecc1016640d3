"""Compare a file's statistics with its rows.

Parquet has no checksum of statistics. Readers use them to skip whole files, and `coverage`
uses them to count. The check encodes the file's rows again. If the result equals the file
byte for byte, the statistics are right. Otherwise another version wrote the file, or the
file is damaged. Then a child process reads the statistics, because a damaged footer can
abort its reader.
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
from lakewriter.engines.child_process import die_with_parent
from lakewriter.interruptible import result_of
from lakewriter.lake.parquet import WRITER_KEY, Statistics, encode, leading_padding, read_statistics
from lakewriter.partition import Partition
from lakewriter.verify.findings import Defect, file_defect
from lakewriter.verify.partition_contents import PartitionFile


class StatisticsWorkers:
    """Child processes that read statistics, one process at a time. A new one starts after a crash."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "StatisticsWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut_down()

    def read(self, data: bytes) -> dict[str, Statistics] | None:
        """Return a file's statistics by column; None if they are unreadable."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_initialize_worker
            )
        try:
            return result_of(self._pool.submit(_read, data))
        except BrokenProcessPool:
            self._shut_down()
            return None

    def _shut_down(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _initialize_worker() -> None:
    """Silence stderr, disable core dumps and exit with the parent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    die_with_parent()


def _read(data: bytes) -> dict[str, Statistics] | None:
    try:
        return read_statistics(data)
    except (pa.ArrowException, OSError, ValueError):
        return None


def check_statistics(workers: StatisticsWorkers, partition: Partition, file: PartitionFile) -> list[Defect]:
    """Check a file's statistics, if lakewriter wrote the file."""
    rows, header = file.rows, file.header
    if (
        rows is None
        or header is None
        or WRITER_KEY not in header.metadata
        or not header.schema.equals(SCHEMA)
    ):
        return []
    if encode(rows, partition, leading_padding(file.data)) == file.data:
        return []
    stored = workers.read(file.data)
    if stored is None:
        what = "its statistics cannot be read"
    else:
        wrong = [
            name for name in SCHEMA.names if name not in stored or not _matches(stored[name], rows[name])
        ]
        what = f"its statistics of {', '.join(wrong)} are not those of its rows" if wrong else ""
    return [file_defect(partition.start_ms, "statistics", f"{file.name}: {what}")] if what else []


def _matches(stored: Statistics, column: pa.ChunkedArray) -> bool:
    # lakewriter always writes statistics, so absent ones are wrong too.
    return (stored.nulls or 0) == column.null_count and (stored.least, stored.greatest) == _bounds(column)


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Return the minimum and the maximum as Parquet stores them; NaN is neither."""
    filled, kind = column.drop_null(), column.type
    if pa.types.is_string(kind):
        texts = filled.unique().to_pylist()
        return (min(texts).encode(), max(texts).encode()) if texts else (None, None)
    values = filled.to_numpy() if pa.types.is_floating(kind) else filled.cast(pa.int64()).to_numpy()
    values = values[values == values]
    return (values.min(), values.max()) if len(values) else (None, None)
