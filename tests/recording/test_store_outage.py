"""A recorder whose object store is away: nothing is lost, memory is bounded, and the log says so once."""

import asyncio
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.journal_replay import replay_dead
from lakewriter.lake.lake import AWAY_MERGES_MAX, BATCH_PARTITIONS_MAX, LakeStore
from lakewriter.lake.open import create_lake, open_to_read
from lakewriter.lake.segments import Segment, read_segment
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.recording.flushing.dead_journals import DeadJournals
from support.candles import stream_candle
from support.fault_proxy import FaultProxy
from support.object_store import Store
from support.recording import OfflineRecorder
from support.running import until

pytestmark = pytest.mark.slow

PARK = 300
QUEUE = 100


class Place(NamedTuple):
    """A lake behind a proxy that can cut all connections."""

    proxy: FaultProxy
    lake: LakeStore
    direct: str

    def candles(self) -> list[tuple[str, int]]:
        """Return the symbol and the begin time of each candle in the lake's files."""
        found = []
        reader = open_to_read(self.direct)
        for each in reader.files():
            table = reader.read(each.partition)
            assert table is not None
            found += [
                (each.partition.symbol, begin)
                for begin in table["candle_begin_time"].cast("int64").to_pylist()
            ]
        return sorted(found)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty lake. Pauses between attempts and limits of memory are small."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("lakewriter.recording.flushing.flusher.PARK_CANDLES", PARK)
    monkeypatch.setattr("lakewriter.recording.flushing.outage.PAUSE_S_MIN", 0.1)
    monkeypatch.setattr("lakewriter.recording.flushing.outage.PAUSE_S_MAX", 0.3)
    monkeypatch.setattr("lakewriter.recording.flushing.dead_journals.PAUSE_S_MAX", 0.3)
    store = Store()
    proxy = FaultProxy(store.url)
    direct = store.uri("lake")
    yield Place(proxy, create_lake(direct.replace(store.url, proxy.url), "test"), direct)
    proxy.close()
    store.close()


def keys(candles: list[Candle]) -> list[tuple[str, int]]:
    return sorted((each.symbol, each.begin_ms) for each in candles)


def an_hour(symbols: int) -> list[Candle]:
    """Return an hour of 1m candles of some symbols, minute by minute."""
    return [stream_candle(minute, f"S{number}USDT") for minute in range(60) for number in range(symbols)]


def test_an_hour_without_the_store_loses_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Candles wait in the journal and not in memory; when the store is back they are flushed by themselves."""
    caplog.set_level(logging.INFO)
    candles = an_hour(20)

    async def main() -> None:
        recorder = OfflineRecorder(place.lake, flush_every_s=0.05, queue_max=QUEUE)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        await recorder.queue.put(stream_candle(100))
        await until(lambda: recorder.stats.flushed == 1)
        assert recorder.status().store_away_ms is None
        place.proxy.away = True
        for candle in candles[: len(candles) // 2]:
            await recorder.queue.put(candle)
        await until(lambda: recorder.status().store_away_ms is not None)
        for candle in candles[len(candles) // 2 :]:
            await recorder.queue.put(candle)
        await until(
            lambda: recorder.stats.recorded == len(candles) + 1 and recorder.journaled.in_memory < PARK
        )
        status = recorder.status()
        assert (status.buffered, status.unmerged_partitions) == (len(candles), 0)
        assert status.journal_bytes > 100 * len(candles)
        assert keys(read_unflushed(place.lake.state_dir)) == keys(candles)  # queries still see them
        place.proxy.away = False
        await until(lambda: recorder.stats.flushed == len(candles) + 1)
        await until(lambda: len(recorder.journaled) == 0)
        assert recorder.status().store_away_ms is None
        stop.set()
        await running

    asyncio.run(main())
    assert place.candles() == keys([stream_candle(100), *candles])
    assert read_unflushed(place.lake.state_dir) == []
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    away, back = said
    assert "candles wait in the journal, which may grow to 4.0 GB" in away and "s3://bucket/lake" in away
    assert re.fullmatch(rf"the store is back after \d+ s; {len(candles)} candles waited in the journal", back)


def test_the_journal_stops_at_its_limit(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """At the limit the queue is not read, which is logged once; nothing that was recorded is lost."""
    candles, limit = an_hour(10), 60_000

    async def main() -> None:
        recorder = OfflineRecorder(place.lake, flush_every_s=0.05, queue_max=20, journal_bytes_max=limit)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        place.proxy.away = True
        feeding = asyncio.create_task(put_all(recorder, candles))
        await until(lambda: recorder.stats.refusals > 2)
        status = recorder.status()
        assert limit <= status.journal_bytes < 1.2 * limit
        assert (status.queued, feeding.done()) == (20, False)
        (line,) = [each.getMessage() for each in caplog.records if "its limit" in each.getMessage()]
        assert line.startswith("journal: it has reached its limit of 60.0 kB: ")
        assert line.endswith("recording waits, and sockets are not read once the queue is full")
        place.proxy.away = False
        await until(lambda: recorder.stats.flushed == len(candles))
        stop.set()
        await running

    asyncio.run(main())
    assert place.candles() == keys(candles)


async def put_all(recorder: OfflineRecorder, candles: list[Candle]) -> None:
    for candle in candles:
        await recorder.queue.put(candle)


def test_a_stop_without_the_store_keeps_the_journal(place: Place) -> None:
    """A stop says how many candles stay; the next recorder flushes them as soon as the store is back."""
    candles = an_hour(10)

    async def first() -> None:
        recorder = OfflineRecorder(place.lake, flush_every_s=0.05, queue_max=QUEUE)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        place.proxy.away = True
        for candle in candles:
            await recorder.queue.put(candle)
        await until(lambda: recorder.stats.recorded == len(candles))
        stop.set()
        with pytest.raises(LakeError, match=f"^{len(candles)} candles could not be flushed and stay"):
            await running

    asyncio.run(first())
    assert keys(read_unflushed(place.lake.state_dir)) == keys(candles)

    async def next_one() -> None:
        journals = DeadJournals(place.lake)
        replaying = asyncio.create_task(journals.replay())
        await until(lambda: journals.unflushed > 0)
        place.proxy.away = False
        await replaying
        assert journals.unflushed == 0
        journals.close()

    asyncio.run(next_one())
    assert place.candles() == keys(candles)
    assert read_unflushed(place.lake.state_dir) == []


def test_a_segment_of_many_partitions_asks_few_times(place: Place) -> None:
    """A replay finds the store away after a few requests, whatever the number of partitions."""

    async def record() -> None:
        recorder = OfflineRecorder(place.lake, queue_max=400)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for number in range(400):
            await recorder.queue.put(stream_candle(0, f"S{number}USDT"))
        await until(lambda: recorder.stats.recorded == 400)
        place.proxy.away = True
        stop.set()
        with pytest.raises(LakeError):
            await running

    asyncio.run(record())
    before = place.proxy.asked
    (found,) = replay_dead(place.lake)
    assert (found.waiting, found.is_away) == (400, True)
    # Each request is sent three times.
    assert place.proxy.asked - before <= 3 * (BATCH_PARTITIONS_MAX + 32 + AWAY_MERGES_MAX)


@pytest.mark.parametrize("fault", ["unreadable", "gone"])
def test_a_parked_segment_that_cannot_be_read_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A read error of one segment loses no candle of it, and a missing segment none of the others."""
    candles = an_hour(12)
    missing: set[tuple[str, int]] = set()
    failing = [fault == "unreadable"]

    def read_or_fail(path: Path) -> Segment:
        if failing.pop() if failing else False:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return read_segment(path)

    monkeypatch.setattr("lakewriter.recording.flushing.journaled_buffer.read_segment", read_or_fail)

    async def main() -> None:
        recorder = OfflineRecorder(place.lake, flush_every_s=0.05, queue_max=QUEUE)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        place.proxy.away = True
        for candle in candles[:100]:
            await recorder.queue.put(candle)
        await until(lambda: recorder.status().store_away_ms is not None)
        for candle in candles[100:]:
            await recorder.queue.put(candle)
        await until(lambda: recorder.stats.recorded == len(candles) and recorder.journaled.parked > 0)
        await until(lambda: recorder.journaled.in_memory < PARK)
        if fault == "gone":
            first = recorder.journaled._parked[0].segments[0]
            missing.update((each.symbol, each.begin_ms) for each in read_segment(first).candles)
            first.unlink()
        place.proxy.away = False
        await until(lambda: recorder.status().store_away_ms is None)
        # What could not be read is read by the next flush, which a new candle starts.
        for minute in range(100, 103):
            candles.append(stream_candle(minute))
            await recorder.queue.put(candles[-1])
            flushes = recorder.stats.flushes
            await until(lambda: recorder.stats.flushes > flushes)  # noqa: B023 - awaited at once
        await until(lambda: len(recorder.journaled) == 0)
        stop.set()
        await running

    asyncio.run(main())
    assert place.candles() == [key for key in keys(candles) if key not in missing]


def test_a_full_journal_is_flushed(place: Place) -> None:
    """A limit below what a flush waits for starts one, and stops no recording."""
    candles = an_hour(5)

    async def main() -> None:
        recorder = OfflineRecorder(place.lake, flush_every_s=3600, queue_max=20, journal_bytes_max=30_000)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for candle in candles:
            await recorder.queue.put(candle)
        await until(lambda: recorder.stats.recorded == len(candles))
        stop.set()
        await running
        assert recorder.stats.flushes >= 2

    asyncio.run(main())
    assert place.candles() == keys(candles)
