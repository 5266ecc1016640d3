"""The memory of a recorder: at work, and while its disk stalls.

The stall is real: strace delays the journal's next fdatasync. Candles close
meanwhile, once a simulated minute. In the end all must be in the lake.

    python benchmarks/memory.py [--series 1000] [--seconds 30] [--stall 0] [--limit 170] [--quick]
    python benchmarks/memory.py --series 3000 --stall 120 --limit 300
"""

import argparse
import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lakewriter.market import MARKETS
from lakewriter.sandbox import SandboxOptions, serve

SPEED = 10
SYMBOLS_MAX = 999


def memory_mb(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1000


async def measure(options: argparse.Namespace, scratch: str) -> None:
    markets = list(MARKETS)[: -(-options.series // SYMBOLS_MAX)]
    symbols = options.series // len(markets)
    async with serve(SandboxOptions(speed=SPEED, symbols=symbols)) as sandbox:
        wanted = [f"{market}:{','.join(sandbox.symbols(market))}:1m" for market in markets]
        recorder = subprocess.Popen(
            [
                *(sys.executable, "-m", "lakewriter", "record", *wanted, "--exchange", sandbox.url),
                *("--lake", f"{scratch}/lake", "--flush-every", "10s", "--quiet"),
            ]
        )
        while sandbox.streams < symbols * len(markets) and recorder.poll() is None:
            await asyncio.sleep(0.1)
        await asyncio.sleep(options.seconds)
        print(f"{symbols * len(markets)} series: {memory_mb(recorder.pid, 'VmRSS'):.0f} MB at work")
        if options.stall:
            with stalled(recorder.pid, options.stall):
                await asyncio.sleep(options.stall)
            print(
                f"after {options.stall:.0f} s with the disk stalled: {memory_mb(recorder.pid, 'VmRSS'):.0f} MB"
            )
            await asyncio.sleep(10)
        peak = memory_mb(recorder.pid, "VmHWM")
        started_s = time.monotonic()
        recorder.terminate()
        code = await asyncio.to_thread(recorder.wait)
        print(f"stopped with exit {code} in {time.monotonic() - started_s:.1f} s")
        print(f"{peak:.0f} MB at most (limit {options.limit} MB)")


@contextlib.contextmanager
def stalled(pid: int, seconds: float) -> Iterator[None]:
    """Delay the next fdatasync of the process by so many seconds."""
    delay_us = round(seconds * 1e6)
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", "trace=fdatasync"),
            *("-e", f"inject=fdatasync:delay_enter={delay_us}:when=1"),
        ]
    )
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--stall", type=float, default=0)
    parser.add_argument("--limit", type=int, default=170)
    parser.add_argument("--quick", action="store_true", help="few series, for seconds: whether it works")
    options = parser.parse_args()
    if options.quick:
        options.series, options.seconds, options.stall = 30, 3, 0
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        asyncio.run(measure(options, scratch))


if __name__ == "__main__":
    main()
