"""The candles that are durable in the journal and not yet in their partitions.

Rule 1: journal and buffer are in step. A flush sees each candle in both, or in
neither. The event loop never waits for the disk, because one thread writes the
journal.

Rule 2: while no candle can be merged, candles are parked: their segments keep them, and
memory does not. So the disk bounds their number, and not the memory.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.lake.journal import Journal
from lakewriter.lake.segments import Segment, read_segment
from lakewriter.partition import Partition
from lakewriter.recording.flushing.buffer import Batch, Buffer

P = ParamSpec("P")
T = TypeVar("T")

# A commit takes all closes of 3,000 series. Their lines have 1.4 MB, less than `unflushed.TAIL_BYTES`.
COMMIT_CANDLES_MAX = 4_000

log = logging.getLogger(__name__)


class Sealed(NamedTuple):
    """Candles to merge, and the segments that can be deleted afterwards.

    Args:
        batch: the candles by partition.
        segments: files that hold the candles of the batch, and no other candles.
        is_lost: whether the segments were deleted or moved; if so, the batch is the last copy.
    """

    batch: Batch
    segments: list[Path]
    is_lost: bool


class Parked(NamedTuple):
    """Candles that are in the journal, and no longer in memory.

    Args:
        segments: the files that have them, and no other candles.
        candles: their number.
    """

    segments: list[Path]
    candles: int


class JournaledBuffer:
    """A journal, and a buffer of the candles in it.

    Args:
        journal: the journal; `close` closes it.
        clock: measures the age of candles.
        bytes_max: the size of the journal at which no candle should be committed.
    """

    def __init__(self, journal: Journal, clock: Clock, bytes_max: int) -> None:
        self.journal = journal
        self.bytes_max = bytes_max
        self._buffer = Buffer()
        self._clock = clock
        # Held while some candles are in only one of journal and buffer.
        self._in_step = asyncio.Lock()
        self._journal_is_ahead = False
        self._thread = ThreadPoolExecutor(1, "journal")
        self._parked: deque[Parked] = deque()

    def __len__(self) -> int:
        """Return the number of candles that are not in their partitions yet."""
        return len(self._buffer) + self.parked

    @property
    def in_memory(self) -> int:
        """The number of these candles that are also in memory."""
        return len(self._buffer)

    @property
    def parked(self) -> int:
        """The number of these candles that are in the journal only."""
        return sum(each.candles for each in self._parked)

    @property
    def parked_flushes(self) -> int:
        """How many times candles were parked."""
        return len(self._parked)

    @property
    def is_full(self) -> bool:
        """Whether the journal has reached its limit."""
        return self.journal.undropped_bytes >= self.bytes_max

    @property
    def unsealed(self) -> int:
        """The number of candles committed since the last `seal`."""
        return self._buffer.open_rows

    @property
    def is_lost(self) -> bool:
        """Whether the journal's segments were deleted or moved."""
        return self.journal.lost

    def age_s(self) -> float:
        """Return the age in seconds of the oldest unsealed candle; 0 if every candle is sealed."""
        return self._buffer.age_s(self._clock.monotonic_s())

    async def commit(self, group: list[Candle]) -> None:
        """Write candles to the journal, sync it, and buffer them.

        Raises:
            LakeError: if the journal could not be written; nothing is buffered.
        """
        async with self._in_step:
            # A commit may be cancelled before its candles are buffered. Then no flush may drop their segment.
            self._journal_is_ahead = True
            try:
                await self._in_thread(self.journal.commit, group)
            except LakeError:
                self._journal_is_ahead = False
                raise
            self._buffer.add(group, self._clock.monotonic_s())
            self._journal_is_ahead = False

    async def seal(self) -> Sealed:
        """Start a new segment and a new generation; return the sealed candles and their segments."""
        async with self._in_step:
            parked = {path for each in self._parked for path in each.segments}
            segments = [path for path in await self._in_thread(self.journal.roll) if path not in parked]
            is_lost = self.journal.lost
            return Sealed(self._buffer.seal(), [] if self._journal_is_ahead else segments, is_lost)

    def park(self, sealed: Sealed) -> bool:
        """Remove sealed candles from memory; their segments keep them. Return whether this was possible.

        Args:
            sealed: the last seal, of which no candle was merged.
        """
        if sealed.is_lost or not sealed.segments:
            return False
        for partition in sealed.batch:
            self._buffer.discard(partition)
        self._parked.append(Parked(sealed.segments, sum(map(len, sealed.batch.values()))))
        return True

    async def read_parked(self) -> list[Segment]:
        """Read the segments that were parked first; return none if nothing is parked.

        Raises:
            OSError: if a segment is unreadable. One that is gone is logged and left out.
        """
        return await asyncio.to_thread(_read_present, self._parked[0].segments) if self._parked else []

    async def drop_parked(self) -> None:
        """Delete the segments that were parked first. Each of their candles is in a partition, or buffered."""
        await self.drop(self._parked.popleft().segments)

    def postpone_parked(self) -> None:
        """Let what was parked first be the last. Its segments stay parked."""
        self._parked.rotate(-1)

    async def recommit(self, batch: Batch) -> None:
        """Copy sealed candles to the present segment, to allow the removal of their old segment.

        Raises:
            LakeError: if the journal could not be written.
        """
        candles = [candle for rows in batch.values() for candle in rows]
        for first in range(0, len(candles), COMMIT_CANDLES_MAX):
            await self._in_thread(self.journal.commit, candles[first : first + COMMIT_CANDLES_MAX])

    def restart_age(self) -> None:
        """Restart the age of candles that could not be merged."""
        self._buffer.restart_age(self._clock.monotonic_s())

    def discard(self, partition: Partition) -> None:
        """Remove the sealed candles of a partition that was merged."""
        self._buffer.discard(partition)

    async def drop(self, segments: list[Path]) -> None:
        """Delete segments whose candles are in partitions, or in a newer segment."""
        await self._in_thread(self.journal.drop, segments)

    def recovered(self) -> None:
        """Clear `is_lost`, because all candles of the journal are in partitions or in a new segment."""
        self.journal.clear_lost()

    async def check(self) -> None:
        """Check that the journal's files are still in place."""
        await self._in_thread(self.journal.check)

    async def close(self) -> None:
        """Close the journal and end its thread."""
        await self._in_thread(self.journal.close)
        self._thread.shutdown()

    async def _in_thread(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(do, *args, **kwargs))


def _read_present(paths: list[Path]) -> list[Segment]:
    segments = []
    for path in paths:
        try:
            segments.append(read_segment(path))
        except FileNotFoundError:
            log.error(
                "journal: %s was deleted or moved; its candles that waited for the lake may be lost", path
            )
    return segments
