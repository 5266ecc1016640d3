"""The flusher: it merges journaled candles into their partitions, and drops their segments.

Rule 1: a segment is deleted only when all its candles are in partitions, or in
a newer segment. Rule 2: if the journal is lost, the buffer is the last copy. It
is merged at once, whatever else fails.
"""

import asyncio
import logging
import math

from lakewriter.clock import Clock
from lakewriter.lake.journal import DiskRefusedError
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.flushing.buffer import Batch
from lakewriter.recording.flushing.journaled_buffer import JournaledBuffer
from lakewriter.recording.flushing.merger import Merger
from lakewriter.recording.status import FlushRecord, RecorderStats

log = logging.getLogger(__name__)

# A flush starts early at this many candles, which are about 30 MB.
FLUSH_CANDLES = 50_000

_FLUSH_CHECK_S = 0.25

# Pause between checks of the journal's files while candles depend on them. It is also
# the pause between retries of a flush that could not save all candles of a lost journal.
JOURNAL_CHECK_S = 1.0
RESCUE_EVERY_S = 10.0


class Flusher:
    """The task that flushes a journaled buffer into one lake.

    Args:
        store: the lake.
        journaled: the buffer to flush, with its journal.
        stats: counts that are updated here.
        flush_every_s: maximum age of a buffered candle.
        clock: measures the age of candles.

    Attributes:
        flushing: lock that is held during a flush.
    """

    def __init__(
        self,
        store: LakeStore,
        journaled: JournaledBuffer,
        stats: RecorderStats,
        *,
        flush_every_s: float,
        clock: Clock,
    ) -> None:
        self.flushing = asyncio.Lock()
        self._merger = Merger(store)
        self._journaled = journaled
        self._stats = stats
        self._flush_every_s = flush_every_s
        self._clock = clock

    async def run(self) -> None:
        """Flush whenever a flush is due, until cancelled."""
        journaled = self._journaled
        checked_s = rescued_s = -math.inf
        while True:
            await asyncio.sleep(min(_FLUSH_CHECK_S, self._flush_every_s / 4))
            now_s = self._clock.monotonic_s()
            if len(journaled) and now_s >= checked_s + JOURNAL_CHECK_S:
                checked_s = now_s
                await journaled.check()
            is_due = journaled.age_s() >= self._flush_every_s
            is_rescue = journaled.is_lost and now_s >= rescued_s + RESCUE_EVERY_S
            if is_rescue:
                rescued_s = now_s
            if is_due or is_rescue or journaled.unsealed >= FLUSH_CANDLES:
                await self.flush()

    async def flush(self) -> None:
        """Merge all buffered candles into partitions, and drop their segments.

        Candles of a partition that cannot be merged stay in the buffer and in the
        journal; the next flush retries them. If the journal is lost, they are
        written to a new journal.

        Crash: at any step each candle is in a segment, in its partition, or in
        both, unless its segment was deleted by others; replaying a segment twice
        changes nothing.
        """
        async with self.flushing:
            sealed = await self._journaled.seal()
            batch, segments = sealed.batch, sealed.segments
            if sealed.is_lost:
                waiting = sum(map(len, batch.values()))
                log.error("journal: segments were deleted or moved; %d candles are kept in memory", waiting)
            unmerged = await self._merge(batch) if batch else {}
            if unmerged and not await self._recommit(batch, unmerged, is_lost=sealed.is_lost):
                segments = []
            elif sealed.is_lost:
                self._journaled.recovered()
            if segments:
                await self._journaled.drop(segments)

    def close(self) -> None:
        """Stop the threads that merge."""
        self._merger.close()

    async def _merge(self, batch: Batch) -> Batch:
        """Merge a batch, and remove merged candles from the buffer; return the unmerged candles."""
        started_s = self._clock.monotonic_s()
        unmerged, flushed, corrections = await self._merger.merge(batch)
        for partition in batch.keys() - unmerged.keys():
            self._journaled.discard(partition)
        stats = self._stats
        stats.flushed += flushed
        stats.corrections += corrections
        stats.flushes += 1
        stats.unmerged_partitions = len(unmerged)
        merged = sum(map(len, batch.values())) - sum(map(len, unmerged.values()))
        partitions = len(batch) - len(unmerged)
        took_s = round(self._clock.monotonic_s() - started_s, 3)
        stats.flush_ms.add(int(took_s * 1000))
        stats.last_flush = FlushRecord(self._clock.wall_us() // 1000, merged, partitions, took_s)
        if partitions:
            log.info(
                "flushed %(candles)d candles into %(partitions)d partitions in %(seconds).2f s",
                {"candles": merged, "partitions": partitions, "seconds": took_s},
            )
        return unmerged

    async def _recommit(self, batch: Batch, unmerged: Batch, *, is_lost: bool) -> bool:
        """Write unmerged candles to a new segment; return whether the old segments can be dropped.

        Args:
            is_lost: whether the old segments were already deleted or moved.
        """
        self._journaled.restart_age()
        if len(unmerged) == len(batch) and not is_lost:
            return False  # no segment could be dropped
        try:
            await self._journaled.recommit(unmerged)
        except DiskRefusedError as refused:
            log.warning("%s; the old segments stay", refused.what)
            return False
        return True
