"""Candles of a lake on an object store, fetched by us and served to the engine.

Strategy: the engine scans a dataset of ours. For each scan it asks for a
scanner, with the columns and the filter that it needs (see `scans`, which has
made sure of that). The partitions where the filter can hold are fetched whole,
many at once, and what is left of them by the filter is handed on in their
order. The engine itself opens nothing: SQL has no access to any file at all.

If the engine came to read a dataset in another way, it would find one file,
which does not exist: an error, never an answer without rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from lakewriter.arrow_memory import arrow_buffer
from lakewriter.candle import SCHEMA
from lakewriter.errors import LakeError, LakewriterError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode, has_whole_footer
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
    """What one statement is served, and why that failed.

    Args:
        store: where from.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self._failed: LakewriterError | None = None
        self._stopped = False

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> "ObjectScan":
        """Return a scan of partitions' own files, which the engine knows by a name of its own."""
        table = f"served_{name}"
        if files:
            connection.register(table, _ObjectDataset(self, files))
        return ObjectScan(files, table)

    def classify_error(self, error: Exception) -> LakewriterError:
        """Return whose fault the engine's error is: what we could not serve, or the SQL's."""
        return self._failed or as_lakewriter_error(error, self._store.state_dir)

    def stop(self) -> None:
        """Fetch no more: nobody waits for it."""
        self._stopped = True

    def rows(
        self, partition: Partition, name: str, columns: list[str], pushed: pc.Expression | None
    ) -> pa.Table:
        """Return those rows of a partition's own file that pass a filter.

        Raises:
            VanishedError: if it is gone by now.
            LakeError: if it cannot be fetched, or is no file of candles.
        """
        if self._stopped:
            raise LakeError("lake: nobody waits for it any more")
        try:
            return self._rows(partition, name, columns, pushed)
        except LakewriterError as error:
            # The engine makes text of whatever is raised in here.
            self._failed = self._failed or error
            raise

    def _rows(
        self, partition: Partition, name: str, columns: list[str], pushed: pc.Expression | None
    ) -> pa.Table:
        found = self._store.storage.read(name)
        path = f"{self._store.name}/{name}"
        if found is None:
            raise file_gone_error(path)
        # Of a damaged footer, statistics abort the process when they are looked up for a filter.
        # The path of a file of more than a day does not tell the day of a row.
        if partition.period == "day" and has_whole_footer(found.data):
            fragment = _FORMAT.make_fragment(
                pa.BufferReader(arrow_buffer(found.data)), partition_expression=_known(partition)
            )
            try:
                if fragment.physical_schema.equals(SCHEMA):
                    return fragment.to_table(
                        schema=CANDLES_SCHEMA, columns=columns, filter=pushed, use_threads=False
                    )
            except (pa.ArrowException, OSError):
                pass  # `decode` says what is wrong.
        table = decode(found.data, path)
        table = with_path_columns(table, [partition] * table.num_rows).select(CANDLES_SCHEMA.names)
        return ds.dataset(table.cast(CANDLES_SCHEMA)).to_table(
            columns=columns, filter=pushed, use_threads=False
        )


class ObjectScan(NamedTuple):
    """A scan of files that we serve, as SQL.

    Args:
        table: what the dataset is registered as.
    """

    names: Sequence[str]
    table: str

    def __str__(self) -> str:
        return f"temp.main.{self.table}"

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Do nothing: the dataset has them."""


class _ObjectDataset(ds.FileSystemDataset):  # type: ignore[misc]
    """The rows of partitions' own files."""

    def __init__(self, served: ObjectScanner, names: Sequence[str]) -> None:
        unread = _FORMAT.make_fragment(_UNREAD, pyarrow.fs.LocalFileSystem())
        super().__init__([unread], CANDLES_SCHEMA, _FORMAT)
        self._served = served
        self._files = [(parse_partition(name.rpartition("/")[0]), name) for name in names]

    def scanner(self, *_: Any, **kwargs: Any) -> ds.Scanner:
        """Return a scanner; the engine calls this for each scan."""
        columns = list(kwargs.get("columns") or CANDLES_SCHEMA.names)
        pushed = kwargs.get("filter")
        files = self._files if pushed is None else _kept(self._files, FilterPruner(pushed))
        schema = pa.schema([CANDLES_SCHEMA.field(name) for name in columns])

        def batches() -> Iterator[pa.RecordBatch]:
            tables = prefetch(lambda file: self._served.rows(*file, columns, pushed), files, PENDING_MAX)
            for table in tables:
                yield from table.to_batches()

        return ds.Scanner.from_batches(batches(), schema=schema)


def _kept(files: list[tuple[Partition, str]], wanted: PartitionSelection) -> list[tuple[Partition, str]]:
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


def _known(partition: Partition) -> pc.Expression:
    """Return what the path says of every row."""
    known = pc.scalar(True)
    for level in LEVELS:
        known &= ds.field(level) == pa.scalar(getattr(partition, level), CANDLES_SCHEMA.field(level).type)
    return known
