"""Scans of candles on an object store, fetched here and passed to the engine.

Strategy: the engine scans an Arrow dataset. For each scan it requests a scanner from
the dataset, with columns and a filter (`pushdown` verifies that). The scanner fetches
the whole files of partitions that can have rows for the filter, many at once. It
passes the matching rows to the engine in the partitions' order. The engine opens no
file, so SQL cannot access any file.

If an engine read the dataset in another way, it would find one file that does not
exist. The result would be an error, never an answer without rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.candle import SCHEMA
from lakewriter.errors import LakeError, LakewriterError
from lakewriter.lake.footer_crc import has_whole_footer
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode
from lakewriter.lake.partition_filter import PartitionSelection
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.partition import LEVELS, Partition, parse_partition
from lakewriter.query.errors import as_lakewriter_error, file_gone_error
from lakewriter.query.scan.pruning import CANDLES_SCHEMA, FilterPruner
from lakewriter.query.scan.snapshot import with_path_columns

_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
_UNREAD = "lakewriter: the engine did not ask for a scanner"


class ObjectScanner:
    """The reader of one statement's remote files, which keeps its first error.

    Args:
        store: the lake's store.
        versions: the files' versions in the statement's listing.
    """

    def __init__(self, store: LakeStore, versions: Mapping[str, str]) -> None:
        self._store = store
        self._versions = dict(versions)
        self._failed: LakewriterError | None = None
        self._stopped = False

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> "ObjectScan":
        """Register a dataset of partitions' own files under a unique name, and return its scan."""
        table = f"served_{name}"
        if files:
            connection.register(table, _ObjectDataset(self, files))
        return ObjectScan(files, table)

    def classify_error(self, error: Exception) -> LakewriterError:
        """Return the first error of a fetch; without one, the engine's error as a LakewriterError."""
        return self._failed or as_lakewriter_error(error, self._store.state_dir)

    def stop(self) -> None:
        """Stop fetching files, because the statement ended."""
        self._stopped = True

    def rows(
        self, partition: Partition, name: str, columns: list[str], pushed: pc.Expression | None
    ) -> pa.Table:
        """Fetch a partition's own file and return the rows that pass a filter.

        Raises:
            FileGoneError: if the file is missing.
            LakeError: if the file cannot be fetched, or contains no candles.
        """
        if self._stopped:
            raise LakeError("lake: the statement has ended")
        try:
            return self._rows(partition, name, columns, pushed)
        except LakewriterError as error:
            # The engine keeps only the text of an error that is raised here.
            self._failed = self._failed or error
            raise

    def _rows(
        self, partition: Partition, name: str, columns: list[str], pushed: pc.Expression | None
    ) -> pa.Table:
        found = self._store.storage.read_listed(name, self._versions.get(name, ""))
        path = f"{self._store.name}/{name}"
        if found is None:
            raise file_gone_error(path)
        # A statement that scans a file twice finds the same version in the cache.
        self._versions[name] = found.version
        # Reading the statistics of a damaged footer aborts the process. A row's day does
        # not follow from the path in files of more than a day.
        if partition.period == "day" and has_whole_footer(found.data):
            fragment = _FORMAT.make_fragment(
                pa.BufferReader(arrow_buffer(found.data)), partition_expression=_path_guarantee(partition)
            )
            try:
                if fragment.physical_schema.equals(SCHEMA):
                    return fragment.to_table(
                        schema=CANDLES_SCHEMA, columns=columns, filter=pushed, use_threads=False
                    )
            except (pa.ArrowException, OSError):
                pass  # `decode` raises the reason.
        table = decode(found.data, path)
        table = with_path_columns(table, [partition] * table.num_rows).select(CANDLES_SCHEMA.names)
        return ds.dataset(table.cast(CANDLES_SCHEMA)).to_table(
            columns=columns, filter=pushed, use_threads=False
        )


class ObjectScan(NamedTuple):
    """The SQL for a scan of remote files.

    Args:
        names: the files, relative to the root.
        table: the name under which the dataset is registered.
    """

    names: Sequence[str]
    table: str

    def __str__(self) -> str:
        return f"temp.main.{self.table}"

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Do nothing, because the dataset already contains the names."""


class _ObjectDataset(ds.FileSystemDataset):  # type: ignore[misc]
    """The rows of partitions' own files."""

    def __init__(self, scanner: ObjectScanner, names: Sequence[str]) -> None:
        unread = _FORMAT.make_fragment(_UNREAD, pyarrow.fs.LocalFileSystem())
        super().__init__([unread], CANDLES_SCHEMA, _FORMAT)
        self._scanner = scanner
        self._files = [(parse_partition(name.rpartition("/")[0]), name) for name in names]

    def scanner(self, *_: Any, **kwargs: Any) -> ds.Scanner:
        """Return a scanner. The engine calls this method for each scan."""
        columns = list(kwargs.get("columns") or CANDLES_SCHEMA.names)
        pushed = kwargs.get("filter")
        files = self._files if pushed is None else _select(self._files, FilterPruner(pushed))
        schema = pa.schema([CANDLES_SCHEMA.field(name) for name in columns])

        def batches() -> Iterator[pa.RecordBatch]:
            tables = prefetch(lambda file: self._scanner.rows(*file, columns, pushed), files, PENDING_MAX)
            for table in tables:
                yield from table.to_batches()

        return ds.Scanner.from_batches(batches(), schema=schema)


def _select(files: list[tuple[Partition, str]], wanted: PartitionSelection) -> list[tuple[Partition, str]]:
    for level in LEVELS[:-1]:
        names = frozenset(wanted.keep(level, sorted({getattr(partition, level) for partition, _ in files})))
        files = [file for file in files if getattr(file[0], level) in names]
    days: dict[str, set[str]] = {}
    for partition, _ in files:
        days.setdefault(partition.interval, set()).add(partition.date.isoformat())
    kept = {
        interval: frozenset(wanted.keep_days(interval, sorted(names))) for interval, names in days.items()
    }
    return [file for file in files if file[0].date.isoformat() in kept[file[0].interval]]


def _path_guarantee(partition: Partition) -> pc.Expression:
    """Return an expression with the values of the path's columns, which is true for every row."""
    known = pc.scalar(True)
    for level in LEVELS:
        known &= ds.field(level) == pa.scalar(getattr(partition, level), CANDLES_SCHEMA.field(level).type)
    return known
