"""A partition as it stands on the disk: its files, what is in them, and what cannot be read.

What the other commands refuse, stumble over or mend is data here: nothing in
this module raises for a file that is not as it must be.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import SCHEMA, deduplicate, int_column
from lakewriter.errors import LakeError
from lakewriter.lake.foreign_rows import foreign_rows
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs, candle_files
from lakewriter.lake.parquet import WRITER_KEY, FileHeader, decode, read_label
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import READ_LAPS_MAX
from lakewriter.partition import Partition
from lakewriter.series import Series


class PartitionFile(NamedTuple):
    """One file of a partition.

    Args:
        name: relative to the lake's root.
        data: its bytes.
        rows: as they stand in it, in SCHEMA; None if it cannot be read.
        label: what it says of itself; None if it cannot be read.
        error: why it cannot be read; "" if it can.
    """

    name: str
    data: bytes
    rows: pa.Table | None
    label: FileHeader | None
    error: str = ""


class Contents(NamedTuple):
    """What is in a partition.

    Args:
        own: the file that we write; None if there is none.
        foreign: every other one.
        rows: the rows of its day in all of them, sorted, the winner of each
            duplicate: what a query sees.
    """

    own: PartitionFile | None
    foreign: tuple[PartitionFile, ...]
    rows: pa.Table

    @property
    def readable(self) -> bool:
        """Whether every file could be read."""
        files = self.foreign if self.own is None else (self.own, *self.foreign)
        return all(file.rows is not None for file in files)


def series_places(store: LakeStore, wanted: PartitionFilter) -> Iterator[tuple[Series, list[PartitionDirs]]]:
    """Yield the series that have partitions with candle files, with their partitions by day."""
    found = store.partitions(wanted)
    for series, of_series in groupby(found, key=lambda place: place.partition.series):
        places = [place for place in of_series if candle_files(store.storage, place.directories)]
        if places:
            yield series, places


def read_contents(store: LakeStore, place: PartitionDirs) -> Contents:
    """Read every file of a partition.

    Raises:
        LakeError: if the files do not hold still.
    """
    for _ in range(READ_LAPS_MAX):
        files = []
        for name in candle_files(store.storage, place.directories):
            try:
                found = store.storage.read(name)
            except OSError as error:
                files.append(PartitionFile(name, b"", None, None, f"{name}: {error.strerror}"))
                continue
            if found is None:
                break  # folded into the own file, which may have been read before that
            files.append(_file(name, found.data, place.partition))
        else:
            return _contents(place.partition, files)
    raise LakeError(f"{place.partition}: its files do not hold still", "run it again")


def _file(name: str, data: bytes, partition: Partition) -> PartitionFile:
    try:
        rows, label = decode(data, name), read_label(data, name)
        if name != partition.file or WRITER_KEY not in label.said:
            rows = foreign_rows(data, name, partition)
        return PartitionFile(name, data, rows, label)
    except LakeError as error:
        return PartitionFile(name, data, None, None, error.what)


def _contents(partition: Partition, files: list[PartitionFile]) -> Contents:
    own = next((file for file in files if file.name == partition.file), None)
    tables = [file.rows for file in files if file.rows is not None]
    rows = deduplicate(pa.concat_tables([SCHEMA.empty_table(), *tables]))
    begins = int_column(rows, "candle_begin_time")
    inside = (begins >= partition.start_ms) & (begins < partition.stop_ms)
    if not inside.all():
        rows = rows.filter(pa.array(inside))
    return Contents(own, tuple(file for file in files if file is not own), rows)
