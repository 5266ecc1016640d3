"""Which series a file is of, by its name and the directories it lies in. Pure.

data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-06-30.zip   the archive's own tree
BTCUSD_PERP-1m-2024-06.zip       the archive's name: the symbol tells its market
usdt_futures_BTCUSDT_1m.pqt      market, symbol, interval
BTCUSDT_1m.csv                   a symbol and an interval
market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30/part-0.parquet
"""

import re
from pathlib import PurePath
from typing import NamedTuple

from lakewriter.candle import Source
from lakewriter.errors import LakeError, UsageError
from lakewriter.interval import BY_WIRE_NAME, INTERVALS
from lakewriter.market import MARKETS, is_symbol
from lakewriter.partition import LEVELS, Partition, parse_partition
from lakewriter.series import Series


class Told(NamedTuple):
    """What a user said of the files; None for what their names say.

    Args:
        market, symbol, interval: the series; each of them overrules the names.
        source: who said so; else `archive` for the archive's layout, `rest` for any other.
    """

    market: str | None = None
    symbol: str | None = None
    interval: str | None = None
    source: Source | None = None


_SUFFIXES = r"(?:\.[A-Za-z]+)+$"
_INTERVAL = "|".join(sorted(INTERVALS | BY_WIRE_NAME, key=len, reverse=True))

# Tried in this order; the first that fits is taken.
_NAMES = tuple(
    re.compile(pattern + _SUFFIXES)
    for pattern in (
        rf"(?P<symbol>.+)-(?P<interval>{_INTERVAL})-\d{{4}}-\d{{2}}(?:-\d{{2}})?",
        rf"(?P<market>{'|'.join(MARKETS)})[_-](?P<symbol>.+)[_-](?P<interval>{_INTERVAL})",
        rf"(?P<symbol>.+)[_-](?P<interval>{_INTERVAL})",
    )
)

# Where a file's path has these directories, one in the other, it is of that market.
_TREES = {tuple(market.archive_path.strip("/").split("/"))[-2:]: market.name for market in MARKETS.values()}

_COIN_SYMBOL = re.compile(r".+USD_(?:PERP|\d{6})")
_DELIVERED_SYMBOL = re.compile(r".+_\d{6}")


def series_of(path: PurePath, told: Told) -> Series:
    """Return the series of a file.

    Raises:
        UsageError: if its name and place do not say it all, and nobody else did.
    """
    named = next((match.groupdict() for each in _NAMES if (match := each.fullmatch(path.name))), {})
    partition = partition_at(path)
    if partition is not None:
        named = {level: getattr(partition, level) for level in LEVELS}
    symbol = told.symbol or _required(named.get("symbol"), "symbol", path)
    if not is_symbol(symbol):
        raise UsageError(f"{path}: {symbol!r} cannot be a symbol", "--symbol BTCUSDT")
    interval = told.interval or _required(named.get("interval"), "interval", path)
    market = told.market or named.get("market") or _market_of_tree(path) or _market_of_symbol(symbol)
    return Series(
        _required(market, "market", path),
        symbol,
        (INTERVALS.get(interval) or BY_WIRE_NAME[interval]).name,
    )


def partition_at(path: PurePath) -> Partition | None:
    """Return the partition of a lake that the file lies in; None if it lies in none."""
    try:
        return parse_partition("/".join(path.parts[-1 - len(LEVELS) : -1]))
    except LakeError:
        return None


def _required(value: str | None, what: str, path: PurePath) -> str:
    if value is None:
        example = {"market": "usdt_futures", "symbol": "BTCUSDT", "interval": "1m"}[what]
        raise UsageError(f"{path}: its name does not tell the {what}", f"--{what} {example}")
    return value


def _market_of_tree(path: PurePath) -> str | None:
    pairs = zip(path.parts, path.parts[1:-1], strict=False)
    return next((_TREES[pair] for pair in pairs if pair in _TREES), None)


def _market_of_symbol(symbol: str) -> str | None:
    if _COIN_SYMBOL.fullmatch(symbol):
        return "coin_futures"
    return "usdt_futures" if _DELIVERED_SYMBOL.fullmatch(symbol) else None
