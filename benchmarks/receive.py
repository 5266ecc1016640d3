"""The cost of a kline frame from the socket to the journal, beside plain receiving.

A server in another process sends frames of 100 symbols. 2 % of them are closed candles.
Those of one minute close together, as at the exchange; `--spread` spreads them evenly
instead. Each side is a process of its own, turn about:

    recv             a loop that only calls websockets' recv(), after a recorder's imports
    bare             a loop of picows' core on uvloop that only counts, after the same imports
    websockets       `lakewriter record` without the extra `fast`
    picows           the same with picows, on asyncio
    picows,uvloop    the same with the whole extra

The imports matter: asyncio allocates 256 kB for each read, which a small process maps and
unmaps each time, and a large one does not. The CPU time of all threads is counted, from
before the first frame until a second after the last. The recorder syncs every closed candle;
its flush is another step's cost (`benchmarks/merge.py`).

    python benchmarks/receive.py [--frames 200000] [--rounds 5] [--rate 4000] [--spread] [--quick]
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import msgspec
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from lakewriter import event_loop
from lakewriter.fast_packages import VARIABLE, fast_package

SYMBOLS = [f"S{number:03d}USDT" for number in range(100)]
CLOSED_OF = 50
FIRST_MS = 1_700_006_400_000

# Frames of one write. At a rate they arrive a few at a time, as at the exchange.
FLOOD_FRAMES, RATE_FRAMES = 200, 4

# Waited for before the first and after the last frame, so that nothing of the start is counted.
BEFORE_S, AFTER_S = 3.0, 1.0

RECV, BARE, WEBSOCKETS, PICOWS, FAST = "recv", "bare", "websockets", "picows", "picows,uvloop"
SIDES = (RECV, BARE, WEBSOCKETS, PICOWS, FAST)


def turn_of(number: int, spread: bool) -> int:
    """Return how many frames of its symbol are before a frame; each 50th is closed."""
    return number % len(SYMBOLS) + number // len(SYMBOLS) if spread else number // len(SYMBOLS)


def closed_frames(frames: int, spread: bool) -> int:
    """Return the number of closed candles in the frames."""
    return sum(turn_of(number, spread) % CLOSED_OF == CLOSED_OF - 1 for number in range(frames))


def frame(number: int, spread: bool) -> bytes:
    """Return the WebSocket frame of a kline; one of 50 is closed."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    turn = turn_of(number, spread)
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


def run_server(
    events: "multiprocessing.Queue[int]", frames: int, rate: int, spread: bool, over: Event
) -> None:
    """Put the port on the queue; then, for each subscriber, 0 before its frames and 1 after them.

    Args:
        rate: frames a second; 0 for as fast as they are read.
    """
    step = RATE_FRAMES if rate else FLOOD_FRAMES
    # All frames are made before, so that the server never waits for itself.
    parts = [
        b"".join(frame(number, spread) for number in range(first, min(first + step, frames)))
        for first in range(0, frames, step)
    ]

    async def talk(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await answer(connection)
            events.put(0)
            await asyncio.sleep(BEFORE_S)
            await send_all(connection)
            events.put(1)
            while True:
                await answer(connection)

    async def answer(connection: ServerConnection) -> None:
        request = msgspec.json.decode(await connection.recv())
        await connection.send(f'{{"result":null,"id":{request["id"]}}}')

    async def send_all(connection: ServerConnection) -> None:
        start = time.perf_counter()
        for number, part in enumerate(parts):
            connection.transport.write(part)
            while connection.transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0.001)
            if rate:
                await asyncio.sleep(max(0.0, (number + 1) * step / rate - (time.perf_counter() - start)))
        while connection.transport.get_write_buffer_size():
            await asyncio.sleep(0.001)

    async def main() -> None:
        async with serve(talk, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
            events.put(next(iter(server.sockets)).getsockname()[1])
            await asyncio.to_thread(over.wait)

    asyncio.run(main())


async def only_recv(url: str) -> None:
    async with connect(f"{url}/stream", compression=None, ping_interval=None) as connection:
        await connection.send('{"method":"SUBSCRIBE","params":[],"id":1}')
        while True:
            await connection.recv()


async def bare_picows(url: str) -> None:
    from picows import WSListener, WSMsgType, ws_connect

    class Counter(WSListener):
        frames = 0

        def on_ws_frame(self, transport: object, frame: object) -> None:  # noqa: ARG002
            self.frames += 1

    transport, _ = await ws_connect(Counter, f"{url}/stream")
    transport.send(WSMsgType.TEXT, b'{"method":"SUBSCRIBE","params":[],"id":1}')
    await transport.wait_disconnected()


def run_plain(side: str, url: str) -> None:
    """Run one of the loops that only receive, until the process is ended."""
    import lakewriter.cli.runs.record  # noqa: F401 - a recorder's imports

    if side == RECV:
        asyncio.run(only_recv(url))
    else:
        event_loop.run(bare_picows(url))


def started(side: str, url: str, directory: Path) -> "subprocess.Popen[bytes]":
    """Start the process of a side."""
    if side in (RECV, BARE):
        command = [sys.executable, __file__, "--side", side, "--url", url]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)
    config = directory / "lakewriter.toml"
    # Nothing answers REST here, so that no request is part of what is measured.
    config.write_text(
        f'subscriptions = ["spot:{",".join(SYMBOLS)}:1m"]\nflush_every = "1h"\n'
        f'[markets.spot]\nstream_url = "{url}"\nrest_url = "http://127.0.0.1:9"\n'
    )
    command = [sys.executable, "-m", "lakewriter", "record", "-q", "--config", str(config)]
    return subprocess.Popen(
        [*command, "--lake", str(directory / "lake")],
        env={**os.environ, VARIABLE: "off" if side == WEBSOCKETS else side},
        stderr=subprocess.DEVNULL,
    )


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, user and system."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(side: str, url: str, events: "multiprocessing.Queue[int]", options: argparse.Namespace) -> float:
    """Return the CPU time of a side, in microseconds a frame."""
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        process = started(side, url, Path(scratch))
        try:
            assert events.get(timeout=60) == 0
            time.sleep(BEFORE_S - 0.2)
            before_s = cpu_s(process.pid)
            assert events.get(timeout=600) == 1
            time.sleep(AFTER_S)
            spent_s = cpu_s(process.pid) - before_s
            if side not in (RECV, BARE):
                check_recorded(Path(scratch) / "lake", closed_frames(options.frames, options.spread))
            return spent_s / options.frames * 1e6
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def check_recorded(lake: Path, candles: int) -> None:
    """Fail if a closed candle is not in the journal: the work was not done, or not all of it."""
    lines = sum(
        line.count(b'"symbol"')
        for path in lake.glob("_lakewriter/journal/*/*.ndjson")
        for line in path.read_bytes().splitlines()
    )
    assert candles and lines == candles, f"{lines} candles of {candles}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=0, help="frames a second; 0 for as fast as possible")
    parser.add_argument("--spread", action="store_true", help="spread the closed candles evenly")
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="show in some seconds that it works")
    parser.add_argument("--side", choices=[RECV, BARE], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_plain(options.side, options.url)
        return
    if options.quick:
        options.frames, options.rounds = 5_000, 1
    has_fast = all(fast_package(name) is not None for name in ("picows", "uvloop"))
    sides = SIDES if has_fast else (RECV, WEBSOCKETS)
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[int] = context.Queue()
    over = context.Event()
    server = context.Process(
        target=run_server, args=(events, options.frames, options.rate, options.spread, over)
    )
    server.start()
    costs: dict[str, list[float]] = {side: [] for side in sides}
    try:
        url = f"ws://127.0.0.1:{events.get(timeout=60)}"
        for _ in range(options.rounds):
            for side in sides:
                costs[side].append(measure(side, url, events, options))
    finally:
        over.set()
        server.join()
    recv = statistics.median(costs[RECV])
    for side, values in costs.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f}–{max(values):.2f}"
        print(f"{side:14} {median:6.2f} µs of CPU per frame ({spread}), {median / recv:.2f} of recv")


if __name__ == "__main__":
    main()
