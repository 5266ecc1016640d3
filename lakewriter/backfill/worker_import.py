"""The import of archive files by a worker process, which may run on another machine.

A worker asks the archive only. It never asks REST: the exchange counts REST's weight by
address, and only the command itself keeps count of it.

Files may be imported twice, also at once: the second import merges the same rows, and
changes nothing. Only the counts of changes depend on it.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from lakewriter.backfill.archive_import import FileImport, file_groups
from lakewriter.backfill.plan import PlannedFile
from lakewriter.backfill.progress import Progress
from lakewriter.binance.archive import ArchiveClient
from lakewriter.binance.network import Network
from lakewriter.clock import Clock
from lakewriter.errors import LakeError, os_error_text
from lakewriter.first_error import first_error
from lakewriter.lake.open import open_in_worker
from lakewriter.market import Market
from lakewriter.partition import Partition
from lakewriter.ranges import Range
from lakewriter.series import Series

# The number of concurrent downloads of a worker: the next file comes while one is parsed.
# All workers together download as many times that as there are cores.
WORKER_DOWNLOADS = 2

# The maximum lines of a worker that the command logs.
LINES_MAX = 20

_RESUME = "run the same command again to resume"

# Files that are merged together: those of one partition, or a single file.
Group = tuple[PlannedFile, ...]


class WorkerJob(NamedTuple):
    """The settings of all workers.

    Args:
        uri: the lake, as each worker reaches it.
        markets: the markets with their endpoints, by name.
        downloads: the number of concurrent downloads of one worker.
        command: the host and the process of the command.
    """

    uri: str
    markets: Mapping[str, Market]
    downloads: int
    command: tuple[str, int]


class WorkerResult(NamedTuple):
    """The work of one worker on some groups.

    Args:
        given_up: the ranges of unusable files, by series.
        from_archive, corrections, retried: as in `Progress`.
        refused: the numbers of unusable files by fault.
        unmerged: the partitions that could not be merged.
        lines: logged warnings and errors, each with its level.
    """

    given_up: Mapping[Series, list[Range]]
    from_archive: int
    corrections: int
    retried: int
    refused: tuple[tuple[str, int], ...]
    unmerged: frozenset[Partition]
    lines: tuple[tuple[int, str], ...]


def this_process() -> tuple[str, int]:
    """Return the host and the number of this process."""
    return socket.gethostname(), os.getpid()


def groups_of(files: Iterable[PlannedFile]) -> Iterator[Group]:
    """Yield files in groups that one worker imports.

    Args:
        files: sorted by series, then by time.
    """
    for group in file_groups(files):
        yield tuple(group.planned)


def import_groups(job: WorkerJob, groups: list[Group]) -> list[WorkerResult | None]:
    """Import groups of files in this process.

    Returns:
        One item for each group: the result of all of them, then None for each further one.

    Raises:
        LakeError: if the lake cannot be opened, or its disk is full or fails.

    Crash: each partition is whole, as before or as after.
    """
    progress = Progress()
    try:
        with _kept_lines(elsewhere=this_process() != job.command) as lines:
            given_up = asyncio.run(_import(job, groups, progress))
    except OSError as error:
        raise LakeError(f"backfill: {os_error_text(error)}", _RESUME) from None
    result = WorkerResult(
        given_up,
        progress.from_archive,
        progress.corrections,
        progress.retried,
        tuple(progress.refused.items()),
        frozenset(progress.unmerged),
        tuple(lines),
    )
    return [result, *[None] * (len(groups) - 1)]


async def _import(job: WorkerJob, groups: list[Group], progress: Progress) -> Mapping[Series, list[Range]]:
    store = await asyncio.to_thread(open_in_worker, job.uri)
    clock = Clock()
    async with Network() as session:
        clients = {name: ArchiveClient(market, session, clock) for name, market in job.markets.items()}
        importing = FileImport(store, clients.__getitem__, progress, _file_done, clock, job.downloads)
        with first_error():
            await importing.run(chain.from_iterable(groups))
    return importing.given_up


async def _file_done(_: PlannedFile) -> None:
    """Do nothing: the command counts the files of all groups at the end."""


@contextlib.contextmanager
def _kept_lines(*, elsewhere: bool) -> Iterator[list[tuple[int, str]]]:
    """Keep the first warnings and errors that are logged in the block, each with its level.

    Args:
        elsewhere: whether this is not the command's process, whose own log has the lines.
    """
    lines = _Lines()
    log = logging.getLogger("lakewriter")
    if elsewhere:
        # The output of a worker is read by no one.
        log.addHandler(lines)
        log.propagate = False
    try:
        yield lines.found
    finally:
        if elsewhere:
            log.removeHandler(lines)
            log.propagate = True


class _Lines(logging.Handler):
    """Keeps the first warnings and errors that the import logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.found) < LINES_MAX:
            self.found.append((record.levelno, record.getMessage()))
