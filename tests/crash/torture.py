"""The torture test: all of lakewriter at once, killed at random, then audited.

    PYTHONPATH=tests python -m crash.torture --duration 10m --seed 7

Two recorders with overlapping subscriptions, compactions, and a writer of foreign files
share
one lake. The exchange has faults. Plain readers and `lakewriter query` read all the time.
At
the end all processes are stopped in order, and dead journals are replayed. Then a
separate
process runs `audit.py`, which compares the lake with the logs and with the truth.

The seed determines the actions, their targets and their times. The state at these times
depends on the machine. Foreign files are only put into symbols that begin with a letter
of
FOREIGN. Plain globs may see their candles twice until they are folded, so plain readers
leave
these symbols out. `lakewriter query` reads all symbols.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from crash import longrun
from crash.audit import RECORDED, whole_lines
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from support.running import TESTS

SPEED = 60
SYMBOLS = 30

# Twenty simulated minutes before a midnight: the day changes early in every run.
START_MS = int(datetime(2024, 6, 30, 23, 40, tzinfo=UTC).timestamp() * 1000)

# Symbols that begin with one of these are where foreign files are put.
FOREIGN = "DX"

# Some seventy series, which two cores and one disk can write twice a second.
SUBSCRIPTIONS_A = (
    "spot:A*,B*,D*:1m,3m",
    "usdt_futures:B*,D*,X*,龙虾USDT:1m,3m",
    "coin_futures:B*,D*,X*:1m,3m",
)
SUBSCRIPTIONS_B = (
    "spot:B*,D*:1m",
    "usdt_futures:B*,ETHUSDT,龙虾USDT:1m,3m",
    "coin_futures:B*,ETHUSD_PERP:3m",
)

# Longer than anything may take on a busy machine.
PATIENCE_S = 240.0

# A recorder that says nothing for so long meets its end all the same.
FIRST_LINE_S = 15.0

# What must be in an answer is asked by name for so many candles.
SAMPLE = 300

# A plain reader that failed because a file was replaced under it may ask so often again.
ASK_AGAIN_MAX = 20

_COMPLAINT = re.compile(r"^.*( ERROR |Traceback|corrected).*$", re.MULTILINE)
_STARTED = re.compile(r"^\S+ \S+ INFO recording \d+ series", re.MULTILINE)

_QUERY = """
SELECT count(*) AS rows, count(DISTINCT candle) AS keys,
       coalesce(list(DISTINCT wanted) FILTER (wanted IS NOT NULL), []) AS found
FROM (SELECT concat_ws(' ', market, symbol, "interval", strftime(candle_begin_time, '%Y-%m-%d %H:%M')) AS candle
      FROM candles)
LEFT JOIN (SELECT unnest(string_split($sample, ',')) AS wanted) ON candle = wanted
"""

_KEY = ["market", "symbol", "interval", "candle_begin_time"]

# Frames that no exchange should send; none is a candle of a series that is listened to.
GARBAGE = (
    "", "null", "[]", "{", "0", '""', "\x00", "🕯" * 50, "[" * 5000, '{"e":"kline"}', '{"e":"kline","k":[]}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"x":true}}', '{"stream":"btcusdt@kline_1m"}', '{"stream":1,"data":2}',
    '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1719791999999,"s":"BTCUSDT","k":{"t":17197',
    '{"result":null,"id":987654321}', '{"id":-1,"error":{"code":2,"msg":"no"}}', '{"e":"serverShutdown","E":1}',
    '{"e":"24hrTicker","E":1,"s":"BTCUSDT"}', "x" * 300_000,
)  # fmt: skip


class Life(NamedTuple):
    """The life and end of one recorder.

    Args:
        flush_every: its option.
        end: "SIGKILL" after its first recorded line; "SIGKILL while starting";
            "SIGTERM", with exit 0; "SIGTERM, then SIGKILL" during its last flush.
        after_s: seconds from its first recorded line, or from its start, to the end.
        grace_s: seconds between SIGTERM and SIGKILL.
    """

    flush_every: str
    end: str
    after_s: float
    grace_s: float


class Fault(NamedTuple):
    """The next fault of the exchange, with the pause before it and its duration."""

    pause_s: float
    kind: str
    length_s: float
    garbage: tuple[str, ...]


def lives(chance: random.Random, after_s: tuple[float, float]) -> Iterator[Life]:
    """Yield random lives without an end."""
    ends = {"SIGKILL": 60, "SIGKILL while starting": 12, "SIGTERM": 12, "SIGTERM, then SIGKILL": 16}
    while True:
        [end] = chance.choices(list(ends), list(ends.values()))
        least_s, most_s = (0, 2.5) if end == "SIGKILL while starting" else after_s
        after = least_s + (most_s - least_s) * chance.random() ** 2  # rather soon
        flush_every = chance.choice(("200ms", "500ms", "1s", "3s"))
        yield Life(flush_every, end, after, grace_s=chance.uniform(0, 0.6))


def faults(chance: random.Random) -> Iterator[Fault]:
    """Yield random faults of the exchange."""
    kinds = ("drop", "close", "stall", "refuse", "garbage", "garbage")
    while True:
        yield Fault(
            chance.uniform(1, 6),
            chance.choice(kinds),
            chance.uniform(0.3, 2.5),
            tuple(chance.choices(GARBAGE, k=chance.randint(1, 8))),
        )


class Log:
    """A recorder's growing log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""
        path.touch()

    def news(self) -> str:
        """Return the complete lines since the last call."""
        news = whole_lines(self.path.read_text()[len(self.text) :])
        self.text += news
        return news


class Torture:
    """One run: its processes and its counts.

    Args:
        directory: the directory of the lake and the logs.
        seed: the seed of all random choices.
        kills_min: the run continues until this many kills, and until each reader has
            read.
    """

    def __init__(
        self, directory: Path, seed: int, sandbox: Sandbox, duration_s: float, kills_min: int
    ) -> None:
        self.lake = directory / "lake"
        self.logs = directory / "logs"
        self.seed = seed
        self.sandbox = sandbox
        self.duration_s = duration_s
        self.kills_min = kills_min
        self.started_s = time.monotonic()
        self.over = asyncio.Event()
        self.kills: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.queries: Counter[str] = Counter()
        self.errors: list[str] = []
        self.promised: dict[str, None] = {}  # in the order of the logs
        self._open_logs: list[Log] = []
        self.logs.mkdir(parents=True)

    def chance(self, who: str) -> random.Random:
        """Return the random generator of one participant."""
        return random.Random(f"{self.seed}/{who}")

    def blame(self, what: str) -> None:
        """Count an error, and print it at once."""
        self.errors.append(what)
        print(f"ERROR at {self.elapsed_s():.1f} s: {what}", file=sys.stderr, flush=True)

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started_s

    async def pause(self, seconds: float) -> None:
        """Wait, at most until the end of the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)

    @contextlib.asynccontextmanager
    async def start(self, *command: str, stdout: int = DEVNULL, stderr: Path) -> AsyncIterator[Process]:
        """Start a child in its own process group; kill the group at the end of the block."""
        with stderr.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command,
                stdin=DEVNULL, stdout=stdout, stderr=file, process_group=0, cwd=self.logs,
                env=os.environ | {"PYTHONPATH": str(TESTS)},
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            with contextlib.suppress(ProcessLookupError):  # workers of a compaction that was killed
                os.killpg(process.pid, signal.SIGKILL)

    async def kill(self, process: Process, kind: str) -> bool:
        """Send SIGKILL; count it if it ended the process."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        killed = await process.wait() == -signal.SIGKILL
        self.kills[kind] += killed
        return killed

    def read_logs(self) -> None:
        """Read new promises and errors from the recorders' logs."""
        for log in self._open_logs:
            news = log.news()
            self.promised |= dict.fromkeys(" ".join(found.groups()) for found in RECORDED.finditer(news))
            for found in _COMPLAINT.finditer(news):
                self.blame(f"{log.path.name}: {found[0]}")

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
        log = Log(self.logs / f"{name}.log")
        self._open_logs.append(log)
        # It ends by itself, if no parent is left to end it.
        limit = f"{self.duration_s + 3 * PATIENCE_S:.0f}s"
        command = ("record", *subscriptions, "--exchange", self.sandbox.url, "--lake", str(self.lake))
        options = ("--flush-every", flush_every, "--duration", limit)
        async with self.start("-m", "lakewriter", *command, *options, stderr=log.path) as child:
            yield child, log
        self.read_logs()
        self._open_logs.remove(log)

    async def _live(self, who: str, child: Process, log: Log, life: Life) -> None:
        if life.end == "SIGKILL while starting":
            await self.pause(life.after_s)
            await self._kill_living(child, log, f"{who}: {life.end}")
            return
        await self._until(child, log, RECORDED, FIRST_LINE_S)
        await self.pause(life.after_s)
        if life.end == "SIGKILL" and not self.over.is_set():
            await self._kill_living(child, log, f"{who}: {life.end}")
            return
        await self._until(child, log, _STARTED, PATIENCE_S)
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        if life.end == "SIGTERM, then SIGKILL" and not self.over.is_set():
            await asyncio.sleep(life.grace_s)
            if child.returncode is None:
                await self.kill(child, f"{who}: {life.end}")
        await self.ended_well(child, log.path, may_be_killed=life.end == "SIGTERM, then SIGKILL")
        self.done[f"{who}: stopped by SIGTERM, exit 0"] += child.returncode == 0

    async def _kill_living(self, child: Process, log: Log, kind: str) -> None:
        if not await self.kill(child, kind):
            self.blame(f"{log.path.name}: ended by itself, exit {child.returncode}: {_tail(log.path)}")

    async def ended_well(self, child: Process, log: Path, *, may_be_killed: bool = False) -> None:
        """Wait for a child that was asked to stop, and check its exit."""
        try:
            code = await asyncio.wait_for(child.wait(), PATIENCE_S)
        except TimeoutError:
            self.blame(f"{log.name}: does not stop: {_tail(log)}")
            return
        if code and not (may_be_killed and code == -signal.SIGKILL):
            self.blame(f"{log.name}: exit {code}: {_tail(log)}")

    async def _until(self, child: Process, log: Log, pattern: re.Pattern[str], patience_s: float) -> None:
        """Wait until the log has a text, with a timeout, while the process lives."""
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s and child.returncode is None:
            self.read_logs()
            if pattern.search(log.text):
                return
            await asyncio.sleep(0.05)

    # Compaction, and what gives it work

    async def maintain(self, name: str, rest_s: float) -> None:
        """Run `compact` or `flush` repeatedly; kill most runs at a random moment."""
        chance = self.chance(name)
        stderr = self.logs / f"{name}.stderr"
        usual_s = 1.0
        while not self.over.is_set():
            rest, killed, fraction = (
                chance.uniform(0, rest_s),
                chance.random() < 0.6,
                chance.uniform(0.1, 1.1),
            )
            await self.pause(rest)
            command = ("-m", "lakewriter", name, "--lake", str(self.lake), "--json")
            async with self.start(*command, stdout=PIPE, stderr=stderr) as child:
                started_s = time.monotonic()
                reading = asyncio.create_task(child.communicate())
                if killed:
                    await asyncio.wait({reading}, timeout=fraction * usual_s)
                if killed and not reading.done():
                    await self.kill(child, f"{name}: SIGKILL")
                    await self._group_ends(child)
                    await reading
                    continue
                out = (await reading)[0]
                usual_s += (time.monotonic() - started_s - usual_s) / 4
                if child.returncode:
                    self.blame(f"{name}: exit {child.returncode}: {_tail(stderr)}")
                    continue
                said = json.loads(out)
                self.done[f"{name}: ran to its end"] += 1
                for counted in ("rewritten", "duplicates_removed", "files_removed", "candles"):
                    if counted in said:
                        self.done[f"{name}: {counted.replace('_', ' ')}"] += said[counted]

    async def _group_ends(self, child: Process) -> None:
        """Report a killed child whose own children live on for long."""
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.1)
        self.blame("compact: workers outlive their killed parent")

    async def put_foreign_files(self) -> None:
        """Write candles beside a partition's own file now and then, like another tool."""
        chance = self.chance("foreign")
        series = [
            (market, symbol, interval)
            for market in ("spot", "usdt_futures", "coin_futures")
            for symbol in self.sandbox.symbols(market)
            if symbol[0] in FOREIGN
            for interval in ("1m", "3m")
        ]
        log = Log(self.logs / "foreign.log")
        self._open_logs.append(log)
        for number in itertools.count(1):
            await self.pause(chance.uniform(0.2, 2))
            if self.over.is_set():
                return
            # Closed well before now, and of the day that it is.
            stop_ms = self.sandbox.now_ms() // 180_000 * 180_000 - 360_000
            start_ms = max(stop_ms // 86_400_000 * 86_400_000, START_MS)
            foreign = Foreign(self.lake, number, *chance.choice(series))
            candles = self.sandbox.truth.candles(*foreign[2:], start_ms, max(start_ms, stop_ms))
            if candles:
                chosen = chance.sample(candles, chance.randint(1, len(candles)))
                await asyncio.to_thread(foreign.put, chosen, chance, log.path)
                self.done["foreign files"] += 1

    # Readers

    async def read_plainly(self, engine: str) -> None:
        """Run a child that globs the lake repeatedly; its lines report its findings."""
        command = ("-m", "crash.torture", "--read-with", engine, "--directory", str(self.lake))
        stderr = self.logs / f"{engine}.stderr"
        async with self.start(*command, stdout=PIPE, stderr=stderr) as child:
            while line := await self._next_line(child):
                if line.startswith("read "):
                    self.queries[engine] += 1
                elif line.startswith("again "):
                    self.done[f"{engine}: had to ask again"] += 1
                    with (self.logs / f"{engine}.again").open("a") as file:
                        print(line, file=file)
                else:
                    self.blame(f"{engine}: {line}")
            if not self.over.is_set():
                self.blame(f"{engine}: ended: exit {await child.wait()}: {_tail(stderr)}")

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
            options = ("--lake", str(self.lake), "--format", "json", "-p", "sample=" + ",".join(wanted))
            async with self.start(
                "-m", "lakewriter", "query", _QUERY, *options, stdout=PIPE, stderr=stderr
            ) as child:
                out = (await child.communicate())[0]
            if child.returncode:
                self.blame(f"lakewriter query: exit {child.returncode}: {_tail(stderr)}")
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

    # The whole

    async def run(self) -> None:
        """Run everything until the time is up, then stop in order and replay dead journals."""
        early = [
            self.record("A", SUBSCRIPTIONS_A, (0.2, 6)),
            self.record("B", SUBSCRIPTIONS_B, (6, 30)),
            self.misbehave(),
            self.report_progress(),
            self._time_is_up(),
        ]
        late = [
            self.maintain("compact", 1),
            self.maintain("flush", 6),
            self.put_foreign_files(),
            self.query(),
        ]
        late += [self.read_plainly(engine) for engine in READERS]
        async with asyncio.TaskGroup() as group:
            for task in early:
                group.create_task(task)
            while not self.over.is_set() and not plain_files(self.lake):
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
        """Replay the journals of dead recorders; compact and sweep a last time."""
        async with self.recorder("last", ("spot:BTCUSDT:1m",), "1s") as (child, log):
            await self._until(child, log, RECORDED, PATIENCE_S)
            child.terminate()
            await self.ended_well(child, log.path)
        hours_ago_s = time.time() - 7200
        for temporary in self.lake.glob("market=*/**/.*.tmp-*"):
            self.done["temporary files that the dead left"] += 1
            os.utime(temporary, (hours_ago_s, hours_ago_s))
        stderr = self.logs / "last-compact.stderr"
        command = ("-m", "lakewriter", "compact", "--lake", str(self.lake))
        async with self.start(*command, stderr=stderr) as child:
            await self.ended_well(child, stderr)

    async def audit(self) -> dict[str, list[str]]:
        """Return the auditor's findings."""
        stderr = self.logs / "audit.stderr"
        async with self.start(
            "-m", "crash.audit", str(self.lake), str(self.logs), stdout=PIPE, stderr=stderr
        ) as child:
            out = (await child.communicate())[0]
        if not out:
            self.blame(f"audit: exit {child.returncode}: {_tail(stderr)}")
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


class Foreign(NamedTuple):
    """A file that another tool puts into a partition."""

    lake: Path
    number: int
    market: str
    symbol: str
    interval: str

    def put(self, candles: list[tuple], chance: random.Random, log: Path) -> None:
        """Write the candles in one of the layouts of other tools, and promise them."""
        day = datetime.fromtimestamp(candles[0].begin_ms / 1000, UTC).date()
        partition = (
            self.lake / f"market={self.market}/symbol={self.symbol}/interval={self.interval}/date={day}"
        )
        partition.mkdir(parents=True, exist_ok=True)
        hidden = partition / f".foreign-{self.number}"
        pq.write_table(_foreign_table(candles, chance), hidden)
        hidden.rename(partition / f"part-{self.number}.parquet")
        with log.open("a") as file:
            for candle in candles:
                begin = datetime.fromtimestamp(candle.begin_ms / 1000, UTC)
                file.write(
                    f"recorded {self.market} {self.symbol} {self.interval} {begin:%Y-%m-%d %H:%M} at once\n"
                )


def _foreign_table(candles: list[tuple], chance: random.Random) -> pa.Table:
    unit = chance.choice(("ms", "us", "ns"))
    zone = chance.choice(("UTC", None))

    def times(name: str) -> pa.Array:
        milliseconds = pa.array([getattr(candle, name) for candle in candles], pa.timestamp("ms", zone))
        return milliseconds.cast(pa.timestamp(unit, zone))

    names = ("open", "high", "low", "close", "volume", "quote_volume", "trade_num")
    names += ("taker_buy_base_asset_volume", "taker_buy_quote_asset_volume")
    columns = {"candle_begin_time": times("begin_ms"), "candle_end_time": times("end_ms")}
    for name, values in zip(names, zip(*(candle.numbers() for candle in candles), strict=True), strict=True):
        columns[name] = pa.array(values, pa.int64() if name == "trade_num" else pa.float64())
    if chance.random() < 0.5:
        columns["source"] = pa.array([chance.choice(("archive", "rest"))] * len(candles))
    if chance.random() < 0.3:
        columns["note"] = pa.array(["not one of ours"] * len(candles))
    return pa.table(columns)


def plain_files(lake: Path) -> list[Path]:
    """Return the files that plain readers read."""
    return list(lake.glob(f"market=*/symbol=[!{FOREIGN}]*/interval=*/date=*/*.parquet"))


def _read_with_duckdb(lake: Path) -> tuple[int, int]:
    glob = f"{lake}/market=*/symbol=[!{FOREIGN}]*/interval=*/date=*/*.parquet"
    with duckdb.connect() as connection:
        [counts] = connection.execute(
            f"""SELECT count(*), count(DISTINCT ({", ".join(f'"{name}"' for name in _KEY)}))
                FROM read_parquet('{glob}', hive_partitioning = true,
                hive_types = {{market: VARCHAR, symbol: VARCHAR, interval: VARCHAR, date: DATE}})"""
        ).fetchall()
    return counts


def _read_with_pyarrow(lake: Path) -> tuple[int, int]:
    ignored = [".", "_", *(f"symbol={letter}" for letter in FOREIGN)]
    dataset = ds.dataset(lake, format="parquet", partitioning="hive", ignore_prefixes=ignored)
    table = dataset.to_table(columns=_KEY)
    return table.num_rows, table.group_by(_KEY).aggregate([]).num_rows


READERS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "duckdb": _read_with_duckdb,
    "pyarrow": _read_with_pyarrow,
}


def read_for_ever(engine: str, lake: Path) -> None:
    """Read repeatedly, with one line per read, while the parent lives."""
    os.nice(10)  # two greedy readers would leave the others no processor
    parent = os.getppid()
    most = again = 0
    while os.getppid() == parent:
        if not again:
            time.sleep(0.1)
        try:
            rows, keys = READERS[engine](lake)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            # DuckDB opens a file twice, and fails if it was replaced in between: asked
            # again, it answers (docs/consistency.md, "Two windows"). A file never vanishes.
            replaced = isinstance(error, duckdb.Error) and "No " not in str(error)
            again = again + 1 if replaced else 0
            print("again" if 0 < again <= ASK_AGAIN_MAX else "error", *str(error).split(), flush=True)
            continue
        again = 0
        print(f"read {rows}", flush=True)
        if rows != keys:
            print(f"{rows - keys} duplicates", flush=True)
        if keys < most:
            print(f"{most - keys} candles vanished", flush=True)
        most = max(most, keys)


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


async def main(directory: Path, seed: int, duration_s: float, kills_min: int) -> bool:
    """Run the torture test; return whether it found no error."""
    options = SandboxOptions(speed=SPEED, symbols=SYMBOLS, start_ms=START_MS)
    async with serve(options) as sandbox:
        torture = Torture(directory, seed, sandbox, duration_s, kills_min)
        await torture.run()
    return print_block(torture, await torture.audit())


def _tail(log: Path) -> str:
    return " | ".join(log.read_text().splitlines()[-4:])


if __name__ == "__main__":
    parser = longrun.parser_of(__doc__)
    parser.add_argument("--duration", type=longrun.seconds, default=600.0, metavar="10m")
    parser.add_argument("--kills", type=int, default=1, help="go on until so many were killed")
    parser.add_argument("--read-with", choices=READERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read_with:
        read_for_ever(arguments.read_with, arguments.directory)
    longrun.run(
        "torture",
        arguments,
        lambda place: main(place, arguments.seed, arguments.duration, arguments.kills),
    )
