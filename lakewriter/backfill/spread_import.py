"""The import of archive files by many workers, which may be on other machines.

It has the interface of `FileImport`. This module counts the workers' results. It says which
files are done, so that REST can finish their series here.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import NamedTuple

from lakewriter.backfill.plan import PlannedFile
from lakewriter.backfill.progress import Progress
from lakewriter.backfill.worker_import import (
    LINES_MAX,
    Group,
    WorkerJob,
    WorkerResult,
    groups_of,
    import_groups,
)
from lakewriter.engines.engine import Engine
from lakewriter.ranges import Range
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Fewer groups are not worth a way to a worker: a day of 1m takes 10 ms.
GROUPS_MIN = 8


class Workers(NamedTuple):
    """The workers that import files.

    Args:
        engine: runs the workers.
        job: the settings of the workers.
    """

    engine: Engine
    job: WorkerJob


class SpreadImport:
    """Imports files by the workers of an engine.

    Args:
        engine, job: as in `Workers`.
        progress: counters to update.
        on_file_done: called for each file that is in the lake or given up.

    Attributes:
        given_up: the ranges of unusable files, by series.
    """

    def __init__(
        self,
        engine: Engine,
        job: WorkerJob,
        progress: Progress,
        on_file_done: Callable[[PlannedFile], Awaitable[None]],
    ) -> None:
        self.given_up: dict[Series, list[Range]] = {}
        self._engine = engine
        self._job = job
        self._progress = progress
        self._on_file_done = on_file_done
        self._lines = 0
        self._shown = 0
        self._groups: deque[Group] = deque()

    async def run(self, files: Iterator[PlannedFile]) -> None:
        """Import all files; return when each is in the lake or given up.

        Raises:
            LakewriterError: if a worker cannot write the lake, or the engine fails.
        """
        results = self._engine.map(
            partial(import_groups, self._job),
            self._given_out(files),
            chunk=GROUPS_MIN,
            advance=self._show,
        )

        def next_result() -> tuple[WorkerResult | None, Group] | None:
            # Results come in the order of the groups.
            for result in results:
                return result, self._groups.popleft()
            return None

        while (found := await asyncio.to_thread(next_result)) is not None:
            result, group = found
            if result is not None:
                self._count(result)
            for planned in group:
                self._progress.files += 1
                self._progress.file_bytes += planned.bytes
                await self._on_file_done(planned)

    def _given_out(self, files: Iterator[PlannedFile]) -> Iterator[Group]:
        """Yield the groups of files, and remember them until their results come."""
        for group in groups_of(files):
            self._groups.append(group)
            yield group

    def _show(self, count: int) -> None:
        self._shown += count
        self._progress.current = f"{self._shown:,} partitions by workers"

    def _count(self, result: WorkerResult) -> None:
        for level, line in result.lines:
            self._lines += 1
            if self._lines <= LINES_MAX:
                log.log(level, "%s", line)
        progress = self._progress
        progress.from_archive += result.from_archive
        progress.corrections += result.corrections
        progress.retried += result.retried
        progress.refused += Counter(dict(result.refused))
        progress.unmerged |= result.unmerged
        for series, ranges in result.given_up.items():
            self.given_up.setdefault(series, []).extend(ranges)
