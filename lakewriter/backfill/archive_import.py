"""Download, check, parse and merge files of the archive.

Rule 1: a file is imported whole or not at all. A stopped backfill continues at the next
file, because it fetches only candles that the lake lacks. Files of one partition are merged
with one write.
Rule 2: an unusable file is fetched again. If it is still unusable, it is given up with one
log line. REST then serves its candles.
Rule 3: only downloads wait for merges.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import date
from itertools import groupby

import numpy as np
import pyarrow as pa

from lakewriter.backfill.market_info import FILE_TRIES_MAX, ask_with_retry
from lakewriter.backfill.plan import PlannedFile, days_between
from lakewriter.backfill.progress import Progress
from lakewriter.binance.archive import ArchiveClient, ArchiveError
from lakewriter.binance.archive_csv import CsvError, parse_csv, unzip
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.candle import int_column
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore, Merged
from lakewriter.partition import Partition, day_of, day_range, partition_at, split_by_partition
from lakewriter.ranges import Range
from lakewriter.series import Series

log = logging.getLogger(__name__)

# The number of concurrent downloads. The archive documents no limit.
DOWNLOADS = 8

# The maximum fetches of an unreadable file. The archive may have replaced it during a fetch.
READS_MAX = 3

# After this many refused files in a row, the archive counts as unavailable.
REFUSALS_MAX = 3

# The maximum file groups that wait for a merge, and the groups of one merge.
READ_GROUPS_MAX = 32
BATCH_GROUPS = 16

# The maximum bytes of pending zips. A zip is pending from before its download until after
# its merge. A larger zip is imported alone. Parsed candles take about eight times the
# memory of their zip.
PENDING_BYTES_MAX = 64 * 1024 * 1024

# The maximum given-up files that the log names. Further ones are only counted.
_NAMED_MAX = 20

# Partitions and their rows, without days that are incomplete in a monthly file.
PartitionRows = list[tuple[Partition, pa.Table]]


class FileGroup:
    """Files that are merged together: either those of one partition, or a single file.

    Args:
        planned: the files.

    Attributes:
        rows: the rows of the files that were read.
        pending: the number of files that are neither read nor given up.
    """

    def __init__(self, planned: list[PlannedFile]) -> None:
        self.planned = planned
        self.rows: PartitionRows = []
        self.pending = len(planned)

    @property
    def reserves_until_merged(self) -> bool:
        """Whether the group's bytes stay reserved after parsing, until the merge.

        The bytes of several files are released after parsing, because such files have few
        rows. Otherwise a file could wait for the bytes of another file of its group.
        """
        return len(self.planned) == 1


class FileImport:
    """Imports files concurrently.

    Args:
        store: the lake.
        archive: returns a market's archive client, by the market's name.
        progress: counters to update.
        on_file_done: called for each file that is in the lake or given up.
        clock: the source of the candles' receive time.
        downloads: the number of concurrent downloads.

    Attributes:
        given_up: the ranges of unusable files, by series.
    """

    def __init__(
        self,
        store: LakeStore,
        archive: Callable[[str], ArchiveClient],
        progress: Progress,
        on_file_done: Callable[[PlannedFile], Awaitable[None]],
        clock: Clock,
        downloads: int = DOWNLOADS,
    ) -> None:
        self._downloads = downloads
        self.given_up: dict[Series, list[Range]] = {}
        self._store = store
        self._archive = archive
        self._progress = progress
        self._on_file_done = on_file_done
        self._clock = clock
        self._refusals = 0
        self._pending_bytes = 0
        self._pending_changed = asyncio.Condition()
        self._read_groups: asyncio.Queue[FileGroup] = asyncio.Queue(READ_GROUPS_MAX)

    async def run(self, files: Iterator[PlannedFile]) -> None:
        """Import all files; return when each is in the lake or given up."""
        async with asyncio.TaskGroup() as tasks:
            merging = tasks.create_task(self._merge_all())
            todo = ((planned, group) for group in file_groups(files) for planned in group.planned)
            async with asyncio.TaskGroup() as downloading:
                for _ in range(self._downloads):
                    downloading.create_task(self._download(todo))
            await self._read_groups.join()
            merging.cancel()

    async def _download(self, todo: Iterator[tuple[PlannedFile, FileGroup]]) -> None:
        for planned, group in todo:
            self._progress.current = planned.file.name
            await self._reserve(planned.bytes)
            try:
                group.rows.extend(await self._read(planned))
            except (ArchiveError, CsvError) as error:
                self._give_up(planned, error)
            if not group.reserves_until_merged:
                await self._release(planned)
            group.pending -= 1
            if not group.pending:
                await self._read_groups.put(group)

    async def _read(self, planned: PlannedFile) -> PartitionRows:
        """Fetch a file and return its rows by partition.

        Raises:
            ArchiveError, CsvError: if the file is unusable after all tries.
        """
        file = planned.file
        archive = self._archive(file.series.market)
        # An archive that counts as unavailable is not retried.
        tries_max = FILE_TRIES_MAX if self._refusals < REFUSALS_MAX else 1
        for tried in range(1, READS_MAX + 1):
            data = await ask_with_retry(lambda: archive.fetch(file), self._count_retry, tries_max=tries_max)
            self._refusals = 0
            try:
                return await asyncio.to_thread(read_zip, data, planned, self._clock.wall_us())
            except CsvError:
                if tried == READS_MAX:
                    raise
                self._count_retry()
        raise AssertionError

    async def _merge_all(self) -> None:
        while True:
            batch = [await self._read_groups.get()]
            while len(batch) < BATCH_GROUPS and not self._read_groups.empty():
                batch.append(self._read_groups.get_nowait())
            await asyncio.to_thread(self._merge, [part for group in batch for part in group.rows])
            for group in batch:
                self._progress.from_archive += sum(rows.num_rows for _, rows in group.rows)
                for planned in group.planned:
                    if group.reserves_until_merged:
                        await self._release(planned)
                    await self._finish(planned)
                self._read_groups.task_done()

    def _merge(self, found: PartitionRows) -> None:
        for (partition, _), result in zip(found, self._store.merge_many(found), strict=True):
            if isinstance(result, Merged):
                self._progress.corrections += result.corrections
            elif isinstance(result, LakeError):
                self._progress.add_unmerged(partition, result)
            else:
                raise result

    async def _reserve(self, size: int) -> None:
        """Wait until the pending bytes allow a file of this size, then add its size to them."""
        async with self._pending_changed:
            await self._pending_changed.wait_for(
                lambda: not self._pending_bytes or self._pending_bytes + size <= PENDING_BYTES_MAX
            )
            self._pending_bytes += size

    async def _release(self, planned: PlannedFile) -> None:
        """Subtract a file's size from the pending bytes."""
        async with self._pending_changed:
            self._pending_bytes -= planned.bytes
            self._pending_changed.notify_all()

    async def _finish(self, planned: PlannedFile) -> None:
        self._progress.files += 1
        self._progress.file_bytes += planned.bytes
        await self._on_file_done(planned)

    def _count_retry(self) -> None:
        self._progress.retried += 1

    def _give_up(self, planned: PlannedFile, error: ArchiveError | CsvError) -> None:
        self.given_up.setdefault(planned.file.series, []).append((planned.start_ms, planned.stop_ms))
        fault = error.fault if isinstance(error, ArchiveError) else error.kind
        self._refusals += fault in ("refused", "network")
        self._progress.refused[fault] += 1
        # An absent file was removed after the listing, or the archive gave no list. Neither
        # is a fault.
        if fault != "absent" and sum(self._progress.refused.values()) <= _NAMED_MAX:
            log.warning("%s; its candles are fetched from REST", error)


def file_groups(files: Iterable[PlannedFile]) -> Iterator[FileGroup]:
    """Yield files in groups that are merged together.

    Args:
        files: sorted by series, then by time.
    """

    def partition(planned: PlannedFile) -> tuple[Partition, int]:
        first = partition_at(planned.file.series, planned.file.start_ms)
        # A file of several partitions forms its own group.
        return first, 0 if planned.file.stop_ms <= first.stop_ms else planned.file.start_ms

    for _, planned in groupby(files, partition):
        yield FileGroup(list(planned))


def read_zip(data: bytes, planned: PlannedFile, recv_us: int) -> PartitionRows:
    """Return the planned rows of an archive file by partition.

    A monthly file can lack rows of a day. Some such days are wrong, while their daily files
    are right. So these days are left out, unless the file is their only source.

    Raises:
        CsvError: if the data is no zip of the file's candles.
    """
    file = planned.file
    table = parse_csv(unzip(data, file.name, file.csv_bytes_max).text, file.series, recv_us, file.name)
    begins = int_column(table, "candle_begin_time")
    if len(begins) and not (file.start_ms <= begins[0] and begins[-1] < file.stop_ms):
        raise CsvError("time", f"{file.name}: has candles of another time: {day_of(int(begins[0]))}")
    days_found = []
    for day in days_between(planned.start_ms, planned.stop_ms):
        start_ms, stop_ms = day_range(day)
        bounds = max(start_ms, planned.start_ms), min(stop_ms, planned.stop_ms)
        low, high = np.searchsorted(begins, bounds).tolist()
        if low < high and (file.period == "daily" or planned.only_source or _is_whole(file, day, high - low)):
            days_found.append(table.slice(low, high - low))
    return split_by_partition(file.series, pa.concat_tables(days_found)) if days_found else []


def _is_whole(file: ArchiveFile, day: date, row_count: int) -> bool:
    grid = file.series.grid
    # Candles longer than a day have no incomplete days.
    longer = not grid.length_ms or grid.length_ms > DAY_MS
    return longer or row_count == grid.count(*day_range(day))
