"""The rows of few partitions that have unflushed candles, merged without the engine.

A view that joins files with unflushed candles takes the engine longer to plan than a
small file takes to read. So the files of few partitions are read here.
"""

import numpy as np
import pyarrow as pa

from lakewriter.candle import deduplicate, int_column, to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import by_partition
from lakewriter.query.scan.snapshot import Snapshot, read_files, with_path_columns

# Limits of the partitions and of their unflushed candles. A file has at most 86,400 rows.
PARTITIONS_MAX = 8
CANDLES_MAX = 20_000


def merge_journal(store: LakeStore, snapshot: Snapshot) -> tuple[pa.Table, Snapshot] | None:
    """Return the rows of all partitions with unflushed candles, and a snapshot of the others.

    The rows have the columns of their paths. The result is None if there are no such
    partitions, or too many, or if the snapshot has foreign files.

    Raises:
        the errors of `read_files`.
    """
    if not 0 < len(snapshot.journal) <= CANDLES_MAX or snapshot.foreign:
        return None
    partitions = by_partition(snapshot.journal)
    if len(partitions) > PARTITIONS_MAX:
        return None
    own = frozenset(snapshot.own)
    with_file = [partition for partition in partitions if partition.file in own]
    names = [partition.file for partition in with_file]
    files = dict(zip(with_file, read_files(store, names), strict=True))
    tables = []
    for partition, candles in partitions.items():
        rows = to_table(candles)
        file = files.get(partition)
        rows = deduplicate(rows) if file is None else _merged(file, rows)
        tables.append(with_path_columns(rows, [partition] * rows.num_rows))
    others = tuple(name for name in snapshot.own if name not in names)
    return pa.concat_tables(tables), Snapshot([], others, ())


def _merged(file: pa.Table, unflushed: pa.Table) -> pa.Table:
    """Return the rows of a file and the best row of each key that has unflushed candles."""
    same_key = np.isin(int_column(file, "candle_begin_time"), int_column(unflushed, "candle_begin_time"))
    best = deduplicate(pa.concat_tables([file.filter(pa.array(same_key)), unflushed]))
    return pa.concat_tables([file.filter(pa.array(~same_key)), best])
