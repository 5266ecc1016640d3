"""A stalled disk: the queue fills, sockets are not read, and the queue drains afterwards."""

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from lakewriter.candle import Candle
from lakewriter.lake.journal import Journal
from lakewriter.sandbox import SandboxOptions, serve
from support.recording import recording
from support.running import PATIENCE_S, plain_rows, until

pytestmark = pytest.mark.slow

QUEUE_MAX = 20


class StalledJournal(Journal):
    """A journal on a disk that writes only when the test allows it."""

    def __init__(self, journal: Journal) -> None:
        vars(self).update(vars(journal))
        self.moves = threading.Event()

    def commit(self, candles: Iterable[Candle]) -> int:
        assert self.moves.wait(PATIENCE_S)
        return super().commit(candles)


def test_a_stalled_disk_holds_the_sockets_and_everything_drains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While a sync hangs the queue fills to its limit and reading pauses; then no candle is missing."""
    lake = tmp_path / "lake"

    async def main() -> None:
        async with serve(SandboxOptions(speed=600, push_every_ms=0)) as sandbox:
            symbols = ",".join(sandbox.symbols("spot")[:5])
            async with recording(
                sandbox, lake, f"spot:{symbols}:1m", flush_every_s=3600, queue_max=QUEUE_MAX
            ) as running:
                recorder, listener = running.recorder, running.supervisor.listeners["spot"]
                await until(lambda: recorder.stats.recorded >= 5)
                stalled = StalledJournal(recorder.journaled.journal)
                recorder.journaled.journal = stalled
                await until(recorder._queue.full)
                read, at_ms = listener.stats.candles, sandbox.now_ms()
                await until(lambda: sandbox.now_ms() > at_ms + 15 * 60_000)
                assert recorder._queue.qsize() == QUEUE_MAX
                assert listener.stats.candles == read
                stalled.moves.set()
                await until(lambda: listener.stats.candles >= read + 5 * 15)
                assert listener.stats.reconnects == 0

    asyncio.run(main())
    rows = plain_rows(lake)
    by_symbol: dict[object, list[int]] = {}
    for _, symbol, _, begin_ms in rows:
        by_symbol.setdefault(symbol, []).append(int(str(begin_ms)))
    assert len(by_symbol) == 5
    for begins in by_symbol.values():
        assert begins == list(range(begins[0], begins[0] + len(begins) * 60_000, 60_000))
    assert sum("sockets are not read" in record.getMessage() for record in caplog.records) == 1
