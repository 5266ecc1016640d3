"""The lake: its storage, its catalogue, and the merge of rows into its partitions.

All rows enter a partition's file through `LakeStore.merge` or `merge_many`, or with a
whole file of another lake through `put_copy`. `listing` finds the partitions, `storage` replaces files, and `parquet` encodes candles.
"""

import contextlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa

from lakewriter.candle import VALUE_COLUMNS, IntArray, deduplicate, int_column
from lakewriter.errors import LakeError
from lakewriter.lake.durable import make_directories
from lakewriter.lake.format import FORMAT_NAME, read_format, upgrade_format, write_format, write_stored_format
from lakewriter.lake.listing import Catalogue, LocalCatalogue, PartitionDirs, PartitionFiles
from lakewriter.lake.parquet import decode, decode_with_layout, encode_next, import_parquet, read_header
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.lake.root import (
    LOCKS_DIRECTORY,
    STATE_DIRECTORY,
    check_can_be_lake,
    check_is_lake,
    local_root,
)
from lakewriter.lake.storage import (
    ChangedError,
    LocalStorage,
    Replacement,
    Storage,
    StoreAwayError,
    StoredBytes,
)
from lakewriter.lake.unflushed import Unflushed, UnflushedCache
from lakewriter.partition import Partition, checked_partition
from lakewriter.series import Series

T = TypeVar("T")

# The ledgers of a host. On an object store `published` copies them to the lake.
LEDGER_DIRECTORIES = tuple(
    f"{STATE_DIRECTORY}/{name}" for name in ("gaps", "instruments", "subscriptions", "forgotten")
)
# On an object store each host reports its living recorders there.
RECORDERS_DIRECTORY = f"{STATE_DIRECTORY}/recorders"
LEDGER_SUFFIX = ".ndjson"

# An attempt fails if another writer replaced the file in between.
MERGE_TRIES_MAX = 20

# Limits of a batch, whose files are written and synced together. A batch keeps all its
# rows in memory, and other writers wait for its locks.
BATCH_PARTITIONS_MAX = 64
BATCH_ROWS_MAX = 1 << 20

# So many merges in a row may find the store away before the others are not tried. A single
# key that the store cannot serve stops no other.
AWAY_MERGES_MAX = 3

# So many partitions of an object store are joined and encoded at once, each with all its rows in
# memory. The others wait for the store, with one file each. More would delay other work.
STORE_JOINS_MAX = 2

# A merge that raises one of these may be retried; other partitions can be merged meanwhile.
MERGE_ERRORS = (LakeError, OSError, pa.ArrowException, MemoryError)


class Merged(NamedTuple):
    """The result of a merge.

    Args:
        rows: number of rows in the partition after the merge.
        added: number of keys that the partition lacked before.
        replaced: number of keys whose new row replaced an old one.
        corrections: number of replaced rows whose prices, volumes or trades changed.
        written: whether the file was replaced.
        disputed: number of new rows that differ from the kept row of their key.
    """

    rows: int
    added: int
    replaced: int
    corrections: int
    written: bool
    disputed: int = 0


class Difference(NamedTuple):
    """The difference that a merge of rows would make to a partition.

    Args:
        winners: the rows that the merge would add, or put in the place of old ones, sorted.
        missing: number of winners whose key the partition lacks.
        disputed: number of other rows that differ from the kept row of their key.
    """

    winners: pa.Table
    missing: int
    disputed: int


class _Change(NamedTuple):
    """The result of each merge into a partition, and the replacement to write.

    The replacement is None if no row changes.
    """

    merged: list[Merged]
    replacement: Replacement | None


class LakeStore:
    """A lake: its storage, the catalogue of its partitions, and its local state directory.

    Args:
        name: the lake's name in errors; `/` and a file's name may follow it.
        storage: reads and replaces its files.
        catalogue: lists its partitions.
        state_dir: the local directory whose `_lakewriter` has the journals. A lake
            on a disk has its root here.
        state: the local storage of the state directory, with its locks; None for the lake's own.
        endpoint, region: the object store's endpoint and region, or "" for the defaults.
        uri: the URI of a lake on an object store as the user wrote it. It may have credentials.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        catalogue: Catalogue,
        state_dir: Path,
        *,
        state: Storage | None = None,
        endpoint: str = "",
        region: str = "",
        uri: str = "",
    ) -> None:
        self.name = name
        self.storage = storage
        self.catalogue = catalogue
        self.state_dir = state_dir
        self.state = state or storage
        self.endpoint = endpoint
        self.region = region
        self._uri = uri
        self._has_our_format = False
        self._unflushed: UnflushedCache | None = None
        self.keeps_presence = False
        self._joins = threading.BoundedSemaphore(STORE_JOINS_MAX)

    @classmethod
    def local(cls, root: Path, storage: Storage | None = None) -> Self:
        """Return the lake in a directory. No file is opened or checked.

        Args:
            root: the directory, as a resolved path.
            storage: the storage of that directory, or None for a plain LocalStorage.
        """
        storage = storage or LocalStorage(root, root / LOCKS_DIRECTORY)
        return cls(str(root), storage, LocalCatalogue(storage), root)

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open an existing lake on a disk.

        Raises:
            LakeError: if the directory is absent, is not a lake, or has a newer format.
        """
        root = local_root(uri)
        check_is_lake(root, uri)
        read_format(root)
        return cls.local(root)

    @classmethod
    def open_or_empty(cls, uri: str) -> Self:
        """Open a lake to read. A lake that does not exist is empty, and is not created.

        Raises:
            LakeError: if the URI names no directory, or the lake has a newer format.
        """
        root = local_root(uri)
        if root.exists() and not root.is_dir():
            return cls.open(uri)
        check_can_be_lake(root, uri)
        read_format(root)
        return cls.local(root)

    @classmethod
    def create(cls, uri: str, created_by: str) -> Self:
        """Open a lake, and create the directories and files that it lacks.

        Raises:
            LakeError: if the lake cannot be created, is not a directory, or has a newer format.

        Crash: the next call makes a root without lake.json into a lake.
        """
        root = local_root(uri)
        check_can_be_lake(root, uri)
        import_parquet()
        try:
            make_directories(Path(root.anchor), root / LOCKS_DIRECTORY)
            write_format(root, created_by)
        except (FileExistsError, NotADirectoryError) as error:
            what = uri if error.filename in (None, str(root)) or root.is_file() else error.filename
            raise LakeError(
                f"lake: {what} is a file, not a directory", "give a directory with --lake"
            ) from None
        except OSError as error:
            raise LakeError(f"lake: {uri}: {error.strerror}", "give a writable one with --lake") from None
        store = cls.local(root)
        store._has_our_format = True
        return store

    @property
    def is_remote(self) -> bool:
        """Whether the lake is on an object store. Then none of its files has a local path."""
        return self.storage.is_remote

    @property
    def uri(self) -> str:
        """The URI that opens this lake in another process. It may have credentials."""
        return self._uri if self.is_remote else str(self.root)

    @property
    def root(self) -> Path:
        """The directory of a lake on a disk.

        Raises:
            LakeError: if the lake is on an object store.
        """
        return self.storage.root

    def files(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield the partitions that have files, sorted by path; see `Catalogue`."""
        return self.catalogue.files(wanted)

    def newest(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        """Yield the newest partitions of each series; see `Catalogue`."""
        return self.catalogue.newest(wanted)

    def ends(self, wanted: PartitionSelection, *, of_days: bool) -> Iterator[PartitionFiles]:
        """Yield partitions that include the first and the last wanted rows of each series; see `Catalogue`."""
        return self.catalogue.ends(wanted, self._has_rows, of_days=of_days)

    def _has_rows(self, name: str) -> bool:
        """Return whether one of our own files has rows. A read of an unreadable file raises later."""
        found = self.storage.read(name)
        try:
            return found is not None and read_header(found.data, f"{self.name}/{name}").rows > 0
        except LakeError:
            return False

    def partitions(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionDirs]:
        """Yield every partition and its directories, sorted by path; see `Catalogue`."""
        return self.catalogue.partitions(wanted)

    def partition_sizes(self) -> Iterator[tuple[Partition, list[int]]]:
        """Yield every partition that has files, and the size of each file in bytes; see `Catalogue`."""
        return self.catalogue.partition_sizes()

    def series(self, wanted: PartitionSelection = ALL) -> list[Series]:
        """Return the series that have a directory, sorted; see `Catalogue`."""
        return self.catalogue.series(wanted)

    def keep_unflushed(self) -> None:
        """Start to cache the decoded journals, for a reader that often reads them."""
        self._unflushed = UnflushedCache(self.state_dir)

    def keep_presence(self) -> None:
        """Start to write what a survey of all series reads into `presence.cache`, which all surveys read."""
        self.keeps_presence = True

    def unflushed(self) -> Unflushed:
        """Return the unflushed candles. Call this before you list files; see `read_unflushed`.

        Raises:
            LakeError: if recorders drop segments at every attempt.
        """
        return (self._unflushed or UnflushedCache(self.state_dir)).read()

    def away_error(self) -> StoreAwayError | None:
        """Ask the store with one request. Return the error if it is away; a refusal is an answer."""
        try:
            self.storage.version(FORMAT_NAME)
        except StoreAwayError as error:
            return error
        except LakeError:
            pass
        return None

    def ledgers(self, *, whole: bool = False) -> contextlib.AbstractContextManager[Path]:
        """Return a context with a local directory that has the lake's ledgers in `_lakewriter`.

        On an object store these are the published ones; `published.current_ledgers` adds
        the newest ones of this host. `whole` is as for `Storage.local_copy`.
        """
        return self.storage.local_copy((*LEDGER_DIRECTORIES, RECORDERS_DIRECTORY), LEDGER_SUFFIX, whole=whole)

    def read(self, partition: Partition) -> pa.Table | None:
        """Return the rows of the partition's own file, or None if the file does not exist.

        Raises:
            LakeError: if the file is unreadable.
        """
        found = self.storage.read(partition.file)
        return None if found is None else decode(found.data, f"{self.name}/{partition.file}")

    def merge(self, partition: Partition, rows: pa.Table) -> Merged:
        """Merge rows into a partition: read its file, join by key, sort, and replace the file.

        Args:
            rows: rows of SCHEMA whose begin times lie in the partition's period.
                They may have any order and duplicates.

        Raises:
            LakeError: if the old file is unreadable, or a row is of another period. The
                old file then stays as it is.

        Crash: at any step the partition is as before or as after, whole;
        merging the same rows again changes nothing.
        """
        checked_partition(partition)
        check_rows_inside(partition, int_column(rows, "candle_begin_time"))
        return self.with_exclusive_retry(partition, lambda: self._merge_once(partition, [rows]))[0]

    def merge_many(self, items: Sequence[tuple[Partition, pa.Table]]) -> list[Merged | Exception]:
        """Merge rows into many partitions; this takes less time than one `merge` for each.

        An error in one partition does not stop the others. On a disk, the files of a batch
        (see BATCH_PARTITIONS_MAX) are synced together. On an object store, each partition is
        read, joined and replaced apart from the others, and many requests are pending. If the
        store is away, the rest is not tried.

        Args:
            items: pairs of a partition and its rows. Rows of one partition are merged in
                order. A batch or store reads and writes each partition once.

        Returns:
            the result or the error of each merge, in the order of the items.

        Crash: at any step each partition is as before or as after, whole;
        merging the same rows again changes nothing.
        """
        if self.is_remote:
            return self._merge_on_store(items)
        results: list[Merged | Exception] = []
        for batch in _batches(items):
            try:
                results += self._merge_batch(batch)
            except MERGE_ERRORS:
                # Single merges show which item failed. They change nothing in merged partitions.
                results += [self._merge_or_error(*item) for item in batch]
        return results

    def _merge_batch(self, items: Sequence[tuple[Partition, pa.Table]]) -> list[Merged]:
        for partition, rows in items:
            checked_partition(partition)
            check_rows_inside(partition, int_column(rows, "candle_begin_time"))
        self._upgrade_format()
        parts = _by_partition(items)
        with self.storage.exclusive(*(partition.path for partition in parts)):
            stored = self.storage.in_parallel(self.storage.read, [partition.file for partition in parts])
            changes = {
                partition: self._change(partition, tables, found)
                for (partition, tables), found in zip(parts.items(), stored, strict=True)
            }
            replacements = [each.replacement for each in changes.values() if each.replacement is not None]
            versions = self.storage.replace_all(replacements)
        overtaken = {
            replacement.name
            for replacement, version in zip(replacements, versions, strict=True)
            if version is None
        }
        merged = {partition: iter(change.merged) for partition, change in changes.items()}
        return [
            # A writer without our locks changed the file meanwhile.
            self.merge(partition, rows) if partition.file in overtaken else next(merged[partition])
            for partition, rows in items
        ]

    def _merge_on_store(self, items: Sequence[tuple[Partition, pa.Table]]) -> list[Merged | Exception]:
        try:
            self._upgrade_format()  # once, not in each thread
        except MERGE_ERRORS as error:
            return [error] * len(items)
        parts = _by_partition(items)
        in_a_row: list[StoreAwayError] = []
        away: list[StoreAwayError] = []

        def merge(partition: Partition) -> Sequence[Merged | Exception]:
            if away:
                return away[:1] * len(parts[partition])
            done = self._merge_parts(partition, parts[partition])
            if isinstance(done[-1], StoreAwayError):
                in_a_row.append(done[-1])
                if len(in_a_row) >= AWAY_MERGES_MAX:
                    away.append(done[-1])
            else:
                in_a_row.clear()
            return done

        merged = self.storage.in_parallel(merge, parts)
        results = dict(zip(parts, map(iter, merged), strict=True))
        return [next(results[partition]) for partition, _ in items]

    def _merge_parts(self, partition: Partition, parts: list[pa.Table]) -> Sequence[Merged | Exception]:
        """Merge parts of one partition with one replacement; return the result or error of each."""
        try:
            checked_partition(partition)
            for rows in parts:
                check_rows_inside(partition, int_column(rows, "candle_begin_time"))
            if _are_first(partition, parts):
                # Then the partition is likely new, and its file need not be looked for first.
                with contextlib.suppress(ChangedError):
                    return self._replace(partition, parts, None)
            return self.with_exclusive_retry(partition, lambda: self._merge_once(partition, parts))
        except MERGE_ERRORS as error:
            # Single merges show which part failed.
            return [self._merge_or_error(partition, rows) for rows in parts] if len(parts) > 1 else [error]

    def _merge_or_error(self, partition: Partition, rows: pa.Table) -> Merged | Exception:
        try:
            return self.merge(partition, rows)
        except MERGE_ERRORS as error:
            return error

    def put_copy(self, partition: Partition, data: bytes) -> bool:
        """Put a whole file of another lake into a partition that has no file of its own.

        Args:
            data: the file, which the caller has decoded and checked. It has at least one row.

        Returns:
            whether the file was written. False means that the partition has a file by now.

        Raises:
            LakeError: if the store refuses.
            OSError: if the disk refuses.

        Crash: the file is absent or whole; on a disk a temporary file may be left.
        """
        checked_partition(partition)

        def put() -> bool:
            try:
                self.storage.replace(partition.file, data, None)
            except ChangedError:
                return False
            return True

        return self.with_exclusive_retry(partition, put)

    def change_partition(self, partition: Partition, once: Callable[[], T], *, dry_run: bool) -> T:
        """Change a partition's files under its lock, and return the result of `once`.

        Args:
            once: as for `with_exclusive_retry`.
            dry_run: whether `once` changes nothing. Then no lock is taken.

        Raises:
            LakeError: if `once` raises one, the disk refuses, or the file changes at every attempt.
        """
        try:
            return once() if dry_run else self.with_exclusive_retry(partition, once)
        except OSError as error:
            raise LakeError(f"{self.name}/{partition.path}: {error.strerror}") from None

    def with_exclusive_retry(self, partition: Partition, once: Callable[[], T]) -> T:
        """Read and replace a partition's file under its lock, and return the result of `once`.

        Args:
            once: reads and replaces the file. A retry calls it again if a writer
                without our locks changed the file in between.

        Raises:
            LakeError: if the file changes at every attempt.
        """
        self._upgrade_format()
        for attempt in range(MERGE_TRIES_MAX):
            with self.storage.exclusive(partition.path):
                try:
                    return once()
                except ChangedError:
                    pass
            time.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 6)))  # noqa: S311 - jitter
        raise LakeError(f"{partition}: changed under {MERGE_TRIES_MAX} merges in a row")

    def _upgrade_format(self) -> None:
        """Upgrade the lake's format before the first write."""
        if not self._has_our_format:
            if self.is_remote:
                write_stored_format(self.storage, self.name, None)
            else:
                upgrade_format(self.root)
            self._has_our_format = True

    def sweep(self, partition: Partition) -> None:
        """Remove temporary files of crashed writers from a partition.

        While we hold the partition's lock, none of its temporary files has a living writer.
        """
        with self.storage.exclusive(partition.path):
            self.storage.sweep(partition.path, math.inf)

    def _merge_once(self, partition: Partition, parts: Sequence[pa.Table]) -> list[Merged]:
        return self._replace(partition, parts, self.storage.read(partition.file))

    def _replace(
        self, partition: Partition, parts: Sequence[pa.Table], found: StoredBytes | None
    ) -> list[Merged]:
        with self._joins if self.is_remote else contextlib.nullcontext():
            change = self._change(partition, parts, found)
        if change.replacement is not None:
            self.storage.replace(*change.replacement)
        return change.merged

    def _change(self, partition: Partition, parts: Sequence[pa.Table], found: StoredBytes | None) -> _Change:
        table = layout = version = None
        if found is not None:
            table, layout = decode_with_layout(found.data, f"{self.name}/{partition.file}")
            version = found.version
        done = []
        for rows in parts:
            table, merged = _joined(table, rows)
            done.append(merged)
        if table is None or not any(merged.written for merged in done):
            return _Change(done, None)
        return _Change(done, Replacement(partition.file, encode_next(table, partition, layout), version))


def _are_first(partition: Partition, parts: Sequence[pa.Table]) -> bool:
    """Return whether the partition's period begins with one of the rows."""
    begins = (int_column(rows, "candle_begin_time") for rows in parts)
    return any(partition.start_ms in each for each in begins)


def _by_partition(items: Sequence[tuple[Partition, pa.Table]]) -> dict[Partition, list[pa.Table]]:
    parts: dict[Partition, list[pa.Table]] = {}
    for partition, rows in items:
        parts.setdefault(partition, []).append(rows)
    return parts


def _batches(items: Sequence[tuple[Partition, pa.Table]]) -> Iterator[Sequence[tuple[Partition, pa.Table]]]:
    first = rows = 0
    partitions: set[Partition] = set()
    for place, (partition, table) in enumerate(items):
        partitions.add(partition)
        rows += table.num_rows
        if place > first and (len(partitions) > BATCH_PARTITIONS_MAX or rows > BATCH_ROWS_MAX):
            yield items[first:place]
            first, rows, partitions = place, table.num_rows, {partition}
    if items:
        yield items[first:]


def _joined(old: pa.Table | None, rows: pa.Table) -> tuple[pa.Table | None, Merged]:
    """Return a partition's rows after a merge, and the merge's result.

    Args:
        old: the rows before the merge, or None if the partition has no file.
    """
    if old is None:
        result = deduplicate(rows) if rows.num_rows else None
        count = 0 if result is None else result.num_rows
        return result, Merged(count, count, 0, 0, written=count > 0)
    both = pa.concat_tables([old, rows])
    if _is_appended(old, rows):
        return both, Merged(both.num_rows, rows.num_rows, 0, 0, written=True)
    result = deduplicate(both)
    merged = _compare(old, result)
    if merged.added < rows.num_rows:
        merged = merged._replace(disputed=count_disputed(deduplicate(rows), result))
    # A foreign file may have duplicates. Duplicates alone do not cause a rewrite.
    return (result if merged.written else old), merged


def _is_appended(old: pa.Table, rows: pa.Table) -> bool:
    """Return whether new rows follow the old ones, as in most flushes. Both are sorted and unique then."""
    if not rows.num_rows or not old.num_rows:
        return False
    before, after = (int_column(each, "candle_begin_time") for each in (old, rows))
    return bool(after[0] > before[-1] and (before[1:] > before[:-1]).all() and (after[1:] > after[:-1]).all())


def _compare(old: pa.Table, new: pa.Table) -> Merged:
    """Compare a partition's rows before and after a merge.

    Every key of `old` is in `new`.
    """
    added = new.num_rows - old.num_rows
    if new.slice(0, old.num_rows).equals(old):
        return Merged(new.num_rows, added, 0, 0, written=added > 0)
    old = deduplicate(old)
    was_there = np.isin(int_column(new, "candle_begin_time"), int_column(old, "candle_begin_time"))
    kept = new.filter(pa.array(was_there))
    differs = _rows_differ(kept, old, tuple(kept.column_names))
    corrected = _rows_differ(kept, old, VALUE_COLUMNS)
    return Merged(
        new.num_rows, new.num_rows - kept.num_rows, int(differs.sum()), int(corrected.sum()), written=True
    )


def difference(old: pa.Table, rows: pa.Table) -> Difference:
    """Return the difference that a merge of rows would make to the rows of a partition.

    Args:
        old: all rows of the partition, in any order and with duplicates.
        rows: the rows to merge, one for each key.
    """
    old = deduplicate(old)
    result = deduplicate(pa.concat_tables([old, rows]))
    was_there = np.isin(int_column(result, "candle_begin_time"), int_column(old, "candle_begin_time"))
    wins = ~was_there
    wins[was_there] = _rows_differ(result.filter(pa.array(was_there)), old, tuple(old.column_names))
    return Difference(result.filter(pa.array(wins)), int((~was_there).sum()), count_disputed(rows, result))


def count_disputed(rows: pa.Table, result: pa.Table) -> int:
    """Count the rows whose prices, volumes or trades differ from the kept row.

    A null or NaN on either side is not a difference.
    """
    at = np.searchsorted(int_column(result, "candle_begin_time"), int_column(rows, "candle_begin_time"))
    differs = np.zeros(rows.num_rows, dtype=np.bool_)
    for name in VALUE_COLUMNS:
        left, right = rows[name].to_numpy(), result[name].to_numpy()[at]
        differs |= (left != right) & (left == left) & (right == right)
    return int(differs.sum())


def _rows_differ(
    one: pa.Table, other: pa.Table, columns: tuple[str, ...]
) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    differs = np.zeros(one.num_rows, dtype=np.bool_)
    for name in columns:
        left = one[name].to_numpy()
        right = other[name].to_numpy()
        # Two nulls are equal, and so are two NaNs of a foreign file.
        differs |= (left != right) & ~((left != left) & (right != right))
    return differs


def check_rows_inside(partition: Partition, begins: IntArray) -> None:
    """Raise if rows belong in another partition.

    Raises:
        LakeError: if a begin time lies outside of the partition's period.
    """
    outside = begins[(begins < partition.start_ms) | (begins >= partition.stop_ms)]
    if len(outside):
        raise LakeError(
            f"{partition}: {len(outside)} of its rows begin {'on' if partition.period == 'day' else 'in'}"
            f" another {partition.period}",
            f"nothing was changed; look at {partition.path}",
        )
