"""What a kline frame costs beside its limit: from the socket to the journal.

A server in another process sends frames of 100 symbols, of which 2 % are
closed candles: those of one minute close together, as they do at the exchange
(`--spread` strews them evenly instead). Side by side in one run, turn about,
the CPU time per frame of

    recv      a loop that only calls websockets' recv()
    recorder  CandleListener → queue → Recorder, every closed candle fsynced

The number that counts is the ratio of the medians. CPU time of all threads
is counted, the server's is not.

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

from lakewriter.candle import Candle
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.recording.recorder import QUEUE_CANDLES_MAX, Recorder

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
    """Send the frames to whoever subscribes; `rate` a second, 0 for as fast as they are read."""

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
    queue: asyncio.Queue[Candle] = asyncio.Queue(QUEUE_CANDLES_MAX)
    market = msgspec.structs.replace(MARKETS["spot"], stream_url=url)
    listener = CandleListener(market, SYMBOLS, "1m", queue)
    # The flush is another step's cost: benchmarks/merge.py.
    recorder = Recorder(store, [listener], queue, flush_every_s=3600, name="benchmark")
    stop = asyncio.Event()
    recording = asyncio.create_task(recorder.run(stop))
    while listener.frames == 0:
        await asyncio.sleep(0)
    start = time.process_time()
    while recorder.stats.recorded < frames // CLOSED_OF:
        await asyncio.sleep(0.01)
    spent_s = time.process_time() - start
    stop.set()
    await recording
    return spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=0, help="frames a second; 0 for as fast as possible")
    parser.add_argument("--spread", action="store_true", help="strew the closed candles evenly")
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
