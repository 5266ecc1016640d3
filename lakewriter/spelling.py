"""The parsers of markets, symbols and intervals as other tools spell them. Pure.

Each function returns the exchange's name, or None for an unknown text. A symbol is
valid only if the exchange could list it: it has a base asset and a quote asset, or
is a futures contract. `BTC_USDT`, `BTC/USDT:USDT`, `BINANCE:BTCUSDT` and `btcusdt`
are valid.
"""

import re
from datetime import date, timedelta
from typing import NamedTuple

from lakewriter.interval import BY_WIRE_NAME, DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS, SECOND_MS, Interval
from lakewriter.market import MARKETS, is_symbol

# The value for either futures market. The symbol decides which one.
FUTURES = "futures"

# The value for the exchange's own name, which names no market.
ANY = ""

# Quote assets, with which the exchange's symbols end. Source: exchangeInfo of spot and USDⓈ-M, up to 2026.
QUOTES = (
    "USDT", "FDUSD", "USDC", "BUSD", "TUSD", "USDP", "USD1", "RLUSD", "USDS", "PAX", "DAI", "UST", "VAI",
    "BTC", "ETH", "BNB", "XRP", "TRX", "DOGE", "DOT", "SOL", "EUR", "AEUR", "EURI", "GBP", "AUD", "TRY",
    "BRL", "RUB", "UAH", "NGN", "ZAR", "PLN", "RON", "ARS", "JPY", "MXN", "COP", "CZK", "IDRT", "IDR",
    "BIDR", "BKRW", "BVND", "KZT", "INR",
)  # fmt: skip
_LONGEST_FIRST = sorted(QUOTES, key=len, reverse=True)

# Ranks of quote assets. A base asset never has a smaller rank than its quote asset.
_RANKS = {"BTC": 0, "ETH": 1, "BNB": 2, **dict.fromkeys(("XRP", "TRX", "DOGE", "DOT", "SOL"), 3)}

# Names of other exchanges that occur in the names of users' files.
OTHER_EXCHANGES = frozenset((
    "binanceus", "bitfinex", "bitflyer", "bitget", "bitmex", "bitstamp", "bittrex", "bybit", "cme",
    "coinbase", "coinbasepro", "coinex", "deribit", "dydx", "gate", "gateio", "gdax", "gemini", "hitbtc",
    "htx", "huobi", "hyperliquid", "kraken", "krakenfutures", "kucoin", "lbank", "mexc", "okcoin", "okex",
    "okx", "phemex", "poloniex", "upbit", "yahoo",
))  # fmt: skip

# Names of base assets that occur in file names without a quote asset.
ASSETS = {
    **{asset.lower(): asset for asset in (
        "BTC", "ETH", "BNB", "XRP", "ADA", "SOL", "DOGE", "LTC", "AVAX", "MATIC", "TRX", "BCH", "XLM", "SHIB",
    )},
    "bitcoin": "BTC", "ethereum": "ETH", "ripple": "XRP", "cardano": "ADA", "solana": "SOL", "dogecoin": "DOGE",
    "litecoin": "LTC",
}  # fmt: skip

_MARKETS = {
    **{name.replace("_", ""): name for name in MARKETS},
    **dict.fromkeys(("um", "usdm", "usdsm", "usdtm", "linear", "binanceusdm", "futuresum", "umfutures",
                     "usdmfutures", "usdtfutures", "fapi"), "usdt_futures"),
    **dict.fromkeys(("cm", "coinm", "inverse", "binancecoinm", "futurescm", "cmfutures", "coinmfutures",
                     "delivery", "dapi"), "coin_futures"),
    **dict.fromkeys(("binancespot",), "spot"),
    **dict.fromkeys(("futures", "future", "perp", "perpetual", "swap", "binancefutures"), FUTURES),
    **dict.fromkeys(("binance", "binancecom"), ANY),
}  # fmt: skip

_CCXT = re.compile(r"([^\W_]+)/([A-Z0-9]+)(?::([A-Z0-9]+))?(?:-(\d{6}))?")
_PREFIX = re.compile(r"BINANCE[:_. -]+(?=.)")
_PERPETUAL = re.compile(r"(.+?)(?:\.P|[_-]?PERP|[_-]SWAP)")
_DELIVERED = re.compile(r"(.+?)[_-](\d{6})")
_PAIR = re.compile(r"([^\W_]+)[-_/ ]([A-Z0-9]+)")
_COIN_PAIR = re.compile(r"[A-Z0-9]+USD")

_WORDS = {"minute": "1m", "minutely": "1m", "hour": "1h", "hourly": "1h", "day": "1d", "daily": "1d", "d": "1d",
          "h": "1h", "week": "1w", "weekly": "1w", "month": "1mo", "monthly": "1mo"}  # fmt: skip
_COUNTED = re.compile(r"(\d{1,5})[ _-]?([a-z]+)")
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), SECOND_MS),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes", "t"), MINUTE_MS),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), HOUR_MS),
    **dict.fromkeys(("d", "day", "days"), DAY_MS),
    **dict.fromkeys(("w", "wk", "week", "weeks"), 7 * DAY_MS),
}
_BY_LENGTH = {interval.length_ms: interval for interval in INTERVALS.values() if interval.length_ms}


class Spelled(NamedTuple):
    """A symbol that was parsed from a text.

    Args:
        symbol: the exchange's spelling.
        market: the only market with such a symbol; None if several can have it.
    """

    symbol: str
    market: str | None = None


def market_in(text: str) -> str | None:
    """Parse a market; return FUTURES for either futures market, and ANY for the exchange's own name."""
    return _MARKETS.get(re.sub(r"[^a-z]", "", text.lower()))


def interval_in(text: str) -> Interval | None:
    """Parse an interval; `1M` is a month, and `1m` is a minute."""
    text = text.strip()
    exact = INTERVALS.get(text) or BY_WIRE_NAME.get(text) or INTERVALS.get(_WORDS.get(text.lower(), ""))
    if exact is not None:
        return exact
    counted = _COUNTED.fullmatch(text.lower())
    if counted is None:
        return None
    number, unit = int(counted[1]), counted[2]
    if number == 1 and unit in ("mo", "mon", "month", "months"):
        return INTERVALS["1mo"]
    return _BY_LENGTH.get(number * _UNITS.get(unit, 0))


def symbol_in(text: str) -> Spelled | None:
    """Parse a symbol; return None if the exchange could not list it."""
    name = "".join(char.upper() if char.isascii() else char for char in text.strip())
    ccxt = _CCXT.fullmatch(name)
    if ccxt is not None and ccxt[3]:
        return _ccxt_contract(*ccxt.groups())
    name = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    if (contract := _contract(name)) is not None:
        return contract
    if (pair := _PAIR.fullmatch(name)) is not None:
        return _listed(pair[1] + pair[2]) if pair[2] in QUOTES else None
    return _listed(name)


def asset_in(text: str) -> str | None:
    """Parse a base asset: a word in capitals, or the name of a large asset."""
    name = text.strip()
    if name.lower() in ASSETS:
        return ASSETS[name.lower()]
    return name if re.fullmatch(r"[A-Z0-9]{2,12}", name) and not name.isdigit() else None


def is_of_asset(symbol: str, asset: str) -> bool:
    """Return whether a symbol has this base asset, or a multiple of it, as in 1000SHIBUSDT."""
    return symbol.startswith(asset) or symbol.lstrip("0123456789").startswith(asset)


def market_of(symbol: str) -> str | None:
    """Return the only market that can list this symbol; None if several can."""
    contract = _contract(symbol)
    return contract.market if contract is not None and contract.symbol == symbol else None


def is_delivery(digits: str) -> bool:
    """Return whether YYMMDD is a delivery day of contracts, which is the last Friday of a month."""
    try:
        day = date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))
    except ValueError:
        return False
    return day.weekday() == 4 and (day + timedelta(days=7)).month != day.month


def _ccxt_contract(base: str, quote: str, asset: str, delivered: str | None) -> Spelled | None:
    """Return the contract that ccxt names BASE/QUOTE:ASSET or BASE/QUOTE:ASSET-YYMMDD."""
    if delivered is not None and not is_delivery(delivered):
        return None
    if asset == quote and quote in QUOTES:
        return Spelled(base + quote + (f"_{delivered}" if delivered else ""), "usdt_futures")
    if asset == base and quote == "USD":
        return Spelled(f"{base}{quote}_{delivered or 'PERP'}", "coin_futures")
    return None


def _contract(name: str) -> Spelled | None:
    """Parse the name of a futures contract; return None if it has another form."""
    if (perpetual := _PERPETUAL.fullmatch(name)) is not None:
        pair = re.sub(r"[-_/]", "", perpetual[1])
        if _COIN_PAIR.fullmatch(pair) and _listed(pair) is None:
            return Spelled(f"{pair}_PERP", "coin_futures")
        return Spelled(pair, "usdt_futures") if _listed(pair) else None
    delivered = _DELIVERED.fullmatch(name)
    if delivered is None or not is_delivery(delivered[2]):
        return None
    pair = re.sub(r"[-_/]", "", delivered[1])
    if _COIN_PAIR.fullmatch(pair) and _listed(pair) is None:
        return Spelled(f"{pair}_{delivered[2]}", "coin_futures")
    return Spelled(f"{pair}_{delivered[2]}", "usdt_futures") if _listed(pair) else None


def _listed(name: str) -> Spelled | None:
    """Parse a symbol of a base and a quote asset; return None if it has another form."""
    if not is_symbol(name) or re.search(r"[-_.]", name):
        return None
    quote = next(
        (
            quote_asset
            for quote_asset in _LONGEST_FIRST
            if len(name) > len(quote_asset) and name.endswith(quote_asset)
        ),
        None,
    )
    if quote is None or _RANKS.get(name.removesuffix(quote), len(_RANKS)) < _RANKS.get(quote, 0):
        return None
    return Spelled(name)
