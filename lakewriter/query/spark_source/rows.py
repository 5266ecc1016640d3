"""The rows of a slice, in the columns of a request.

A partition is read from all its files, by the rules of compaction. Unflushed candles are
not read: their journal is on the recorder's host.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import int_column
from lakewriter.follow.partition_rows import read_partition
from lakewriter.lake.coverage.tables import gaps_table
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.prefetch import prefetch
from lakewriter.partition import LEVELS, Partition, parse_partition
from lakewriter.query.spark_source.request import TABLES, SparkRequest
from lakewriter.query.spark_source.slices import Place, Slice

# Pending requests of one task to an object store. Several tasks run beside each other.
PENDING_MAX = 8


def read_slice(request: SparkRequest, places: Slice) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a slice, in the request's schema.

    Raises:
        LakeError: if a file of our own cannot be read. Other files are left out with a warning.
    """
    store = open_to_read(request.uri)
    tables = [_gaps(store, request)] if request.table == "gaps" else _candles(store, request, places)
    for table in tables:
        batches: list[pa.RecordBatch] = table.select(list(request.columns)).cast(request.schema).to_batches()
        yield from (batch for batch in batches if batch.num_rows)


def _candles(store: LakeStore, request: SparkRequest, places: Slice) -> Iterable[pa.Table]:
    def read(place: Place) -> pa.Table:
        partition = parse_partition(place.directories[0])
        rows, _ = read_partition(store, partition, place.directories, place.names)
        wanted = request.within((partition.start_ms, partition.stop_ms))
        first, stop = np.searchsorted(int_column(rows, "candle_begin_time"), wanted)
        return _with_path_columns(rows.slice(int(first), max(int(stop - first), 0)), partition)

    return prefetch(read, places, PENDING_MAX) if store.is_remote else map(read, places)


def _with_path_columns(rows: pa.Table, partition: Partition) -> pa.Table:
    for level in LEVELS[:-1]:
        rows = rows.append_column(level, pa.repeat(getattr(partition, level), rows.num_rows))
    return rows.append_column("date", rows["candle_begin_time"].cast(pa.date32()))


def _gaps(store: LakeStore, request: SparkRequest) -> pa.Table:
    """Return the gaps of the wanted series. Those of a range are cut to its days."""
    wanted = request.partition_filter()
    days = PartitionFilter(wanted.markets, (), wanted.intervals, wanted.since, wanted.until)
    table = gaps_table(store, days).cast(TABLES["gaps"])
    symbols = wanted.keep("symbol", sorted(set(table["symbol"].to_pylist())))
    return table.filter(pc.is_in(table["symbol"], pa.array(symbols, pa.string())))
