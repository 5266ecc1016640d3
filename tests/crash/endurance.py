"""The endurance test: an exchange with many faults, and a recorder that is killed again and again.

    PYTHONPATH=tests python -m crash.endurance --duration 20m --symbols 600 --seed 7
    PYTHONPATH=tests python -m crash.endurance --duration 20m --symbols 300 --lake s3

One recorder records all symbols of three markets at sixty times speed. Faults are drawn
at random, several at a time. The recorder is killed at random times and started again.
At the end the faults stop, and the recorder heals the rest and stops. Then the test
checks:

- `lakewriter coverage` is clean.
- Each candle of the truth is in the lake with its true values, or in the ledger with a
  reason that the faults explain.
- No limit of the exchange was broken.

With `--lake s3` the lake is in a bucket of SeaweedFS behind a proxy with faults. The server is
killed and started again, also while recorders start.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from crash import longrun
from crash.places import OnDisk, OnStore, Place
from lakewriter.gap import Gap
from lakewriter.interval import INTERVALS, MINUTE_MS
from lakewriter.lake.gaps.ledgers import read_gaps
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.series import Series

SPEED = 60.0
MARKETS = ("spot", "usdt_futures", "coin_futures")

# Before a midnight, so that the day changes in every run.
START_MS = int(datetime(2024, 6, 30, 23, 50, tzinfo=UTC).timestamp() * 1000)

# Longer than healing may take after the last fault, on a busy machine.
PATIENCE_S = 300.0

CONFIG = """
subscriptions = ["spot:*:1m", "usdt_futures:*:1m", "coin_futures:*:1m"]
flush_every = "15s"
universe_every = "3s"
rotate_after = "2h"
"""

# name → how likely, and values to choose from. What it is about is drawn too.
FAULTS: dict[str, tuple[int, tuple[float, ...]]] = {
    "ack_then_silence": (3, (0,)),
    "silent_stream": (6, (0,)),
    "stalled_socket": (3, (0,)),
    "late_close": (4, (20, 90, 200)),
    "missing_close": (6, (0,)),
    "duplicate_close": (3, (0,)),
    "out_of_order_closes": (4, (0,)),
    "close_ahead": (3, (1800, 3600, 86_400, 31_536_000)),
    "silent_zero_trades": (4, (0,)),
    "connection_age": (2, (0.5, 1)),
    "server_shutdown": (3, (0.5, 2)),
    "close_code": (4, (1001, 1006, 1008)),
    "fewer_streams": (1, (150,)),
    "fewer_messages": (1, (3,)),
    "refuse_handshake": (4, (403, 418, 429, 451, 503)),
    "rest_status": (4, (418, 429, 500, 503)),
    "rest_lag": (4, (30, 120)),
    "rest_unsettled": (2, (10, 25)),
    "rest_missing_rows": (2, (0,)),
    "slow_rest": (3, (0.3, 1.0)),
    "time_microseconds": (2, (0,)),
    "exchange_halt": (2, (0,)),
    "delisting": (1, (0,)),
}

# These select candles, or symbols for good: always about a few.
_OF_A_FEW = ("rest_missing_rows", "exchange_halt", "delisting")

# Many liars that agree would be believed while REST is away.
_OF_ONE = ("close_ahead",)

# Symbols of each market that are listed only while the test runs, at most half of them.
NEW_LISTINGS = 3


class Endurance:
    """One run.

    Args:
        directory: the directory of the config and the logs.
        place: where the lake is.
    """

    def __init__(self, directory: Path, seed: int, sandbox: Sandbox, place: Place, duration_s: float) -> None:
        self.place = place
        self.state = place.state
        self.directory = directory
        self.sandbox = sandbox
        self.duration_s = duration_s
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.drawn: list[Fault] = []
        self._touched: set[tuple[str, str]] = set()
        self._child: Process | None = None
        self._log = directory / "recorder.log"
        (directory / "lakewriter.toml").write_text(CONFIG)

    async def run(self) -> None:
        """Record, apply faults and kill until the time is up; then heal, and stop."""
        over_s = time.monotonic() + self.duration_s
        self._announce_listings()
        self._child = await self._start()
        misbehaving = asyncio.create_task(self._misbehave())
        killing = asyncio.create_task(self._kill_the_store(over_s))
        while time.monotonic() < over_s:
            life_s = self.chance.uniform(8, min(45, self.duration_s / 2))  # so that each run kills
            await asyncio.sleep(min(life_s, max(0.1, over_s - time.monotonic())))
            if time.monotonic() < over_s:
                await self._kill()
        misbehaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await misbehaving
        await killing
        for fault_id in list(self.sandbox.faults.all()):
            self.sandbox.remove_fault(fault_id)
        await self._healed()

    async def _kill_the_store(self, over_s: float) -> None:
        """Kill the object store now and then until a monotonic time, and start it again."""
        while isinstance(self.place, OnStore):
            life_s = self.chance.uniform(10, 60)
            if time.monotonic() + life_s > over_s:
                return
            await asyncio.sleep(life_s)
            await self.place.kill_and_restart(self.chance.uniform(0, 15))
            self.counts["object stores killed"] += 1

    def _announce_listings(self) -> None:
        """List some symbols at random times of the run."""
        for market in MARKETS:
            symbols = self.sandbox.symbols(market)
            for symbol in self.chance.sample(symbols, min(NEW_LISTINGS, len(symbols) // 2)):
                self._touched.add((market, symbol))
                later_ms = round(self.chance.uniform(0.05, 0.9) * self.duration_s * SPEED * 1000)
                fault = Fault("new_listing", market, (symbol,), start_ms=self.sandbox.now_ms() + later_ms)
                self.sandbox.add_fault(fault)
                self.counts["fault: new_listing"] += 1

    async def _start(self) -> Process:
        self._started_s = time.monotonic()
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lakewriter", "record", "--config", str(self.directory / "lakewriter.toml"),
                "--lake", self.place.name, "--exchange", self.sandbox.url, "--grace", "60s", "--quiet",
                stdout=log, stderr=log, cwd=self.directory, env=os.environ | self.place.environment,
            )  # fmt: skip

    async def _kill(self) -> None:
        assert self._child is not None
        if self._child.returncode is not None and self.place.was_away(self._started_s):
            self.counts["recorders that could not start, the store was away"] += 1
        elif self._child.returncode is not None:
            self.errors.append(f"the recorder ended by itself, exit {self._child.returncode}: {self._tail()}")
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        self.counts["recorders killed"] += 1
        await asyncio.sleep(self.chance.choice((0, 0, 1, 3)))
        self._child = await self._start()

    async def _start_again(self) -> None:
        """Start the recorder as systemd does, if it could not start because the store was away."""
        while self._child is not None and self._child.returncode is not None:
            await asyncio.sleep(1)
            self.counts["recorders that could not start, the store was away"] += 1
            self._child = await self._start()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), 10)

    async def _misbehave(self) -> None:
        """Add random faults until cancelled, each for its time."""
        names = list(FAULTS)
        async with asyncio.TaskGroup() as lasting:
            while True:
                await asyncio.sleep(self.chance.uniform(0.5, 4))
                [name] = self.chance.choices(names, [FAULTS[each][0] for each in names])
                fault = self._draw(name)
                if fault is not None:
                    lasting.create_task(self._do(fault))

    def _draw(self, name: str) -> Fault | None:
        chance = self.chance
        market = chance.choice(MARKETS)
        symbols: tuple[str, ...] = ()
        if name in (*_OF_A_FEW, *_OF_ONE) or (
            name in ("silent_stream", "missing_close") and chance.random() < 0.7
        ):
            listed = [each for each in self.sandbox.symbols(market) if (market, each) not in self._touched]
            most = 1 if name in _OF_ONE else 4
            symbols = tuple(chance.sample(listed, min(len(listed), chance.randint(1, most))))
            if name in _OF_A_FEW:
                self._touched.update((market, each) for each in symbols)
            if not symbols:
                return None
        now_ms = self.sandbox.now_ms() // MINUTE_MS * MINUTE_MS
        start_ms = now_ms + (2 * MINUTE_MS if name in _OF_A_FEW else 0)
        length_ms = round(chance.uniform(1, 12)) * MINUTE_MS
        return Fault(
            name,
            market=market,
            symbols=symbols,
            start_ms=start_ms if name in _OF_A_FEW else None,
            stop_ms=None if name == "delisting" else start_ms + length_ms,
            value=chance.choice(FAULTS[name][1]),
            retry_after_s=1 if name in ("rest_status", "refuse_handshake") else 0,
        )

    async def _do(self, fault: Fault) -> None:
        fault_id = self.sandbox.add_fault(fault)
        self.drawn.append(fault)
        self.counts[f"fault: {fault.name}"] += 1
        if fault.stop_ms is not None:
            while self.sandbox.now_ms() < fault.stop_ms:
                await asyncio.sleep(0.1)
            if fault.name not in _OF_A_FEW:
                self.sandbox.remove_fault(fault_id)

    async def _healed(self) -> None:
        """Wait until no gap is pending, then stop the recorder cleanly."""
        if self.place.was_away(self._started_s):
            await self._start_again()
        assert self._child is not None
        # What ended by now is late a minute from now, and settled some minutes after that.
        until_ms = self.sandbox.now_ms() + 12 * MINUTE_MS
        began_ms, recording = self.sandbox.now_ms(), set[str]()
        deadline_s = time.monotonic() + PATIENCE_S
        # A recorder that was killed a moment ago may still be starting.
        while recording < set(MARKETS) or self.sandbox.now_ms() < until_ms or self._pending():
            if time.monotonic() > deadline_s:
                self.errors.append(f"recording {sorted(recording)}, still pending: {self._pending()[:3]}")
                break
            await asyncio.sleep(1)
            if recording < set(MARKETS):
                recording |= {each.market for each in read_unflushed(self.state) if each.begin_ms >= began_ms}
                until_ms = self.sandbox.now_ms() + 12 * MINUTE_MS
        # A survey of candles missing from before the start takes long on a busy machine or store.
        while await self._coverage_exit() and time.monotonic() < deadline_s:
            await asyncio.sleep(1)
        self._child.terminate()
        code = await asyncio.wait_for(self._child.wait(), PATIENCE_S)
        if code:
            self.errors.append(f"the recorder's exit is {code}: {self._tail()}")

    def _pending(self) -> list[Gap]:
        # What is late just now is on its way.
        recent_ms = self.sandbox.now_ms() - 10 * MINUTE_MS
        return [gap for gap in read_gaps(self.state) if gap.reason == "pending" and gap.start_ms < recent_ms]

    def _tail(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-4:])

    async def coverage(self) -> None:
        """Note an error if `lakewriter coverage` finds candles missing without a reason."""
        if code := await self._coverage_exit():
            said = (self.directory / "coverage.stderr").read_text()
            self.errors.append(f"lakewriter coverage: exit {code}: {said[-500:]}")

    async def _coverage_exit(self) -> int:
        """Run `lakewriter coverage`, and return its exit."""
        out, err = self.directory / "coverage.json", self.directory / "coverage.stderr"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lakewriter", "coverage", "--lake", self.place.name, "--json",
                stdout=stdout, stderr=stderr, env=os.environ | self.place.environment,
            )  # fmt: skip
            return await child.wait()

    def audit(self) -> None:
        """Compare the lake and the ledger with the truth, series by series."""
        rows = self._rows()
        gaps: dict[Series, list[Gap]] = {}
        for gap in read_gaps(self.state):
            gaps.setdefault(gap.series, []).append(gap)
        for series, there in sorted(rows.items()):
            self._audit_series(series, there, gaps.get(series, []))
        self.counts["series"] = len(rows)
        log = self._log.read_text(errors="replace")
        complaints = re.findall(r"^.*(?:Traceback| ERROR ).*$", log, re.MULTILINE)
        if isinstance(self.place, OnStore):
            complaints = [line for line in complaints if "s3://" not in line]
        self.errors += complaints[:10]
        self.errors += [f"limit broken: {kind} {n}" for kind, n in self.sandbox.violations.items()]

    def _audit_series(self, series: Series, there: dict[int, tuple[float, ...]], gaps: list[Gap]) -> None:
        start_ms, stop_ms = min(there), max(there) + MINUTE_MS
        true = {
            each.begin_ms: each.numbers() for each in self.sandbox.truth.candles(*series, start_ms, stop_ms)
        }
        exists = set(self.sandbox.expected(*series, start_ms, stop_ms))
        different = sum(true.get(begin_ms) != values for begin_ms, values in there.items())
        excess = there.keys() - exists
        explained = {
            begin_ms: gap.reason
            for gap in gaps
            for begin_ms in INTERVALS[series.interval].grid(gap.start_ms, gap.stop_ms)
        }
        grid = set(INTERVALS[series.interval].grid(start_ms, stop_ms))
        silent = grid - there.keys() - explained.keys()
        # What exists and is not there: neither stream nor REST had it, and the ledger says so.
        unreachable = {begin_ms for begin_ms in exists - there.keys() if self._unreachable(series, begin_ms)}
        lost = exists - there.keys() - unreachable
        self.counts["candles in the lake"] += len(there)
        self.counts["candles explained"] += len(explained.keys() & (grid - there.keys()))
        self.counts["candles that REST was told to leave out"] += len(unreachable)
        for what, some in (
            ("lost", lost),
            ("that do not exist", excess),
            ("neither there nor explained", silent),
        ):
            if some:
                self.counts[f"candles {what}"] += len(some)
                shown = ", ".join(
                    f"{datetime.fromtimestamp(each / 1000, UTC):%d %H:%M}" for each in sorted(some)[:3]
                )
                self.errors.append(
                    f"{series}: {len(some)} candles {what}, like {shown}: {explained.get(min(some))}"
                )
        if different:
            self.errors.append(f"{series}: {different} candles are not the truth")

    def _unreachable(self, series: Series, begin_ms: int) -> bool:
        return any(
            fault.name == "rest_missing_rows"
            and fault.concerns(series.market, series.symbol, series.interval)
            and fault.holds_at(begin_ms)
            for fault in self.drawn
        )

    def _rows(self) -> dict[Series, dict[int, tuple[float, ...]]]:
        """Return all candles of the lake, as a plain reader sees them."""
        rows: dict[Series, dict[int, tuple[float, ...]]] = {}
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(
                f"""SELECT market, symbol, "interval", epoch_ms(candle_begin_time), open, high, low, close, volume,
                    quote_volume, trade_num, taker_buy_base_asset_volume, taker_buy_quote_asset_volume
                    FROM read_parquet('{self.place.audited()}/**/*.parquet', hive_partitioning = true,
                    hive_types = {{market: VARCHAR, symbol: VARCHAR, interval: VARCHAR, date: DATE}})"""
            )
            while batch := found.fetchmany(100_000):
                for market, symbol, interval, begin_ms, *values in batch:
                    candles = rows.setdefault(Series(market, symbol, interval), {})
                    if begin_ms in candles:
                        self.errors.append(f"{market} {symbol} {interval} {begin_ms}: twice")
                    candles[begin_ms] = tuple(values)
        return rows

    def summary(self) -> str:
        """Return the outcome, with one number per line."""
        self.counts["errors"] = len(self.errors)
        return longrun.block(sorted(self.counts.items()))


async def main(directory: Path, seed: int, duration_s: float, symbols: int, lake: str) -> bool:
    """Run the endurance test; return whether it found no error."""
    place: Place = OnDisk(directory) if lake == "disk" else OnStore(directory, random.Random(f"{seed}/proxy"))
    with contextlib.closing(place):
        return await _endure(directory, seed, duration_s, symbols, place)


async def _endure(directory: Path, seed: int, duration_s: float, symbols: int, place: Place) -> bool:
    options = SandboxOptions(speed=SPEED, symbols=symbols // 3, start_ms=START_MS, push_every_ms=2000)
    async with serve(options) as sandbox:
        endurance = Endurance(directory, seed, sandbox, place, duration_s)
        try:
            await endurance.run()
        finally:
            child = endurance._child
            if child is not None and child.returncode is None:
                child.kill()
                await child.wait()
        await endurance.coverage()
        await asyncio.to_thread(endurance.audit)
    faults = [json.dumps({"fault": str(fault)}) for fault in endurance.drawn]
    (directory / "faults.ndjson").write_text("\n".join(faults))
    print(endurance.summary())
    for error in endurance.errors[:20]:
        print(f"error: {error}")
    return not endurance.errors


if __name__ == "__main__":
    parser = longrun.parser_of(__doc__)
    parser.add_argument("--duration", type=longrun.seconds, default=1200.0, metavar="20m")
    parser.add_argument("--lake", choices=("disk", "s3"), default="disk", help="s3 is SeaweedFS")
    parser.add_argument("--symbols", type=int, default=600, help="over three markets")
    arguments = parser.parse_args()
    longrun.run(
        "endurance",
        arguments,
        lambda place: main(place, arguments.seed, arguments.duration, arguments.symbols, arguments.lake),
    )
