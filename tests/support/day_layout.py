"""Lakes in the layout of format 1, in which every partition is a day."""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from lakewriter.candle import int_column
from lakewriter.interval import DAY_MS
from lakewriter.lake.format import FORMAT_NAME, LakeFormat
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.partition import Partition, day_of


def to_day_layout(root: Path) -> list[str]:
    """Split each file of a month or year into files of days, as format 1 had them.

    Returns:
        the names of the new files.
    """
    store = LakeStore.local(root)
    written = []
    for found in list(store.files()):
        partition = found.partition
        rows = store.read(partition)
        if rows is not None and partition.period != "day":
            store.storage.delete(partition.file)
            store.storage.prune(partition.path)
            written += write_days(root, partition, rows)
    (root / FORMAT_NAME).write_bytes(msgspec.json.encode(LakeFormat(1, "lakewriter 0.1")))
    return written


def write_days(root: Path, partition: Partition, rows: pa.Table) -> list[str]:
    """Write rows of a partition as files of days; return their names."""
    names = []
    days = int_column(rows, "candle_begin_time") // DAY_MS
    for day in np.unique(days).tolist():
        place = msgspec.structs.replace(partition, date=day_of(day * DAY_MS))
        path = root / place.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rows.filter(pa.array(days == day)), place))
        names.append(place.file)
    return names


def further_directories(store: LakeStore) -> list[str]:
    """Return the directories that are not at their partition's path."""
    return [
        directory
        for found in store.partitions()
        for directory in found.directories
        if directory != found.partition.path
    ]
