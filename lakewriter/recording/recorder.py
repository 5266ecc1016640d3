"""The recorder: queue → journal → buffer → merge, from start to clean stop.

Rule 1: a candle is committed to the journal before anything else happens to
it. Rule 2: a group of candles that was read from the queue is committed and
buffered, even if the task is cancelled. Rule 3: a stop commits the queue, flushes
the buffer and replays the journals of dead recorders.

`journaled_buffer` keeps journal and buffer in step. `flusher` merges the buffer.
`supervisor` listens, and heals missing candles. `self_report` publishes the status.
"""

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.config import JOURNAL_LIMIT_DEFAULT, parse_journal_limit
from lakewriter.errors import LakeError
from lakewriter.lake.journal import DiskRefusedError, Journal
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.candle_queue import CandleQueue
from lakewriter.recording.flushing.dead_journals import DeadJournals
from lakewriter.recording.flushing.flusher import Flusher
from lakewriter.recording.flushing.journaled_buffer import COMMIT_CANDLES_MAX, JournaledBuffer
from lakewriter.recording.self_report import SelfReport
from lakewriter.recording.status import Freshness, RecorderStats, RecorderStatus
from lakewriter.recording.status_snapshot import RecorderCounters, StatusSource
from lakewriter.recording.supervisor import CompletenessSupervisor
from lakewriter.written_size import size_text

log = logging.getLogger(__name__)

# It has one line per candle, written after the commit returned.
recorded_log = logging.getLogger("lakewriter.recorded")

# Candles of one interval close together and arrive within milliseconds. A commit
# waits this long for more of them. Each sync with its thread switch costs 0.2 ms of CPU.
COMMIT_LINGER_S = 0.005

# If more arrived, the commit waits until none arrives for this long, but not beyond the
# maximum. So a burst of thousands is one commit. Two commits would delay its last candle.
BURST_PAUSE_S = 0.001
COMMIT_LINGER_S_MAX = 0.04

# Candles after whose bookkeeping other tasks get their turn. It takes about 1 ms.
BOOKKEEPING_CANDLES_MAX = 250

# No candle is taken from the queue while this many in memory cannot be merged, or while the
# journal is so large. If no candle at all can be merged, most of them are not in memory.
BUFFER_CANDLES_MAX = 200_000
JOURNAL_BYTES_MAX = parse_journal_limit(JOURNAL_LIMIT_DEFAULT)

# Pause between retries while the disk refuses writes, for instance because it is full.
# Retries have no limit while recording. They end STOP_PATIENCE_S after the stop,
# because systemd kills the process 90 s after the stop.
REFUSED_RETRY_S = 0.5
STOP_PATIENCE_S = 20.0


class Recorder:
    """The recorder of the candles on the supervisor's queue.

    Args:
        store: the lake.
        journal: the recorder's own journal; `run` closes it.
        supervisor: puts streamed and healed candles on `queue`.
        queue: the candles to record.
        flush_every_s: maximum age of a buffered candle.
        journal_bytes_max: no candle is taken from the queue while the journal is larger.
        clock: measures ages and durations, and stamps log lines.
    """

    def __init__(
        self,
        store: LakeStore,
        journal: Journal,
        supervisor: CompletenessSupervisor,
        queue: CandleQueue,
        *,
        flush_every_s: float,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
        clock: Clock,
    ) -> None:
        self.stats = RecorderStats()
        self.journaled = JournaledBuffer(journal, clock, journal_bytes_max)
        self._flusher = Flusher(store, self.journaled, self.stats, flush_every_s=flush_every_s, clock=clock)
        self._dead_journals = DeadJournals(store)
        self._supervisor = supervisor
        self._queue = queue
        self._clock = clock
        self._deadline_s = math.inf
        self._source = StatusSource(
            self.stats, self.journaled, self._flusher.outage, supervisor, queue, clock
        )
        self._report = SelfReport(journal.directory, clock)

    @property
    def freshness(self) -> Freshness:
        """The ages of candles at their commit."""
        return self._supervisor.freshness

    def status(self) -> RecorderStatus:
        """Return the present counts."""
        return self._source.snapshot(self._report.disk)

    def counters(self) -> RecorderCounters:
        """Return the counts in detail. They change while the recorder runs."""
        return self._source.counters()

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set, then flush all candles and return.

        Raises:
            LakeError: if the journal could not be written, or some candles could
                not be flushed.
        """
        supervising = asyncio.create_task(self._supervisor.run())
        consuming = asyncio.create_task(self._consume())
        flushing = asyncio.create_task(self._flusher.run())
        replaying = asyncio.create_task(self._dead_journals.replay())
        reporting = asyncio.create_task(self._report.run(self.status))
        stopping = asyncio.create_task(stop.wait())
        reporting.add_done_callback(_log_bug)
        # These tasks end before the stop only by an error.
        endless = [consuming, flushing, supervising]
        try:
            await asyncio.wait({stopping, *endless}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._deadline_s = self._clock.monotonic_s() + STOP_PATIENCE_S
            await _cancel([stopping, supervising, reporting])
            await self._drain(consuming)
            async with self._flusher.flushing:  # a running flush is not cancelled
                await _cancel([consuming, flushing])
            await self._finish(replaying)
        for task in endless:
            if not task.cancelled():
                task.result()
        self._check_all_flushed()

    async def flush(self) -> None:
        """Merge all buffered candles into partitions now, as `Flusher.flush` does."""
        await self._flusher.flush()

    async def _drain(self, consuming: "asyncio.Task[None]") -> None:
        """Commit candles that listeners read before they stopped; return early if a commit fails."""
        drained = asyncio.create_task(self._empty_queue())
        await asyncio.wait({drained, consuming}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel([drained])

    async def _empty_queue(self) -> None:
        for listener in self._supervisor.listeners.values():
            while listener.unsent:
                await self._queue.put(listener.unsent[0])
                del listener.unsent[0]
        await self._queue.join()

    async def _finish(self, replaying: "asyncio.Task[None]") -> None:
        self._dead_journals.stop()
        try:
            await self.flush()
            await replaying  # a stop flushes every journal that it can
        finally:
            await _cancel([replaying])
            await self._supervisor.close()
            await asyncio.to_thread(self._report.close)  # its thread writes into the journal's directory
            await self.journaled.close()
            self._flusher.close()
            self._dead_journals.close()

    def _check_all_flushed(self) -> None:
        unflushed = len(self.journaled) + self._dead_journals.unflushed
        if unflushed:
            raise LakeError(
                f"{unflushed} candles could not be flushed and stay in the journal",
                "repair what the log names, then start the recorder again, or run: lakewriter flush",
            )

    async def _consume(self) -> None:
        """Commit candles in groups until cancelled."""
        while True:
            first = await self._queue.get()
            # A running commit is not cancelled.
            commit = asyncio.create_task(self._commit_group(first))
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                await commit
                raise

    async def _commit_group(self, first: Candle) -> None:
        """Commit a candle, with all candles that arrived during the previous commit, and its burst."""
        await self._linger()
        queue = self._queue
        group = [first]
        while len(group) < COMMIT_CANDLES_MAX and not queue.empty():
            group.append(queue.get_nowait())
        await self._commit_with_retry(group)
        for _ in group:
            queue.task_done()

    async def _linger(self) -> None:
        """Wait for more candles of a burst."""
        queue, clock = self._queue, self._clock
        latest_s = clock.monotonic_s() + COMMIT_LINGER_S_MAX
        last_put = queue.last_put
        await asyncio.sleep(COMMIT_LINGER_S)
        while (
            queue.last_put != last_put
            and queue.qsize() < COMMIT_CANDLES_MAX
            and clock.monotonic_s() < latest_s
        ):
            last_put = queue.last_put
            await asyncio.sleep(BURST_PAUSE_S)

    async def _commit_with_retry(self, group: list[Candle]) -> None:
        """Commit a group; retry while the disk refuses it. The queue fills in the meantime.

        Raises:
            LakeError: if the disk fails to sync, or still refuses the group
                `STOP_PATIENCE_S` after the stop.
        """
        refused_since_s: float | None = None
        self.stats.committing_since_s = self._clock.monotonic_s()
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
                if refused_since_s is None:
                    refused_since_s = now_s
                    log.warning(
                        "%s; recording waits, and sockets are not read once the queue is full", refused.what
                    )
                await asyncio.sleep(REFUSED_RETRY_S)
        self.stats.committing_since_s = None
        if refused_since_s is not None:
            log.warning(
                "journal: writes succeed again after %.1f s", self._clock.monotonic_s() - refused_since_s
            )

    def _check_room(self) -> None:
        waiting, hint = f"{len(self.journaled)} candles wait for their partitions", "the log says why"
        if self.journaled.is_full:
            limit = size_text(self.journaled.bytes_max)
            raise DiskRefusedError(f"journal: it has reached its limit of {limit}: {waiting}", hint)
        if self.journaled.in_memory >= BUFFER_CANDLES_MAX:
            raise DiskRefusedError(f"buffer: {waiting}", hint)

    async def _commit(self, group: list[Candle]) -> None:
        started_s = self._clock.monotonic_s()
        await self.journaled.commit(group)
        durable_ms = self._supervisor.market_times_ms()
        self.stats.commit_candles.add(len(group))
        self.stats.commit_us.add(int((self._clock.monotonic_s() - started_s) * 1_000_000))
        for first in range(0, len(group), BOOKKEEPING_CANDLES_MAX):
            if first:
                await asyncio.sleep(0)
            self._note_durable(group[first : first + BOOKKEEPING_CANDLES_MAX], durable_ms)

    def _note_durable(self, candles: list[Candle], durable_ms: Mapping[str, int]) -> None:
        """Count and log durable candles, and heal candles missing before them."""
        self._supervisor.mark_durable(candles, durable_ms)
        stats = self.stats
        stats.recorded += len(candles)
        stats.today.add(len(candles), self._clock.wall_us() // 1000)
        stats.last = candles[-1]
        if recorded_log.isEnabledFor(logging.INFO):
            now = _clock_text(self._clock.wall_us())
            text = "\n".join(f"recorded {describe(candle)} at {now}" for candle in candles)
            recorded_log.info(text, extra={"candles": candles})


def describe(candle: Candle) -> str:
    """Return a candle's series and begin time: "usdt_futures BTCUSDT 1m 2024-06-30 15:00"."""
    return f"{candle.market} {candle.symbol} {candle.interval} {_begin_text(candle.begin_ms)}"


# Thousands of candles begin at the same time.
@lru_cache(64)
def _begin_text(begin_ms: int) -> str:
    begin = datetime.fromtimestamp(begin_ms / 1000, UTC)
    return f"{begin:%Y-%m-%d %H:%M}" if begin_ms % 60_000 == 0 else f"{begin:%Y-%m-%d %H:%M:%S}"


def _clock_text(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us / 1_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_us // 1000 % 1000:03d}"


def _log_bug(task: "asyncio.Task[None]") -> None:
    """Log the error of the reports. Recording continues without them."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("status: the reports ended by a bug in lakewriter", exc_info=error)


async def _cancel(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
