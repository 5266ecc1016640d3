"""The market's time in a backfill, from answers that agree and from answers that contradict each other."""

import logging

import aiohttp
import pytest

from lakewriter.backfill.market_info import MarketInfo
from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.market import MARKETS, served_at
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions
from support.sandboxes import START_MS, run


async def time_ahead_ms(sandbox: Sandbox) -> int:
    """Sync the time as a backfill does; return by how much it is ahead of the sandbox's."""
    async with aiohttp.ClientSession() as session:
        doors = MarketClients(lambda name: served_at(MARKETS[name], sandbox.url), session, Clock())
        view = MarketInfo(doors["spot"], Clock())
        await view.sync_time()
        return view.client.time.now_ms() - sandbox.now_ms()


@pytest.mark.parametrize("start_ms", [START_MS, None, 4_000_000_000_000])
def test_the_exchanges_time_is_learned_whatever_the_hosts_clock_says(start_ms: int | None) -> None:
    """With a host clock that is years off, the time needs only a few more requests."""

    async def scenario(sandbox: Sandbox) -> None:
        assert -2000 <= await time_ahead_ms(sandbox) <= 0

    run(scenario, SandboxOptions(start_ms=start_ms, push_every_ms=0))


def test_without_a_time_of_the_exchange_the_hosts_has_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """A serverTime in microseconds is ignored with a warning, and the host's time is used."""

    async def scenario(sandbox: Sandbox) -> None:
        sandbox.add_fault(Fault("time_microseconds"))
        assert abs(await time_ahead_ms(sandbox)) < 2000

    with caplog.at_level(logging.WARNING):
        run(scenario, SandboxOptions(push_every_ms=0))
    assert "agrees with no other clock and is ignored" in caplog.text
