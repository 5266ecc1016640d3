"""When a recorder writes its subscriptions into the lake, by what it knows of the exchange's time."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.subscriptions import read_periods
from lakewriter.market import MARKETS
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.subscription_log import TIME_PATIENCE_S, SubscriptionLog
from lakewriter.series import Series
from lakewriter.subscribed_period import COMMAND_LINE, RecorderId
from lakewriter.subscription import parse_subscription
from lakewriter.timeline import Moment

NOW_MS = 1_700_000_000_000


class SetClock(Clock):
    """A clock that shows what a test sets."""

    now_s = 1000.0

    def wall_us(self) -> int:
        return NOW_MS * 1000

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("agreed", "after_s", "ending", "written"),
    [
        (False, 0.0, False, False),
        (False, 0.0, True, False),
        (True, 0.0, False, False),
        (True, 0.0, True, True),
        (False, TIME_PATIENCE_S, False, True),
        (False, TIME_PATIENCE_S, True, True),
    ],
)
def test_a_short_run_leaves_its_subscriptions(
    tmp_path: Path, agreed: bool, after_s: float, ending: bool, written: bool
) -> None:
    """A stop within seconds uses a time whose rate is unknown yet; an unknown time is waited for."""
    clock = SetClock()
    store = LakeStore.create(str(tmp_path / "lake"), "test")

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            clients = MarketClients(lambda name: MARKETS[name], session, clock)
            subscribed = SubscribedSeries([parse_subscription("spot:BTCUSDT:1m")], clients)
            recorder = RecorderId(COMMAND_LINE, "journal")
            subscriptions = SubscriptionLog(store, subscribed, clients, recorder, dict, clock)
            time = clients["spot"].time
            if agreed:
                assert time.observe_server_time(Moment(NOW_MS, clock.now_s, clock.now_s))
                assert time.agreed and not time.known
            clock.now_s += after_s
            if ending:
                subscriptions.end()
            assert await subscriptions.confirm()

    asyncio.run(main())
    periods = read_periods(store.root)
    assert [each.series for each in periods] == ([Series("spot", "BTCUSDT", "1m")] if written else [])
