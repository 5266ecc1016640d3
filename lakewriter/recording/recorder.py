"""The recorder: queue → journal → buffer → merge, from start to clean stop.

Rule 1: a candle is committed to the journal before anything else happens to
it. Rule 2: a segment is deleted only when all its candles are in partitions,
or in a newer segment. Rule 3: the event loop waits for no disk: journal work
runs in one thread, merges in a few others. Rule 4: if the journal is lost, the
buffer is the last copy: it is merged at once, whatever else fails.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec

from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.lake.journal import DiskRefusedError, Journal, create_journal
from lakewriter.lake.journal_replay import Replayed, replay_dead
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.buffer import Batch, Buffer
from lakewriter.recording.histogram import Histogram
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.merger import Merger
from lakewriter.recording.supervisor import CompletenessSupervisor

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

# One line per candle, written once its commit returned.
recorded_log = logging.getLogger("lakewriter.recorded")

QUEUE_CANDLES_MAX = 10_000
COMMIT_CANDLES_MAX = 2_000

# Candles of one interval close together and arrive within milliseconds: so long
# a commit waits for company. A sync and its hand-over cost 0.2 ms of CPU each.
COMMIT_LINGER_S = 0.005

# A flush starts early when so many wait, some 30 MB; and when so many cannot be
# merged, no more are taken from the queue.
FLUSH_CANDLES = 50_000
BUFFER_CANDLES_MAX = 200_000

# A disk that refuses (full, read-only …) is asked again so often, for ever while
# recording, and so long after the stop: systemd kills after 90 s.
REFUSED_RETRY_S = 0.5
STOP_PATIENCE_S = 20.0
_FLUSH_CHECK_S = 0.25

# So often the recorder looks whether its journal is still there while candles depend on
# it, and flushes again after a flush that could not save all candles of a lost one.
JOURNAL_CHECK_S = 1.0
RESCUE_EVERY_S = 10.0


class RecorderStats(msgspec.Struct):
    """What a recorder has done since it started.

    Args:
        recorded: candles whose journal commit returned.
        flushed: candles merged into partitions.
        flushes: flushes that ended.
        corrections: rows replaced by ones with other prices or volumes.
        failed: partitions that the last flush could not merge.
        refusals: commits that the disk did not take, and that were tried again.
        commit_candles: how many candles a journal commit held.
        commit_ms: how long a commit took, waiting for its turn included.
        last: the candle recorded last.
    """

    recorded: int = 0
    flushed: int = 0
    flushes: int = 0
    corrections: int = 0
    failed: int = 0
    refusals: int = 0
    commit_candles: Histogram = msgspec.field(default_factory=Histogram)
    commit_ms: Histogram = msgspec.field(default_factory=Histogram)
    last: Candle | None = None


class Recorder:
    """Records what its listeners put on the queue.

    Args:
        store: the lake.
        listeners: who fills the queue.
        queue: bounded, of at most QUEUE_CANDLES_MAX.
        flush_every_s: how old a buffered candle may grow.
        name: a prefix for its journal, for people.
        clock: for waiting and for the log.
        journal: its journal, if it has one already; closed by `run`.
        watch: sees to what is missing; its listeners fill the queue too.
    """

    def __init__(
        self,
        store: LakeStore,
        listeners: Sequence[CandleListener],
        queue: "asyncio.Queue[Candle]",
        *,
        flush_every_s: float,
        name: str,
        clock: Clock | None = None,
        journal: Journal | None = None,
        watch: CompletenessSupervisor | None = None,
    ) -> None:
        self.stats = RecorderStats()
        self.buffer = Buffer()
        self._store = store
        self._listeners = listeners
        self._queue = queue
        self._flush_every_s = flush_every_s
        self._clock = clock or Clock()
        self._name = name
        self._given_journal = journal
        self._watch = watch
        # Held while candles are in the journal and not yet in the buffer, or the
        # other way round: a flush must see them in both.
        self._in_step = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._unbuffered = False
        self._not_replayed = 0
        self._deadline_s = math.inf
        self._journal_thread = ThreadPoolExecutor(1, "journal")
        self._merger = Merger(store)
        self._replay_thread = ThreadPoolExecutor(1, "replay")

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set, then flush all and return.

        Raises:
            LakeError: if the journal could not be written, or candles had to
                stay in it.
        """
        journal = self._given_journal
        if journal is None:
            journal = await self._in_journal(create_journal, self._store.state_dir, self._name)
        self._journal = journal
        listening = [asyncio.create_task(listener.run()) for listener in self._listeners]
        if self._watch is not None:
            listening.append(asyncio.create_task(self._watch.run()))
        consuming = asyncio.create_task(self._consume())
        flushing = asyncio.create_task(self._flush_when_due())
        replaying = asyncio.create_task(self._replay_dead())
        stopping = asyncio.create_task(stop.wait())
        # None of them ends before the stop, but by an error.
        watched = [consuming, flushing, *listening]
        try:
            await asyncio.wait({stopping, *watched}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._deadline_s = self._clock.monotonic_s() + STOP_PATIENCE_S
            await _cancel([stopping, *listening])
            await self._drain(consuming)
            async with self._flushing:  # a flush under way is not begun again, but ended
                await _cancel([consuming, flushing])
            await self._finish(replaying)
        for task in watched:
            if not task.cancelled():
                task.result()
        self._check_nothing_waits()

    async def _drain(self, consuming: "asyncio.Task[None]") -> None:
        """Commit what listeners had read before they stopped; give up if committing fails."""
        drained = asyncio.create_task(self._empty_queue())
        await asyncio.wait({drained, consuming}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel([drained])

    async def _empty_queue(self) -> None:
        watched = self._watch.listeners.values() if self._watch else ()
        for listener in (*self._listeners, *watched):
            while listener.unsent:
                await self._queue.put(listener.unsent[0])
                del listener.unsent[0]
        await self._queue.join()

    async def _finish(self, replaying: "asyncio.Task[None]") -> None:
        try:
            await self.flush()
            await replaying  # a stop leaves no journal behind that it can flush
        finally:
            await _cancel([replaying])
            if self._watch is not None:
                await self._watch.close()
            await self._in_journal(self._journal.close)
            self._merger.close()
            for threads in (self._journal_thread, self._replay_thread):
                threads.shutdown()

    def _check_nothing_waits(self) -> None:
        waiting = len(self.buffer) + self._not_replayed
        if waiting:
            raise LakeError(
                f"{waiting} candles could not be flushed and stay in the journal",
                "mend what the log names, then start the recorder again, or run: lakewriter flush",
            )

    async def _consume(self) -> None:
        """Commit candles in groups, for ever."""
        while True:
            first = await self._queue.get()
            # Once begun it ends, cancelled or not: what was read is committed and buffered.
            commit = asyncio.create_task(self._commit_group(first))
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                await commit
                raise

    async def _commit_group(self, first: Candle) -> None:
        """Commit a candle with all that came while the last group was written."""
        await asyncio.sleep(COMMIT_LINGER_S)
        queue = self._queue
        group = [first]
        while len(group) < COMMIT_CANDLES_MAX and not queue.empty():
            group.append(queue.get_nowait())
        await self._commit_when_taken(group)
        for _ in group:
            queue.task_done()

    async def _commit_when_taken(self, group: list[Candle]) -> None:
        """Commit a group, however long the disk refuses it; meanwhile the queue fills.

        Raises:
            LakeError: if the disk fails to sync, or still refuses some time after
                the stop.
        """
        waiting_since_s: float | None = None
        while True:
            try:
                self._check_room()
                await self._commit(group)
                break
            except DiskRefusedError as refused:
                self.stats.refusals += 1
                now_s = self._clock.monotonic_s()
                if now_s >= self._deadline_s:
                    lost = len(group) + self._queue.qsize()
                    raise LakeError(
                        f"{refused.what}; {lost} candles were read and not recorded", refused.hint
                    ) from None
                if waiting_since_s is None:
                    waiting_since_s = now_s
                    log.warning("%s; recording waits, and sockets are not read for long", refused.what)
                await asyncio.sleep(REFUSED_RETRY_S)
        if waiting_since_s is not None:
            log.warning("journal: written again after %.1f s", self._clock.monotonic_s() - waiting_since_s)

    def _check_room(self) -> None:
        if len(self.buffer) >= BUFFER_CANDLES_MAX:
            raise DiskRefusedError(
                f"buffer: {len(self.buffer)} candles wait for their partitions",
                "the log names what cannot be merged",
            )

    async def _commit(self, group: list[Candle]) -> None:
        started_s = self._clock.monotonic_s()
        async with self._in_step:
            # If we are cut off before the candles are buffered, no flush may drop their segment.
            self._unbuffered = True
            try:
                await self._in_journal(self._journal.commit, group)
            except LakeError:
                self._unbuffered = False
                raise
            self.buffer.add(group, self._clock.monotonic_s())
            self._unbuffered = False
        if self._watch is not None:
            self._watch.committed(group)
        stats = self.stats
        stats.recorded += len(group)
        stats.last = group[-1]
        stats.commit_candles.add(len(group))
        stats.commit_ms.add(round((self._clock.monotonic_s() - started_s) * 1000))
        if recorded_log.isEnabledFor(logging.INFO):
            now = _clock_text(self._clock.wall_us())
            recorded_log.info("\n".join(f"recorded {describe(candle)} at {now}" for candle in group))

    async def _flush_when_due(self) -> None:
        checked_s = rescued_s = -math.inf
        while True:
            await asyncio.sleep(min(_FLUSH_CHECK_S, self._flush_every_s / 4))
            now_s = self._clock.monotonic_s()
            if len(self.buffer) and now_s >= checked_s + JOURNAL_CHECK_S:
                checked_s = now_s
                await self._in_journal(self._journal.check)
            due = self.buffer.age_s(now_s) >= self._flush_every_s
            rescue = self._journal.lost and now_s >= rescued_s + RESCUE_EVERY_S
            if rescue:
                rescued_s = now_s
            if due or rescue or self.buffer.open_rows >= FLUSH_CANDLES:
                await self.flush()

    async def flush(self) -> None:
        """Bring all that is buffered into partitions, and drop its segments.

        Candles of a partition that cannot be merged stay buffered, and in the
        journal; the next flush tries them again. Of a journal that is lost they
        are written to a new one.

        Crash: at any step each candle is in a segment, in its partition, or in
        both, unless its segment was deleted by others; replaying a segment twice
        changes nothing.
        """
        async with self._flushing:
            async with self._in_step:
                segments = await self._in_journal(self._journal.roll)
                lost = self._journal.lost
                batch = self.buffer.seal()
                if self._unbuffered:
                    segments = []
            if lost:
                waiting = sum(map(len, batch.values()))
                log.error("journal: segments were deleted or moved; %d candles are kept in memory", waiting)
            left = await self._merge(batch) if batch else {}
            if left and not await self._journal_again(batch, left, lost=lost):
                segments = []
            elif lost:
                self._journal.recovered()
            if segments:
                await self._in_journal(self._journal.drop, segments)

    async def _merge(self, batch: Batch) -> Batch:
        """Merge a batch, and discard from the buffer what was merged; return the rest."""
        started_s = self._clock.monotonic_s()
        left, flushed, corrections = await self._merger.merge(batch)
        self.stats.flushed += flushed
        self.stats.corrections += corrections
        for partition in batch.keys() - left.keys():
            self.buffer.discard(partition)
        self._tell(batch, left, self._clock.monotonic_s() - started_s)
        return left

    async def _journal_again(self, batch: Batch, left: Batch, *, lost: bool) -> bool:
        """Write what was not merged to a new segment; return whether the old ones can go.

        Args:
            lost: the old ones are gone already.
        """
        self.buffer.wait_again(self._clock.monotonic_s())
        if len(left) == len(batch) and not lost:
            return False  # nothing would go
        again = [candle for candles in left.values() for candle in candles]
        try:
            for first in range(0, len(again), COMMIT_CANDLES_MAX):
                await self._in_journal(self._journal.commit, again[first : first + COMMIT_CANDLES_MAX])
        except DiskRefusedError as refused:
            log.warning("%s; the old segments stay", refused.what)
            return False
        return True

    def _tell(self, batch: Batch, left: Batch, seconds: float) -> None:
        self.stats.flushes += 1
        self.stats.failed = len(left)
        if len(left) == len(batch):
            return
        log.info(
            "flushed %d candles into %d partitions in %.2f s",
            sum(map(len, batch.values())) - sum(map(len, left.values())),
            len(batch) - len(left),
            seconds,
        )

    async def _replay_dead(self) -> None:
        """Flush what recorders that no longer live left in their journals."""
        loop = asyncio.get_running_loop()
        segments = replay_dead(self._store)
        try:
            while replayed := await loop.run_in_executor(self._replay_thread, next, segments, None):
                log_replayed(replayed)
                self._not_replayed += replayed.waiting
        except (LakeError, OSError) as error:
            log.error("journals of dead recorders cannot be read: %s", error)
            self._not_replayed += 1

    async def _in_journal(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._journal_thread, partial(do, *args, **kwargs))


def log_replayed(replayed: Replayed) -> None:
    """Log what became of a dead recorder's segment."""
    name = replayed.name
    log.info("replayed %d candles of a recorder that no longer lives (%s)", replayed.candles, name)
    if replayed.torn:
        log.warning("%s ends in a torn line, whose commit never returned; dropped", name)
    if replayed.damaged:
        log.error("%s: %d damaged lines, kept in %s.bad", name, replayed.damaged, name)
    if replayed.error:
        log.error("%s stays: %s", name, replayed.error)


def describe(candle: Candle) -> str:
    """Return "usdt_futures BTCUSDT 1m 2024-06-30 15:00"."""
    begin = datetime.fromtimestamp(candle.begin_ms / 1000, UTC)
    shown = f"{begin:%Y-%m-%d %H:%M}" if candle.begin_ms % 60_000 == 0 else f"{begin:%Y-%m-%d %H:%M:%S}"
    return f"{candle.market} {candle.symbol} {candle.interval} {shown}"


def _clock_text(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us / 1_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_us // 1000 % 1000:03d}"


async def _cancel(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
