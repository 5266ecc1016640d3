"""Compaction: fold all rows of a partition into its one file.

Our own files need no compaction: a merge leaves a partition sorted, unique and encoded
for storage. Compaction cleans up after other programs and crashed writers:

- Foreign files are folded into the partition's own file.
- A `candles.parquet` of another writer is re-encoded.
- Temporary files of crashed writers are removed.
- Further directories of a partition are folded into its own directory and removed. Their
  names have another day of the period, or are percent-encoded.

A foreign file stays as it is if it cannot be read or is of another series. It also
stays if one of its rows cannot be a candle of its partition. The other files are
folded, without rows that were not closed when the file was written. A file with rows
that have not ended yet stays until they have.

The result is checked before the replacement: the new bytes are decoded, and must
have the same keys as the files that they replace. No intent is recorded before
foreign files are unlinked: a second fold changes nothing, and a file that changed
meanwhile is kept. A file is unlinked under the lock of its own directory: an older
lakewriter takes that lock to write there.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from lakewriter.candle import IntArray, deduplicate, int_column
from lakewriter.engines.engine import Engine, ignore
from lakewriter.errors import LakeError
from lakewriter.interval import INTERVALS
from lakewriter.lake.durable import is_temporary, write_durably
from lakewriter.lake.fold_rows import NamedBytes, RowsToFold, rows_of_files
from lakewriter.lake.foreign_rows import MEND
from lakewriter.lake.lake import LakeStore, count_disputed
from lakewriter.lake.listing import PartitionDirs, candle_files
from lakewriter.lake.open import open_in_worker
from lakewriter.lake.parquet import decode, encode_next
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.prefetch import prefetch
from lakewriter.lake.remote.object_cache import strong_e_tag
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import StoreAwayError
from lakewriter.partition import Partition, is_candle_file
from lakewriter.regular_file import read_regular

# A cache of compacted partitions and their versions. It can be deleted at any time.
VERIFIED_NAME = "compacted.json"
# The file has about 130 bytes for each partition. A larger file is ignored.
VERIFIED_BYTES_MAX = 512 * 1024 * 1024

# So many partitions of an object store are compacted at once, each with the rows of all its
# files in memory: 86,400 candles of 1s take some 10 MB.
STORE_COMPACTIONS_MAX = 4

# So many partitions of a disk are compacted at once by each process: one decodes while others wait
# for their syncs. Partitions of more candles take too much memory for it: 1s has 86,400 a day.
DISK_COMPACTIONS_MAX = 3
SMALL_PARTITION_CANDLES_MAX = 10_000

# Partitions that are worth a way to another process.
CHUNK = 50


class VerifiedPartition(msgspec.Struct, frozen=True, array_like=True):
    """A partition that needs no compaction while its file has this version."""

    version: str
    rows: int
    file_bytes: int


class CompactionResult(NamedTuple):
    """The result of compacting one partition.

    Args:
        partition: the partition.
        rewritten: whether its file was replaced. A dry run reports what would be replaced.
        rows: number of rows in it afterwards.
        duplicates_removed: number of removed duplicate rows.
        files_removed: names of removed foreign and temporary files.
        bytes_before, bytes_after: bytes of all its files.
        version: the version of its one file afterwards, or "" if the file was not
            checked or a foreign file remains.
        error: why the partition or a foreign file stays as it is, or "" without an error.
        hint: a remedy for the error.
        not_closed: number of rows left out of foreign files because their candle is not closed.
        disputed: number of removed duplicates that differ from the kept row.
        directories_removed: number of removed further directories of the partition.
        is_away: whether the error is that the object store is away.
    """

    partition: Partition
    rewritten: bool = False
    rows: int = 0
    duplicates_removed: int = 0
    files_removed: tuple[str, ...] = ()
    bytes_before: int = 0
    bytes_after: int = 0
    version: str = ""
    error: str = ""
    hint: str = ""
    not_closed: int = 0
    disputed: int = 0
    directories_removed: int = 0
    is_away: bool = False


def planned_compactions(
    store: LakeStore, wanted: PartitionFilter = ALL
) -> Iterator[PartitionDirs | CompactionResult]:
    """Yield each partition to compact, and the result of each partition that needs no compaction.

    No candle file is opened. On an object store this takes the requests of the listing, and no
    other. The lake may be compacted meanwhile.
    """
    known = read_verified(store)

    def planned(found: PartitionDirs) -> PartitionDirs | CompactionResult:
        checked = _still_verified(store, found, known.get(found.partition.file))
        if checked is None:
            return found
        size = checked.file_bytes
        return CompactionResult(
            found.partition, rows=checked.rows, bytes_before=size, bytes_after=size, version=checked.version
        )

    return store.storage.in_parallel(planned, store.partitions(wanted))


def _still_verified(
    store: LakeStore, found: PartitionDirs, checked: VerifiedPartition | None
) -> VerifiedPartition | None:
    """Return the earlier check of a partition, if it still holds."""
    file = found.partition.file
    if checked is None:
        return None
    if found.versions:
        e_tag = strong_e_tag(found.versions.get(file, ""))
        is_same = len(found.versions) == 1 and e_tag and e_tag == strong_e_tag(checked.version)
        return checked if is_same else None
    if list(_ours_to_see(store, found)) != [file]:
        return None
    return checked if store.storage.version(file) == checked.version else None


def _ours_to_see(store: LakeStore, item: PartitionDirs) -> Iterator[str]:
    """Yield the candle files, temporary files and empty further directories of a partition.

    Other files, such as Spark's _SUCCESS, stay.
    """
    for directory in item.directories:
        listing = store.storage.entries(directory)
        if directory != item.partition.path and not listing.files and not listing.directories:
            yield directory
        for file in listing.files:
            if is_candle_file(file) or is_temporary(file):
                yield f"{directory}/{file}"


def sweep_state(store: LakeStore, now_s: float) -> None:
    """Remove stale temporary files of crashed writers from the state directory.

    Args:
        now_s: the time of the clock that stamps files, in seconds since the epoch.
    """
    below = store.state.entries(STATE_DIRECTORY).directories
    for directory in (STATE_DIRECTORY, *(f"{STATE_DIRECTORY}/{name}" for name in below)):
        store.state.sweep(directory, now_s)


def compact_partitions(
    store: LakeStore,
    work: Iterable[PartitionDirs],
    now_s: float,
    *,
    dry_run: bool = False,
    engine: Engine | None = None,
    advance: Callable[[int], None] = ignore,
) -> Iterator[CompactionResult]:
    """Compact the partitions, and yield their results in order.

    Args:
        now_s: the time of the clock that stamps files, in seconds since the epoch. Temporary
            files that are an hour older are stale.
        dry_run: whether to change nothing, and yield the results of a real run.
        engine: runs the compactions; None is this process, with this store.
        advance: is called with the number of partitions that are newly done.
    """
    if engine is not None and (engine.is_distributed or not store.is_remote):
        task = partial(_compact_chunk, store.uri, now_s, dry_run)
        yield from engine.map(task, work, chunk=CHUNK, advance=advance)
        return
    # With a store the work mostly waits; its client must not be used after a fork.
    compact = partial(compact_partition, store, now_s=now_s, dry_run=dry_run)
    for result in prefetch(compact, work, STORE_COMPACTIONS_MAX) if store.is_remote else map(compact, work):
        advance(1)
        yield result


def _compact_chunk(
    uri: str, now_s: float, dry_run: bool, chunk: list[PartitionDirs]
) -> list[CompactionResult]:
    """Compact partitions in a worker process, which may be on another host."""
    store = open_in_worker(uri)
    compact = partial(compact_partition, store, now_s=now_s, dry_run=dry_run)
    if len(chunk) == 1 or not (store.is_remote or all(map(_is_small, chunk))):
        return list(map(compact, chunk))
    return list(prefetch(compact, chunk, STORE_COMPACTIONS_MAX if store.is_remote else DISK_COMPACTIONS_MAX))


def _is_small(item: PartitionDirs) -> bool:
    """Return whether several such partitions may be in memory at once."""
    partition = item.partition
    candles = INTERVALS[partition.interval].count(partition.start_ms, partition.stop_ms)
    return candles <= SMALL_PARTITION_CANDLES_MAX


def compact_partition(
    store: LakeStore, item: PartitionDirs, now_s: float, *, dry_run: bool = False
) -> CompactionResult:
    """Fold a partition's files into its one file, unless no other file exists.

    Files without rows are removed. On an object store our own one stays.

    Crash: before the replacement all is as it was; after it, foreign files
    that were folded in may still be there and are folded in again by the next
    run, which changes no row. A plain glob sees their candles twice until then.
    """
    partition = item.partition
    known: dict[str, _FileToFold] = {}
    try:
        folded = store.change_partition(
            partition, lambda: _fold(store, item, now_s, known, dry_run=dry_run), dry_run=dry_run
        )
        return folded.result if dry_run else _without_folded(store, item, folded)
    except LakeError as error:
        is_away = isinstance(error, StoreAwayError)
        return CompactionResult(partition, error=error.what, hint=error.hint, is_away=is_away)
    except OSError as error:
        return CompactionResult(partition, error=f"{store.name}/{partition.path}: {error.strerror}")


class _FileToFold(NamedTuple):
    """A file whose rows are folded.

    Args:
        name: its name.
        version: its version.
        size: the number of its bytes.
        content: its rows.
        data: its bytes; only those of the partition's own file are kept.
    """

    name: str
    version: str
    size: int
    content: RowsToFold
    data: bytes = b""


class _Folded(NamedTuple):
    """The result for a partition's own file, and the files that may be removed now.

    The result of a dry run names these files as removed.
    """

    result: CompactionResult
    to_remove: list[_FileToFold]


def _fold(
    store: LakeStore, item: PartitionDirs, now_s: float, known: dict[str, _FileToFold], *, dry_run: bool
) -> _Folded:
    """Fold a partition's files into its one file.

    Args:
        known: the foreign files that an earlier attempt has read; this one adds its own.
    """
    partition = item.partition
    swept = tuple(
        name
        for directory in item.directories
        for name in store.storage.sweep(directory, now_s, dry_run=dry_run)
    )
    files, refused = _read(store, item, int(now_s * 1000), known)
    done, to_remove = _fold_files(store, partition, files, dry_run=dry_run)
    removed = [file.name for file in to_remove] if dry_run else []
    done = done._replace(files_removed=(*swept, *removed))
    if refused:
        # Without a version the next run checks the partition again.
        more = f" (and {len(refused) - 1} more of its files)" if len(refused) > 1 else ""
        done = done._replace(version="", error=refused[0] + more, hint=MEND)
    elif dry_run:
        done = done._replace(directories_removed=sum(each != partition.path for each in item.directories))
    return _Folded(done, to_remove)


def _fold_files(
    store: LakeStore, partition: Partition, files: list[_FileToFold], *, dry_run: bool
) -> _Folded:
    if not files:
        return _Folded(CompactionResult(partition), [])
    before = pa.concat_tables([file.content.rows for file in files]).combine_chunks()
    begins = int_column(before, "candle_begin_time")
    bytes_before = sum(file.size for file in files)
    own = next((file for file in files if file.name == partition.file), None)
    after = deduplicate(before)
    done = CompactionResult(
        partition,
        rows=after.num_rows,
        duplicates_removed=before.num_rows - after.num_rows,
        not_closed=sum(file.content.not_closed for file in files),
        disputed=0 if after is before else count_disputed(before, after),
        bytes_before=bytes_before,
    )
    unchanged = done._replace(bytes_after=bytes_before, duplicates_removed=0, disputed=0)
    if own is not None and own.content.may_close:  # another tool wrote it
        return _Folded(unchanged, [])
    to_remove = [file for file in files if file is not own and not file.content.may_close]
    if not after.num_rows and (own is None or not store.is_remote):
        # Our files have rows: `LakeStore.newest` relies on it.
        return _Folded(done, to_remove if own is None else [*to_remove, own])
    # A store deletes without a condition, so a row merged meanwhile would be lost: our file stays.
    if own is not None and not to_remove and own.content.is_ours:
        if len(files) == 1 and after is before:
            return _Folded(done._replace(bytes_after=bytes_before, version=own.version), [])
        if len(files) > 1 and after.equals(own.content.rows):  # an earlier run has folded what stays
            return _Folded(unchanged, [])
    data = encode_next(after, partition, own.data if own else None)
    _check_same_keys(partition, begins, data)
    version = ""
    if not dry_run:
        version = store.storage.replace(partition.file, data, own.version if own else None)
    # Without a version the next run checks the partition again.
    version = "" if any(file.content.may_close for file in files) else version
    done = done._replace(rewritten=True, bytes_after=len(data), version=version)
    return _Folded(done, to_remove)


def _read(
    store: LakeStore, item: PartitionDirs, now_ms: int, known: dict[str, _FileToFold]
) -> tuple[list[_FileToFold], list[str]]:
    """Return the files to fold, and the errors of the other files.

    A known file is not read again if it has the same version still. It may have changed, or
    `forget` may have removed it, so its version is looked at in each attempt.

    Raises:
        LakeError: if the partition's own file cannot be folded.
    """
    # Our file may be newer than the listing, and must be folded in.
    listed = item.versions and dict.fromkeys((*item.versions, item.partition.file))
    files: dict[str, _FileToFold] = {}
    fresh: dict[str, NamedBytes] = {}
    paths = listed or candle_files(store.storage, item.directories)
    for path in paths:
        if path in known and store.storage.version(path) == known[path].version:
            files[path] = known[path]
        elif (found := store.storage.read(path)) is not None:
            fresh[path] = NamedBytes(f"{store.name}/{path}", found, path == item.partition.file)
    refused = []
    contents = rows_of_files(item.partition, list(fresh.values()), now_ms)
    for (path, (_, found, is_own)), content in zip(fresh.items(), contents, strict=True):
        if isinstance(content, LakeError):
            if is_own:
                raise content
            refused.append(content.what)
            continue
        file = _FileToFold(path, found.version, len(found.data), content)
        files[path] = file._replace(data=found.data) if is_own else file
        if not is_own:
            known[path] = file
    return [files[path] for path in paths if path in files], refused


def _check_same_keys(partition: Partition, begins_before: IntArray, data: bytes) -> None:
    begins_after = int_column(decode(data, partition.file), "candle_begin_time")
    ascending = np.sort(begins_before, kind="stable")  # nearly sorted, so `np.unique` takes longer
    is_first = np.append(True, ascending[1:] != ascending[:-1])[: len(ascending)]
    if not np.array_equal(ascending[is_first], begins_after):
        raise LakeError(
            f"{partition}: the compacted file would not hold the same candles; nothing was changed"
        )


def _without_folded(store: LakeStore, item: PartitionDirs, folded: _Folded) -> CompactionResult:
    """Remove folded files, then empty further directories; return the complete result."""
    result, to_remove = folded
    gone: list[str] = []
    directories_removed = 0
    for directory in item.directories:
        files = [file for file in to_remove if file.name.rpartition("/")[0] == directory]
        is_further = directory != item.partition.path
        if not files and not is_further:
            continue
        with store.storage.exclusive(directory):
            # Another program may have changed a file meanwhile; the next run folds it.
            gone += store.storage.delete_unchanged({file.name: file.version for file in files})
            directories_removed += is_further and store.storage.prune(directory)
    return result._replace(
        files_removed=(*result.files_removed, *gone), directories_removed=directories_removed
    )


def read_verified(store: LakeStore) -> dict[str, VerifiedPartition]:
    """Return the verified partitions of earlier runs, by file name. An unreadable cache is empty."""
    try:
        data = read_regular(store.state_dir / STATE_DIRECTORY / VERIFIED_NAME, VERIFIED_BYTES_MAX)
        return msgspec.json.decode(data, type=dict[str, VerifiedPartition])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


class VerifiedList:
    """The verified partitions of a run, kept as encoded bytes: some 130 for each.

    Args:
        everything: whether the outcomes will be of all partitions. Otherwise the entries
            of other partitions are kept.
    """

    def __init__(self, store: LakeStore, *, everything: bool) -> None:
        self._store = store
        self._others = {} if everything else read_verified(store)
        self._encoded = bytearray()

    def add(self, outcome: CompactionResult) -> None:
        """Add a partition, if its outcome has a version."""
        if outcome.version:
            self._others.pop(outcome.partition.file, None)
            self._append(
                outcome.partition.file,
                VerifiedPartition(outcome.version, outcome.rows, outcome.bytes_after),
            )

    def _append(self, file: str, verified: VerifiedPartition) -> None:
        # One object of JSON with one key, without its braces.
        self._encoded += msgspec.json.encode({file: verified})[1:-1] + b","

    def write(self) -> None:
        """Replace the file.

        Raises:
            OSError: if the disk refuses.

        Crash: the old file or the new one is there, whole; either is right, since an
        entry holds only for its version.
        """
        for file, verified in self._others.items():
            self._append(file, verified)
        self._others = {}
        state = self._store.state_dir / STATE_DIRECTORY
        state.mkdir(exist_ok=True)
        write_durably(state / VERIFIED_NAME, b"{" + bytes(self._encoded[:-1]) + b"}")
