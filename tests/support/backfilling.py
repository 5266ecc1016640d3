"""A backfill in this process, against a sandbox."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp

from lakewriter.backfill.planner import BackfillOptions, BackfillPlan
from lakewriter.backfill.progress import Progress
from lakewriter.backfill.run import Backfill
from lakewriter.backfill.spread_import import Workers
from lakewriter.backfill.worker_import import WorkerJob, this_process
from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.engines.engine import Engine
from lakewriter.lake.gaps.ledger import save
from lakewriter.lake.gaps.ledgers import open_ledger
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.subscription import parse_subscription
from support.running import PATIENCE_S

START_MS = 1_770_000_000_000  # 2026-02-02 02:40


def against_sandbox(
    scenario: Callable[[Sandbox], Awaitable[None]], *faults: Fault, speed: float = 1.0
) -> None:
    """Run a scenario against a sandbox that begins at START_MS; fail if a limit was broken."""

    async def main() -> None:
        options = SandboxOptions(start_ms=START_MS, symbols=10, push_every_ms=0, faults=faults, speed=speed)
        async with asyncio.timeout(PATIENCE_S), serve(options) as sandbox:
            await scenario(sandbox)
            assert not sandbox.violations

    asyncio.run(main())


class Filled(NamedTuple):
    """A backfill's plan and results."""

    store: LakeStore
    plan: BackfillPlan
    done: Progress


async def run_backfill(
    sandbox: Sandbox,
    lake: Path,
    *subscriptions: str,
    options: BackfillOptions,
    until: Callable[[Progress], bool] = lambda _: False,
    endpoints: Callable[[Market], Market] = lambda market: market,
    engine: Engine | None = None,
) -> Filled:
    """Run a backfill to its end, or stop it at a condition, as by Ctrl-C."""
    store = LakeStore.create(str(lake), "test")
    clock = Clock()
    journal = create_journal(store.root, "backfill")
    ledger = open_ledger(store.root, journal.directory.name)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
            clients = MarketClients(
                lambda name: endpoints(served_at(MARKETS[name], sandbox.url)), session, clock
            )
            markets = {name: endpoints(served_at(MARKETS[name], sandbox.url)) for name in MARKETS}
            workers = (
                None if engine is None else Workers(engine, WorkerJob(store.uri, markets, 4, this_process()))
            )
            backfill = Backfill(store, clients, options=options, clock=clock, workers=workers)
            plan = await backfill.plan(map(parse_subscription, subscriptions))
            running = asyncio.create_task(backfill.run(plan, ledger, journal.directory.name))
            while not running.done() and not until(backfill.progress):
                await asyncio.sleep(0.005)
            if running.done():
                await running
            else:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            return Filled(store, plan, backfill.progress)
    finally:
        await save(ledger)
        ledger.close()
        journal.close()
