"""Markets, symbols and intervals as other tools spell them; names that no exchange lists are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.spelling import (
    asset_in,
    interval_in,
    is_delivery,
    is_of_asset,
    market_in,
    market_of,
    symbol_in,
)


@pytest.mark.parametrize(
    ("text", "symbol", "market"),
    [
        ("BTCUSDT", "BTCUSDT", None),
        ("btcusdt", "BTCUSDT", None),
        ("BTC_USDT", "BTCUSDT", None),
        ("BTC-USDT", "BTCUSDT", None),
        ("eth/btc", "ETHBTC", None),
        ("BTC/USDT:USDT", "BTCUSDT", "usdt_futures"),
        ("BTC/USD:BTC", "BTCUSD_PERP", "coin_futures"),
        ("BTC/USDT:USDT-240628", "BTCUSDT_240628", "usdt_futures"),
        ("ETH/USD:ETH-240628", "ETHUSD_240628", "coin_futures"),
        ("BINANCE:BTCUSDT", "BTCUSDT", None),
        ("BINANCE:BTCUSDT.P", "BTCUSDT", "usdt_futures"),
        ("BINANCE_BTCUSDT", "BTCUSDT", None),
        ("BTCUSDTPERP", "BTCUSDT", "usdt_futures"),
        ("BTCUSD_PERP", "BTCUSD_PERP", "coin_futures"),
        ("BTCUSD.P", "BTCUSD_PERP", "coin_futures"),
        ("BTCUSDT_240628", "BTCUSDT_240628", "usdt_futures"),
        ("BTCUSD_240628", "BTCUSD_240628", "coin_futures"),
        ("1000PEPEUSDT", "1000PEPEUSDT", None),
        ("币安人生USDT", "币安人生USDT", None),
    ],
)
def test_symbols(text: str, symbol: str, market: str | None) -> None:
    """All spellings of a pair of assets give one symbol, and a contract's name gives its market."""
    assert symbol_in(text) == (symbol, market)


@pytest.mark.parametrize(
    "text",
    ["", "BTC", "USDT", "BTC-USD", "BTCUSD", "BTC/EURX", "BTCUSDT_202401", "BTCUSDT_240101", "BTC/USDT:BTC",
     "BTC/USDT:USDT-240101", "2024-01-01_BTCUSDT", "BTCETH", "BNB/BTC:X", "../BTCUSDT", "BTC USDT USDT", "EUR/USD", "AAPL", "COINBASE:BTCUSD"],
)  # fmt: skip
def test_what_the_exchange_does_not_list(text: str) -> None:
    """Single assets, dollars, stocks, dates and incomplete contracts are no symbols."""
    assert symbol_in(text) is None


@given(st.from_regex(r"[A-Z0-9]{1,8}(USDT|BTC|FDUSD|TRY)", fullmatch=True))
def test_a_symbol_means_itself(symbol: str) -> None:
    """The exchange's own spelling is never read as another symbol."""
    found = symbol_in(symbol)
    assert found is not None
    if not symbol.endswith("PERP"):
        assert found.symbol == symbol


@pytest.mark.parametrize(
    ("text", "interval"),
    [("1m", "1m"), ("1M", "1mo"), ("1mo", "1mo"), ("1H", "1h"), ("60m", "1h"), ("1min", "1m"), ("5T", "5m"),
     ("15M", "15m"), ("240min", "4h"), ("1D", "1d"), ("24h", "1d"), ("daily", "1d"), ("Hour", "1h"), ("minute", "1m"),
     ("7d", "1w"), ("1 week", "1w"), ("1month", "1mo"), ("60s", "1m"), ("d", "1d")],
)  # fmt: skip
def test_intervals(text: str, interval: str) -> None:
    """Words, units and equal lengths in other units give one interval."""
    found = interval_in(text)
    assert found is not None
    assert found.name == interval


@pytest.mark.parametrize("text", ["", "7m", "60", "0m", "2mo", "1y", "m1x", "BTC", "100000m", "1.5h"])
def test_what_is_no_interval(text: str) -> None:
    """Lengths without candles at the exchange, and bare numbers, give None."""
    assert interval_in(text) is None


@given(st.sampled_from(sorted(INTERVALS)))
def test_an_interval_means_itself(name: str) -> None:
    """The lake's interval names and the exchange's give the interval itself."""
    assert interval_in(name) is INTERVALS[name] is interval_in(INTERVALS[name].wire_name)


@pytest.mark.parametrize(
    ("text", "market"),
    [("spot", "spot"), ("USDⓈ-M", "usdt_futures"), ("um", "usdt_futures"), ("Linear", "usdt_futures"),
     ("coin-m", "coin_futures"), ("inverse", "coin_futures"), ("binanceusdm", "usdt_futures"),
     ("BINANCE_FUTURES", "futures"), ("perp", "futures"), ("Binance", ""), ("binance.com", ""),
     ("bybit", None), ("binanceus", None), ("forex", None), ("", None)],
)  # fmt: skip
def test_markets(text: str, market: str | None) -> None:
    """A market's names give that market, Binance's own name an empty text, other exchanges' names None."""
    assert market_in(text) == market
    assert all(market_in(name) == name for name in MARKETS)


def test_days_of_delivery() -> None:
    """Only the last Fridays of months are days of delivery."""
    assert [digits for digits in ("240628", "241227", "240621", "240627", "202401", "240230", "999999") if is_delivery(digits)] == [
        "240628", "241227",
    ]  # fmt: skip
    assert market_of("BTCUSDT_240628") == "usdt_futures"
    assert market_of("BTCUSDT_240627") is None


@pytest.mark.parametrize(
    ("text", "asset"), [("BTC", "BTC"), ("btc", "BTC"), ("Bitcoin", "BTC"), ("PEPE", "PEPE"), ("crypto", None), ("5", None), ("", None)]
)  # fmt: skip
def test_assets(text: str, asset: str | None) -> None:
    """An asset is a word of capitals, or any name of a large asset."""
    assert asset_in(text) == asset


def test_symbols_of_an_asset() -> None:
    """A symbol begins with its base asset, or with a thousand of it, as in 1000SHIBUSDT."""
    assert is_of_asset("BTCUSDT", "BTC")
    assert is_of_asset("1000SHIBUSDT", "SHIB")
    assert not is_of_asset("ETHBTC", "BTC")
