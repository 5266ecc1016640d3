"""The flusher: it merges journaled candles into their partitions, and drops their segments.

Rule 1: a segment is deleted only when all its candles are in partitions, or in
a newer segment. Rule 2: if the journal is lost, the buffer is the last copy. It
is merged at once, whatever else fails. Rule 3: while no candle can be merged, memory is
bounded: candles beyond PARK_CANDLES stay in the journal only, until a flush succeeds.
"""

import asyncio
import logging
import math

from lakewriter.clock import Clock
from lakewriter.lake.journal import DiskRefusedError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.segments import Segment, set_aside
from lakewriter.lake.storage import StoreAwayError
from lakewriter.partition import by_partition
from lakewriter.recording.flushing.buffer import Batch
from lakewriter.recording.flushing.journaled_buffer import COMMIT_CANDLES_MAX, JournaledBuffer
from lakewriter.recording.flushing.merger import FlushResult, Merger
from lakewriter.recording.flushing.outage import Outage
from lakewriter.recording.status import FlushRecord, RecorderStats
from lakewriter.written_size import size_text

log = logging.getLogger(__name__)

# A flush starts early at this many candles, which are about 30 MB.
FLUSH_CANDLES = 50_000

# While no candle can be merged, so many candles are kept in memory.
PARK_CANDLES = FLUSH_CANDLES

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
        outage: the outage of the lake's object store, if it is away.
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
        self.outage = Outage()
        self._store = store
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
            if self.outage.lasts and not is_rescue:
                if self.outage.is_due(now_s):
                    is_due = not await self._is_still_away()
                else:
                    is_due = False
                    if journaled.in_memory >= PARK_CANDLES:
                        await self._park()
            else:
                is_full = journaled.is_full and journaled.unsealed > 0
                is_due = is_due or is_rescue or is_full or journaled.unsealed >= FLUSH_CANDLES
            if is_due:
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
            # Without a batch, a merge of what was parked shows whether the store is back.
            result = await self._merge(batch) if batch else FlushResult({}, 0, 0)
            unmerged = result.unmerged
            for partition in batch.keys() - unmerged.keys():
                self._journaled.discard(partition)
            if unmerged and not await self._recommit(batch, unmerged, is_lost=sealed.is_lost):
                segments = []
                if self._journaled.in_memory >= PARK_CANDLES and len(unmerged) == len(batch):
                    self._journaled.park(sealed)
            elif sealed.is_lost:
                self._journaled.recovered()
            if segments:
                await self._journaled.drop(segments)
            if result.away is not None:
                self._failed(result.away)
            elif not batch or len(unmerged) < len(batch):
                await self._flush_parked()

    def close(self) -> None:
        """Stop the threads that merge."""
        self._merger.close()

    async def _is_still_away(self) -> bool:
        """Ask the store with one request, and return whether it is still away."""
        error = await asyncio.to_thread(self._store.away_error)
        if error is not None:
            self._failed(error)
        return error is not None

    def _failed(self, error: StoreAwayError) -> None:
        """Note that the store is away, for the log and for the status."""
        waiting = f"{len(self._journaled)} candles wait in the journal, which may grow to {size_text(self._journaled.bytes_max)}"
        self.outage.failed(error, self._clock.monotonic_s(), waiting)

    async def _park(self) -> None:
        """Move the buffered candles out of memory. Their segments keep them."""
        async with self.flushing:
            sealed = await self._journaled.seal()
            self._journaled.park(sealed)
            self._journaled.restart_age()

    async def _flush_parked(self) -> None:
        """Merge what was parked, oldest first, as long as the lake takes it."""
        journaled = self._journaled
        unreadable = 0
        while unreadable < journaled.parked_flushes:
            try:
                segments = await journaled.read_parked()
            except OSError as error:
                # Its candles are nowhere else. They stay parked, so that no flush drops the segments.
                unreadable += 1
                journaled.postpone_parked()
                log.error("journal: %s: %s; its candles wait", error.filename, error.strerror)
                continue
            batch = by_partition(candle for segment in segments for candle in segment.candles)
            result = await self._merge(batch)
            if result.away is not None:
                self._failed(result.away)
                return
            if result.unmerged and len(result.unmerged) == len(batch):
                return  # no segment could be dropped
            rest = [candle for rows in result.unmerged.values() for candle in rows]
            try:
                for first in range(0, len(rest), COMMIT_CANDLES_MAX):
                    await journaled.commit(rest[first : first + COMMIT_CANDLES_MAX])
            except DiskRefusedError as refused:
                log.warning("%s; the old segments stay", refused.what)
                return
            await asyncio.to_thread(_set_damage_aside, segments)
            await journaled.drop_parked()

    async def _merge(self, batch: Batch) -> FlushResult:
        """Merge a batch, and count and log the result."""
        started_s = self._clock.monotonic_s()
        result = await self._merger.merge(batch)
        if result.away is not None and result.flushed and not await self._is_still_away():
            # The store is there, and does not serve some keys. They wait for the next flush.
            waiting = sum(map(len, result.unmerged.values()))
            log.error("%s; %d candles stay in the journal", result.away.reason, waiting)
            result = result._replace(refused=len(result.unmerged), away=None)
        if result.away is None:
            self.outage.ended(self._clock.monotonic_s(), len(self._journaled))
        unmerged = result.unmerged
        stats = self._stats
        stats.flushed += result.flushed
        stats.corrections += result.corrections
        stats.flushes += 1
        stats.unmerged_partitions = result.refused
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
        return result

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


def _set_damage_aside(segments: list[Segment]) -> None:
    for segment in segments:
        if segment.damage:
            set_aside(segment)
            log.error("%s: %d damaged lines, kept in %s.bad", segment.path, segment.damage, segment.path.name)
