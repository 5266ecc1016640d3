"""Claims on the series of a file by options, name, directories and columns. Pure.

Rule: if two claims differ, the file is refused in one line that names both.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from lakewriter.candle import Source
from lakewriter.errors import LakewriterError
from lakewriter.spelling import FUTURES, is_of_asset, market_of

# "asset" is only a base asset. It cannot determine a symbol, but can contradict one.
Level = Literal["market", "symbol", "interval", "asset"]
LEVELS: tuple[Level, ...] = ("market", "symbol", "interval")
EXAMPLES = {"market": "usdt_futures", "symbol": "BTCUSDT", "interval": "1m", "asset": "BTC"}

# The source of a claim by a file's name, in an error.
NAME = "its name"


class ImportOptions(NamedTuple):
    """The options of an import.

    Args:
        market, symbol, interval: the selected series; they also supply claims that a file lacks.
        source: the source of rows whose file does not name it.
        relabel: whether market, symbol and interval overrule the file.
        sparse: whether rows may be farther apart than the interval.
        skip_bad_rows: whether to skip rows that cannot be candles. Otherwise such a row
            refuses its file.
    """

    market: str | None = None
    symbol: str | None = None
    interval: str | None = None
    source: Source | None = None
    relabel: bool = False
    sparse: bool = False
    skip_bad_rows: bool = False


class Claim(NamedTuple):
    """The market, symbol, interval or base asset of rows, according to one source.

    Args:
        level: market, symbol, interval or asset.
        value: the exchange's name for it; FUTURES for either futures market.
        by: the source in an error: NAME, "--symbol", "its column pair".
        of: the level that the source names. It differs from `level` if a symbol implies its market.
    """

    level: Level
    value: str
    by: str
    of: Level


class RowsError(LakewriterError):
    """Rows that cannot belong to the claimed series."""


class ContradictionError(LakewriterError):
    """Two sources that claim different series for the same rows."""


def claims_on(level: Level, value: str, by: str) -> list[Claim]:
    """Return a claim. A symbol of only one market also claims that market."""
    claims = [Claim(level, value, by, level)]
    if level == "symbol" and (market := market_of(value)) is not None:
        claims.append(Claim("market", market, by, level))
    return claims


def agree(claims: Iterable[Claim], name: str) -> dict[Level, Claim]:
    """Merge claims on the same rows; return one claim for each level that has any.

    Args:
        name: the file's name in an error.

    Raises:
        ContradictionError: if two claims on one level differ.
    """
    agreed: dict[Level, Claim] = {}
    for claim in claims:
        known = agreed.get(claim.level)
        if known is None or _is_narrower(claim, known):
            agreed[claim.level] = claim
        elif not _is_narrower(known, claim) and known.value != claim.value:
            hint = f"--relabel --{claim.level} {known.value} if that is right"
            raise ContradictionError(contradiction(known, claim, name), hint)
    asset, symbol = agreed.get("asset"), agreed.get("symbol")
    if asset is not None and symbol is not None and not is_of_asset(symbol.value, asset.value):
        pair = (symbol, asset) if symbol.by == NAME else (asset, symbol)
        raise ContradictionError(contradiction(*pair, name))
    return agreed


def contradiction(one: Claim, other: Claim, name: str) -> str:
    """Return an error line that names both sources."""
    first = name if one.by == NAME else f"{name}: {one.by}"
    return f"{first} says {one.value}, {other.by} says {other.value}"


def _is_narrower(one: Claim, other: Claim) -> bool:
    return other.value == FUTURES and one.value in ("usdt_futures", "coin_futures")


def time_text(time_ms: int) -> str:
    """Format a time for an error."""
    return str(np.datetime64(int(time_ms), "ms")).replace("T", " ").removesuffix(".000")
