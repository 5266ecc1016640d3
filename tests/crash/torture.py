"""The torture test: all of lakewriter at once, killed at random, then audited.

    PYTHONPATH=tests python -m crash.torture --duration 10m --seed 7
    PYTHONPATH=tests python -m crash.torture --duration 10m --all-intervals
    PYTHONPATH=tests python -m crash.torture --duration 10m --lake s3

Two recorders with overlapping subscriptions, compactions, and a writer of foreign files
share one lake. The exchange has faults. Plain readers and `lakewriter query` read all the
time. With all intervals, a month and a year end during the run. Backfills fetch earlier
candles, and some foreign files are those of a lakewriter that knew only days.

At the end all processes are stopped in order, dead journals are replayed, and a last
backfill fetches the rest. Then a separate process runs `audit.py`, which compares the lake
with the logs and with the truth.

With `--lake s3` the lake is in a bucket of SeaweedFS. Commands reach it through a proxy that
loses replies, refuses, cuts and stalls. The server is killed and started again. A command that
fails while it is away is no error, and neither is a read of pyarrow's that is torn.

The seed determines the actions, their targets and their times. The state at these times
depends on the machine.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from crash import longrun
from crash.audit import RECORDED
from crash.chances import Life, faults, lives
from crash.errands import CLOSED_MS, Errand, Errands
from crash.foreign import ForeignFiles
from crash.places import OnDisk, OnStore, Place
from crash.plain_readers import READERS
from crash.scenarios import MINUTES, Scenario, all_intervals, series_of
from crash.stage import PATIENCE_S, Log, Stage, tail
from lakewriter.sandbox import Sandbox, SandboxOptions, serve

SYMBOLS = 30

# A recorder that says nothing for so long meets its end all the same.
FIRST_LINE_S = 15.0

# The object store lives at most so long.
STORE_LIVES_S = 40.0

# What must be in an answer is asked by name for so many candles.
SAMPLE = 300

_STARTED = re.compile(r"^\S+ \S+ INFO recording \d+ series", re.MULTILINE)

_QUERY = """
SELECT count(*) AS rows, count(DISTINCT candle) AS keys,
       coalesce(list(DISTINCT wanted) FILTER (wanted IS NOT NULL), []) AS found
FROM (SELECT concat_ws(' ', market, symbol, "interval",
                       regexp_replace(strftime(candle_begin_time, '%Y-%m-%d %H:%M:%S'), ':00$', '')) AS candle
      FROM candles)
LEFT JOIN (SELECT unnest(string_split($sample, ',')) AS wanted) ON candle = wanted
"""


class Torture(Stage):
    """One run: its processes and its counts.

    Args:
        directory, seed: as for a stage.
        place: where the lake is.
        kills_min: the run continues until this many kills, and until each reader has
            read.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        scenario: Scenario,
        sandbox: Sandbox,
        place: Place,
        *,
        duration_s: float,
        kills_min: int,
    ) -> None:
        super().__init__(directory, seed)
        self.scenario = scenario
        self.sandbox = sandbox
        self.duration_s = duration_s
        self.kills_min = kills_min
        self.queries: Counter[str] = Counter()
        self.place = place
        self.lake_name, self.environment = place.name, place.environment
        self.errands = Errands(self, sandbox)

    def was_away(self, since_s: float) -> bool:
        return self.place.was_away(since_s)

    def excuses(self, line: str) -> bool:
        is_about_the_store = "s3://" in line or "stay in the journal" in line
        return is_about_the_store and "Traceback" not in line and self.was_away(time.monotonic())

    # Recorders

    async def record(self, name: str, subscriptions: tuple[str, ...], after_s: tuple[float, float]) -> None:
        """Run one life after the other; end the last one cleanly."""
        for number, life in enumerate(lives(self.chance(f"record {name}"), after_s), 1):
            if self.over.is_set():
                return
            async with self.recorder(f"{name}-{number:04}", subscriptions, life.flush_every) as (child, log):
                await self._live(f"record {name}", child, log, life)

    @contextlib.asynccontextmanager
    async def recorder(
        self, name: str, subscriptions: tuple[str, ...], flush_every: str
    ) -> AsyncIterator[tuple[Process, Log]]:
        """Start a recorder; read its log to the end when the block ends."""
        log = self.open_log(f"{name}.log")
        # It ends by itself, if no parent is left to end it.
        limit = f"{self.duration_s + 3 * PATIENCE_S:.0f}s"
        command = (
            "record",
            "--log-candles",
            *subscriptions,
            "--exchange",
            self.sandbox.url,
            "--lake",
            self.lake_name,
        )
        options = ("--flush-every", flush_every, "--duration", limit, *self.scenario.record_options)
        async with self.start("-m", "lakewriter", *command, *options, stderr=log.path) as child:
            yield child, log
        self.read_logs()
        self.open_logs.remove(log)

    async def _live(self, who: str, child: Process, log: Log, life: Life) -> None:
        since_s = time.monotonic()
        if life.end == "SIGKILL while starting":
            await self.pause(life.after_s)
            await self._kill_living(child, log, f"{who}: {life.end}", since_s)
            return
        await self.until(child, log, RECORDED, FIRST_LINE_S)
        await self.pause(life.after_s)
        if life.end == "SIGKILL" and not self.over.is_set():
            await self._kill_living(child, log, f"{who}: {life.end}", since_s)
            return
        await self.until(child, log, _STARTED, PATIENCE_S)
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        if life.end == "SIGTERM, then SIGKILL" and not self.over.is_set():
            await asyncio.sleep(life.grace_s)
            if child.returncode is None:
                await self.kill(child, f"{who}: {life.end}")
        may_be_killed = life.end == "SIGTERM, then SIGKILL"
        await self.ended_well(child, log.path, may_be_killed=may_be_killed, since_s=since_s)
        self.done[f"{who}: stopped by SIGTERM, exit 0"] += child.returncode == 0

    async def _kill_living(self, child: Process, log: Log, kind: str, since_s: float) -> None:
        if await self.kill(child, kind):
            return
        if self.was_away(since_s):
            self.done["recorders that could not start, the store was away"] += 1
        else:
            self.blame(f"{log.path.name}: ended by itself, exit {child.returncode}: {tail(log.path)}")

    # Files of others

    async def put_foreign_files(self) -> None:
        """Write foreign files now and then, like other tools."""
        chance = self.chance("foreign")
        places = [
            (since_ms, series)
            for since_ms, subscriptions in self.scenario.foreign
            for series in series_of(self.sandbox, subscriptions)
        ]
        put_new = self.place.put_new if isinstance(self.place, OnStore) else None
        files = ForeignFiles(self.lake, self.sandbox.truth, self.open_log("foreign.log").path, put_new)
        for number in itertools.count(1):
            await self.pause(chance.uniform(0.2, 2))
            if self.over.is_set():
                return
            start_ms, series = chance.choice(places)
            stop_ms = series.grid.floor(self.sandbox.now_ms() - CLOSED_MS)
            if start_ms < stop_ms and await asyncio.to_thread(
                files.put, series, start_ms, stop_ms, number, chance
            ):
                self.done["foreign files"] += 1

    # Readers

    async def read_plainly(self, engine: str) -> None:
        """Run a child that globs the lake repeatedly; its lines report its findings."""
        command = ("-m", "crash.plain_readers", engine, self.place.plain_name)
        stderr = self.logs / f"{engine}.stderr"
        async with self.start(*command, stdout=PIPE, stderr=stderr) as child:
            while line := await self._next_line(child):
                if line.startswith("read "):
                    self.queries[engine] += 1
                elif line.startswith("away ") and self.was_away(time.monotonic()):
                    self.done[f"{engine}: the store was away"] += 1
                elif line.startswith(("again ", "torn ")):
                    kind = "had to ask again" if line.startswith("again ") else "reads that were torn"
                    self.done[f"{engine}: {kind}"] += 1
                    with (self.logs / f"{engine}.again").open("a") as file:
                        print(line, file=file)
                else:
                    self.blame(f"{engine}: {line}")
            if not self.over.is_set():
                self.blame(f"{engine}: ended: exit {await child.wait()}: {tail(stderr)}")

    async def _next_line(self, child: Process) -> str:
        assert child.stdout is not None
        reading = asyncio.create_task(child.stdout.readline())
        over = asyncio.create_task(self.over.wait())
        await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        return "" if self.over.is_set() else reading.result().decode().strip()

    async def query(self) -> None:
        """Run `lakewriter query` repeatedly; check that each answer has all candles promised before."""
        chance = self.chance("query")
        most = 0
        stderr = self.logs / "query.stderr"
        while not self.over.is_set():
            self.read_logs()
            promised = list(self.promised)
            wanted = {*promised[-SAMPLE // 2 :], *chance.sample(promised, min(len(promised), SAMPLE // 2))}
            options = ("--lake", self.lake_name, "--format", "json", "-p", "sample=" + ",".join(wanted))
            since_s = time.monotonic()
            async with self.start(
                "-m", "lakewriter", "query", _QUERY, *options, stdout=PIPE, stderr=stderr
            ) as child:
                out = (await child.communicate())[0]
            if child.returncode and self.was_away(since_s):
                self.done["lakewriter query: failed, the store was away"] += 1
                await self.pause(0.5)
                continue
            if child.returncode:
                self.blame(f"lakewriter query: exit {child.returncode}: {tail(stderr)}")
                continue
            self.queries["lakewriter query"] += 1
            [answer] = json.loads(out)
            rows, keys, missing = answer["rows"], answer["keys"], wanted.difference(answer["found"])
            if rows != keys:
                self.blame(f"lakewriter query: {rows - keys} duplicates")
            if missing:
                self.blame(f"lakewriter query: {len(missing)} recorded candles missing, like {min(missing)}")
            if keys < max(most, len(promised)):
                self.blame(f"lakewriter query: {keys} candles; had {most}, promised {len(promised)}")
            most = keys

    # The exchange

    async def misbehave(self) -> None:
        """Apply faults of the exchange."""
        sandbox = self.sandbox
        for fault in faults(self.chance("exchange")):
            await self.pause(fault.pause_s)
            if self.over.is_set():
                return
            self.done[f"exchange: {fault.kind}"] += 1
            if fault.kind == "drop":
                await sandbox.drop_connections()
            elif fault.kind == "close":
                await sandbox.close_connections(1001, "restart")
            elif fault.kind == "stall":
                sandbox.stall()
                await self.pause(fault.length_s)
                sandbox.resume()
            elif fault.kind == "refuse":
                sandbox.refuse(503)
                await sandbox.drop_connections()
                await self.pause(fault.length_s)
                sandbox.refuse(0)
            else:
                for frame in fault.garbage:
                    await sandbox.send_to_all(frame)

    # The store

    async def kill_the_store(self, place: OnStore) -> None:
        """Kill the object store now and then, and start it again."""
        chance = self.chance("store")
        while not self.over.is_set():
            await self.pause(chance.uniform(STORE_LIVES_S / 2, STORE_LIVES_S))
            if self.over.is_set():
                return
            await place.kill_and_restart(chance.uniform(0, 8))
            self.kills["object store: SIGKILL"] += 1

    # The whole

    async def run(self) -> None:
        """Run everything until the time is up, then stop in order and replay dead journals."""
        early = [
            self.record("A", self.scenario.record_a, (0.2, 6)),
            self.record("B", self.scenario.record_b, (6, 30)),
            self.misbehave(),
            self.report_progress(),
            self._time_is_up(),
        ]
        late = [
            self.errands.repeat("compact", 1, lambda chance: Errand(())),
            self.errands.repeat("flush", 6, lambda chance: Errand(())),
            self.put_foreign_files(),
            self.query(),
        ]
        late += [self.read_plainly(engine) for engine in READERS]
        if isinstance(self.place, OnStore):
            late.append(self.kill_the_store(self.place))
        pasts = self.scenario.backfill
        if pasts:
            early.append(
                self.errands.repeat("backfill", 1, lambda chance: self.errands.some_backfill(pasts, chance))
            )
        async with asyncio.TaskGroup() as group:
            for task in early:
                group.create_task(task)
            while not self.over.is_set() and not self.place.has_plain_files():
                await asyncio.sleep(0.1)
            for task in late:
                group.create_task(task)
        await self._put_in_order()
        self.read_logs()

    async def _time_is_up(self) -> None:
        await self.pause(self.duration_s)
        while not self._is_enough() and self.elapsed_s() < self.duration_s + PATIENCE_S:
            await asyncio.sleep(0.2)
        self.over.set()

    def _is_enough(self) -> bool:
        readers = (*READERS, "lakewriter query")
        return self.kills.total() >= self.kills_min and all(self.queries[each] for each in readers)

    async def _put_in_order(self) -> None:
        """Replay the journals of dead recorders; fetch missing candles; compact and sweep a last time."""
        async with self.recorder("last", ("spot:BTCUSDT:1m",), "1s") as (child, log):
            await self.until(child, log, RECORDED, PATIENCE_S)
            child.terminate()
            await self.ended_well(child, log.path)
        for past in self.scenario.backfill:
            await self.errands.run_last("backfill", self.errands.backfill(past))
        hours_ago_s = time.time() - 7200
        for temporary in self.lake.glob("market=*/**/.*.tmp-*"):
            self.done["temporary files that the dead left"] += 1
            os.utime(temporary, (hours_ago_s, hours_ago_s))
        await self.errands.run_last("compact", Errand(()))

    async def audit(self) -> dict[str, list[str]]:
        """Return the auditor's findings."""
        stderr = self.logs / "audit.stderr"
        lake = await asyncio.to_thread(self.place.audited)
        async with self.start(
            "-m", "crash.audit", str(lake), str(self.logs), stdout=PIPE, stderr=stderr
        ) as child:
            out = (await child.communicate())[0]
        if not out:
            self.blame(f"audit: exit {child.returncode}: {tail(stderr)}")
        findings = json.loads(out or "{}")
        for kind in ("unreadable", "stray", "segments"):
            for what in findings.get(kind, ()):
                self.blame(f"audit: {kind}: {what}")
        return findings

    async def report_progress(self) -> None:
        """Print the progress regularly."""
        while not self.over.is_set():
            await self.pause(15)
            queries = ", ".join(f"{count} {engine}" for engine, count in sorted(self.queries.items()))
            print(
                f"{self.elapsed_s():.0f} of {self.duration_s:.0f} s: {len(self.promised):,} recorded, "
                f"{self.kills.total()} kills, queries: {queries or 'none'}; {len(self.errors)} errors",
                file=sys.stderr,
                flush=True,
            )


def print_block(torture: Torture, findings: dict[str, list[str]]) -> bool:
    """Print the outcome; return whether there was no error."""
    verdict = {
        "errors": len(torture.errors),
        **{name: len(findings.get(name, ["no audit"])) for name in ("lost", "duplicated", "different")},
    }
    lines: list[tuple[str, int]] = [
        ("seconds", round(torture.elapsed_s())),
        ("candles recorded", findings.get("promised", 0)),
        ("candles in the lake", findings.get("present", 0)),
        *sorted(torture.done.items()),
        ("kills", torture.kills.total()),
        *((f"  {kind}", count) for kind, count in sorted(torture.kills.items())),
        ("queries", torture.queries.total()),
        *((f"  {engine}", count) for engine, count in sorted(torture.queries.items())),
        *((f"limits broken: {kind}", count) for kind, count in torture.sandbox.violations.items()),
        *verdict.items(),
    ]
    print(longrun.block(lines))
    for name in ("lost", "duplicated", "different"):
        for what in findings.get(name, ())[:10]:
            print(f"{name}: {what}")
    for what in torture.errors[:10]:
        print(f"error: {what}")
    return not any(verdict.values())


async def main(
    directory: Path, seed: int, scenario: Scenario, *, lake: str, duration_s: float, kills_min: int
) -> bool:
    """Run the torture test; return whether it found no error."""
    options = SandboxOptions(speed=scenario.speed, symbols=SYMBOLS, start_ms=scenario.start_ms)
    place: Place = OnDisk(directory) if lake == "disk" else OnStore(directory, random.Random(f"{seed}/proxy"))
    with contextlib.closing(place):
        async with serve(options) as sandbox:
            torture = Torture(
                directory, seed, scenario, sandbox, place, duration_s=duration_s, kills_min=kills_min
            )
            await torture.run()
        findings = await torture.audit()
        if isinstance(place, OnStore):
            torture.done |= Counter(f"PUT disturbed: {fault}" for fault in place.proxy.met)
    return print_block(torture, findings)


if __name__ == "__main__":
    parser = longrun.parser_of(__doc__)
    parser.add_argument("--duration", type=longrun.seconds, default=600.0, metavar="10m")
    parser.add_argument("--kills", type=int, default=1, help="go on until so many were killed")
    parser.add_argument("--lake", choices=("disk", "s3"), default="disk", help="s3 is SeaweedFS")
    parser.add_argument("--all-intervals", action="store_true", help="over a new year, with backfills")
    arguments = parser.parse_args()
    longrun.run(
        "torture",
        arguments,
        lambda place: main(
            place,
            arguments.seed,
            all_intervals(arguments.duration) if arguments.all_intervals else MINUTES,
            lake=arguments.lake,
            duration_s=arguments.duration,
            kills_min=arguments.kills,
        ),
    )
