"""The recorder's status: its series, its queues, and the file that other processes read."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from lakewriter import __version__
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.journal import create_journal
from lakewriter.lake.recorder_status_file import STATUS_NAME, read_status, remove_status, write_status
from lakewriter.recording.status import DayCount, RecorderStatus
from lakewriter.recording.supervisor import SupervisorOptions
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import SandboxOptions, serve
from support.candles import stream_candle
from support.full_disk import full_disk
from support.recording import OfflineRecorder, recording
from support.refusing_lake import refusing
from support.running import until
from support.side_by_side import side_by_side

# A second of real time is five minutes.
FAST = SandboxOptions(speed=300.0, push_every_ms=200, symbols=30)
OPTIONS = SupervisorOptions(grace_ms=3 * MINUTE_MS, list_every_s=1.5)


def published(lake: Path) -> RecorderStatus | None:
    """Return the status in the only journal of a lake; None before it is written."""
    found = list(lake.glob(f"_lakewriter/journal/*/{STATUS_NAME}"))
    data = read_status(found[0].parent) if found else None
    return None if data is None else msgspec.json.decode(data, type=RecorderStatus)


def test_a_day_counts_its_own_candles() -> None:
    """Candles of yesterday do not count today, also if none was recorded since."""
    count = DayCount()
    count.add(5, DAY_MS - 1)
    assert count.on(DAY_MS - 1) == 5
    assert count.on(DAY_MS) == 0
    count.add(2, DAY_MS)
    count.add(1, DAY_MS + 1)
    assert count.on(2 * DAY_MS - 1) == 3


def test_a_status_needs_its_directory(tmp_path: Path) -> None:
    """A status is replaced and removed; a directory that is gone is not created again."""
    write_status(tmp_path, b"one")
    write_status(tmp_path, b"two")
    assert read_status(tmp_path) == b"two"
    assert [path.name for path in tmp_path.iterdir()] == [STATUS_NAME]
    remove_status(tmp_path)
    remove_status(tmp_path)
    assert read_status(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        write_status(tmp_path / "gone", b"three")
    assert not (tmp_path / "gone").exists()


def test_a_stopped_journal_leaves_no_status(tmp_path: Path) -> None:
    """A journal removes its directory although a status, and a torn temporary one, are in it."""
    journal = create_journal(tmp_path, "host-1")
    write_status(journal.directory, b"{}")
    (journal.directory / f".{STATUS_NAME}.tmp-next").write_bytes(b"{")
    journal.close()
    assert not journal.directory.exists()


def test_the_status_counts_the_journal_and_the_flush(tmp_path: Path) -> None:
    """Bytes and candles of the journal are reported until their flush, and the flush afterwards."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(10):
            await recorder.queue.put(stream_candle(minute))
        await until(lambda: recorder.stats.recorded == 10)
        before = recorder.status()
        segments = list(store.root.glob("_lakewriter/journal/*/*.ndjson"))
        assert before.journal_bytes == sum(path.stat().st_size for path in segments) > 0
        assert (before.buffered, before.candles_today, before.flushes) == (10, 10, 0)
        assert before.last_flush is None
        await recorder.flush()
        after = recorder.status()
        assert (after.journal_bytes, after.buffered, after.candles_today) == (0, 0, 10)
        assert after.last_flush is not None
        assert (after.last_flush.candles, after.last_flush.partitions) == (10, 1)
        assert after.started_at_ms <= after.last_flush.ended_at_ms <= after.at_ms
        stop.set()
        await running

    asyncio.run(main())


def test_a_disk_that_refuses_shows_as_a_commit_that_waits(tmp_path: Path) -> None:
    """While the disk refuses the journal, the present commit waits longer and longer."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        with full_disk(100):
            await recorder.queue.put(stream_candle(0))
            await until(lambda: recorder.status().commit_waits_ms > 100)
            assert recorder.status().recorded == 0
        await until(lambda: recorder.status().commit_waits_ms == 0)
        assert recorder.status().recorded == 1
        stop.set()
        await running

    asyncio.run(main())


@pytest.mark.slow
@side_by_side
async def test_a_recorder_publishes_its_status(tmp_path: Path) -> None:
    """The file has the recorder's counts and identity; a clean stop removes it."""
    lake = tmp_path / "lake"
    async with serve(FAST) as sandbox:
        async with recording(sandbox, lake, "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS) as running:
            await until(lambda: (found := published(lake)) is not None and found.recorded > 4)
            found = published(lake)
            assert found is not None
            status = running.recorder.status()
            assert (found.recorder, found.version) == ("command line", __version__)
            assert (found.pid, found.started_at_ms) == (status.pid, status.started_at_ms)
            assert found.subscriptions == ("spot:BTCUSDT,ETHUSDT:1m",)
            assert (found.series, found.live_series, found.silent_series) == (2, 2, 0)
            assert (found.overdue_series, found.connections) == (0, 1)
            assert 4 < found.candles_today == found.recorded <= status.recorded
            assert found.lag_ms is not None
            assert found.disk is not None
            assert 0 < found.disk.free_bytes < found.disk.total_bytes
            (market,) = found.markets
            assert market.exchange_ms is not None
            assert market.clock_rate > 2  # its lower bound
            assert market.clock_offset_ms is None  # its clock is not one to set the host's by
        assert published(lake) is None
        assert not list(lake.glob("_lakewriter/journal/*/*"))


class WrongClock(Clock):
    """A clock whose wall clock is five seconds ahead."""

    def wall_us(self) -> int:
        return super().wall_us() + 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clock", "expected_ms"), [(Clock(), 0), (WrongClock(), 5_000)], ids=["right", "wrong"]
)
@side_by_side
async def test_the_host_clock_is_compared_with_the_exchange(
    tmp_path: Path, clock: Clock, expected_ms: int
) -> None:
    """At real speed the offset is known to a round trip; the sandbox has the clock of this host."""
    async with (
        serve(SandboxOptions(speed=1.0, symbols=4)) as sandbox,
        recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1s", clock=clock) as running,
    ):
        await until(lambda: running.recorder.status().clock_offset_ms is not None)
        offset_ms = running.recorder.status().clock_offset_ms
        assert offset_ms is not None
        assert abs(offset_ms - expected_ms) < 2_000


@pytest.mark.slow
@side_by_side
async def test_series_are_live_polled_silent_or_overdue(tmp_path: Path) -> None:
    """A silent stream is polled, a misspelled one is silent, and a candle that nothing brings is overdue."""
    async with serve(FAST) as sandbox:
        wanted = "spot:BTCUSDT,ETHUSDT,BTCUSDX:1m"
        async with recording(sandbox, tmp_path / "lake", wanted, options=OPTIONS) as running:
            status = running.recorder.status
            await until(lambda: status().live_series == 2 and status().silent_series == 1)
            (silent,) = status().silent_longest
            assert (silent.market, silent.symbol, silent.interval) == ("spot", "BTCUSDX", "1m")
            assert status().overdue_series == 0  # the exchange does not list it
            sandbox.add_fault(Fault("silent_stream", symbols=("BTCUSDT",)))
            await until(lambda: status().polled_series == 1)
            assert (status().live_series, status().silent_series) == (1, 1)
            sandbox.add_fault(Fault("rest_status", symbols=("BTCUSDT",), value=503))
            await until(lambda: status().overdue_series == 1)
            (overdue,) = status().most_overdue
            assert (overdue.symbol, overdue.interval) == ("BTCUSDT", "1m")
            first_ms = overdue.overdue_ms
            await until(lambda: status().most_overdue[0].overdue_ms > first_ms + 2 * MINUTE_MS)
            assert status().most_overdue[0].begin_ms == overdue.begin_ms
            sandbox.clear_faults()
            await until(lambda: status().overdue_series == 0)
