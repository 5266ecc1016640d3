"""A minute's boundary: thousands of closed candles in one burst, until all of them are durable.

    python benchmarks/burst.py [--series 3000] [--bursts 15] [--log-candles] [--fast] [--quick] [--directory .]

A local exchange sends the closes of all series at once, over the same number of
connections to two processes in turn. They are compared with a write of the same lines:

    receive   websockets' recv() until the last frame, in a process with a recorder's imports
    record    `lakewriter record` until the last candle is durable: its commit mark is read
    disk      one write and fdatasync of the journal's lines of this burst

CPU is that of all threads of a process from the burst's first byte until the same
moment. The block is the longest pause between two turns of a timer of 1 ms in the
recorder's event loop, from the burst until its end and 0.4 s later, and the CPU time of
the loop's thread in it. On a busy machine other programs make pauses longer, and the CPU
time says more. The exchange's clock is fast, so that a minute takes 2 s.

`--fast` allows the packages of the extra `fast`. Without it the recorder uses
websockets and asyncio, as the process that only receives.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lakewriter.cli import main as run_lakewriter
from lakewriter.lake.commit_mark import read_mark
from lakewriter.recording.recorder import Recorder

MINUTE_MS = 60_000
MINUTE_S = 2.0
STREAMS_MAX = 1024
WARM_UP = 3
AFTER_S = 0.4
PATIENCE_S = 60.0


class Exchange:
    """A local exchange with REST for its time and its symbols, and one stream for each symbol."""

    def __init__(self, series: int) -> None:
        self.names = [f"S{number:04d}USDT" for number in range(series)]
        self.started_s = time.perf_counter()
        self.base_ms = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
        # The streams of each connection, by the first part of its path: "spot" or "receive".
        self.streams: dict[str, dict[ServerConnection, list[str]]] = {"spot": {}, "receive": {}}

    def now_ms(self) -> int:
        return self.base_ms + int((time.perf_counter() - self.started_s) * MINUTE_MS / MINUTE_S)

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path.endswith("/stream"):
            return None
        body: Any = []
        if path.endswith("/time"):
            body = {"serverTime": self.now_ms()}
        elif path.endswith("/exchangeInfo"):
            body = {"symbols": [{"symbol": name, "status": "TRADING"} for name in self.names]}
        return connection.respond(HTTPStatus.OK, json.dumps(body))

    async def talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        of_kind = self.streams[connection.request.path.split("/")[1]]
        subscribed = of_kind[connection] = []
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                request = json.loads(message)
                if request["method"] == "SUBSCRIBE":
                    subscribed += request["params"]
                await connection.send(f'{{"result":null,"id":{request["id"]}}}')
        del of_kind[connection]

    def subscribed(self, kind: str) -> int:
        return sum(map(len, self.streams[kind].values()))

    def frames(self, minute: int) -> dict[str, bytes]:
        """Return the WebSocket frame of each stream's closed candle of a minute."""
        begin_ms = self.base_ms + minute * MINUTE_MS
        frames = {}
        for number, name in enumerate(self.names):
            price = 100 + (number + minute) % 977 / 100
            payload = (
                f'{{"stream":"{name.lower()}@kline_1m","data":{{"e":"kline","E":{begin_ms + 60_005},"s":"{name}",'
                f'"k":{{"t":{begin_ms},"T":{begin_ms + 59_999},"s":"{name}","i":"1m","f":3000000001,"L":3000000078,'
                f'"o":"{price:.8f}","c":"{price:.8f}","h":"{price:.8f}","l":"{price:.8f}","v":"208601.00000000",'
                f'"n":78,"x":true,"q":"70846.76968900","V":"156046.30000000","Q":"52984.16932200","B":"0"}}}}}}'
            ).encode()
            frames[f"{name.lower()}@kline_1m"] = b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
        return frames

    def send(self, kind: str, frames: dict[str, bytes]) -> float:
        """Send the frames to each connection of a kind; return the time of the first byte."""
        parts = [
            (connection, b"".join(frames[name] for name in names))
            for connection, names in self.streams[kind].items()
        ]
        sent_s = time.perf_counter()
        for connection, data in parts:
            connection.transport.write(data)
        return sent_s


class Burst(NamedTuple):
    """One burst to one process: milliseconds until its end, and of CPU until then; its commits and blocks."""

    ms: float
    cpu_ms: float
    commits: int = 0
    block_ms: float = 0.0
    block_cpu_ms: float = 0.0


def cpu_ms(pid: int) -> float:
    """Return the CPU time of all threads of a process. Threads of a pool live on, so none is missed."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


class RecorderChild:
    """`lakewriter record` in a process of its own, which writes the turns of its timer that come late."""

    def __init__(self, url: str, directory: Path, *, log_candles: bool, fast: bool) -> None:
        self.lake = directory / "lake"
        environment = dict(os.environ) if fast else {**os.environ, "LAKEWRITER_FAST": "off"}
        self._turns, writing = os.pipe()
        os.set_blocking(self._turns, False)
        arguments = [
            "record",
            "spot:*USDT:1m",
            "--exchange",
            url,
            "--lake",
            str(self.lake),
            "--flush-every",
            "1h",
        ]
        self._log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(writing), *arguments,
             *(["--log-candles"] if log_candles else [])],
            pass_fds=[writing], stderr=self._log, env=environment,
        )  # fmt: skip
        os.close(writing)
        self._segment: Path | None = None
        self._bytes = 0

    @property
    def lock(self) -> Path:
        return next((self.lake / "_lakewriter/journal").glob("*/lock"))

    def wait_durable(self, candles: int) -> tuple[float, float, int]:
        """Return when the last of so many new candles was durable, the CPU used by then, and the number of commits."""
        lock, commits, lines = self.lock, 0, 0
        last_s = time.perf_counter() + PATIENCE_S
        while True:
            mark = read_mark(lock)
            now_s = time.perf_counter()
            if mark is not None and mark.size != self._bytes:
                used_ms = cpu_ms(self.process.pid)
                commits += 1
                lines += self.new_lines(lock.with_name(f"{mark.segment:08d}.ndjson"), mark.size).count(b"\n")
                if lines >= candles:
                    return now_s, used_ms, commits
            if now_s > last_s or self.process.poll() is not None:
                raise SystemExit(
                    f"after {lines} of {candles} candles: {(self.lake.parent / 'log').read_text()}"
                )
            time.sleep(0.0002)

    def new_lines(self, segment: Path, size: int) -> bytes:
        if segment != self._segment:
            self._segment, self._bytes = segment, 0
        with segment.open("rb") as file:
            file.seek(self._bytes)
            lines = file.read(size - self._bytes)
        self._bytes = size
        return lines

    def last_lines(self, count: int) -> bytes:
        assert self._segment is not None
        return b"".join(self._segment.read_bytes().splitlines(keepends=True)[-count:])

    def blocks_ms(self) -> tuple[float, float]:
        """Return the longest pause of the timer since the last call, and the most CPU time in a pause."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._turns, 1 << 16):
                text += part
        numbers = [float(number) for number in text.split()]
        return max(numbers[::2], default=0.0), max(numbers[1::2], default=0.0)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self._log.close()


class ReceiverChild:
    """A process that only receives, over as many connections as the recorder has."""

    def __init__(self, url: str, series: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", "0", "receive", url, str(series)], stdout=subprocess.PIPE
        )

    def wait_received(self) -> float:
        """Return when the last frame of a burst was received."""
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def record_child(turns: int, arguments: list[str]) -> None:
    """Run the command line with a timer in the recorder's event loop."""
    run = Recorder.run

    async def run_with_timer(self: Recorder, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def turn(last_s: float, last_cpu_s: float) -> None:
            now_s, cpu_s = loop.time(), time.thread_time()
            if now_s - last_s > 0.0025:
                os.write(turns, b"%.3f %.3f\n" % ((now_s - last_s) * 1000, (cpu_s - last_cpu_s) * 1000))
            loop.call_later(0.001, turn, now_s, cpu_s)

        turn(loop.time(), time.thread_time())
        await run(self, stop)

    Recorder.run = run_with_timer  # type: ignore[method-assign]
    sys.argv = ["lakewriter", *arguments]
    run_lakewriter()


async def receive_child(url: str, series: int) -> None:
    received = 0

    async def read(numbers: list[int]) -> None:
        nonlocal received
        names = [f"s{number:04d}usdt@kline_1m" for number in numbers]
        async with connect(url, compression=None, ping_interval=None) as connection:
            await connection.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
            await connection.recv()
            while True:
                await connection.recv()
                received += 1
                if received % series == 0:
                    print(time.perf_counter(), flush=True)

    numbers = list(range(series))
    await asyncio.gather(
        *(read(numbers[first : first + STREAMS_MAX]) for first in range(0, series, STREAMS_MAX))
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def record_burst(exchange: Exchange, child: RecorderChild, frames: dict[str, bytes]) -> Burst:
    child.blocks_ms()
    before_ms = cpu_ms(child.process.pid)
    sent_s = exchange.send("spot", frames)
    end_s, used_ms, commits = await asyncio.to_thread(child.wait_durable, len(frames))
    await asyncio.sleep(AFTER_S)
    return Burst((end_s - sent_s) * 1000, used_ms - before_ms, commits, *child.blocks_ms())


async def receive_burst(exchange: Exchange, child: ReceiverChild, frames: dict[str, bytes]) -> Burst:
    before_ms = cpu_ms(child.process.pid)
    sent_s = exchange.send("receive", frames)
    end_s = await asyncio.to_thread(child.wait_received)
    return Burst((end_s - sent_s) * 1000, cpu_ms(child.process.pid) - before_ms)


def write_burst(path: Path, lines: bytes) -> float:
    """Append the lines to a file as the journal does; return the milliseconds."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        began_s = time.perf_counter()
        os.write(fd, lines)
        os.fdatasync(fd)
        return (time.perf_counter() - began_s) * 1000
    finally:
        os.close(fd)


async def measure(options: argparse.Namespace, directory: Path) -> None:
    exchange = Exchange(options.series)
    async with serve(
        exchange.talk, "127.0.0.1", 0, process_request=exchange.answer, compression=None, ping_interval=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        receiver = ReceiverChild(f"ws://127.0.0.1:{port}/receive/stream", options.series)
        recorder = RecorderChild(
            f"http://127.0.0.1:{port}", directory, log_candles=options.log_candles, fast=options.fast
        )
        try:
            await until(lambda: exchange.subscribed("receive") == options.series)
            await until(lambda: exchange.subscribed("spot") == options.series)
            await measure_bursts(options, exchange, recorder, receiver)
        finally:
            recorder.stop()
            receiver.stop()


async def measure_bursts(
    options: argparse.Namespace, exchange: Exchange, recorder: RecorderChild, receiver: ReceiverChild
) -> None:
    recorded, received, written = [], [], []
    first = (exchange.now_ms() - exchange.base_ms) // MINUTE_MS
    for minute in range(first, first + WARM_UP + options.bursts):
        frames = exchange.frames(minute)
        end_ms = exchange.base_ms + (minute + 1) * MINUTE_MS
        await asyncio.sleep(max(0.0, (end_ms - exchange.now_ms()) * MINUTE_S / MINUTE_MS + 0.001))
        recorded.append(await record_burst(exchange, recorder, frames))
        received.append(await receive_burst(exchange, receiver, frames))
        lines = recorder.last_lines(options.series)
        written.append(write_burst(recorder.lake.parent / "lines", lines))
    show(recorded[WARM_UP:], received[WARM_UP:], written[WARM_UP:], options)


def show(
    recorded: list[Burst], received: list[Burst], written: list[float], options: argparse.Namespace
) -> None:
    print(f"{len(recorded)} bursts of {options.series} closed candles; median (least to most)")
    print(f"receive, the last frame      {spread([each.ms for each in received])} ms")
    print(f"record, all durable          {spread([each.ms for each in recorded])} ms")
    print(f"disk, one write and sync     {spread(written)} ms")
    print(f"receive, CPU                 {spread([each.cpu_ms for each in received])} ms")
    print(f"record, CPU until durable    {spread([each.cpu_ms for each in recorded])} ms")
    print(f"record, commits in a burst   {spread([each.commits for each in recorded])}")
    print(
        f"record, longest block        {spread([each.block_ms for each in recorded])} ms (goal 8, never 20)"
    )
    print(f"record, CPU in a block       {spread([each.block_cpu_ms for each in recorded])} ms")
    ratios = [ours.ms / alone.ms for ours, alone in zip(recorded, received, strict=True)]
    cpu_ratios = [ours.cpu_ms / alone.cpu_ms for ours, alone in zip(recorded, received, strict=True)]
    print(f"ratio to receive             {spread(ratios, 2)} (goal 3); of CPU {spread(cpu_ratios, 2)}")


def spread(values: Sequence[float], digits: int = 1) -> str:
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:8.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        if sys.argv[3] == "receive":
            asyncio.run(receive_child(sys.argv[4], int(sys.argv[5])))
        else:
            record_child(int(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=3000)
    parser.add_argument("--bursts", type=int, default=15)
    parser.add_argument("--log-candles", action="store_true", help="log a line for each candle, to a file")
    parser.add_argument("--fast", action="store_true", help="let the recorder use the packages of `fast`")
    parser.add_argument("--quick", action="store_true", help="300 series and 2 bursts, to see that it works")
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    options = parser.parse_args()
    if options.quick:
        options.series, options.bursts = 300, 2
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="burst-") as directory:
        asyncio.run(measure(options, Path(directory)))


if __name__ == "__main__":
    main()
