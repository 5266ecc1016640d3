"""exchangeInfo → what a market lists."""

import asyncio
import json
from contextlib import suppress

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lakewriter.binance.instruments import Instrument, fetch_instruments, parse_instruments
from lakewriter.errors import ExchangeError
from lakewriter.market import MARKETS

SPOT = MARKETS["spot"]


def test_status_by_market():
    """Whether a symbol trades is said in another field on coin_futures."""
    body = json.dumps({"symbols": [{"symbol": "BTCUSD_PERP", "status": "a", "contractStatus": "b"}]}).encode()
    assert parse_instruments(body, SPOT) == [Instrument("BTCUSD_PERP", "a")]
    assert parse_instruments(body, MARKETS["usdt_futures"]) == [Instrument("BTCUSD_PERP", "a")]
    assert parse_instruments(body, MARKETS["coin_futures"]) == [Instrument("BTCUSD_PERP", "b")]


def test_trades():
    """Only the status TRADING means that it trades now."""
    assert Instrument("A", "TRADING").trades
    assert not any(Instrument("A", status).trades for status in ("", "BREAK", "SETTLING", "PENDING_TRADING"))


def test_left_out():
    """Symbols that could not be a directory are left out; the others keep their order."""
    names = ["ETHUSDT", "../x", "BTCUSDT", "", "btc", "龙虾USDT", "A" * 300, "A\0"]
    body = json.dumps({"symbols": [{"symbol": name, "x": 1} for name in names], "timezone": "UTC"}).encode()
    assert [entry.symbol for entry in parse_instruments(body, SPOT)] == ["ETHUSDT", "BTCUSDT", "龙虾USDT"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"symbols":null}',
        b'{"symbols":[1]}',
        b'{"symbols":[{}]}',
        b'{"symbols":[{"symbol":5}]}',
        b'{"symbols":[{"symbol":"\xff"}]}',
        b'{"symbols":[{"symbol":"BTCUSDT"}',
        b'{"code":-1003,"msg":"Too many requests"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(12),
)
def test_malformed(body):
    """An answer that is no list of symbols is the exchange's fault, and says which market's."""
    with pytest.raises(ExchangeError, match=r"^spot: exchangeInfo cannot be read: "):
        parse_instruments(body, SPOT)


@given(st.binary(max_size=80) | st.text('{}[]:,"symbols', max_size=60).map(str.encode))
def test_any_bytes(body):
    """Any bytes are a list or the exchange's fault; nothing else happens."""
    with suppress(ExchangeError):
        assert isinstance(parse_instruments(body, SPOT), list)


def fetched(answer: web.Response) -> tuple[list[Instrument] | str, list[str]]:
    """Return what comes of this answer of a local server, and what was asked of it."""
    asked = []

    async def answering(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        return answer

    async def ask() -> list[Instrument] | str:
        app = web.Application()
        app.router.add_get("/{path:.*}", answering)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return await fetch_instruments(replace(SPOT, rest_url=f"http://127.0.0.1:{port}"))
        except ExchangeError as error:
            return str(error).replace(str(port), "PORT")
        finally:
            await runner.cleanup()

    return asyncio.run(ask()), asked


def test_fetch():
    """The list is fetched with one request, without what nobody reads."""
    found, asked = fetched(web.json_response({"symbols": [{"symbol": "BTCUSDT", "status": "TRADING"}]}))
    assert found == [Instrument("BTCUSDT", "TRADING")]
    assert asked == ["/api/v3/exchangeInfo?showPermissionSets=false"]


def test_fetch_refused():
    """A refusal names the address and the status."""
    assert fetched(web.Response(status=451))[0] == "http://127.0.0.1:PORT/api/v3/exchangeInfo: HTTP 451"


def test_fetch_without_a_server():
    """A server that is not there is the exchange's fault, not a crash."""
    market = replace(SPOT, rest_url="http://127.0.0.1:1")
    with pytest.raises(ExchangeError, match=r"^http://127\.0\.0\.1:1/api/v3/exchangeInfo: "):
        asyncio.run(fetch_instruments(market))
