"""Which files answer a query, and who reads them.

The one place that decides what is read. A partition's own file is the
engine's, read as it stands; whatever else lies in a partition is *foreign* and
read here, by the rules that compaction reads it by. Foreign rows and the
journal's are *loose*: only they can repeat a candle, and only in partitions
that they name. Duplicates inside a `candles.parquet` that somebody else wrote,
and that the engine can read, stay until compaction.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from lakewriter.candle import SCHEMA, Candle, int_column, to_table
from lakewriter.lake.foreign import read_or_leave_out
from lakewriter.lake.journal import read_unflushed
from lakewriter.lake.lake import LakeStore, check_day
from lakewriter.lake.listing import PartitionFiles
from lakewriter.lake.parquet import decode
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.partition import LEVELS, Partition, partition_of
from lakewriter.query.errors import file_gone_error
from lakewriter.regular_file import open_regular

T = TypeVar("T")

# Files read at once; one reader thread per core is all that decoding can use.
_THREADS_MAX = 8

# Foreign files in memory at once, as Arrow tables.
_FILES_MAX = 64

_DAY = pa.date32()

_CHECKED_FILES_MAX = 1_024

# No file system that Linux mounts has coarser times than FAT, which has two seconds.
_SAME_TIME_S = 10.0

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


class ForeignFile(NamedTuple):
    """A file whose rows need casting and deduplicating, and the partition whose it is."""

    name: str
    partition: Partition


class Snapshot(NamedTuple):
    """Everything that one answer is made of.

    Args:
        journal: candles not yet flushed, and maybe some that just were.
        own: partitions' own files, sorted, relative to the root.
        foreign: all other files.
    """

    journal: list[Candle]
    own: tuple[str, ...]
    foreign: tuple[ForeignFile, ...]


EMPTY_SNAPSHOT = Snapshot([], (), ())


def take_snapshot(
    store: LakeStore,
    wanted: Sequence[PartitionSelection] = (ALL,),
    read_as_foreign: frozenset[str] = frozenset(),
) -> Snapshot:
    """Return what holds the candles now.

    The journal is read before the files are listed: a candle that is flushed
    in between is then seen twice, never not at all.

    Args:
        wanted: partitions that any of these wants; some more may be returned.
        read_as_foreign: own files to take for foreign ones.
    """
    journal = _wanted_candles(read_unflushed(store.state_dir), wanted)
    own: list[str] = []
    foreign: list[ForeignFile] = []
    for partition, names in _wanted_files(store, wanted):
        for name in names:
            if name == partition.file and name not in read_as_foreign:
                own.append(name)
            else:
                foreign.append(ForeignFile(name, partition))
    return Snapshot(journal, tuple(own), tuple(foreign))


def _wanted_files(store: LakeStore, wanted: Sequence[PartitionSelection]) -> Iterable[PartitionFiles]:
    if len(wanted) == 1:
        return _files(store, wanted[0])
    found: dict[Partition, set[str]] = {}
    for each in wanted:
        for partition, names in _files(store, each):
            found.setdefault(partition, set()).update(names)
    return (PartitionFiles(partition, tuple(sorted(found[partition]))) for partition in sorted(found))


def _files(store: LakeStore, wanted: PartitionSelection) -> Iterable[PartitionFiles]:
    return store.newest(wanted) if wanted.newest else store.files(wanted)


def _wanted_candles(journal: list[Candle], wanted: Sequence[PartitionSelection]) -> list[Candle]:
    """Return the candles of wanted series; each name is asked for once, however many have it."""
    if not journal:
        return []
    names = [sorted({getattr(candle, level) for candle in journal}) for level in LEVELS[:-1]]
    kept = [
        [frozenset(each.keep(level, values)) for level, values in zip(LEVELS, names, strict=False)]
        for each in wanted
    ]
    return [
        candle
        for candle in journal
        if any(
            candle.symbol in symbols and candle.interval in intervals and candle.market in markets
            for markets, symbols, intervals in kept
        )
    ]


def unmerged_tables(store: LakeStore, snapshot: Snapshot) -> Iterator[pa.Table]:
    """Yield the loose rows, with the columns that a path would give them.

    Raises:
        the errors of `read_foreign`.
    """
    if snapshot.journal:
        series = [partition_of(candle) for candle in snapshot.journal]
        yield with_path_columns(to_table(snapshot.journal), series)
    waiting = iter(snapshot.foreign)
    while files := list(islice(waiting, _FILES_MAX)):
        yield pa.concat_tables(
            with_path_columns(table, [file.partition] * table.num_rows)
            for file, table in zip(files, read_foreign(store, files), strict=True)
        )


def read_foreign(store: LakeStore, files: Sequence[ForeignFile]) -> list[pa.Table]:
    """Return the rows of each foreign file, in SCHEMA.

    Raises:
        VanishedError: if a file vanished since it was listed.
        LakeError: if one of our own names holds no candles; or if one holds some of
            another day: whether those were seen would depend on which days a query
            is about.

    Another file that holds no candles is logged and left out.
    """
    tables = _read_all(store, lambda file: _read_foreign(store, file), files)
    for file, table in zip(files, tables, strict=True):
        check_day(file.partition, int_column(table, "candle_begin_time"))
    return tables


def read_files(store: LakeStore, names: Iterable[str]) -> list[pa.Table]:
    """Return the rows of each file, whoever wrote it, in SCHEMA.

    Raises:
        VanishedError: if a file vanished since it was listed.
        LakeError: if one holds no candles.
    """
    return _read_all(store, lambda name: _read(store, name), names)


def _read_all(store: LakeStore, read: Callable[[T], pa.Table], files: Iterable[T]) -> list[pa.Table]:
    if store.is_remote:
        return list(prefetch(read, files, PENDING_MAX))
    with ThreadPoolExecutor(min(_THREADS_MAX, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, files))


def _read_foreign(store: LakeStore, file: ForeignFile) -> pa.Table:
    if file.name == file.partition.file:
        return _read(store, file.name)
    from lakewriter.lake.foreign_rows import foreign_rows  # noqa: PLC0415 - most lakes have no such files

    read = partial(foreign_rows, partition=file.partition)
    table = read_or_leave_out(store, file.name, read, SCHEMA.empty_table())
    if table is None:
        raise file_gone_error(f"{store.name}/{file.name}")
    return table


def _read(store: LakeStore, name: str) -> pa.Table:
    path = f"{store.name}/{name}"
    found = store.storage.read(name)
    if found is None:
        raise file_gone_error(path)
    return decode(found.data, path)


def with_path_columns(table: pa.Table, partitions: list[Partition]) -> pa.Table:
    """Return rows with the columns that their paths would give them."""
    for name in LEVELS[:-1]:
        values = pa.array([getattr(partition, name) for partition in partitions], pa.string())
        table = table.append_column(name, values)
    return table.append_column("date", table["candle_begin_time"].cast(_DAY))


def has_our_schema(path: Path) -> bool:
    """Tell whether the engine finds our columns with our types in a file.

    The first file of a scan lends the others its columns and types, so this
    has to hold for it; others may differ in what can be cast.

    Raises:
        FileNotFoundError: if it vanished.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - for statements about candles alone

    try:
        with os.fdopen(open_regular(path), "rb") as file:
            status = os.fstat(file.fileno())
            if status in _CHECKED_SCHEMAS:
                return True
            schema = pq.read_schema(file)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        return False
    is_ours = all(
        field.name in schema.names and _same_kind(schema.field(field.name).type, field.type)
        for field in SCHEMA
    )
    if is_ours:
        _CHECKED_SCHEMAS.add(status)
    return is_ours


class CheckedFiles:
    """Files with our schema. A file is recognised until it changes.

    Args:
        now_s: the clock, in seconds since the epoch.
    """

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._versions: set[tuple[int, ...]] = set()

    def __contains__(self, status: os.stat_result) -> bool:
        return _version(status) in self._versions

    def add(self, status: os.stat_result) -> None:
        """Add a file, unless it changed so lately that the next change may have the same time."""
        if self._now_s() - max(status.st_mtime, status.st_ctime) < _SAME_TIME_S:
            return
        if len(self._versions) >= _CHECKED_FILES_MAX:
            self._versions.clear()
        self._versions.add(_version(status))


def _version(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


_CHECKED_SCHEMAS = CheckedFiles()


def _same_kind(kind: Any, ours: Any) -> bool:
    if pa.types.is_timestamp(ours):
        return pa.types.is_timestamp(kind) and kind.tz is not None and kind.unit != "ns"
    if pa.types.is_string(ours):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return bool(kind == ours)


def files_with_other_schema(root: Path, names: Iterable[str]) -> frozenset[str]:
    """Return the own files that the engine cannot read, but `read_files` may: others wrote or linked them.

    Raises:
        FileNotFoundError: if one vanished.
    """
    return frozenset(
        name
        for name in names
        if not has_our_schema(root / name) or not (root / name).resolve().is_relative_to(root)
    )


def any_modified_since(root: Path, names: Iterable[str], moment_ns: int) -> bool:
    """Tell whether any of the files was replaced, changed or removed since.

    Args:
        names: relative to the root.
        moment_ns: nanoseconds since the epoch, by the clock that stamps the files.
    """
    prefix = f"{root}/"
    for name in names:
        try:
            status = os.stat(prefix + name)  # noqa: PTH116 - pathlib takes three times as long
        except PermissionError:
            continue  # nobody can tell, and who reads it hears of it
        except OSError:
            return True
        # A rename keeps the time of the last write, and stamps the other one.
        if status.st_ctime_ns >= moment_ns or status.st_mtime_ns >= moment_ns:
            return True
    return False


def partitions_table(store: LakeStore) -> pa.Table:
    """Return one row per partition: its files and their bytes.

    Raises:
        FileNotFoundError: if a file vanished between listing and asking.
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
