"""exchangeInfo → the market's instruments."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.instruments import parse_instruments
from lakewriter.errors import ExchangeError
from lakewriter.instrument import Instrument
from lakewriter.market import MARKETS

SPOT = MARKETS["spot"]


def test_status_by_market():
    """coin_futures has the status of a symbol in another field."""
    body = json.dumps({"symbols": [{"symbol": "BTCUSD_PERP", "status": "a", "contractStatus": "b"}]}).encode()
    assert parse_instruments(body, SPOT) == [Instrument("BTCUSD_PERP", "a")]
    assert parse_instruments(body, MARKETS["usdt_futures"]) == [Instrument("BTCUSD_PERP", "a")]
    assert parse_instruments(body, MARKETS["coin_futures"]) == [Instrument("BTCUSD_PERP", "b")]


def test_trades():
    """Only the status TRADING counts as trading."""
    assert Instrument("A", "TRADING").trades
    assert not any(Instrument("A", status).trades for status in ("", "BREAK", "SETTLING", "PENDING_TRADING"))


def test_left_out():
    """Symbols that cannot be a directory are left out; the others keep their order."""
    names = ["ETHUSDT", "../x", "BTCUSDT", "", "btc", "龙虾USDT", "A" * 300, "A\0"]
    body = json.dumps({"symbols": [{"symbol": name, "x": 1} for name in names], "timezone": "UTC"}).encode()
    assert [entry.symbol for entry in parse_instruments(body, SPOT)] == ["ETHUSDT", "BTCUSDT", "龙虾USDT"]


@pytest.mark.parametrize("date", [0, -1, 5, 1_700_000_000, 10**15, 10**30, 1.5e12, "soon", None])
def test_a_date_that_cannot_be_one_is_not_said(date: object) -> None:
    """A date in other units or out of range becomes None, and the other symbols are read."""
    odd = {"symbol": "BTCUSDT", "status": "TRADING", "onboardDate": date, "deliveryDate": date}
    sound = {"symbol": "ETHUSDT", "onboardDate": 1_569_398_400_000, "deliveryDate": 4_133_404_800_000}
    parsed = parse_instruments(json.dumps({"symbols": [odd, sound]}).encode(), SPOT)
    assert parsed == [
        Instrument("BTCUSDT", "TRADING"),
        Instrument("ETHUSDT", "", "", 1_569_398_400_000, 4_133_404_800_000),
    ]


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
    """An answer that is no list of symbols is an ExchangeError with the market's name."""
    with pytest.raises(ExchangeError, match=r"^spot: exchangeInfo cannot be read: "):
        parse_instruments(body, SPOT)


@given(st.binary(max_size=80) | st.text('{}[]:,"symbols', max_size=60).map(str.encode))
def test_any_bytes(body):
    """Any bytes give a list or an ExchangeError."""
    with suppress(ExchangeError):
        assert isinstance(parse_instruments(body, SPOT), list)


def test_what_a_contract_is_and_when_it_trades():
    """Contract type, onboarding and delivery come from the market's fields."""
    entry = {"symbol": "BTCUSDT_261225", "status": "TRADING", "contractType": "CURRENT_QUARTER"}
    body = json.dumps(
        {"symbols": [{**entry, "onboardDate": 1_569_398_400_000, "deliveryDate": 1_798_185_600_000}]}
    ).encode()
    assert parse_instruments(body, MARKETS["usdt_futures"]) == [
        Instrument("BTCUSDT_261225", "TRADING", "CURRENT_QUARTER", 1_569_398_400_000, 1_798_185_600_000)
    ]
