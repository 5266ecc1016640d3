"""Claims on the series of a file: by options, name, place and columns; and their agreement. Pure.

Rule: two claims that differ refuse the file, in one line that names both.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from lakewriter.candle import Source
from lakewriter.errors import LakewriterError
from lakewriter.spelling import FUTURES, is_of_asset, market_of

# "asset" is the base asset alone: it names no symbol, but can contradict one.
Level = Literal["market", "symbol", "interval", "asset"]
LEVELS: tuple[Level, ...] = ("market", "symbol", "interval")
EXAMPLES = {"market": "usdt_futures", "symbol": "BTCUSDT", "interval": "1m", "asset": "BTC"}

# The claim of a file's name, in an error.
NAME = "its name"


class ImportOptions(NamedTuple):
    """What a user asks of an import.

    Args:
        market, symbol, interval: of which series; they choose, and fill in what a file does not say.
        source: where the rows come from, if the file does not say.
        relabel: market, symbol and interval overrule the file.
        sparse: rows may be farther apart than the interval.
        skip_bad_rows: leave out rows that cannot be candles, which else refuse their file.
    """

    market: str | None = None
    symbol: str | None = None
    interval: str | None = None
    source: Source | None = None
    relabel: bool = False
    sparse: bool = False
    skip_bad_rows: bool = False


class Claim(NamedTuple):
    """One source's word on a market, symbol, interval or base asset.

    Args:
        level: which of these.
        value: the exchange's name for it; FUTURES for either futures market.
        by: the source, as an error calls it: NAME, "--symbol", "its column pair".
        of: the level of the text that says so: a symbol can tell its market.
    """

    level: Level
    value: str
    by: str
    of: Level


class ContradictionError(LakewriterError):
    """Two sources claim different series for the same rows."""


def claim(level: Level, value: str, by: str) -> list[Claim]:
    """Return a claim, and for a symbol also that on the market which only such a symbol has."""
    claims = [Claim(level, value, by, level)]
    if level == "symbol" and (market := market_of(value)) is not None:
        claims.append(Claim("market", market, by, level))
    return claims


def agree(claims: Iterable[Claim], name: str) -> dict[Level, Claim]:
    """Return one claim for each level that any is made on.

    Args:
        name: what to call the file in an error.

    Raises:
        ContradictionError: if two claims on one level differ.
    """
    agreed: dict[Level, Claim] = {}
    for each in claims:
        known = agreed.get(each.level)
        if known is None or _is_narrower(each, known):
            agreed[each.level] = each
        elif not _is_narrower(known, each) and known.value != each.value:
            hint = f"--relabel --{each.level} {known.value} if that is right"
            raise ContradictionError(contradiction(known, each, name), hint)
    asset, symbol = agreed.get("asset"), agreed.get("symbol")
    if asset is not None and symbol is not None and not is_of_asset(symbol.value, asset.value):
        pair = (symbol, asset) if symbol.by == NAME else (asset, symbol)
        raise ContradictionError(contradiction(*pair, name))
    return agreed


def contradiction(one: Claim, other: Claim, name: str) -> str:
    """Return the line that names both sources."""
    first = name if one.by == NAME else f"{name}: {one.by}"
    return f"{first} says {one.value}, {other.by} says {other.value}"


def _is_narrower(one: Claim, other: Claim) -> bool:
    return other.value == FUTURES and one.value in ("usdt_futures", "coin_futures")
