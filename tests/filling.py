"""A backfill in this process, against a sandbox."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp

from lakewriter.binance.doors import Doors
from lakewriter.clock import Clock
from lakewriter.history.backfill import Backfill, BackfillOptions, Plan, save
from lakewriter.history.progress import Progress
from lakewriter.lake.gaps import open_ledger
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.sandbox.server import Sandbox
from lakewriter.subscription import parse_subscription


class Filled(NamedTuple):
    """What a backfill planned and did."""

    store: LakeStore
    plan: Plan
    done: Progress


async def fill(
    sandbox: Sandbox,
    lake: Path,
    *subscriptions: str,
    options: BackfillOptions,
    until: Callable[[Progress], bool] = lambda _: False,
    endpoints: Callable[[Market], Market] = lambda market: market,
) -> Filled:
    """Fill a lake to the end, or until it is far enough and then stopped as by Ctrl-C."""
    store = LakeStore.create(str(lake), "test")
    clock = Clock()
    journal = create_journal(store.root, "backfill")
    ledger = open_ledger(store.root, journal.directory.name)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(120):
            doors = Doors(lambda name: endpoints(served_at(MARKETS[name], sandbox.url)), session, clock)
            backfill = Backfill(store, doors, options=options, clock=clock)
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
