"""The content of a partition on the disk: its files, their rows, and its unreadable files.

Other commands refuse or repair a damaged file. Functions of this module return it as data
and raise no error.
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
from lakewriter.lake.parquet import WRITER_KEY, FileHeader, decode, read_header
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import READ_LAPS_MAX
from lakewriter.partition import Partition, is_own_file, place_of
from lakewriter.series import Series


class PartitionFile(NamedTuple):
    """One file of a partition.

    Args:
        name: its path relative to the lake's root.
        data: its bytes.
        rows: its rows, in SCHEMA; None for an unreadable file.
        header: its metadata; None for an unreadable file.
        error: the reason why the file is unreadable; "" for a readable file.
    """

    name: str
    data: bytes
    rows: pa.Table | None
    header: FileHeader | None
    error: str = ""


class Contents(NamedTuple):
    """The content of a partition.

    Args:
        own: lakewriter's own files, each with the partition of its directory. A lake of format 1
            has files of single days; all others have one file.
        foreign: the other files, likewise.
        rows: the rows of its period in all files, sorted, as a query returns them. Of
            duplicates, only the winner is kept.
    """

    own: tuple[tuple[Partition, PartitionFile], ...]
    foreign: tuple[tuple[Partition, PartitionFile], ...]
    rows: pa.Table

    @property
    def files(self) -> tuple[tuple[Partition, PartitionFile], ...]:
        """All files, each with the partition of its directory."""
        return self.own + self.foreign

    @property
    def readable(self) -> bool:
        """Whether every file is readable."""
        return all(file.rows is not None for _, file in self.files)


def series_partitions(
    store: LakeStore, selection: PartitionFilter
) -> Iterator[tuple[Series, list[PartitionDirs]]]:
    """Yield each series that has candle files, with its partitions, sorted by day."""
    found = store.partitions(selection)
    for series, of_series in groupby(found, key=lambda dirs: dirs.partition.series):
        partitions = [
            dirs for dirs in of_series if dirs.versions or candle_files(store.storage, dirs.directories)
        ]
        if partitions:
            yield series, partitions


def read_contents(store: LakeStore, dirs: PartitionDirs) -> Contents:
    """Read every file of a partition.

    Raises:
        LakeError: if the files keep changing.
    """
    for _ in range(READ_LAPS_MAX):
        files = []
        for name in candle_files(store.storage, dirs.directories):
            try:
                found = store.storage.read(name)
            except OSError as error:
                files.append(PartitionFile(name, b"", None, None, f"{name}: {error.strerror}"))
                continue
            if found is None:
                break  # it was merged into the own file, which may have been read before
            files.append(_file(name, found.data, dirs.partition))
        else:
            return _contents(dirs.partition, files)
    raise LakeError(f"{dirs.partition}: its files changed during every attempt to read them", "run it again")


def _file(name: str, data: bytes, partition: Partition) -> PartitionFile:
    try:
        rows, header = decode(data, name), read_header(data, name)
        if WRITER_KEY not in header.metadata or not is_own_file(partition, name):
            rows = foreign_rows(data, name, partition)
        return PartitionFile(name, data, rows, header)
    except LakeError as error:
        return PartitionFile(name, data, None, None, error.what)


def _contents(partition: Partition, files: list[PartitionFile]) -> Contents:
    tables = [file.rows for file in files if file.rows is not None]
    rows = deduplicate(pa.concat_tables([SCHEMA.empty_table(), *tables]))
    begins = int_column(rows, "candle_begin_time")
    inside = (begins >= partition.start_ms) & (begins < partition.stop_ms)
    if not inside.all():
        rows = rows.filter(pa.array(inside))
    own: list[tuple[Partition, PartitionFile]] = []
    foreign: list[tuple[Partition, PartitionFile]] = []
    for file in files:
        placed = own if is_own_file(partition, file.name) else foreign
        placed.append((place_of(partition, file.name), file))
    return Contents(tuple(own), tuple(foreign), rows)
