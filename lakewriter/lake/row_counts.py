"""The number of rows of a partition's own file, from its footer alone."""

import os

import pyarrow as pa

from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import import_parquet
from lakewriter.partition import Partition
from lakewriter.regular_file import open_regular


def count_rows(store: LakeStore, partition: Partition) -> int | None:
    """Return the number of rows in a partition's own file, or None if it is absent or unreadable.

    On a disk only the footer is read. An object store sends the whole file.
    """
    try:
        if store.is_remote:
            found = store.storage.read(partition.file)
            return None if found is None else _rows(pa.BufferReader(found.data))
        with os.fdopen(open_regular(store.root / partition.file), "rb") as file:
            return _rows(file)
    except (pa.ArrowException, OSError):
        return None


def _rows(source: object) -> int:
    return int(import_parquet().read_metadata(source).num_rows)
