"""Subscriptions → series, by the list of a local exchange."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.errors import UsageError
from lakewriter.instrument import Instrument
from lakewriter.market import MARKETS
from lakewriter.recording.subscribed_series import SubscribedSeries, resolve
from lakewriter.series import Series
from lakewriter.subscription import parse_subscription
from support.http_server import serve_routes

LISTED = {"ETHUSDT": "TRADING", "BTCUSDT": "TRADING", "LUNAUSDT": "BREAK", "BTCEUR": "TRADING"}


def listed(**statuses: str) -> dict[str, Instrument]:
    return {symbol: Instrument(symbol, status) for symbol, status in statuses.items()}


def series(*texts: str) -> set[Series]:
    return {Series(*text.split()) for text in texts}


def with_exchange(
    texts: list[str], work: Callable[[SubscribedSeries, dict[str, str]], Awaitable[None]]
) -> list[str]:
    """Run work on subscribed series and a local exchange's statuses by symbol; return the requested paths."""
    asked: list[str] = []
    statuses = dict(LISTED)

    async def listing(request: web.Request) -> web.Response:
        asked.append(request.path)
        symbols = [{"symbol": symbol, "status": status} for symbol, status in statuses.items()]
        return web.json_response({"symbols": symbols})

    async def main() -> None:
        async with serve_routes(listing) as url, aiohttp.ClientSession() as session:
            clients = MarketClients(lambda name: replace(MARKETS[name], rest_url=url), session, Clock())
            await work(SubscribedSeries(map(parse_subscription, texts), clients), statuses)

    asyncio.run(main())
    return asked


def test_full_names_are_taken_as_they_are() -> None:
    """Full names are listened to, listed or not, and expected unless they do not trade."""
    some = [parse_subscription("spot:BTCUSDT,NEWUSDT:1m,5m"), parse_subscription("usdt_futures:A:1m")]
    wanted = resolve(some, {})
    everything = series(
        "spot BTCUSDT 1m", "spot BTCUSDT 5m", "spot NEWUSDT 1m", "spot NEWUSDT 5m", "usdt_futures A 1m"
    )
    assert wanted == (everything, everything)
    known = resolve(some, {"spot": listed(BTCUSDT="TRADING")})
    assert known.listened == everything
    assert known.expected == series("spot BTCUSDT 1m", "spot BTCUSDT 5m", "usdt_futures A 1m")


def test_globs_stand_for_what_trades() -> None:
    """A glob matches the trading symbols of its market, and nothing before the first listing."""
    some = [parse_subscription("spot:LUNAUSDT,*USDT:1m"), parse_subscription("spot:BTC*:5m")]
    wanted = resolve(some, {"spot": listed(**LISTED)})
    assert wanted.expected == series(
        "spot ETHUSDT 1m", "spot BTCUSDT 1m", "spot BTCUSDT 5m", "spot BTCEUR 5m"
    )
    assert wanted.listened == wanted.expected | series("spot LUNAUSDT 1m")
    assert resolve(some, {}).listened == series("spot LUNAUSDT 1m")


def test_only_markets_with_globs_are_asked_first() -> None:
    """Full names are recorded without any listing; globs wait for one."""

    async def full(subscribed: SubscribedSeries, _: dict[str, str]) -> None:
        await subscribed.first()

    async def globs(subscribed: SubscribedSeries, _: dict[str, str]) -> None:
        await subscribed.first()
        assert Series("spot", "ETHUSDT", "1m") in subscribed.resolve().expected

    assert with_exchange(["spot:BTCUSDT:1m"], full) == []
    assert with_exchange(["spot:*USDT:1m", "spot:B*:5m"], globs) == ["/api/v3/exchangeInfo"]


def test_a_glob_that_matches_nothing_is_a_users_mistake() -> None:
    """At the start a glob without a listed match is a usage error."""

    async def first(subscribed: SubscribedSeries, _: dict[str, str]) -> None:
        with pytest.raises(UsageError) as caught:
            await subscribed.first()
        assert caught.value.what == "symbol: 'XRP*' matches nothing that is listed on spot"

    with_exchange(["spot:XRP*:1m"], first)


def test_a_halt_of_all_symbols_is_no_mistake() -> None:
    """Globs whose symbols do not trade at the start match them as soon as they trade."""

    async def first(subscribed: SubscribedSeries, statuses: dict[str, str]) -> None:
        statuses.update(dict.fromkeys(statuses, "HALT"))
        assert not subscribed.is_halted("spot")
        await subscribed.first()
        assert subscribed.is_halted("spot")
        assert not subscribed.resolve().listened
        statuses["ETHUSDT"] = "TRADING"
        await subscribed.refresh("spot")
        assert not subscribed.is_halted("spot")
        assert subscribed.resolve().expected == series("spot ETHUSDT 1m")

    with_exchange(["spot:*:1m"], first)


def test_a_list_without_a_symbol_is_requested_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start an empty list says nothing about a glob."""
    monkeypatch.setattr("lakewriter.recording.subscribed_series._RETRY_S", 0.01)

    async def first(subscribed: SubscribedSeries, statuses: dict[str, str]) -> None:
        statuses.clear()
        waiting = asyncio.create_task(subscribed.first())
        while "spot: exchangeInfo lists no symbol" not in caplog.text:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        statuses["ETHUSDT"] = "TRADING"
        await waiting
        assert subscribed.resolve().expected == series("spot ETHUSDT 1m")

    with_exchange(["spot:*:1m"], first)


def test_listings_come_and_go() -> None:
    """A refreshed listing adds new symbols and removes ended ones."""

    async def work(subscribed: SubscribedSeries, statuses: dict[str, str]) -> None:
        await subscribed.refresh("spot")
        statuses.update(SOLUSDT="TRADING", ETHUSDT="BREAK")
        await subscribed.refresh("spot")
        assert subscribed.resolve().expected == series("spot SOLUSDT 1m", "spot BTCUSDT 1m")
        assert subscribed.instrument(Series("spot", "ETHUSDT", "1m")) == Instrument("ETHUSDT", "BREAK")

    with_exchange(["spot:*USDT:1m"], work)


def test_a_list_that_shrank_to_half_is_asked_for_once_more() -> None:
    """A listing without most of the former symbols counts only if the next one agrees."""

    async def work(subscribed: SubscribedSeries, statuses: dict[str, str]) -> None:
        statuses.update({f"A{number}USDT": "TRADING" for number in range(30)})
        await subscribed.refresh("spot")
        before = subscribed.resolve()
        for name in list(statuses)[6:]:
            del statuses[name]
        assert await subscribed.refresh("spot") == []
        assert subscribed.resolve() == before
        assert await subscribed.refresh("spot") != []
        assert len(subscribed.resolve().expected) < 10

    with_exchange(["spot:*USDT:1m"], work)


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """Symbols that are unlisted or do not trade, and globs without a match, are logged once."""

    async def work(subscribed: SubscribedSeries, _: dict[str, str]) -> None:
        subscribed.warn_of_unlisted("spot")
        await subscribed.refresh("spot")
        subscribed.warn_of_unlisted("spot")
        subscribed.subscriptions.append(parse_subscription("spot:ZZZ*,*USDT:1m"))
        subscribed.warn_of_unlisted("spot")

    with caplog.at_level(logging.WARNING, "lakewriter"):
        with_exchange(["spot:BTCUSDT,LUNAUSDT:1m", "spot:NEWUSDT,BTCUSDT:1h"], work)
    assert [record.getMessage() for record in caplog.records] == [
        "spot LUNAUSDT does not trade (BREAK); listening anyway",
        "spot does not list NEWUSDT; listening anyway",
        "spot: ZZZ* matches nothing that trades",
    ]


def test_a_subscription_covers_what_does_not_trade_too() -> None:
    """A subscription covers symbols by name or glob, market and interval, listed or not."""
    texts = ["spot:BTC*,NEWUSDT:1m,1h", "coin_futures:BTC*:1m"]

    async def work(subscribed: SubscribedSeries, _: dict[str, str]) -> None:
        covered = series("spot BTCOLD 1h", "spot NEWUSDT 1m", "coin_futures BTCUSD_201225 1m")
        others = series("spot ETHUSDT 1m", "spot BTCUSDT 5m", "coin_futures BTCUSD_PERP 1h")
        assert {each for each in covered | others if subscribed.covers(each)} == covered

    with_exchange(texts, work)
