"""Clean stops at bad moments, and clocks that jump."""

import asyncio
import itertools
import re
import signal
from pathlib import Path

import pytest

from lakewriter.clock import Clock
from lakewriter.sandbox import SandboxOptions, serve
from support.recording import recording
from support.running import Child, child, plain_rows, until
from support.side_by_side import side_by_side

pytestmark = pytest.mark.slow

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\S+ \S+) at", re.MULTILINE)


def everything_is_there(lake: Path, recorder: Child) -> None:
    """Check that each logged candle is in the lake once, and that the journals are empty."""
    logged = {found.groups() for found in RECORDED.finditer(recorder.logged())}
    rows = plain_rows(lake, "market, symbol, \"interval\", strftime(candle_begin_time, '%Y-%m-%d %H:%M')")
    assert logged == set(rows)
    assert len(rows) == len(logged) > 0
    assert not list(lake.glob("_lakewriter/journal/*/*"))
    assert not list(lake.glob("**/.*tmp-*"))


@side_by_side
async def test_a_stop_during_a_flush_and_another_one(tmp_path: Path) -> None:
    """SIGTERM during a merge, and a second one at once, still flush all candles and exit 0."""
    lake = tmp_path / "lake"

    async with serve(SandboxOptions(speed=60, symbols=200)) as sandbox:
        arguments = ["record", "--log-candles", "spot:*:1m", "--exchange", sandbox.url, "--lake", str(lake)]
        with child(tmp_path / "log", *arguments, "--flush-every", "2s") as recorder:
            await until(lambda: any(lake.glob("market=spot/*/*/*/candles.parquet")))
            recorder.process.send_signal(signal.SIGTERM)
            recorder.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(recorder.stop, signal.SIGINT) == 0
        assert "already stopping" in recorder.logged()
        everything_is_there(lake, recorder)


@side_by_side
async def test_a_stop_while_the_exchange_is_away(tmp_path: Path) -> None:
    """SIGTERM before a reconnect exits 0 within seconds."""
    lake = tmp_path / "lake"

    async with serve(SandboxOptions(speed=60)) as sandbox:
        arguments = [
            "record",
            "--log-candles",
            "spot:BTCUSDT:1m",
            "usdt_futures:ETHUSDT:1m",
            "--exchange",
            sandbox.url,
        ]
        with child(tmp_path / "log", *arguments, "--lake", str(lake)) as recorder:
            await until(lambda: recorder.logged().count("\nrecorded ") >= 3)
            sandbox.refuse(503)
            await sandbox.drop_connections()
            await until(lambda: recorder.logged().count("HTTP 503") >= 4)
            assert await asyncio.to_thread(recorder.stop) == 0
        everything_is_there(lake, recorder)


class JumpingClock(Clock):
    """A wall clock that jumps by an hour at each reading."""

    def __init__(self) -> None:
        self._jumps = itertools.cycle((0, 3_600_000_000, -3_600_000_000))

    def wall_us(self) -> int:
        return super().wall_us() + next(self._jumps)


@side_by_side
async def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    """Candles, partitions and flushes depend only on the exchange's time and the monotonic clock."""
    lake = tmp_path / "lake"

    # Half an hour before midnight: an hour's jump would be another day.
    async with serve(SandboxOptions(speed=600, start_ms=1_719_703_800_000)) as sandbox:
        async with recording(
            sandbox, lake, "spot:BTCUSDT:1m", flush_every_s=0.2, clock=JumpingClock()
        ) as run:
            await until(lambda: run.recorder.stats.flushes >= 5 and run.recorder.stats.recorded >= 45)
        rows = plain_rows(lake, "symbol, date::VARCHAR, epoch_ms(candle_begin_time), close")
        begins = [int(str(row[2])) for row in rows]
        assert begins == list(range(begins[0], begins[0] + len(begins) * 60_000, 60_000))
        for _, day, begin_ms, close in rows:
            assert close == float(sandbox.truth.candle("spot", "BTCUSDT", "1m", int(str(begin_ms))).close)
            assert day == ("2024-06-29" if int(str(begin_ms)) < 1_719_705_600_000 else "2024-06-30")
