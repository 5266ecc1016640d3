"""A recorder with its watch in this process, and the account of what became of each candle."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiohttp

from lakewriter.binance.market_clients import MarketClients
from lakewriter.candle import Candle
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS
from lakewriter.lake.exchange_limits import WeightFile
from lakewriter.lake.gaps.ledgers import open_ledger, read_gaps
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.partition import Partition, day_of
from lakewriter.recording.recorder import Recorder
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.supervisor import CompletenessSupervisor, SupervisorOptions
from lakewriter.sandbox.server import Sandbox
from lakewriter.series import Series
from lakewriter.subscribed_period import COMMAND_LINE, RecorderId
from lakewriter.subscription import parse_subscription
from support.running import PATIENCE_S, until

OPTIONS = SupervisorOptions()


class Recording(NamedTuple):
    """A recorder that runs."""

    sandbox: Sandbox
    store: LakeStore
    recorder: Recorder
    watch: CompletenessSupervisor
    doors: MarketClients

    async def past(self, sim_ms: int) -> None:
        """Wait until every candle that ends by then was seen or is explained."""
        try:
            await until(lambda: self.sandbox.now_ms() >= sim_ms and self.settled(sim_ms))
        except asyncio.CancelledError:
            print(self.unsettled(sim_ms))
            raise

    def unsettled(self, sim_ms: int) -> str:
        """Return what a wait for the settling of all that ended by then waits for."""
        watch, time = self.watch, {name: self.doors[name].time for name in self.watch.listeners}
        lines = [
            f"now - wanted: {self.sandbox.now_ms() - sim_ms} ms, surveying {watch.surveying}",
            *(f"{name}: {each.now_ms() - sim_ms} ms, jumps {each.jumps}" for name, each in time.items()),
            *(
                f"{each}: next - wanted {(watch.watermarks.next_ms(each) or 0) - sim_ms} ms"
                for each in watch.watermarks.series
            ),
            *map(str, watch.ledger.gaps()),
            str(watch.healer.stats),
            f"put {watch.healer.put}, recorded {self.recorder.stats.recorded}",
            *(f"{name}: {each.stats}" for name, each in watch.listeners.items()),
        ]
        return "\n".join(lines)

    def settled(self, sim_ms: int) -> bool:
        """Tell whether nothing is missing that ended by then, or all of it has a reason."""
        marks = self.watch.watermarks
        due = all((marks.next_ms(each) or 0) >= each.grid.floor(sim_ms) for each in marks.series)
        return (
            due
            and not self.watch.surveying
            and not any(gap.reason == "pending" and gap.start_ms < sim_ms for gap in self.watch.ledger.gaps())
        )


@contextlib.asynccontextmanager
async def recording(
    sandbox: Sandbox,
    lake: Path,
    *subscriptions: str,
    options: SupervisorOptions = OPTIONS,
    endpoints: Callable[[Market], Market] = lambda market: market,
    flush_every_s: float = 1.0,
    owed: bool = True,
) -> AsyncIterator[Recording]:
    """Record from a sandbox until the block is left, then stop cleanly.

    Deadlines are far apart in the exchange's time, for it runs fast here.

    Args:
        owed: begin when candles are owed; for that REST has to answer.
    """
    store = LakeStore.create(str(lake), "test")
    clock = Clock()
    async with aiohttp.ClientSession() as session:
        doors = MarketClients(
            lambda name: endpoints(served_at(MARKETS[name], sandbox.url)),
            session,
            clock,
            slates=partial(WeightFile, store.root),
        )
        universe = SubscribedSeries(map(parse_subscription, subscriptions), doors)
        await universe.first()
        queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
        journal = create_journal(store.root, "test")
        ledger = open_ledger(store.root, journal.directory.name)
        watch = CompletenessSupervisor(
            store,
            universe,
            doors,
            queue,
            recorder=RecorderId(COMMAND_LINE, journal.directory.name),
            ledger=ledger,
            options=options,
            clock=clock,
        )
        recorder = Recorder(
            store, (), queue, flush_every_s=flush_every_s, name="", clock=clock, journal=journal, watch=watch
        )
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await until(lambda: running.done() or not owed or len(watch.watermarks) > 0)
                yield Recording(sandbox, store, recorder, watch, doors)
        finally:
            stop.set()
            await running
            ledger.close()


class Account(NamedTuple):
    """What became of the candles that a series owes.

    Args:
        present: begin times in the lake.
        reasons: begin time → reason, of those in the ledger that are not in the lake.
        silent: begin times that are in neither.
    """

    present: set[int]
    reasons: dict[int, str]
    silent: set[int]


def account(store: LakeStore, sandbox: Sandbox, series: Series, start_ms: int, stop_ms: int) -> Account:
    """Account for every candle of the grid in a range; what is in the lake must be the truth."""
    rows: dict[int, tuple[object, ...]] = {}
    for day in range(start_ms // DAY_MS, (stop_ms - 1) // DAY_MS + 1):
        table = store.read(Partition(*series, day_of(day * DAY_MS)))
        for row in [] if table is None else table.to_pylist():
            rows[int(row["candle_begin_time"].timestamp() * 1000)] = tuple(row.values())[2:11]
    truth = sandbox.truth.candles(*series, start_ms, stop_ms)
    grid = series.grid.grid(start_ms, stop_ms)
    for candle in truth:
        if candle.begin_ms in rows:
            assert rows[candle.begin_ms] == candle.numbers(), f"{series} {candle.begin_ms} is not the truth"
    exists = set(sandbox.expected(*series, start_ms, stop_ms))
    present = {begin_ms for begin_ms in grid if begin_ms in rows}
    assert present <= exists, f"{series}: candles that do not exist: {sorted(present - exists)}"
    reasons: dict[int, str] = {}
    for gap in read_gaps(store.root):
        if gap.series == series:
            reasons |= dict.fromkeys(series.grid.grid(gap.start_ms, gap.stop_ms), gap.reason)
    absent = set(grid) - present
    return Account(
        present,
        {begin_ms: reasons[begin_ms] for begin_ms in absent & reasons.keys()},
        absent - reasons.keys(),
    )
