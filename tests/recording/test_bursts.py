"""Bursts of candles: one commit for all of them, and no long block of the event loop."""

import asyncio
import itertools
import json
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.lake.segments import read_segment
from lakewriter.market import MARKETS
from lakewriter.recording.flushing.journaled_buffer import COMMIT_CANDLES_MAX
from lakewriter.recording.listening.connection import TURN_CANDLES_MAX
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.recorder import BOOKKEEPING_CANDLES_MAX
from support.candles import DAY_START_MS, stream_candle
from support.recording import OfflineRecorder
from support.refusing_lake import begins, refusing
from support.running import PATIENCE_S, running, until

BURST = 3_000


class StoppedClock(Clock):
    """A clock on which no time passes, so that no wait reaches its maximum."""

    def monotonic_s(self) -> float:
        return 1.0


class HurriedClock(Clock):
    """A clock on which 10 ms pass at each reading."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 0.01
        return self.now_s


def test_a_burst_is_one_commit(tmp_path: Path) -> None:
    """Candles that arrive in many turns of the event loop are committed at once, in order."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store, queue_max=BURST, clock=StoppedClock())
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(BURST):
            await recorder.queue.put(stream_candle(minute))
            await asyncio.sleep(0)
        await until(lambda: recorder.stats.recorded == BURST)
        commits = recorder.stats.commit_candles
        assert (commits.count, commits.most) == (1, BURST)
        (segment,) = recorder.journaled.journal.segments()
        assert read_segment(segment).candles == [stream_candle(minute) for minute in range(BURST)]
        stop.set()
        await running

    asyncio.run(main())
    assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in range(1440)]


def test_candles_without_an_end_are_committed(tmp_path: Path) -> None:
    """While candles arrive all the time, a commit begins after the maximum wait."""

    async def main() -> None:
        recorder = OfflineRecorder(refusing(tmp_path), queue_max=2 * COMMIT_CANDLES_MAX, clock=HurriedClock())
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        minute = 0
        while recorder.stats.recorded == 0:
            await recorder.queue.put(stream_candle(minute))
            await asyncio.sleep(0)
            minute += 1
        assert recorder.stats.commit_candles.most < min(minute, COMMIT_CANDLES_MAX)
        stop.set()
        await running

    asyncio.run(main())


def test_other_tasks_have_their_turns(tmp_path: Path) -> None:
    """After a large commit other tasks run between parts of the bookkeeping. It ends before deadlines are watched."""

    async def main() -> None:
        recorder = OfflineRecorder(refusing(tmp_path), queue_max=BURST, clock=StoppedClock())
        queue, stop = recorder.queue, asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(BURST):
            await queue.put(stream_candle(minute))
        recorded = [0]
        while recorded[-1] < BURST:
            await asyncio.sleep(0)
            recorded.append(recorder.stats.recorded)
            assert queue.last_durable == 0 or recorded[-1] == BURST
        assert recorder.stats.commit_candles.count == 1
        steps = {later - earlier for earlier, later in itertools.pairwise(recorded)}
        assert steps == {0, BOOKKEEPING_CANDLES_MAX}
        await queue.wait_durable()
        stop.set()
        await running

    asyncio.run(main())


def test_a_stop_in_the_bookkeeping_loses_nothing(tmp_path: Path) -> None:
    """A stop between two parts of the bookkeeping ends it, and flushes each candle once."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store, queue_max=BURST, clock=StoppedClock())
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(BURST):
            await recorder.queue.put(stream_candle(minute))
        while not recorder.stats.recorded:
            await asyncio.sleep(0)
        assert recorder.stats.recorded < BURST
        stop.set()
        await running
        assert (recorder.stats.recorded, recorder.stats.flushed) == (BURST, BURST)
        assert recorder.queue.last_durable == BURST

    asyncio.run(main())
    assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in range(1440)]


def closed_frame(minute: int) -> bytes:
    """Return the WebSocket frame of a closed candle."""
    begin_ms = DAY_START_MS + minute * 60_000
    numbers = dict.fromkeys("ohlcvqVQ", "1.5")
    kline = {"t": begin_ms, "T": begin_ms + 59_999, "s": "BTCUSDT", "i": "1m", "n": 9, "x": True, **numbers}
    event = {"e": "kline", "E": begin_ms + 60_004, "s": "BTCUSDT", "k": kline}
    payload = json.dumps({"stream": "btcusdt@kline_1m", "data": event}).encode()
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


@pytest.mark.slow
def test_other_tasks_have_their_turns_while_a_burst_is_read() -> None:
    """Of many frames in one read, only a few are decoded until other tasks run."""
    burst = 500

    async def exchange(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(f'{{"result":null,"id":{json.loads(message)["id"]}}}')
            connection.transport.write(b"".join(map(closed_frame, range(burst))))

    async def main() -> None:
        queue: asyncio.Queue[Candle] = asyncio.Queue(burst)
        async with serve(exchange, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            market = msgspec.structs.replace(MARKETS["spot"], stream_url=f"ws://127.0.0.1:{port}")
            listener = CandleListener(market, ["BTCUSDT"], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                sizes = [0]
                async with asyncio.timeout(60):
                    while sizes[-1] < burst:
                        await asyncio.sleep(0)
                        sizes.append(queue.qsize())
        steps = [later - earlier for earlier, later in itertools.pairwise(sizes)]
        assert max(steps) <= TURN_CANDLES_MAX
        assert [queue.get_nowait().begin_ms for _ in range(burst)] == [
            DAY_START_MS + minute * 60_000 for minute in range(burst)
        ]

    asyncio.run(main())


@pytest.mark.parametrize("room", [0, 20])
@pytest.mark.usefixtures("stream_library")
def test_a_cancel_in_a_burst_loses_nothing_that_was_read(room: int) -> None:
    """Candles that have arrived before a cancel are on the queue, or unsent if it has no room for them."""
    burst = 6 * TURN_CANDLES_MAX
    connections = []

    async def exchange(connection: ServerConnection) -> None:
        connections.append(connection)
        async for message in connection:
            await connection.send(f'{{"result":null,"id":{json.loads(message)["id"]}}}')
            # A long frame enlarges the client's buffer, so that the burst is one read.
            await connection.send('{"x":false}' + " " * 200_000)

    async def main() -> None:
        queue: asyncio.Queue[Candle] = asyncio.Queue(burst - room)
        async with serve(exchange, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            market = msgspec.structs.replace(MARKETS["spot"], stream_url=f"ws://127.0.0.1:{port}")
            listener = CandleListener(market, ["BTCUSDT"], "1m", queue)
            async with running(asyncio.create_task(listener.run())), asyncio.timeout(PATIENCE_S):
                await until(lambda: listener.frames == 2)
                connections[0].transport.write(b"".join(map(closed_frame, range(burst))))
                while queue.empty():
                    await asyncio.sleep(0)
        candles = [queue.get_nowait() for _ in range(queue.qsize())]
        assert len(candles) < burst or not room
        assert [candle.begin_ms for candle in (*candles, *listener.unsent)] == [
            DAY_START_MS + minute * 60_000 for minute in range(burst)
        ]

    asyncio.run(main())
