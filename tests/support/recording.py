"""A recorder with its supervisor in this process, and a check of each candle's outcome."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.network import Network
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS
from lakewriter.lake.exchange_limits import WeightFile
from lakewriter.lake.gaps.ledgers import open_ledger, read_gaps
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.partition import partition_at
from lakewriter.recording.candle_queue import QUEUE_CANDLES_MAX, CandleQueue
from lakewriter.recording.recorder import JOURNAL_BYTES_MAX, Recorder
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.supervisor import CompletenessSupervisor, SupervisorOptions
from lakewriter.sandbox.server import Sandbox
from lakewriter.series import Series
from lakewriter.subscribed_period import COMMAND_LINE, RecorderId
from lakewriter.subscription import parse_subscription
from support.running import PATIENCE_S, until

OPTIONS = SupervisorOptions()


class Recording(NamedTuple):
    """A running recorder."""

    sandbox: Sandbox
    store: LakeStore
    recorder: Recorder
    supervisor: CompletenessSupervisor
    clients: MarketClients

    async def past(self, sim_ms: int) -> None:
        """Wait until each candle that ends by then was seen or is explained."""
        try:
            await until(lambda: self.sandbox.now_ms() >= sim_ms and self.settled(sim_ms))
        except asyncio.CancelledError:
            print(self.unsettled(sim_ms))
            raise

    def unsettled(self, sim_ms: int) -> str:
        """Describe the state, for a failed wait until all candles up to a time are settled."""
        supervisor = self.supervisor
        time = {name: self.clients[name].time for name in supervisor.listeners}
        lines = [
            f"now - wanted: {self.sandbox.now_ms() - sim_ms} ms, surveying {supervisor.surveying}",
            *(f"{name}: {each.now_ms() - sim_ms} ms, jumps {each.jumps}" for name, each in time.items()),
            *(
                f"{each}: next - wanted {(supervisor.watermarks.next_ms(each) or 0) - sim_ms} ms"
                for each in supervisor.watermarks.series
            ),
            *map(str, supervisor.ledger.gaps()),
            str(self.recorder.status()),
            *(f"{name}: {each.stats}" for name, each in supervisor.listeners.items()),
        ]
        return "\n".join(lines)

    def settled(self, sim_ms: int) -> bool:
        """Return whether each candle that ended by then is present or explained."""
        marks = self.supervisor.watermarks
        due = all((marks.next_ms(each) or 0) >= each.grid.floor(sim_ms) for each in marks.series)
        return (
            due
            and not self.supervisor.surveying
            and not any(
                gap.reason == "pending" and gap.start_ms < sim_ms for gap in self.supervisor.ledger.gaps()
            )
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
    queue_max: int = QUEUE_CANDLES_MAX,
    clock: Clock | None = None,
) -> AsyncIterator[Recording]:
    """Record from a sandbox during the block, then stop cleanly.

    Deadlines are long in the exchange's time, because it runs fast here.

    Args:
        owed: whether to begin once candles are expected, which needs an answer of REST.
    """
    store = LakeStore.create(str(lake), "test")
    clock = clock or Clock()
    async with Network() as session:
        clients = MarketClients(
            lambda name: endpoints(served_at(MARKETS[name], sandbox.url)),
            session,
            clock,
            shared_files=partial(WeightFile, store.root),
        )
        subscribed = SubscribedSeries(map(parse_subscription, subscriptions), clients)
        await subscribed.first()
        queue = CandleQueue(queue_max)
        journal = create_journal(store.root, "test")
        ledger = open_ledger(store.root, journal.directory.name)
        supervisor = CompletenessSupervisor(
            store,
            subscribed,
            clients,
            queue,
            recorder=RecorderId(COMMAND_LINE, journal.directory.name),
            ledger=ledger,
            options=options,
            clock=clock,
        )
        recorder = Recorder(store, journal, supervisor, queue, flush_every_s=flush_every_s, clock=clock)
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await until(lambda: running.done() or not owed or len(supervisor.watermarks) > 0)
                yield Recording(sandbox, store, recorder, supervisor, clients)
        finally:
            stop.set()
            await running
            ledger.close()


class OfflineRecorder(Recorder):
    """A recorder without subscriptions; the test puts candles on `queue`."""

    def __init__(
        self,
        store: LakeStore,
        *,
        flush_every_s: float = 3600,
        queue_max: int = 100,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self.queue = CandleQueue(queue_max)
        clients = MarketClients(MARKETS.__getitem__, Network(), clock)
        journal = create_journal(store.state_dir, "test")
        self._ledger = open_ledger(store.state_dir, journal.directory.name)
        supervisor = CompletenessSupervisor(
            store,
            SubscribedSeries([], clients),
            clients,
            self.queue,
            recorder=RecorderId(COMMAND_LINE, journal.directory.name),
            ledger=self._ledger,
            options=OPTIONS,
            clock=clock,
        )
        super().__init__(
            store,
            journal,
            supervisor,
            self.queue,
            flush_every_s=flush_every_s,
            journal_bytes_max=journal_bytes_max,
            clock=clock,
        )

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await super().run(stop)
        finally:
            self._ledger.close()


class Account(NamedTuple):
    """The candles of a series in a range: present, explained or neither.

    Args:
        present: begin times in the lake.
        reasons: reason in the ledger by begin time, for candles that are not in the lake.
        silent: begin times that are in neither.
    """

    present: set[int]
    reasons: dict[int, str]
    silent: set[int]


def account(store: LakeStore, sandbox: Sandbox, series: Series, start_ms: int, stop_ms: int) -> Account:
    """Account for each candle of the grid in a range; assert that candles in the lake equal the truth."""
    rows: dict[int, tuple[object, ...]] = {}
    days = range(start_ms // DAY_MS, (stop_ms - 1) // DAY_MS + 1)
    for partition in dict.fromkeys(partition_at(series, day * DAY_MS) for day in days):
        table = store.read(partition)
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
