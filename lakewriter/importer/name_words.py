"""Parse the words of a file's name into claims on its series. Pure.

BTC_USDT-1h.csv, BTC_USDT_USDT-1h-futures.feather, Binance_BTCUSDT_d.csv,
2024-01-01_btcusdt_60min.csv, BTCUSDT.csv, BTCUSD_PERP_4h_2023.csv

Unknown words are ignored. A date is not part of a symbol, unless it is a day of delivery:
BTCUSDT_240628.
"""

import re
from pathlib import PurePath
from typing import NamedTuple

from lakewriter.errors import UsageError
from lakewriter.evidence.claims import LEVELS, NAME, Claim
from lakewriter.spelling import (
    ANY,
    ASSETS,
    FUTURES,
    QUOTES,
    Spelled,
    interval_in,
    is_delivery,
    market_in,
    symbol_in,
)


class NameWords(NamedTuple):
    """The claims of the words in a name.

    Args:
        claims: claims on the file's series, one for each level.
        read_as: the symbol, if the name spells it differently; else "".
    """

    claims: tuple[Claim, ...]
    read_as: str


# Words before an asset that are not assets.
_NOISE = frozenset((
    "all", "bars", "candle", "candles", "copy", "crypto", "data", "export", "final", "from", "full", "history",
    "historical", "kline", "klines", "my", "new", "ohlc", "ohlcv", "price", "prices", "raw", "test", "to", "trades",
))  # fmt: skip

# A lower-case word with one of these quotes is a symbol. With other quotes it may be English.
_PLAIN_QUOTES = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "BTC", "ETH", "BNB")
_DOLLARS = _PLAIN_QUOTES[:5]

_DATE = re.compile(r"(?<!\d)(?:19|20)\d{2}[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?(?!\d)")
_FUTURES = re.compile(r"(?<![^\W_])(usdt|usd|usds|um|coin|cm)[_-]?(?:m[_-])?futures(?![^\W_])", re.IGNORECASE)
_CONTRACT = re.compile(
    r"(?<![^\W_])[^\W_]+?[-_]?(?:USD[A-Z0-9]?|[A-Z]USD)(?:[-_](?:PERP|\d{6})|\.P)(?![^\W_])", re.IGNORECASE
)
_SEPARATORS = re.compile(r"[\s_\-.,;+@()\[\]]+")


def parse_words(stem: str, path: PurePath) -> NameWords:
    """Return the claims of the words in a name.

    Args:
        stem: the name without its suffixes.
        path: the file's path in an error.

    Raises:
        UsageError: if the words name two symbols, two intervals or two markets.
    """
    contract = _contract_in(stem)
    plain = stem if contract is None else stem.replace(contract, " ")
    words = [word for word in _SEPARATORS.split(_FUTURES.sub(_futures_word, _DATE.sub(" ", plain))) if word]
    symbols = [contract] if contract is not None else _symbols(words)
    spelled = {each for text in symbols if (each := symbol_in(text)) is not None}
    claims = [claim for found in spelled for claim in _symbol_claims(found)]
    assets = set() if spelled else {asset for word in words if (asset := _asset(word)) is not None}
    claims += [Claim("asset", asset, NAME, "asset") for asset in sorted(assets)]
    intervals = {found.name for word in words if (found := interval_in(word)) is not None}
    markets = {market for word in words if (market := market_in(word)) is not None and market != ANY}
    claims += [Claim("interval", interval, NAME, "interval") for interval in intervals]
    claims += [Claim("market", market, NAME, "market") for market in markets]
    for level in (*LEVELS, "asset"):
        values = sorted({claim.value for claim in claims if claim.level == level} - {FUTURES})
        if len(values) > 1:
            raise UsageError(
                f"{path}: its name has two {level}s, {values[0]} and {values[1]}",
                f"--relabel --{level} {values[0]}",
            )
    read_as = next((each.symbol for each in spelled if each.symbol not in stem), "")
    return NameWords(tuple(claims), read_as)


def _symbol_claims(spelled: Spelled) -> list[Claim]:
    claims = [Claim("symbol", spelled.symbol, NAME, "symbol")]
    if spelled.market is not None:
        claims.append(Claim("market", spelled.market, NAME, "symbol"))
    return claims


def _asset(word: str) -> str | None:
    """Return the base asset in a word, alone or quoted in USD as on other exchanges."""
    known = ASSETS.get(word.lower())
    if known is not None:
        return known
    dollars = re.fullmatch(r"([A-Z]{2,6})USD", word)
    return dollars[1] if dollars else None


def _contract_in(stem: str) -> str | None:
    """Return the futures contract in a name: BTCUSD_PERP, BTCUSDT_240628, BTCUSDT.P."""
    for match in _CONTRACT.finditer(stem):
        digits = match[0][-6:]
        if (not digits.isdigit() or is_delivery(digits)) and symbol_in(match[0]) is not None:
            return match[0]
    return None


def _futures_word(match: re.Match[str]) -> str:
    return " coinfutures " if match[1].lower() in ("coin", "cm") else " usdtfutures "


def _symbols(words: list[str]) -> list[str]:
    """Return the symbols among the words, and pairs of assets in the form of ccxt."""
    single = [word.upper() for word in words if _is_symbol(word)]
    if single:
        return _preferred(single, single)
    # Freqtrade writes BTC_USDT_USDT for a contract that is settled in USDT.
    upper = [word.upper() for word in words]
    triples = [
        (base, quote, asset)
        for word, base, quote, asset in zip(words, upper, upper[1:], [*upper[2:], ""], strict=False)
        if _is_asset(word) and base != quote and (quote in QUOTES or (quote == "USD" and asset == base))
    ]
    inverse = [triple for triple in triples if triple[2] == triple[0]]
    triples = inverse or triples
    pairs = [
        f"{base}/{quote}:{asset}" if asset in (base, quote) else f"{base}/{quote}"
        for base, quote, asset in triples
    ]
    return _preferred(pairs, [quote for _, quote, _ in triples])


def _preferred(symbols: list[str], quotes: list[str]) -> list[str]:
    """Return the symbols quoted in dollars; all symbols if there is none.

    So the name x_BTC_USDT means BTC/USDT, and not x/BTC.
    """
    dollars = [symbol for symbol, quote in zip(symbols, quotes, strict=True) if quote.endswith(_DOLLARS)]
    return dollars or symbols


def _is_symbol(word: str) -> bool:
    if word.upper() in QUOTES or symbol_in(word) is None:
        return False
    return word.isupper() or word.upper().endswith(_PLAIN_QUOTES)


def _is_asset(word: str) -> bool:
    known = interval_in(word) is not None or market_in(word) is not None
    return word.isalnum() and word.lower() not in _NOISE and not known
