"""kill -9 of followers and of the recorder: what followers have handed out is the lake, each key once."""

import asyncio
import contextlib
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lakewriter.interval import HOUR_MS
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from lakewriter.sandbox.faults.table import Fault
from support.lengths import drawn_seed, either
from support.running import KEY_AND_VALUES, child, plain_rows, run, until

pytestmark = pytest.mark.slow

KILLS = either(4, 25)
SUBSCRIPTIONS = ("spot:*:1m,3m", "usdt_futures:*:1m")

# The values of a candle in a line, in the order of KEY_AND_VALUES.
_VALUES = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_num",
    "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume",
)  # fmt: skip

# A program that stores each candle and its position in one transaction.
STRATEGY = """
import sqlite3, sys
import lakewriter
lake, file, *subscriptions = sys.argv[1:]
store = sqlite3.connect(file, isolation_level=None)
store.execute("CREATE TABLE IF NOT EXISTS handled (market, symbol, interval, begin_ms, close, late)")
store.execute("CREATE TABLE IF NOT EXISTS place (text)")
[*row] = store.execute("SELECT text FROM place")
with lakewriter.open_lake(lake).follow(subscriptions, since="2020-01-01", after=row[0][0] if row else None) as candles:
    print("following", flush=True)
    for one in candles:
        store.execute("BEGIN")
        store.execute("INSERT INTO handled VALUES (?, ?, ?, ?, ?, ?)",
                      (one.market, one.symbol, one.interval, one.begin_ms, one.close, one.late))
        store.execute("DELETE FROM place")
        store.execute("INSERT INTO place VALUES (?)", [candles.position])
        store.execute("COMMIT")
"""


class Play:
    """One run: a recorder and two followers that are killed at random.

    Args:
        directory: has the lake and all that followers write.
        sandbox: the exchange.
        chance: the source of all times.
    """

    def __init__(self, directory: Path, sandbox: Sandbox, chance: random.Random) -> None:
        self.lake = directory / "lake"
        self.out = directory / "out.ndjson"
        self.place = directory / "place.json"
        self.store = directory / "strategy.db"
        self.logs = directory
        self.sandbox = sandbox
        self.chance = chance
        self.over = asyncio.Event()
        self.kills = 0

    async def record(self) -> None:
        """Kill a recorder again and again; end the last one cleanly."""
        log = self.logs / "record.log"
        arguments = ["record", *SUBSCRIPTIONS, "--exchange", self.sandbox.url, "--lake", str(self.lake),
                     "--flush-every", "300ms", "--grace", "2s", "--log-candles"]  # fmt: skip
        for number in range(KILLS + 1):
            begun = log.stat().st_size if log.exists() else 0
            with child(log, *arguments) as recorder:
                await until(lambda begun=begun: b"\nrecorded " in log.read_bytes()[begun:])
                await asyncio.sleep(self.chance.uniform(0.1, 1.5))
                if number == KILLS:
                    assert await asyncio.to_thread(recorder.stop) == 0
                else:
                    recorder.kill()
                    self.kills += 1
        self.over.set()

    async def trouble(self) -> None:
        """Let the exchange lose, double and swap candles, and drop connections."""
        self.sandbox.add_fault(Fault("missing_close", symbols=("BTCUSDT", "ETHUSDT")))
        self.sandbox.add_fault(Fault("duplicate_close", symbols=("BNBUSDT",)))
        self.sandbox.add_fault(Fault("out_of_order_closes", symbols=("SOLUSDT",)))
        while not self.over.is_set():
            await asyncio.sleep(self.chance.uniform(0.3, 2))
            await self.sandbox.drop_connections()

    async def follow_into_a_file(self) -> None:
        while not self.over.is_set():
            before = self.handed_out()
            with child(self.logs / "follow.log", *self._follow()) as follower:
                # Some are killed while they start, which takes long on a busy machine.
                if self.chance.random() < 0.7:
                    await until(lambda before=before: self.over.is_set() or self.handed_out() != before)
                await asyncio.sleep(self.chance.uniform(0.1, 1.5))
                follower.kill()
                self.kills += 1

    async def follow_into_a_store(self) -> None:
        await until(lambda: self.lake.is_dir())
        while not self.over.is_set():
            with self._strategy() as strategy:
                await asyncio.sleep(self.chance.uniform(0.8, 2))
                assert strategy.poll() is None, "the strategy ended by itself"
            self.kills += 1

    async def backfill(self) -> None:
        """Fetch earlier candles meanwhile, which followers hand out late; compact the lake."""
        await until(lambda: self.kills >= KILLS // 2 and b'"LTCUSDT"' in self.handed_out())
        since = datetime.fromtimestamp((self.sandbox.now_ms() - 6 * HOUR_MS) / 1000).isoformat()
        command = ["backfill", "spot:LTCUSDT:1m", "--since", since[:10], "--exchange", self.sandbox.url]
        for arguments in (command, ["compact"]):
            done = await asyncio.to_thread(run, *arguments, "--lake", str(self.lake))
            assert done.returncode == 0, done.stderr

    async def catch_up(self) -> None:
        """Let both followers reach the end of the lake."""
        wanted = len(plain_rows(self.lake))
        begun = len((self.logs / "follow.log").read_text())
        with child(self.logs / "follow.log", *self._follow()) as follower:
            await until(lambda: "no recorder writes" in follower.logged()[begun:])
            await until(lambda: self.out.read_bytes().count(b"\n") >= wanted)
            assert await asyncio.to_thread(follower.stop) == 0
        with self._strategy() as strategy:
            await until(lambda: self.handled() >= wanted)
            assert strategy.poll() is None

    def handed_out(self) -> bytes:
        return self.out.read_bytes() if self.out.exists() else b""

    def handled(self) -> int:
        with contextlib.closing(sqlite3.connect(self.store, timeout=30)) as store:
            return int(store.execute("SELECT count(*) FROM handled").fetchone()[0])

    def _follow(self) -> list[str]:
        return ["follow", *SUBSCRIPTIONS, "--since", "2020-01-01", "--lake", str(self.lake),
                "-o", str(self.out), "--resume", str(self.place)]  # fmt: skip

    @contextlib.contextmanager
    def _strategy(self) -> Iterator["subprocess.Popen[str]"]:
        with (self.logs / "strategy.log").open("ab") as stderr:
            arguments = [sys.executable, "-c", STRATEGY, str(self.lake), str(self.store), *SUBSCRIPTIONS]
            with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=stderr, text=True) as process:
                try:
                    yield process
                finally:
                    process.kill()


def test_killed_followers_of_a_killed_recorder_hand_out_the_lake(tmp_path: Path) -> None:
    """Followers, a recorder and the exchange fail at random; each follower has each candle of the lake once."""
    seed = drawn_seed()
    print(f"seed {seed}")

    async def main() -> None:
        async with serve(SandboxOptions(speed=120, symbols=12)) as sandbox:
            play = Play(tmp_path, sandbox, random.Random(seed))
            async with asyncio.TaskGroup() as tasks:
                for work in (play.record, play.trouble, play.follow_into_a_file, play.follow_into_a_store,
                             play.backfill):  # fmt: skip
                    tasks.create_task(work())
            sandbox.clear_faults()
            await play.catch_up()
            _compare(play)

    asyncio.run(main())


def _compare(play: Play) -> None:
    assert play.kills > 2 * KILLS
    lake = plain_rows(play.lake, KEY_AND_VALUES)
    assert len({row[:4] for row in lake}) == len(lake)
    lines = [json.loads(line) for line in play.out.read_text().splitlines()]
    assert sorted(_row(line) for line in lines) == lake
    with contextlib.closing(sqlite3.connect(play.store)) as store:
        handled = store.execute(
            "SELECT market, symbol, interval, begin_ms, close, late FROM handled ORDER BY rowid"
        )
        rows = handled.fetchall()
    assert sorted(row[:5] for row in rows) == [(*row[:4], row[8]) for row in lake]
    _check_order((tuple(row[:4]), bool(row[5])) for row in rows)
    _check_order((_row(line)[:4], line.get("late", False)) for line in lines)
    assert any(line.get("late") for line in lines), "the backfill's candles are late"


def _check_order(keys: Iterator[tuple[Any, bool]]) -> None:
    """Check that just the lines without the mark are in the order of their series."""
    newest: dict[Any, int] = {}
    for (*series, begin_ms), is_late in keys:
        before = newest.get(tuple(series), -1)
        assert is_late == (begin_ms < before), (series, begin_ms)
        newest[tuple(series)] = max(before, begin_ms)


def _row(line: dict[str, Any]) -> tuple[Any, ...]:
    times = (_ms(line["candle_begin_time"]), _ms(line["candle_end_time"]))
    return (line["market"], line["symbol"], line["interval"], *times, *(line[name] for name in _VALUES))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
