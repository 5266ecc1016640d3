"""Subscriptions → what to listen to, with globs resolved against a local exchange."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from msgspec.structs import replace

from lakewriter.errors import UsageError
from lakewriter.market import MARKETS, Market
from lakewriter.recording.universe import Listening, resolve, warn_of_unlisted
from lakewriter.subscription import parse_subscription

LISTED = {
    "symbols": [
        {"symbol": "ETHUSDT", "status": "TRADING"},
        {"symbol": "BTCUSDT", "status": "TRADING"},
        {"symbol": "LUNAUSDT", "status": "BREAK"},
        {"symbol": "BTCEUR", "status": "TRADING"},
    ]
}


def nowhere(name: str) -> Market:
    """No exchange: asking it fails the test."""
    raise AssertionError(f"{name} was asked")


def with_exchange(work: Callable[[Callable[[str], Market]], Awaitable[object]]) -> tuple[object, list[str]]:
    """Return what comes of `work` with the endpoints of a local exchange, and what it was asked."""
    asked: list[str] = []

    async def listing(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(LISTED)

    async def main() -> object:
        app = web.Application()
        app.router.add_get("/{path:.*}", listing)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            return await work(lambda name: replace(MARKETS[name], rest_url=url))
        finally:
            await runner.cleanup()

    return asyncio.run(main()), asked


def test_full_names_ask_nobody():
    """Symbols named in full are taken as they are, listed or not, and no exchange is asked."""
    subscriptions = [
        parse_subscription("spot:BTCUSDT,NEWUSDT:1m,5m"),
        parse_subscription("usdt_futures:A:1m"),
    ]
    assert asyncio.run(resolve(subscriptions, nowhere)) == [
        Listening("spot", "1m", ("BTCUSDT", "NEWUSDT")),
        Listening("spot", "5m", ("BTCUSDT", "NEWUSDT")),
        Listening("usdt_futures", "1m", ("A",)),
    ]


def test_one_listener_per_market_and_interval():
    """Subscriptions of one market and interval are joined, each symbol once."""
    texts = ["spot:BTCUSDT:1m", "spot:ETHUSDT,BTCUSDT:1m,1h", "spot:BTCUSDT:1h"]
    assert asyncio.run(resolve(map(parse_subscription, texts), nowhere)) == [
        Listening("spot", "1m", ("BTCUSDT", "ETHUSDT")),
        Listening("spot", "1h", ("ETHUSDT", "BTCUSDT")),
    ]


def test_globs():
    """A glob stands for what trades, in the exchange's order; the exchange is asked once."""
    texts = ["spot:LUNAUSDT,*USDT:1m", "spot:BTC*:1m,5m"]
    found, asked = with_exchange(lambda endpoints: resolve(map(parse_subscription, texts), endpoints))
    assert found == [
        Listening("spot", "1m", ("LUNAUSDT", "ETHUSDT", "BTCUSDT", "BTCEUR")),
        Listening("spot", "5m", ("BTCUSDT", "BTCEUR")),
    ]
    assert asked == ["/api/v3/exchangeInfo"]


@pytest.mark.parametrize("glob", ["XRP*", "LUNA*"])
def test_glob_that_matches_nothing(glob):
    """A glob that matches nothing that trades is a user's mistake."""
    with pytest.raises(UsageError) as caught:
        with_exchange(lambda endpoints: resolve([parse_subscription(f"spot:{glob}:1m")], endpoints))
    assert caught.value.what == f"symbol: {glob!r} matches nothing that trades on spot"


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def logged():
    """What the module logs meanwhile."""
    handler = Lines()
    logger = logging.getLogger("lakewriter.recording.universe")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


def test_warnings(logged):
    """Symbols that are not listed, or do not trade, are warned of and listened to all the same."""
    listening = [
        Listening("spot", "1m", ("BTCUSDT", "LUNAUSDT")),
        Listening("spot", "1h", ("NEWUSDT", "BTCUSDT")),
    ]
    with_exchange(lambda endpoints: warn_of_unlisted(listening, endpoints))
    assert logged == [
        "spot does not list NEWUSDT; listening all the same",
        "spot LUNAUSDT does not trade (BREAK); listening all the same",
    ]


def test_warnings_without_an_exchange(logged):
    """An exchange that does not answer costs the warning only."""
    listening = [Listening("spot", "1m", ("BTCUSDT",))]
    asyncio.run(
        warn_of_unlisted(listening, lambda name: replace(MARKETS[name], rest_url="http://127.0.0.1:1"))
    )
    assert len(logged) == 1
    assert logged[0].startswith(
        "cannot tell whether all symbols exist: http://127.0.0.1:1/api/v3/exchangeInfo: "
    )
