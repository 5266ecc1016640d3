"""The CPU time of a kline frame in other clients, beside `lakewriter record`.

A server here sends the same frames of 100 symbols to one client after the other. 2 % of the
frames are closed candles. Each client runs in its own process, a peer in its own environment:

    recv              a loop that only calls websockets' recv(): the limit
    lakewriter        the real command, until the last candle is durable in its journal
    lakewriter fast   the same with the packages of the extra `fast`, if they are installed
    all others        until its user has the last closed candle, as its documentation shows

`benchmarks/peers/` has a module for each client, which tells what it leaves out, and the versions
of each peer. A peer that is absent or fails is named, and the others go on.

The CPU time is user + system of the whole process, with all threads. It begins with the first
frame, a second after the handshake and the subscriptions. It ends with the last candle. The start
of a program is not in it, and neither is the flush of a recorder. The clients take turns, and
their order changes in each round. The result is the ratio of the medians to that of lakewriter.

    python benchmarks/receive_peers.py --install      first creates the environments of the peers
    python benchmarks/receive_peers.py [--frames 100000] [--rounds 5] [--rate 0] [--only unicorn recv]
    python benchmarks/receive_peers.py --rate 4000 --frames 20000
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, NamedTuple

from exchange_server import CYCLE, SYMBOLS, Exchange, price_of

PEERS = Path(__file__).parent / "peers"

SETTLED_S = 1.0
# A client that takes longer has failed: to start, and then a frame in the middle.
START_S, FRAME_S = 30.0, 0.001


class Client(NamedTuple):
    """A client to measure.

    Args:
        module: of `benchmarks/peers/`, without its prefix `with_`.
        words: for that module.
        peer: the name of its environment; None for ours.
    """

    module: str
    words: tuple[str, ...] = ()
    peer: str | None = None

    def python(self, environments: Path) -> Path:
        return Path(sys.executable) if self.peer is None else environments / self.peer / "bin/python"


CLIENTS = {
    "recv": Client("websockets"),
    "lakewriter": Client("lakewriter", ("off",)),
    "lakewriter fast": Client("lakewriter", ("picows,uvloop",)),
    "unicorn raw": Client("unicorn", ("raw_data", "websockets"), "unicorn"),
    "unicorn UnicornFy": Client("unicorn", ("UnicornFy", "websockets"), "unicorn"),
    "unicorn on picows, raw": Client("unicorn", ("raw_data", "picows"), "unicorn"),
    "unicorn on picows, UnicornFy": Client("unicorn", ("UnicornFy", "picows"), "unicorn"),
    "cryptofeed": Client("cryptofeed", (), "cryptofeed"),
    "nautilus": Client("nautilus", (), "nautilus"),
    "ccxt.pro": Client("ccxt", (), "ccxt"),
    "python-binance": Client("python_binance", (), "python_binance"),
}
# What the others are compared with.
OURS = ("lakewriter", "lakewriter fast")


class AbsentError(Exception):
    """A client cannot be measured here."""


def install(peers: set[str], environments: Path) -> None:
    """Create the environments of the peers. Print the name of one that fails."""
    for peer in sorted(peers):
        wanted, directory = PEERS / f"{peer}.txt", environments / peer
        installed = directory / wanted.name
        if installed.exists() and installed.read_text() == wanted.read_text():
            continue
        print(f"installing {peer}", file=sys.stderr, flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        options = ("--quiet", "--disable-pip-version-check", "--requirement", str(wanted))
        done = subprocess.run([directory / "bin/python", "-m", "pip", "install", *options], check=False)
        if done.returncode:
            shutil.rmtree(directory)
            print(f"{peer}: cannot be installed here", file=sys.stderr)
        else:
            shutil.copy(wanted, installed)


def cpu_s(pid: int) -> float:
    """Return the CPU time of another process, with all its threads: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


class Measurement:
    """One client's turn: its process, and its CPU time."""

    def __init__(self, client: Client, options: argparse.Namespace, scratch: Path) -> None:
        self._client, self._options, self._scratch = client, options, scratch.resolve()
        self._process: asyncio.subprocess.Process | None = None
        self._begin_s: float | None = None

    def _begin(self) -> None:
        assert self._process is not None
        self._begin_s = cpu_s(self._process.pid)

    async def run(self) -> float:
        """Return the microseconds of a frame.

        Raises:
            AbsentError: with the reason.
        """
        options, log = self._options, self._scratch / "log"
        python = self._client.python(options.environments)
        if not python.exists():
            raise AbsentError("is not installed; `make bench-peers` does that")
        async with Exchange(options.frames, options.rate, options.settled, self._begin) as exchange:
            with log.open("wb") as stderr:
                self._process = process = await asyncio.create_subprocess_exec(
                    python,
                    PEERS / f"with_{self._client.module}.py",
                    json.dumps(self._task(exchange)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=self._scratch,
                )
            patience_s = START_S + options.frames * (FRAME_S + (1 / options.rate if options.rate else 0))
            try:
                await asyncio.wait_for(self._until_over(process, exchange), patience_s)
                assert self._begin_s is not None
                spent_s = cpu_s(process.pid) - self._begin_s
                if self._client.words == ("picows,uvloop",) and not maps(process.pid, "picows"):
                    raise AbsentError("the extra `fast` is not installed")
            except (TimeoutError, EOFError):
                tail = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise AbsentError(f"failed: {' '.join(tail) or 'its last candle never came'}") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return spent_s / options.frames * 1e6

    def _task(self, exchange: Exchange) -> dict[str, Any]:
        words = [*self._client.words]
        if self._client.module == "websockets":
            words = [str(self._options.frames)]
        elif self._client.module == "lakewriter":
            words += self._record(exchange)
        return {
            "stream_url": f"ws://{exchange.address}",
            "rest_url": f"http://{exchange.address}",
            "symbols": SYMBOLS,
            "last_symbol": SYMBOLS[-1],
            "last_begin_ms": exchange.last_begin_ms,
            "last_close": price_of(self._options.frames - 1),
            "words": words,
        }

    def _record(self, exchange: Exchange) -> list[str]:
        """Return the command line of a recorder. Its flush is measured by other benchmarks."""
        config = self._scratch / "lakewriter.toml"
        config.write_text(
            f'subscriptions = ["spot:{",".join(SYMBOLS)}:1m"]\nlake = "lake"\n'
            f'[markets.spot]\nstream_url = "ws://{exchange.address}"\n'
            f'rest_url = "http://{exchange.address}"\narchive_url = "http://{exchange.address}"\n'
        )
        return ["record", "--config", str(config), "--flush-every", "1h"]

    async def _until_over(self, process: asyncio.subprocess.Process, exchange: Exchange) -> None:
        if self._client.module == "lakewriter":
            await self._until_durable(process, exchange)
            return
        assert process.stdout is not None
        while (line := await process.stdout.readline()) != b"done\n":
            if not line:
                raise EOFError

    async def _until_durable(self, process: asyncio.subprocess.Process, exchange: Exchange) -> None:
        """Wait until the last candle is in the journal."""
        last = f'"symbol":"{SYMBOLS[-1]}","interval":"1m","begin_ms":{exchange.last_begin_ms},'.encode()
        read: dict[Path, int] = {}
        while True:
            for path in self._scratch.glob("lake/_lakewriter/journal/*/*.ndjson"):
                with path.open("rb") as file:
                    file.seek(max(0, read.get(path, 0) - len(last)))
                    data = file.read()
                    read[path] = file.tell()
                if last in data:
                    return
            if process.returncode is not None:
                raise EOFError
            await asyncio.sleep(0.002)


def maps(pid: int, name: str) -> bool:
    """Return whether a process has loaded a library of this name."""
    return name in Path(f"/proc/{pid}/maps").read_text()


async def measure(clients: dict[str, Client], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the microseconds of each round; a client that fails has none, and its reason is printed."""
    taken: dict[str, list[float]] = {name: [] for name in clients}
    failed: dict[str, str] = {}
    for number in range(options.rounds):
        names = list(clients)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name in failed:
                continue
            with tempfile.TemporaryDirectory(dir=options.directory, prefix="receive-peers-") as scratch:
                turn = Measurement(clients[name], options, Path(scratch))
                try:
                    taken[name].append(await turn.run())
                except AbsentError as error:
                    failed[name] = str(error)
                    print(f"skipped {name}: {error}", file=sys.stderr, flush=True)
    return {name: each for name, each in taken.items() if name not in failed}


def print_table(taken: dict[str, list[float]], options: argparse.Namespace) -> None:
    medians = {name: statistics.median(each) for name, each in taken.items()}
    compared = [name for name in OURS if name in medians]
    how = f"{options.rate:,} frames a second" if options.rate else "flood"
    print(f"{options.frames:,} frames, {how}, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
    heads = ["client", "µs of CPU a frame", "least–most", *(f"÷ {name}" for name in compared)]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, each in taken.items():
        ratios = [f"{medians[name] / medians[ours]:.2f}" for ours in compared]
        print(
            f"| {' | '.join([name, f'{medians[name]:.2f}', f'{min(each):.2f}–{max(each):.2f}', *ratios])} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000, help=f"a multiple of {CYCLE:,}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=0, help="frames a second; 0 for as fast as they are read")
    parser.add_argument("--only", nargs="+", default=[], help="clients whose names begin with one of these")
    parser.add_argument("--install", action="store_true", help="create the environments of the peers first")
    parser.add_argument(
        "--environments", type=Path, default=Path(sys.prefix) / "peers", help="where those of the peers are"
    )
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="few frames, one round: whether it works")
    options = parser.parse_args()
    options.settled = SETTLED_S
    if options.quick:
        options.frames, options.rounds, options.settled = CYCLE, 1, 0.2
    if options.frames % CYCLE:
        parser.error(f"--frames takes a multiple of {CYCLE:,}")
    clients = {
        name: client
        for name, client in CLIENTS.items()
        if not options.only or name.startswith(tuple(options.only))
    }
    if options.install:
        peers = {client.peer for client in clients.values() if client.peer is not None}
        install(peers, options.environments)
    print_table(asyncio.run(measure(clients, options)), options)


if __name__ == "__main__":
    main()
