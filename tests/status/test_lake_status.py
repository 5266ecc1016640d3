"""The status of real lakes: with a living recorder, a killed one, gaps, and none of them."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from lakewriter.lake.compact import compact_partitions
from lakewriter.lake.compaction_record import (
    CompactionRecord,
    read_compaction_record,
    write_compaction_record,
)
from lakewriter.lake.journal import create_journal
from lakewriter.lake.open import open_to_read
from lakewriter.lake.recorder_status_file import write_status
from lakewriter.lake.subscriptions import end_periods
from lakewriter.recording.status import MarketStatus
from lakewriter.recording.supervisor import SupervisorOptions
from lakewriter.sandbox.server import SandboxOptions, serve
from lakewriter.series import Series
from lakewriter.status.facts import LakeStatus
from lakewriter.status.lake_status import lake_status
from lakewriter.status.open_gaps import read_open_gaps
from lakewriter.status.recorders import read_recorders
from support.candles import BTC, stream_candle
from support.compaction import plan_compaction
from support.lakes import make_lake
from support.living_recorder import LivingRecorder, confirm_series, kill_recorder, mark_gap
from support.recording import recording
from support.running import child, until
from support.side_by_side import side_by_side
from support.statuses import recorder_status


def now_ms() -> int:
    return time.time_ns() // 10**6


def status_of(lake: Path) -> LakeStatus:
    return lake_status(open_to_read(str(lake)), now_ms(), lake=str(lake))


def test_a_lake_without_a_recorder_has_no_finding(tmp_path: Path) -> None:
    """A lake that nothing records is no finding."""
    make_lake(tmp_path, map(stream_candle, range(10)))
    status = status_of(tmp_path)
    assert (status.recorders, status.attention, status.series) == ((), (), 0)
    assert status.size.rows == 10
    assert status.disk is not None
    assert status.disk.days_until_full is None
    assert msgspec.json.decode(msgspec.json.encode(status), type=LakeStatus) == status


def test_a_journal_without_a_status_is_busy(tmp_path: Path) -> None:
    """A backfill holds a journal and publishes no status; neither does it after a power cut."""
    journal = create_journal(tmp_path, "backfill-host-1")
    (busy,) = read_recorders(tmp_path)
    assert (busy.state, busy.status, busy.journal_candles) == ("busy", None, None)
    write_status(journal.directory, b"")
    assert read_recorders(tmp_path) == [busy]
    write_status(journal.directory, b'{"of": "another version"}')
    assert read_recorders(tmp_path) == [busy]
    write_status(journal.directory, msgspec.json.encode(recorder_status()))
    (recording_now,) = read_recorders(tmp_path)
    assert (recording_now.state, recording_now.status) == ("recording", recorder_status())
    journal.close()
    assert read_recorders(tmp_path) == []


def test_a_status_of_a_newer_version_is_read(tmp_path: Path) -> None:
    """A field that this version does not know is ignored."""
    journal = create_journal(tmp_path, "host-1")
    fields = msgspec.to_builtins(recorder_status()) | {"moon_phase": 0.5}
    write_status(journal.directory, msgspec.json.encode(fields))
    (found,) = read_recorders(tmp_path)
    assert found.status == recorder_status()
    journal.close()


def test_a_dead_journal_is_counted(tmp_path: Path) -> None:
    """The candles of a dead recorder's journal are its whole lines."""
    make_lake(tmp_path)
    journal = create_journal(tmp_path, "host-1")
    journal.commit(map(stream_candle, range(7)))
    kill_recorder(journal)
    (segment,) = journal.segments()
    with segment.open("ab") as file:
        file.write(b'{"crc":12')
    status = status_of(tmp_path)
    (dead,) = status.recorders
    assert (dead.state, dead.journal_candles, dead.journal_bytes) == ("dead", 7, segment.stat().st_size)
    assert status.buffered == 7
    (finding,) = status.attention
    assert finding.command == f"lakewriter flush --lake {tmp_path}"


def test_gaps_are_counted_as_the_lake_is(tmp_path: Path) -> None:
    """Candles that a dead recorder did not heal count, unless they were fetched since."""
    make_lake(tmp_path, map(stream_candle, [*range(10), *range(12, 20)]))
    recorder = LivingRecorder(tmp_path)
    mark_gap(recorder, 5, 12)
    gaps = status_of(tmp_path).gaps
    assert (gaps.healing_candles, gaps.healing_series, gaps.reasonless_candles) == (7, 1, 0)
    recorder.die()
    status = status_of(tmp_path)
    assert (status.gaps.healing_candles, status.gaps.reasonless_candles, status.gaps.example) == (0, 2, BTC)
    assert [each.kind for each in status.attention] == ["gaps"]
    make_lake(tmp_path, map(stream_candle, (10, 11)))
    assert status_of(tmp_path).attention == ()


def test_series_of_a_recorder_that_is_gone_are_counted(tmp_path: Path) -> None:
    """A series stays subscribed to after its recorder; once another recorder lives, it is a finding."""
    store = make_lake(tmp_path, map(stream_candle, range(10)))
    now, ether, ada = now_ms(), Series("spot", "ETHUSDT", "1m"), Series("spot", "ADAUSDT", "1m")
    spot = MarketStatus("spot", 2, 1, 0, 0, 0, exchange_ms=now)
    own = msgspec.json.encode(recorder_status(started_at_ms=0, at_ms=now, markets=(spot,)))
    first = create_journal(tmp_path, "first")
    before_ms = now - 20 * 60_000
    # ADAUSDT never traded, so no recorder waits for it.
    owed = {BTC: before_ms, ether: before_ms}
    confirm_series(store, first, BTC, ether, ada, now_ms=before_ms, name="/a.toml", starting=True, owed=owed)
    write_status(first.directory, own)
    assert status_of(tmp_path).unrecorded_series == 0
    first.close()
    status = status_of(tmp_path)
    assert (status.unrecorded_series, status.unrecorded_example, status.attention) == (2, BTC, ())
    second = create_journal(tmp_path, "second")
    confirm_series(store, second, ether, now_ms=now, name="/b.toml", starting=True, owed={ether: now})
    write_status(second.directory, own)
    status = status_of(tmp_path)
    assert (status.unrecorded_series, status.unrecorded_example) == (1, BTC)
    assert [each.kind for each in status.attention] == ["unrecorded"]
    end_periods(store, [BTC])
    assert status_of(tmp_path).attention == ()
    second.close()


def test_gaps_with_a_final_reason_are_not_open(tmp_path: Path) -> None:
    """A halt of the exchange is explained."""
    make_lake(tmp_path, map(stream_candle, [*range(5), *range(7, 9)]))
    recorder = LivingRecorder(tmp_path)
    mark_gap(recorder, 5, 7, "exchange_halt")
    recorder.die()
    assert status_of(tmp_path).gaps.reasonless_candles == 0


def test_many_gaps_are_not_all_checked(tmp_path: Path) -> None:
    """Above a number of files, the ledger's candles are reported as not checked."""
    store = make_lake(tmp_path, [stream_candle(0), stream_candle(0, "ETHUSDT")])
    recorder = LivingRecorder(tmp_path)
    mark_gap(recorder, 5, 12, "unhealable")
    mark_gap(recorder, 5, 9, "unhealable", Series("spot", "ETHUSDT", "1m"))
    recorder.die()
    gaps = read_open_gaps(store, files_max=3)
    assert (gaps.reasonless_candles, gaps.unchecked_candles) == (7, 4)
    assert read_open_gaps(store).reasonless_candles == 11
    # A series with too many files does not keep the next one from being checked.
    mark_gap(recorder_of_days := LivingRecorder(tmp_path), 5, 4 * 1440, "unhealable")
    recorder_of_days.die()
    gaps = read_open_gaps(store, files_max=3)
    assert (gaps.reasonless_candles, gaps.unchecked_candles) == (4, 4 * 1440 - 5)


def test_a_compaction_is_on_record(tmp_path: Path) -> None:
    """The last compaction's record is read back; a damaged one is none."""
    store = make_lake(tmp_path, map(stream_candle, range(10)))
    assert read_compaction_record(store) is None
    list(compact_partitions(store, plan_compaction(store).work, time.time()))
    record = CompactionRecord(now_ms(), 0.5, 1, 0, 10, 0, 0, 0, 100, 100, True)
    write_compaction_record(store, record)
    assert status_of(tmp_path).last_compaction == record
    (tmp_path / "_lakewriter/last_compaction.json").write_bytes(b"{")
    assert status_of(tmp_path).last_compaction is None


@pytest.mark.slow
@side_by_side
async def test_a_living_recorder_is_summed_up(tmp_path: Path) -> None:
    """Series, candles and queues are those of the recorder; the size follows its flushes."""
    lake = tmp_path / "lake"
    options = SupervisorOptions(grace_ms=180_000, list_every_s=1.5)
    async with (
        serve(SandboxOptions(speed=300, symbols=30)) as sandbox,
        recording(sandbox, lake, "spot:BTCUSDT,ETHUSDT:1m", options=options),
    ):
        status = await asyncio.to_thread(status_of, lake)
        await until(lambda: (found := status_of(lake)).size.rows > 10 and found.last_flush is not None)
        status = status_of(lake)
        (recorder,) = status.recorders
        assert recorder.state == "recording"
        assert (status.series, status.live_series, status.overdue_series) == (2, 2, 0)
        assert status.candles_today >= status.size.rows - 2
        assert status.lag_ms is not None
        assert status.today_since_ms is not None
        assert status.disk is not None
        assert status.disk.days_until_full is not None
        assert not status.disk.growth_is_measured
        assert status.attention == ()


@pytest.mark.slow
@side_by_side
async def test_a_killed_recorder_is_a_finding(tmp_path: Path) -> None:
    """A recorder that was killed is dead, with its last counts, until its journal is flushed."""
    lake = tmp_path / "lake"
    async with serve(SandboxOptions(speed=60, symbols=10)) as sandbox:
        arguments = ["record", "spot:BTCUSDT,ETHUSDT:1m", "--exchange", sandbox.url, "--lake", str(lake)]
        with child(tmp_path / "log", *arguments) as recorder:
            await until(
                lambda: (
                    lake.exists()
                    and any((fact.status and fact.status.recorded > 3) for fact in read_recorders(lake))
                )
            )
            await asyncio.to_thread(recorder.kill)
        status = await asyncio.to_thread(status_of, lake)
        (dead,) = status.recorders
        assert dead.state == "dead"
        assert dead.status is not None
        assert dead.journal_candles is not None
        assert dead.journal_candles >= dead.status.recorded > 3
        assert status.series == 0
        assert status.candles_today == dead.status.candles_today
        assert [each.kind for each in status.attention] == ["dead_recorder"]
