"""The recorder: queue → journal → buffer → merge, from start to clean stop.

Rule 1: a candle is committed to the journal before anything else happens to
it. Rule 2: a segment is deleted only when all its candles are in partitions,
or in a newer segment. Rule 3: the event loop waits for no disk: journal work
runs in one thread, merges in a few others.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec

from lakewriter.candle import Candle, to_table
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.lake.journal import Journal, Segment, adopt_dead, create_journal, read_segment
from lakewriter.lake.lake import LakeStore, Merged
from lakewriter.partition import Partition
from lakewriter.recording.buffer import Batch, Buffer
from lakewriter.recording.listener import CandleListener

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

# Some 30 MB; a flush starts early when so many wait.
BUFFER_CANDLES_MAX = 50_000
MERGE_THREADS = 2
_FLUSH_CHECK_S = 0.25


class RecorderStats(msgspec.Struct):
    """What a recorder has done since it started.

    Args:
        recorded: candles whose journal commit returned.
        commits: journal commits.
        flushed: candles merged into partitions.
        flushes: flushes that ended.
        corrections: rows replaced by ones with other prices or volumes.
        failed: partitions that the last flush could not merge.
        last: the candle recorded last.
    """

    recorded: int = 0
    commits: int = 0
    flushed: int = 0
    flushes: int = 0
    corrections: int = 0
    failed: int = 0
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
    ) -> None:
        self.stats = RecorderStats()
        self.buffer = Buffer()
        self._store = store
        self._listeners = listeners
        self._queue = queue
        self._flush_every_s = flush_every_s
        self._clock = clock or Clock()
        self._name = name
        # Held while candles are in the journal and not yet in the buffer, or the
        # other way round: a flush must see them in both.
        self._in_step = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._journal_thread = ThreadPoolExecutor(1, "journal")
        self._merge_threads = ThreadPoolExecutor(MERGE_THREADS, "merge")

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set, then flush all and return.

        Raises:
            LakeError: if the journal could not be written, or the last flush
                left candles in it.
        """
        self._journal = await self._in_journal(create_journal, self._store.root, self._name)
        listening = [asyncio.create_task(listener.run()) for listener in self._listeners]
        working = [
            asyncio.create_task(self._consume()),
            asyncio.create_task(self._flush_when_due()),
        ]
        replaying = asyncio.create_task(self._replay_dead())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, *listening, *working}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*listening, *working):
                if task.done():
                    task.result()  # none of them ends but by an error
            await _cancel(listening)
            await self._drain(working[0])
        finally:
            await _cancel([stopping, *listening, *working])
            await self._finish(replaying)

    async def _drain(self, consumer: "asyncio.Task[None]") -> None:
        """Commit what listeners had read before they stopped."""
        drained = asyncio.create_task(self._empty_queue())
        await asyncio.wait({drained, consumer}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        if consumer.done():
            consumer.result()

    async def _empty_queue(self) -> None:
        for listener in self._listeners:
            while listener.unsent:
                await self._queue.put(listener.unsent[0])
                del listener.unsent[0]
        await self._queue.join()

    async def _finish(self, replaying: "asyncio.Task[None]") -> None:
        try:
            await self.flush()
            await replaying  # a stop leaves no journal behind that it can flush
            waiting = len(self.buffer)
            if waiting:
                raise LakeError(
                    f"{waiting} candles could not be flushed and stay in the journal",
                    "mend what the log names, then start the recorder again",
                )
        finally:
            await self._in_journal(self._journal.close)
            self._journal_thread.shutdown()
            self._merge_threads.shutdown()

    async def _consume(self) -> None:
        """Commit candles in groups, for ever."""
        while True:
            first = await self._queue.get()
            # Once begun it ends, cancelled or not: committed candles that nobody
            # buffers would be dropped with their segment.
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
        await self._commit(group)
        for _ in group:
            queue.task_done()

    async def _commit(self, batch: list[Candle]) -> None:
        async with self._in_step:
            await self._in_journal(self._journal.commit, batch)
            self.buffer.add(batch, self._clock.monotonic_s())
        self.stats.recorded += len(batch)
        self.stats.commits += 1
        self.stats.last = batch[-1]
        if recorded_log.isEnabledFor(logging.INFO):
            now = _clock_text(self._clock.wall_us())
            recorded_log.info("\n".join(f"recorded {describe(candle)} at {now}" for candle in batch))

    async def _flush_when_due(self) -> None:
        while True:
            await asyncio.sleep(min(_FLUSH_CHECK_S, self._flush_every_s / 4))
            due = self.buffer.age_s(self._clock.monotonic_s()) >= self._flush_every_s
            if due or self.buffer.open_rows >= BUFFER_CANDLES_MAX:
                await self.flush()

    async def flush(self) -> None:
        """Bring all that is buffered into partitions, and drop its segments.

        Candles of a partition that cannot be merged stay buffered, and in the
        journal; the next flush tries them again.

        Crash: at any step each candle is in a segment, in its partition, or in
        both; replaying a segment twice changes nothing.
        """
        async with self._flushing:
            async with self._in_step:
                segments = await self._in_journal(self._journal.roll)
                batch = self.buffer.seal()
            if not batch:
                return
            started_s = self._clock.monotonic_s()
            left = await self._merge_all(batch)
            for partition in batch.keys() - left.keys():
                self.buffer.discard(partition)
            if left:
                again = [candle for candles in left.values() for candle in candles]
                await self._in_journal(self._journal.commit, again)
                self.buffer.wait_again(self._clock.monotonic_s())
            await self._in_journal(self._journal.drop, segments)
            self.stats.flushes += 1
            self.stats.failed = len(left)
            log.info(
                "flushed %d candles into %d partitions in %.2f s",
                sum(map(len, batch.values())) - sum(map(len, left.values())),
                len(batch) - len(left),
                self._clock.monotonic_s() - started_s,
            )

    async def _merge_all(self, batch: Batch) -> Batch:
        """Merge each partition; return what could not be merged."""
        loop = asyncio.get_running_loop()
        merges = [
            loop.run_in_executor(self._merge_threads, self._merge, partition, candles)
            for partition, candles in batch.items()
        ]
        left: Batch = {}
        for partition, merged in zip(batch, await asyncio.gather(*merges), strict=True):
            if merged is None:
                left[partition] = batch[partition]
                continue
            self.stats.flushed += len(batch[partition])
            self.stats.corrections += merged.corrections
        return left

    def _merge(self, partition: Partition, candles: list[Candle]) -> Merged | None:
        try:
            merged = self._store.merge(partition, to_table(candles))
        except (LakeError, OSError) as error:
            log.error("%s: %d candles stay in the journal: %s", partition, len(candles), error)
            return None
        if merged.corrections:
            log.warning("%s: %d candles corrected", partition, merged.corrections)
        return merged

    async def _replay_dead(self) -> None:
        """Flush what recorders that no longer live left in their journals."""
        for journal in await self._in_journal(adopt_dead, self._store.root):
            try:
                await self._replay(journal)
            finally:
                await self._in_journal(journal.close)

    async def _replay(self, journal: Journal) -> None:
        for path in await self._in_journal(journal.roll):
            segment = await self._in_journal(read_segment, path)
            buffer = Buffer()
            buffer.add(segment.candles, 0.0)
            left = await self._merge_all(buffer.seal())
            _report(segment)
            if left:
                continue  # the segment stays for the next recorder
            if segment.damaged:
                await self._in_journal(_set_aside, path)
            await self._in_journal(journal.drop, [path])

    async def _in_journal(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._journal_thread, partial(do, *args, **kwargs))


def describe(candle: Candle) -> str:
    """Return "usdt_futures BTCUSDT 1m 2024-06-30 15:00"."""
    begin = datetime.fromtimestamp(candle.begin_ms / 1000, UTC)
    shown = f"{begin:%Y-%m-%d %H:%M}" if candle.begin_ms % 60_000 == 0 else f"{begin:%Y-%m-%d %H:%M:%S}"
    return f"{candle.market} {candle.symbol} {candle.interval} {shown}"


def _clock_text(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us / 1_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_us // 1000 % 1000:03d}"


def _report(segment: Segment) -> None:
    name = f"{segment.path.parent.name}/{segment.path.name}"
    log.info("replayed %d candles of a recorder that no longer lives (%s)", len(segment.candles), name)
    if segment.torn:
        log.warning("%s ends in a torn line, whose commit never returned; dropped", name)
    if segment.damaged:
        log.error(
            "%s: %d damaged lines, first line %d; kept as %s.bad",
            name,
            len(segment.damaged),
            segment.damaged[0],
            name,
        )


def _set_aside(path: Path) -> None:
    path.rename(path.with_name(path.name + ".bad"))


async def _cancel(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
