"""Files of the archive → the lake: bounded downloads, each checked, parsed and merged.

Rule 1: a file is imported whole or not at all, so that whoever is stopped goes
on at the next file: what the lake has is not asked for again. Rule 2: a file that
cannot be used is fetched again, and then given up with one line; REST is asked
for its candles. Rule 3: nothing waits for a merge but the downloads, of which
there are few.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.backfill.market_info import FILE_TRIES_MAX, asking
from lakewriter.backfill.plan import PlannedFile, days
from lakewriter.backfill.progress import Progress
from lakewriter.binance.archive import ArchiveClient, ArchiveError
from lakewriter.binance.archive_csv import CsvError, parse_csv, unzip
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.candle import int_column
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import Partition, day_of
from lakewriter.ranges import Range
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Downloads under way at once. The archive documents no limit.
DOWNLOADS = 8

# A file whose bytes cannot be read is fetched so often: it may have been replaced just then.
READS_MAX = 3

# So many files refused in a row mean that the archive is away.
REFUSALS_MAX = 3

# Parsed files that wait to be merged, and how many are merged in one go.
WAITING_MAX = 32
BATCH_FILES = 16

# What the zips that are under way may weigh together, from before their download
# until after their merge; a larger one goes alone. Unpacked and parsed, they take
# some eight times as much memory.
UNDER_WAY_BYTES_MAX = 64 * 1024 * 1024

# The first files that are given up are named; more are counted.
_NAMED_MAX = 20

# Partitions and their rows; a day that a month's file has only in part is left out.
Days = list[tuple[Partition, pa.Table]]


class Parsed(NamedTuple):
    """A file that can be merged."""

    planned: PlannedFile
    days: Days


class FileImport:
    """Imports files, several at once.

    Args:
        store: the lake.
        archive: the way to each market's archive, by the market's name.
        progress: counts.
        done: told of each file that is in the lake or given up.
        clock: stamps the candles.

    Attributes:
        given_up: the ranges of files that could not be used, by series.
    """

    def __init__(
        self,
        store: LakeStore,
        archive: Callable[[str], ArchiveClient],
        progress: Progress,
        done: Callable[[PlannedFile], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.given_up: dict[Series, list[Range]] = {}
        self._store = store
        self._archive = archive
        self._progress = progress
        self._done = done
        self._clock = clock
        self._refusals = 0
        self._under_way_bytes = 0
        self._room = asyncio.Condition()
        self._parsed: asyncio.Queue[Parsed] = asyncio.Queue(WAITING_MAX)

    async def run(self, files: Iterator[PlannedFile], downloads: int = DOWNLOADS) -> None:
        """Import all files; return when each is in the lake or given up."""
        async with asyncio.TaskGroup() as tasks:
            merging = tasks.create_task(self._merge_all())
            async with asyncio.TaskGroup() as downloading:
                for _ in range(downloads):
                    downloading.create_task(self._download(files))
            await self._parsed.join()
            merging.cancel()

    async def _download(self, files: Iterator[PlannedFile]) -> None:
        for planned in files:
            self._progress.current = planned.file.name
            await self._admit(planned.bytes)
            try:
                found = await self._read(planned)
            except (ArchiveError, CsvError) as error:
                self._give_up(planned, error)
                await self._finished(planned)
            else:
                await self._parsed.put(Parsed(planned, found))

    async def _read(self, planned: PlannedFile) -> Days:
        """Fetch a file and return its days.

        Raises:
            ArchiveError, CsvError: if it stays without use.
        """
        file = planned.file
        archive = self._archive(file.series.market)
        # When several were refused in a row, the archive is away: nobody waits for it any more.
        tries_max = FILE_TRIES_MAX if self._refusals < REFUSALS_MAX else 1
        for read in range(1, READS_MAX + 1):
            data = await asking(lambda: archive.fetch(file), self._retried, tries_max=tries_max)
            self._refusals = 0
            try:
                return await asyncio.to_thread(read_zip, data, planned, self._clock.wall_us())
            except CsvError:
                if read == READS_MAX:
                    raise
                self._retried()
        raise AssertionError

    async def _merge_all(self) -> None:
        while True:
            batch = [await self._parsed.get()]
            while len(batch) < BATCH_FILES and not self._parsed.empty():
                batch.append(self._parsed.get_nowait())
            await asyncio.to_thread(self._merge, [day for each in batch for day in each.days])
            for parsed in batch:
                self._progress.from_archive += sum(rows.num_rows for _, rows in parsed.days)
                await self._finished(parsed.planned)
                self._parsed.task_done()

    def _merge(self, found: Days) -> None:
        try:
            self._progress.corrections += sum(each.corrections for each in self._store.merge_many(found))
        except LakeError:
            # One of them is at fault. To merge the others again changes nothing.
            for partition, rows in found:
                try:
                    self._progress.corrections += self._store.merge(partition, rows).corrections
                except LakeError as error:
                    self._progress.failed(partition, error)

    async def _admit(self, size: int) -> None:
        """Wait until there is room for a file."""
        async with self._room:
            await self._room.wait_for(
                lambda: not self._under_way_bytes or self._under_way_bytes + size <= UNDER_WAY_BYTES_MAX
            )
            self._under_way_bytes += size

    async def _finished(self, planned: PlannedFile) -> None:
        async with self._room:
            self._under_way_bytes -= planned.bytes
            self._room.notify_all()
        self._progress.files += 1
        self._progress.file_bytes += planned.bytes
        await self._done(planned)

    def _retried(self) -> None:
        self._progress.retried += 1

    def _give_up(self, planned: PlannedFile, error: ArchiveError | CsvError) -> None:
        self.given_up.setdefault(planned.file.series, []).append((planned.start_ms, planned.stop_ms))
        fault = error.fault if isinstance(error, ArchiveError) else error.kind
        self._refusals += fault in ("refused", "network")
        self._progress.refused[fault] += 1
        # What is absent was listed a moment ago, or nobody could list it: no news either way.
        if fault != "absent" and sum(self._progress.refused.values()) <= _NAMED_MAX:
            log.warning("%s; REST is asked for its candles", error)


def read_zip(data: bytes, planned: PlannedFile, recv_us: int) -> Days:
    """Return the wanted rows of an archive file by partition.

    Of a month's file, days with fewer rows than their grid has are left out: such
    files have been seen with days that are wrong where the day's own file is right.
    If nobody else has them, what there is of them is better than nothing.

    Raises:
        CsvError: if it is no zip of the file's candles.
    """
    file = planned.file
    table = parse_csv(unzip(data, file.name, file.csv_bytes_max), file.series, recv_us, file.name)
    begins = int_column(table, "candle_begin_time")
    if len(begins) and not (file.start_ms <= begins[0] and begins[-1] < file.stop_ms):
        raise CsvError("time", f"{file.name}: has candles of another time: {day_of(int(begins[0]))}")
    found = []
    for day in days(planned.start_ms, planned.stop_ms):
        partition = Partition(*file.series, day)
        start_ms, stop_ms = max(partition.start_ms, planned.start_ms), min(partition.stop_ms, planned.stop_ms)
        low, high = np.searchsorted(begins, (start_ms, stop_ms)).tolist()
        if low < high and (file.period == "daily" or planned.alone or _is_whole(file, partition, high - low)):
            found.append((partition, table.slice(low, high - low)))
    return found


def _is_whole(file: ArchiveFile, partition: Partition, rows: int) -> bool:
    grid = file.series.grid
    # Longer candles than a day have no day that could be short.
    longer = not grid.length_ms or grid.length_ms > DAY_MS
    return longer or rows == grid.count(partition.start_ms, partition.stop_ms)
