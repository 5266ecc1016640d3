"""The recorder in one process, with disks that fail on purpose."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore, Merged
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import Partition, partition_of
from lakewriter.recording.recorder import Recorder, describe
from support.candles import DAY_START_MS, stream_candle
from support.full_disk import full_disk
from support.recording import OfflineRecorder
from support.refusing_lake import begins, refusing
from support.running import until


class SlowJournal(Journal):
    """A journal with slow commits."""

    def __init__(self, journal: Journal) -> None:
        vars(self).update(vars(journal))
        self.begun = threading.Event()

    def commit(self, candles: Iterable[Candle]) -> int:
        self.begun.set()
        time.sleep(0.2)
        return super().commit(candles)


async def recording(store: LakeStore, candles: list[Candle], flush_every_s: float = 3600) -> Recorder:
    """Record the candles, stop, and return the recorder."""
    recorder = OfflineRecorder(store, flush_every_s=flush_every_s)
    queue = recorder.queue
    stop = asyncio.Event()
    running = asyncio.create_task(recorder.run(stop))
    for each in candles:
        await queue.put(each)
    stop.set()
    await running
    return recorder


def test_a_stop_commits_and_flushes_what_is_on_the_queue(tmp_path: Path) -> None:
    """After a stop the candles of the queue are in the lake."""
    store = refusing(tmp_path)
    recorder = asyncio.run(recording(store, [stream_candle(minute) for minute in range(50)]))
    assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in range(50)]
    status = recorder.status()
    assert (status.recorded, status.flushed, status.buffered) == (50, 50, 0)
    assert status.last == stream_candle(49)
    assert status.commit_ms.count == recorder.stats.commit_us.count > 0
    assert read_unflushed(store.root) == []


def test_what_cannot_be_merged_stays_in_the_journal(tmp_path: Path) -> None:
    """Candles that cannot be merged stay in the journal, others are merged, and the stop reports it."""
    store = refusing(tmp_path)
    store.refused = "BTCUSDT"
    with pytest.raises(LakeError, match="1 candles could not be flushed and stay in the journal"):
        asyncio.run(recording(store, [stream_candle(0), stream_candle(0, "ETHUSDT")]))
    assert begins(store, "ETHUSDT") == [DAY_START_MS]
    assert read_unflushed(store.root) == [stream_candle(0)]
    store.refused = ""
    asyncio.run(recording(store, [stream_candle(1)]))
    assert begins(store) == [DAY_START_MS, DAY_START_MS + 60_000]
    assert read_unflushed(store.root) == []


def test_many_refusals_for_one_reason_get_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that refuses all partitions gives one log line per flush, not one per partition."""

    class Full(LakeStore):
        def merge(self, partition: Partition, rows: pa.Table) -> Merged:
            raise OSError(28, "No space left on device", str(partition))

        def merge_many(self, items: Sequence[tuple[Partition, pa.Table]]) -> list[Merged | Exception]:
            return [self._merge_or_error(partition, rows) for partition, rows in items]

    store = Full.local(refusing(tmp_path).root)
    with pytest.raises(LakeError, match="30 candles could not be flushed"):
        asyncio.run(recording(store, [stream_candle(0, f"S{number}USDT") for number in range(30)]))
    said = [record.getMessage() for record in caplog.records if "stay in the journal" in record.getMessage()]
    (line,) = said
    assert line.startswith(
        "spot S0USDT 1m 2024-06-30 and 29 more partitions: 30 candles stay in the journal: "
    )
    assert line.endswith(": No space left on device")


def test_a_refusing_partition_is_tried_again_and_its_journal_stays_small(tmp_path: Path) -> None:
    """Each flush keeps only unmerged candles in the journal; when the disk works they are merged."""
    store = refusing(tmp_path)
    store.refused = "BTCUSDT"

    async def main() -> None:
        recorder = OfflineRecorder(store, flush_every_s=0.02)
        queue = recorder.queue
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(5):
            await queue.put(stream_candle(minute))
            await queue.put(stream_candle(minute, "ETHUSDT"))
            flushes = recorder.stats.flushes
            await until(lambda flushes=flushes: recorder.stats.flushes > flushes)
            await until(lambda minute=minute: len(begins(store, "ETHUSDT")) == minute + 1)
        hot = {each for each in read_unflushed(store.root) if each.symbol == "BTCUSDT"}
        assert len(hot) == 5
        assert recorder.stats.unmerged_partitions == 1
        store.refused = ""
        await queue.put(stream_candle(5))
        await until(lambda: len(begins(store)) == 6)
        stop.set()
        await running

    asyncio.run(main())
    assert read_unflushed(store.root) == []


def test_a_dead_recorders_journal_is_replayed_once_however_often(tmp_path: Path) -> None:
    """The next start merges a dead recorder's commits, also if they were merged before."""
    store = refusing(tmp_path)
    for _ in range(2):
        dead = create_journal(store.root, "dead")
        dead.commit([stream_candle(0), stream_candle(1)])
        dead.roll()
        dead.commit([stream_candle(1), stream_candle(2)])
        torn = dead.roll()[-1]
        with torn.open("ab") as file:
            file.write(b'{"crc":1,"candle":{"mar')

        os.close(dead._lock_fd)  # what the kernel does when its process dies
        asyncio.run(recording(store, [stream_candle(3)]))
        assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in range(4)]
        assert [path.name for path in (store.root / "_lakewriter/journal").iterdir()] == ["lock"]


def test_a_damaged_line_is_set_aside_and_the_rest_replayed(tmp_path: Path) -> None:
    """A damaged line loses only its own candle, and its segment is kept as `.bad`."""
    store = refusing(tmp_path)
    dead = create_journal(store.root, "dead")
    dead.commit([stream_candle(0), stream_candle(1), stream_candle(2)])
    segment = dead.roll()[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    damaged = lines[1].replace(b'"open":60001.5', b'"open":60001.9')
    assert damaged != lines[1]
    segment.write_bytes(lines[0] + damaged + lines[2])

    os.close(dead._lock_fd)
    asyncio.run(recording(store, [stream_candle(3)]))
    assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in (0, 2, 3)]
    assert segment.with_name(segment.name + ".bad").exists()


def test_of_duplicates_in_the_buffer_and_the_partition_the_winner_stays(tmp_path: Path) -> None:
    """The candle with more trades wins, in each order of arrival."""
    store = refusing(tmp_path)
    asyncio.run(
        recording(
            store,
            [stream_candle(0, trade_num=9), stream_candle(0, trade_num=11), stream_candle(0, trade_num=10)],
        )
    )
    asyncio.run(recording(store, [stream_candle(0, trade_num=8)]))
    table = store.read(partition_of(stream_candle(0)))
    assert table is not None
    assert table["trade_num"].to_pylist() == [11]


def test_a_failed_sync_ends_the_recorder_loudly(tmp_path: Path) -> None:
    """After a failed sync the recorder stops with an error, and flushes the committed rows."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store)
        queue = recorder.queue
        running = asyncio.create_task(recorder.run(asyncio.Event()))
        await queue.put(stream_candle(0))
        await until(lambda: recorder.stats.recorded == 1)
        reading, writing = os.pipe()
        assert recorder.journaled.journal._fd is not None
        os.dup2(writing, recorder.journaled.journal._fd)  # takes every write, and cannot be synced
        await queue.put(stream_candle(1))
        with pytest.raises(LakeError, match=r"journal: .*: sync failed: Invalid argument"):
            await running
        os.close(reading)
        os.close(writing)

    asyncio.run(main())
    assert begins(store) == [DAY_START_MS]


def test_a_full_disk_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk recording waits, with one log line; afterwards no candle is missing."""
    store = refusing(tmp_path)
    caplog.set_level("WARNING", "lakewriter")

    async def main() -> None:
        recorder = OfflineRecorder(store)
        queue = recorder.queue
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        await queue.put(stream_candle(0))
        await until(lambda: recorder.stats.recorded == 1)
        with full_disk(600):
            for minute in range(1, 20):
                await queue.put(stream_candle(minute))
            await until(lambda: recorder.stats.refusals >= 2)
            assert recorder.stats.recorded == 1
        await until(lambda: recorder.stats.recorded == 20)
        stop.set()
        await running

    asyncio.run(main())
    assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in range(20)]
    said = [record.getMessage() for record in caplog.records]
    assert sum("File too large; recording waits" in line for line in said) == 1
    assert sum("writes succeed again after" in line for line in said) == 1


def test_a_stop_on_a_full_disk_says_what_was_not_recorded(tmp_path: Path) -> None:
    """If the disk stays full some time after the stop, the error counts the lost candles."""
    store = refusing(tmp_path)

    class Hurried(Clock):
        """A clock on which a second passes at each reading."""

        seconds = 0.0

        def monotonic_s(self) -> float:
            self.seconds += 1.0
            return self.seconds

    async def main() -> None:
        recorder = OfflineRecorder(store, clock=Hurried())
        queue = recorder.queue
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        await queue.put(stream_candle(0))
        await until(lambda: recorder.stats.recorded == 1)
        with full_disk(600):
            await queue.put(stream_candle(1))
            await queue.put(stream_candle(2))
            await until(lambda: recorder.stats.refusals >= 1)
            stop.set()
            with pytest.raises(LakeError, match="File too large; 2 candles were read and not recorded"):
                await running

    asyncio.run(main())


def test_candles_that_nobody_can_merge_stop_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the buffer's limit no more candles are taken from the queue."""
    store = refusing(tmp_path)
    store.refused = "BTCUSDT"
    monkeypatch.setattr("lakewriter.recording.recorder.BUFFER_CANDLES_MAX", 10)

    async def main() -> None:
        recorder = OfflineRecorder(store, flush_every_s=0.02)
        queue = recorder.queue
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(10):
            await queue.put(stream_candle(minute))
        await until(lambda: recorder.stats.recorded == 10)
        await queue.put(stream_candle(10))
        await until(lambda: recorder.stats.refusals >= 1)
        assert recorder.stats.recorded == 10
        store.refused = ""
        await until(lambda: recorder.stats.recorded == 11)
        stop.set()
        await running

    asyncio.run(main())
    assert len(begins(store)) == 11


def test_a_commit_that_is_cut_off_keeps_its_segment(tmp_path: Path) -> None:
    """The segment of a commit during a cancellation is not dropped."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store)
        queue = recorder.queue
        running = asyncio.create_task(recorder.run(asyncio.Event()))
        await queue.put(stream_candle(0))
        await until(lambda: recorder.stats.recorded == 1)
        slow = SlowJournal(recorder.journaled.journal)
        recorder.journaled.journal = slow
        await queue.put(stream_candle(1))
        await until(slow.begun.is_set)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, LakeError):
            await running

    asyncio.run(main())
    there = set(begins(store)) | {each.begin_ms for each in read_unflushed(store.root)}
    assert there == {DAY_START_MS, DAY_START_MS + 60_000}


def test_a_candle_is_described_as_people_write_it() -> None:
    """A log line has market, symbol, interval and begin time, with seconds only for `1s`."""
    assert describe(stream_candle(900)) == "spot BTCUSDT 1m 2024-06-30 15:00"
