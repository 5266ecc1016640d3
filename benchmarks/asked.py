"""The CPU of a recorder that answers HTTP and is followed, beside one that does neither.

Both record the same series from one sandbox, at the same time. One is scraped every
five seconds, as Prometheus does, and followed by other processes. The order of
their starts changes in each round. Only the recorders' CPU time counts.

    python benchmarks/asked.py [--series 600] [--seconds 60] [--rounds 4] [--followers 3] [--limit 1.03]
        [--quick]
"""

import argparse
import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from lakewriter.cli import COMMANDS
from lakewriter.market import MARKETS
from lakewriter.sandbox import Sandbox, SandboxOptions, serve

SCRAPE_EVERY_S = 5.0
WARM_S = 10.0


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, in seconds."""
    # Threads that ended are only in `stat`, in ticks of 10 ms; the first field of `schedstat` is exact.
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "lakewriter", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


async def scrape(port: int) -> None:
    async with aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert answer.status == 200
                assert b"lakewriter_healthy" in await answer.read()
            await asyncio.sleep(SCRAPE_EVERY_S)


async def measure(
    options: argparse.Namespace, sandbox: Sandbox, first: str, scratch: str
) -> dict[str, float]:
    """Return the CPU seconds of both recorders in one round."""
    markets = list(MARKETS)[:2]
    symbols = options.series // len(markets)
    wanted = [f"{market}:{','.join(sandbox.symbols(market)[:symbols])}:1m" for market in markets]
    port = free_port()
    record = ("record", *wanted, "--exchange", sandbox.url, "--quiet", "--flush-every", "20s")
    commands = {
        "plain": (*record, "--lake", f"{scratch}/plain"),
        "asked": (*record, "--lake", f"{scratch}/asked", "--http", f"127.0.0.1:{port}"),
    }
    while sandbox.streams:  # of the previous round
        await asyncio.sleep(0.1)
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(running(*commands[name]))
            for name in sorted(commands, key=lambda it: it != first)
        }
        while sandbox.streams < 2 * symbols * len(markets):
            assert all(each.poll() is None for each in started.values())
            await asyncio.sleep(0.1)
        follow = ("follow", *wanted, "--lake", f"{scratch}/asked")
        for _ in range(options.followers if "follow" in COMMANDS else 0):
            stack.enter_context(running(*follow))
        scraping = asyncio.create_task(scrape(port))
        await asyncio.sleep(options.warm)
        before = {name: cpu_s(each.pid) for name, each in started.items()}
        await asyncio.sleep(options.seconds)
        after = {name: cpu_s(each.pid) for name, each in started.items()}
        assert not scraping.done(), "a scrape failed"
        scraping.cancel()
    return {name: after[name] - before[name] for name in after}


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--followers", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.03)
    parser.add_argument("--directory", default=".")
    parser.add_argument("--quick", action="store_true", help="few series, for seconds: whether it works")
    options = parser.parse_args()
    options.warm = WARM_S
    if options.quick:
        options.series, options.seconds, options.rounds, options.warm = 20, 2, 1, 1
    if options.followers and "follow" not in COMMANDS:
        print("no followers: lakewriter follow does not exist here")
    ratios = []
    async with serve(SandboxOptions(symbols=options.series // 2)) as sandbox:
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
                spent = await measure(options, sandbox, ("plain", "asked")[number % 2], scratch)
            ratios.append(spent["asked"] / spent["plain"])
            print(
                f"{options.series} series: {spent['plain'] / options.seconds:.2%} of a core alone,"
                f" {spent['asked'] / options.seconds:.2%} asked and followed, ratio {ratios[-1]:.3f}",
                flush=True,
            )
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.3f}, limit {options.limit}")
    if not options.quick:
        sys.exit(ratio > options.limit)


if __name__ == "__main__":
    asyncio.run(main())
