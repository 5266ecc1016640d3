"""The snapshot of files and unflushed candles for one answer.

Only this module selects the sources of an answer:

- The engine reads a partition's own file as it is.
- All other files of a partition are *foreign*. This module reads them, by the rules
  of compaction.
- Rows of foreign files and of the journal are *unmerged*. Only they can duplicate a
  candle, and only in their own partitions.
- Duplicates inside a `candles.parquet` of another tool stay until compaction.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from lakewriter.candle import SCHEMA, Candle, int_column, to_table
from lakewriter.interval import INTERVALS
from lakewriter.lake.foreign import read_or_leave_out
from lakewriter.lake.lake import LakeStore, check_rows_inside
from lakewriter.lake.listing import PartitionFiles
from lakewriter.lake.parquet import decode
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.lake.storage import NO_VERSIONS
from lakewriter.lake.unchanged import UnchangedCache
from lakewriter.lake.unflushed import Unflushed
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import LEVELS, Partition, partition_at, partition_of
from lakewriter.query.errors import file_gone_error
from lakewriter.query.scan.constant_pruner import ConstantPruner
from lakewriter.regular_file import open_regular
from lakewriter.series import Series

T = TypeVar("T")

# Maximum number of files that are read at once. Decoding uses at most one thread per core.
_THREADS_MAX = 8

# Maximum number of foreign files in memory at once, as Arrow tables.
_FOREIGN_AT_ONCE = 64

_DAY = pa.date32()

# Inode → whether `has_our_schema` found our schema in the file.
_OUR_SCHEMAS: UnchangedCache[bool] = UnchangedCache(kept_max=1_024)

PARTITIONS_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("interval", pa.string()),
        ("date", _DAY),
        ("files", pa.int64()),
        ("bytes", pa.int64()),
    ]
)


# A query that reads so many foreign files suggests a compaction.
MANY_FOREIGN = 1_000


class ForeignFile(NamedTuple):
    """A file whose rows have to be cast and deduplicated, its partition, and its listed version or ""."""

    name: str
    partition: Partition
    version: str = ""


class Snapshot(NamedTuple):
    """All sources of one answer.

    Args:
        journal: the unflushed candles. Some of them may have been flushed meanwhile.
        own: the partitions' own files, sorted, relative to the root.
        foreign: all other files.
        versions: the versions of own files, for `Storage.read_listed`.
    """

    journal: list[Candle]
    own: tuple[str, ...]
    foreign: tuple[ForeignFile, ...]
    versions: Mapping[str, str] = NO_VERSIONS

    @property
    def is_of_days(self) -> bool:
        """Whether all rows are of partitions of a day."""
        intervals = {name.split("/", 3)[2].partition("=")[2] for name in self.own}
        intervals.update(file.partition.interval for file in self.foreign)
        intervals.update(candle.interval for candle in self.journal)
        return all(INTERVALS[interval].file_period == "day" for interval in intervals)


EMPTY_SNAPSHOT = Snapshot([], (), ())


def take_snapshot(
    store: LakeStore,
    selections: Sequence[PartitionSelection] = (ALL,),
    read_as_foreign: frozenset[str] = frozenset(),
) -> Snapshot:
    """Read the journal and list the files.

    The journal is read first. So a candle that is flushed in between is read twice
    instead of never.

    Args:
        selections: selections of partitions. The snapshot contains each partition that
            one of them selects, and may contain more.
        read_as_foreign: own files that have to be read as foreign files.
    """
    journal = _select_candles(store.unflushed(), selections)
    own: list[str] = []
    foreign: list[ForeignFile] = []
    listed: dict[str, str] = {}
    for partition, names, versions in _select_files(store, selections):
        listed.update(versions)
        for name in names:
            if name == partition.file and name not in read_as_foreign:
                own.append(name)
            else:
                foreign.append(ForeignFile(name, partition, versions.get(name, "")))
    return Snapshot(journal, tuple(own), tuple(foreign), listed)


def _select_files(store: LakeStore, selections: Sequence[PartitionSelection]) -> Iterable[PartitionFiles]:
    if len(selections) == 1:
        return _files(store, selections[0])
    found: dict[Partition, dict[str, str]] = {}
    for selection in selections:
        for partition, names, versions in _files(store, selection):
            found.setdefault(partition, {}).update((name, versions.get(name, "")) for name in names)
    return (
        PartitionFiles(partition, tuple(sorted(found[partition])), found[partition])
        for partition in sorted(found)
    )


def _files(store: LakeStore, selection: PartitionSelection) -> Iterable[PartitionFiles]:
    if isinstance(selection, ConstantPruner) and selection.needs_ends:
        return store.ends(selection, of_days=selection.of_days)
    return store.newest(selection) if selection.newest else store.files(selection)


def _select_candles(unflushed: Unflushed, selections: Sequence[PartitionSelection]) -> list[Candle]:
    """Return the candles of selected partitions.

    A few wanted names are looked up. Otherwise each distinct name is tested once.
    """
    if not unflushed:
        return []
    levels = LEVELS[:-1]
    wanted: dict[Series, list[PartitionSelection]] = {}
    for selection in selections:
        kept = [
            selection.names(level) or selection.keep(level, unflushed.names(number))
            for number, level in enumerate(levels)
        ]
        for series in unflushed.matching(*kept):
            wanted.setdefault(series, []).append(selection)
    return [
        candle
        for series, of_series in wanted.items()
        for candle in _in_periods(series, unflushed.of(series), of_series)
    ]


def _in_periods(
    series: Series, candles: list[Candle], selections: Sequence[PartitionSelection]
) -> list[Candle]:
    """Return the candles of a series in selected periods."""
    if not candles:
        return []
    begins = [candle.begin_ms for candle in candles]
    periods = {partition_at(series, begin_ms).date for begin_ms in (min(begins), max(begins))}
    if len(periods) > 1:
        periods = {partition_at(series, begin_ms).date for begin_ms in begins}
    names = sorted(day.isoformat() for day in periods)
    kept = {name for selection in selections for name in selection.keep_days(series.interval, names)}
    if len(kept) == len(names):
        return candles
    return [candle for candle in candles if partition_of(candle).date.isoformat() in kept]


def unmerged_tables(store: LakeStore, snapshot: Snapshot) -> Iterator[pa.Table]:
    """Yield the unmerged rows, with the columns of their paths.

    Raises:
        the errors of `read_foreign`.
    """
    if snapshot.journal:
        series = [partition_of(candle) for candle in snapshot.journal]
        yield with_path_columns(to_table(snapshot.journal), series)
    if len(snapshot.foreign) >= MANY_FOREIGN:
        warn_once(
            f"lake: {store.name} has many files to fold, which slow this query down; lakewriter compact"
        )
    remaining = iter(snapshot.foreign)
    while files := list(islice(remaining, _FOREIGN_AT_ONCE)):
        yield pa.concat_tables(
            with_path_columns(table, [file.partition] * table.num_rows)
            for file, table in zip(files, read_foreign(store, files), strict=True)
        )


def read_foreign(store: LakeStore, files: Sequence[ForeignFile]) -> list[pa.Table]:
    """Return the rows of each foreign file, in SCHEMA.

    Raises:
        FileGoneError: if a file vanished after the listing.
        LakeError: if a file with our own name has no candles, or if a file has candles of
            another day. Only some queries would return such candles.

    Other files without candles are logged and left out.
    """
    tables = _read_all(store, lambda file: _read_foreign(store, file), files)
    for file, table in zip(files, tables, strict=True):
        check_rows_inside(file.partition, int_column(table, "candle_begin_time"))
    return tables


def read_files(
    store: LakeStore,
    names: Iterable[str],
    schema: pa.Schema = SCHEMA,
    versions: Mapping[str, str] = NO_VERSIONS,
) -> list[pa.Table]:
    """Return the rows of each file in a schema. Any tool may have written the files.

    Args:
        versions: the files' versions in a listing.
        schema: some columns of SCHEMA, in its order.

    Raises:
        FileGoneError: if a file vanished after the listing.
        LakeError: if a file has no candles.
    """
    return _read_all(store, lambda name: _read(store, name, versions.get(name, ""), schema), names)


def _read_all(store: LakeStore, read: Callable[[T], pa.Table], files: Iterable[T]) -> list[pa.Table]:
    if store.is_remote:
        return list(prefetch(read, files, PENDING_MAX))
    several = list(files)
    if len(several) <= 1:
        return [read(file) for file in several]
    with ThreadPoolExecutor(min(_THREADS_MAX, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, several))


def _read_foreign(store: LakeStore, file: ForeignFile) -> pa.Table:
    if file.name == file.partition.file:
        return _read(store, file.name, file.version)
    from lakewriter.lake.foreign_rows import foreign_rows  # noqa: PLC0415 - needed for few lakes

    read = partial(foreign_rows, partition=file.partition)
    empty = SCHEMA.empty_table()
    table = read_or_leave_out(store, file.partition, file.name, read, empty, file.version)
    if table is None:
        raise file_gone_error(f"{store.name}/{file.name}")
    return table


def _read(store: LakeStore, name: str, version: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    path = f"{store.name}/{name}"
    found = store.storage.read_listed(name, version)
    if found is None:
        raise file_gone_error(path)
    return decode(found.data, path, schema)


def with_path_columns(table: pa.Table, partitions: list[Partition]) -> pa.Table:
    """Return rows with the columns of their paths added."""
    for name in LEVELS[:-1]:
        values = pa.array([getattr(partition, name) for partition in partitions], pa.string())
        table = table.append_column(name, values)
    return table.append_column("date", table["candle_begin_time"].cast(_DAY))


def has_our_schema(path: Path) -> bool:
    """Return whether a file has our columns with our types.

    DuckDB takes the columns and types of a scan from its first file. The other files
    may have any types that DuckDB can cast.

    Raises:
        FileNotFoundError: if the file vanished.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - needed for statements about candles only

    try:
        with os.fdopen(open_regular(path), "rb") as file:
            read_s, status = _OUR_SCHEMAS.now_s(), os.fstat(file.fileno())
            inode = (status.st_dev, status.st_ino)
            if _OUR_SCHEMAS.get(inode, status):
                return True
            schema = pq.read_schema(file)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        return False
    is_ours = all(
        field.name in schema.names and _same_type(schema.field(field.name).type, field.type)
        for field in SCHEMA
    )
    if is_ours:
        _OUR_SCHEMAS.add(inode, status, read_s, True)
    return is_ours


def _same_type(kind: Any, ours: Any) -> bool:
    if pa.types.is_timestamp(ours):
        return pa.types.is_timestamp(kind) and kind.tz is not None and kind.unit != "ns"
    if pa.types.is_string(ours):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return bool(kind == ours)


def files_with_other_schema(root: Path, names: Iterable[str]) -> frozenset[str]:
    """Return the own files that only `read_files` may read, because another tool wrote or linked them.

    Raises:
        FileNotFoundError: if a file vanished.
    """
    return frozenset(
        name
        for name in names
        if not has_our_schema(root / name) or not (root / name).resolve().is_relative_to(root)
    )


def any_modified_since(root: Path, names: Iterable[str], moment_ns: int) -> bool:
    """Return whether any of the files was replaced, changed or removed since a moment.

    Args:
        names: the files' names, relative to the root.
        moment_ns: the moment in nanoseconds since the epoch, by the file system's clock.
    """
    prefix = f"{root}/"
    for name in names:
        try:
            status = os.stat(prefix + name)  # noqa: PTH116 - pathlib takes three times as long
        except PermissionError:
            continue  # unknown; reading the file raises its own error
        except OSError:
            return True
        # A rename keeps mtime, and sets ctime.
        if status.st_ctime_ns >= moment_ns or status.st_mtime_ns >= moment_ns:
            return True
    return False


def partitions_table(store: LakeStore) -> pa.Table:
    """Return one row per partition, with the number and the bytes of its files.

    Raises:
        FileNotFoundError: if a file vanished after the listing.
    """
    found = list(store.partition_sizes())
    return pa.Table.from_arrays(
        [
            *(
                pa.array(
                    [getattr(partition, level) for partition, _ in found], PARTITIONS_SCHEMA.field(level).type
                )
                for level in LEVELS
            ),
            pa.array([len(sizes) for _, sizes in found], pa.int64()),
            pa.array([sum(sizes) for _, sizes in found], pa.int64()),
        ],
        schema=PARTITIONS_SCHEMA,
    )
