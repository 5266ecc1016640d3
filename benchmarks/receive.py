"""The cost of a kline frame from the socket to the journal, beside plain receiving.

A server in another process sends frames of 100 symbols. 2 % of them are closed
candles. Those of one minute close together, as at the exchange; `--spread` spreads
them evenly instead. The CPU time per frame is measured in turns:

    recv      a loop that only calls websockets' recv()
    recorder  CandleListener → queue → Recorder, every closed candle fsynced

The result is the ratio of the medians. The CPU time of all threads is counted,
without the server's.

    python benchmarks/receive.py [--frames 200000] [--rounds 5] [--rate 0] [--spread] [--directory .]
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import struct
import tempfile
import time
from multiprocessing.synchronize import Event

import msgspec
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.network import Network
from lakewriter.clock import Clock
from lakewriter.lake.gaps.ledgers import open_ledger
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS
from lakewriter.recording.candle_queue import CandleQueue
from lakewriter.recording.recorder import Recorder
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.supervisor import CompletenessSupervisor, SupervisorOptions
from lakewriter.subscribed_period import COMMAND_LINE, RecorderId
from lakewriter.subscription import parse_subscription

SYMBOLS = [f"S{number:03d}USDT" for number in range(100)]
CLOSED_OF = 50
LIMIT = 1.3
BURST = 20
FIRST_MS = 1_700_006_400_000


def frame(number: int, spread: bool) -> bytes:
    """Return the WebSocket frame of a kline; one of 50 is closed."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    turn = number % len(SYMBOLS) + number // len(SYMBOLS) if spread else number // len(SYMBOLS)
    closed = turn % CLOSED_OF == CLOSED_OF - 1
    begin_ms = FIRST_MS + turn // CLOSED_OF * 60_000
    price = 100 + number % 977 / 100
    kline = (
        f'{{"t":{begin_ms},"T":{begin_ms + 59_999},"s":"{symbol}","i":"1m","f":{number},"L":{number + 78},'
        f'"o":"{price:.8f}","c":"{price:.8f}","h":"{price:.8f}","l":"{price:.8f}","v":"208601.00000000","n":78,'
        f'"x":{"true" if closed else "false"},"q":"70846.76968900","V":"156046.30000000",'
        f'"Q":"52984.16932200","B":"0"}}'
    )
    payload = (
        f'{{"stream":"{symbol.lower()}@kline_1m","data":{{"e":"kline","E":{begin_ms + 60_004},'
        f'"s":"{symbol}","k":{kline}}}}}'
    ).encode()
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload


def run_server(port: "multiprocessing.Queue[int]", frames: int, rate: int, spread: bool, over: Event) -> None:
    """Send the frames to each subscriber; `rate` a second, 0 for as fast as they are read."""

    async def talk(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await send_all(connection)

    async def send_all(connection: ServerConnection) -> None:
        async for message in connection:
            request = msgspec.json.decode(message)
            await connection.send(f'{{"result":null,"id":{request["id"]}}}')
            start = time.perf_counter()
            for first in range(0, frames, BURST):
                connection.transport.write(
                    b"".join(frame(number, spread) for number in range(first, first + BURST))
                )
                await asyncio.sleep(0)
                while connection.transport.get_write_buffer_size() > 1 << 20:
                    await asyncio.sleep(0.001)
                if rate:
                    await asyncio.sleep(max(0.0, first / rate - (time.perf_counter() - start)))

    async def main() -> None:
        async with serve(talk, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
            port.put(next(iter(server.sockets)).getsockname()[1])
            await asyncio.to_thread(over.wait)

    asyncio.run(main())


async def only_recv(url: str, frames: int) -> float:
    async with connect(f"{url}/stream", compression=None, ping_interval=None) as connection:
        await connection.send('{"method":"SUBSCRIBE","params":[],"id":1}')
        await connection.recv()
        start = time.process_time()
        for _ in range(frames):
            await connection.recv()
        return time.process_time() - start


async def record(url: str, frames: int, scratch: str) -> float:
    store = LakeStore.create(f"{scratch}/lake", "benchmark")
    # Nothing answers REST here, so that no request is part of what is measured.
    market = msgspec.structs.replace(MARKETS["spot"], stream_url=url, rest_url="http://127.0.0.1:9")
    clock = Clock()
    async with Network() as session:
        clients = MarketClients(lambda _: market, session, clock)
        journal = create_journal(store.state_dir, "benchmark")
        ledger = open_ledger(store.state_dir, journal.directory.name)
        queue = CandleQueue()
        supervisor = CompletenessSupervisor(
            store,
            SubscribedSeries([parse_subscription(f"spot:{','.join(SYMBOLS)}:1m")], clients),
            clients,
            queue,
            recorder=RecorderId(COMMAND_LINE, journal.directory.name),
            ledger=ledger,
            options=SupervisorOptions(),
            clock=clock,
        )
        # The flush is another step's cost: benchmarks/merge.py.
        recorder = Recorder(store, journal, supervisor, queue, flush_every_s=3600, clock=clock)
        stop = asyncio.Event()
        recording = asyncio.create_task(recorder.run(stop))
        while not any(listener.frames for listener in supervisor.listeners.values()):
            await asyncio.sleep(0)
        start = time.process_time()
        while recorder.stats.recorded < frames // CLOSED_OF:
            await asyncio.sleep(0.01)
        spent_s = time.process_time() - start
        stop.set()
        await recording
        ledger.close()
    return spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=0, help="frames a second; 0 for as fast as possible")
    parser.add_argument("--spread", action="store_true", help="spread the closed candles evenly")
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue[int] = context.Queue()
    over = context.Event()
    server = context.Process(
        target=run_server, args=(port, options.frames, options.rate, options.spread, over)
    )
    server.start()
    url = f"ws://127.0.0.1:{port.get()}"
    recv_us, record_us = [], []
    for _ in range(options.rounds):
        recv_us.append(asyncio.run(only_recv(url, options.frames)) / options.frames * 1e6)
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            record_us.append(asyncio.run(record(url, options.frames, scratch)) / options.frames * 1e6)
    over.set()
    server.join()
    recv, recorder = statistics.median(recv_us), statistics.median(record_us)
    print(f"only recv()           {recv:6.2f} µs of CPU per frame")
    print(f"socket to journal     {recorder:6.2f} µs of CPU per frame")
    print(f"ratio {recorder / recv:.2f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
