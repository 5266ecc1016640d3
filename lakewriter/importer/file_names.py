"""Parse the name and directories of a file into claims on its series. Pure.

data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-06-30.zip   the archive's tree
BTCUSD_PERP-1m-2024-06.zip       the archive's name: the symbol implies its market
usdt_futures_BTCUSDT_1m.pqt      market, symbol, interval
BTC_USDT-1h.feather              other names: see `name_words`
market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30/part-0.parquet
interval=1h/BTCUSDT.csv          any Hive level
"""

import re
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from lakewriter.errors import LakeError, UsageError
from lakewriter.evidence.claims import LEVELS, NAME, Claim, Level, claims_on
from lakewriter.importer.name_words import parse_words
from lakewriter.interval import BY_WIRE_NAME, INTERVALS
from lakewriter.market import MARKETS, is_symbol
from lakewriter.partition import LEVELS as PATH_LEVELS
from lakewriter.partition import Partition, level_value, parse_partition
from lakewriter.spelling import ANY, OTHER_EXCHANGES, interval_in, market_in, market_of, symbol_in


class FileName(NamedTuple):
    """The claims of a file's name and directories.

    Args:
        claims: claims on its series.
        archive_name: its name without suffixes, if it has the form of the archive's names; else "".
        read_as: the symbol, if the name spells it differently; else "".
    """

    claims: tuple[Claim, ...]
    archive_name: str = ""
    read_as: str = ""


_SUFFIXES = re.compile(r"(?:\.[A-Za-z]+)+$")
_INTERVAL = "|".join(sorted(INTERVALS | BY_WIRE_NAME, key=len, reverse=True))

# Unambiguous forms of names, in the order of matching.
_ARCHIVE = re.compile(rf"(?P<symbol>[^-]+)-(?P<interval>{_INTERVAL})-\d{{4}}-\d{{2}}(?:-\d{{2}})?")
_RECORDER = re.compile(rf"(?P<market>{'|'.join(MARKETS)})[_-](?P<symbol>.+)[_-](?P<interval>{_INTERVAL})")
_SETTLED = re.compile(r"[A-Z0-9]+_SETTLED\d*")

# Two nested directories that determine the market.
_TREES = {tuple(market.archive_path.strip("/").split("/"))[-2:]: market.name for market in MARKETS.values()}
_KLINES = "klines"

# Candles that are not made from trades. The archive gives their files the same names.
_NOT_TRADES = {
    "markpriceklines": "mark prices", "indexpriceklines": "index prices", "premiumindexklines": "premiums",
    "mark": "mark prices", "markprice": "mark prices", "indexprice": "index prices",
    "premiumindex": "premiums", "funding": "funding rates", "fundingrate": "funding rates",
    "heikinashi": "Heikin-Ashi candles", "heikin": "Heikin-Ashi candles", "renko": "Renko bars",
}  # fmt: skip

_HIVE: dict[str, Level] = {
    "market": "market", "exchange": "market", "symbol": "symbol", "pair": "symbol", "ticker": "symbol",
    "interval": "interval", "timeframe": "interval",
}  # fmt: skip


def parse_file_name(path: PurePath) -> FileName:
    """Return the claims of a file's name and directories.

    Raises:
        UsageError: if the name contradicts itself, or names other data than trades of Binance.
    """
    stem = _SUFFIXES.sub("", path.name)
    _check_is_trades(path, stem)
    partition = partition_at(path)
    if partition is not None:
        by = f"its directory {partition.path}"
        return FileName(
            tuple(each for level in LEVELS for each in claims_on(level, getattr(partition, level), by))
        )
    directories = _directory_claims(path)
    for pattern in (_ARCHIVE, _RECORDER):
        match = pattern.fullmatch(stem)
        if match is not None and _is_exact(match["symbol"]):
            interval = INTERVALS.get(match["interval"]) or BY_WIRE_NAME[match["interval"]]
            named = [*claims_on("symbol", match["symbol"], NAME), *claims_on("interval", interval.name, NAME)]
            if pattern is _RECORDER:
                named = [*claims_on("market", match["market"], NAME), *named]
            return FileName((*named, *directories), stem if pattern is _ARCHIVE else "")
    words = parse_words(stem, path)
    return FileName((*words.claims, *directories), "", words.read_as)


def partition_at(path: PurePath) -> Partition | None:
    """Return the partition whose directory holds the file; None outside of partitions."""
    try:
        return parse_partition("/".join(path.parts[-1 - len(PATH_LEVELS) : -1]))
    except LakeError:
        return None


def _is_exact(symbol: str) -> bool:
    """Return whether a symbol has the exchange's spelling."""
    plain = is_symbol(symbol) and not re.search(r"[-_.]", symbol)
    return plain or market_of(symbol) is not None or _SETTLED.fullmatch(symbol) is not None


def _check_is_trades(path: PurePath, stem: str) -> None:
    """Check that a file has candles that are made from trades of Binance.

    Raises:
        UsageError: if its name or directories name another exchange or other data.
    """
    parents = [part.lower() for part in path.parts[:-1]]
    words = re.split(r"[\W_]+", stem.lower())
    for word in (*(part for part in parents if part.endswith(_KLINES)), *words):
        if word in _NOT_TRADES:
            raise UsageError(f"{path}: holds {_NOT_TRADES[word]}, not trades", "leave it out")
    for word in (*parents[-2:], *words):
        if word in OTHER_EXCHANGES:
            raise UsageError(
                f"{path}: is of {word}, but a lake holds candles of Binance",
                "--relabel with --market, --symbol and --interval if that is wrong",
            )


def _directory_claims(path: PurePath) -> list[Claim]:
    """Return the claims of the directories: the archive's tree, and Hive levels."""
    parents = path.parts[:-1]
    claims = [
        each
        for pair in pairwise(parents)
        if pair in _TREES
        for each in claims_on("market", _TREES[pair], f"its directory {'/'.join(pair)}")
    ]
    if _KLINES in parents[-3:-2] and is_symbol(parents[-2]):
        claims += claims_on("symbol", parents[-2], f"its directory {parents[-2]}")
        if (interval := interval_in(parents[-1])) is not None:
            claims += claims_on("interval", interval.name, f"its directory {parents[-1]}")
    for part in parents:
        key, _, value = part.partition("=")
        if value and key.lower() in _HIVE:
            claims += _hive_claims(_HIVE[key.lower()], level_value(key, part) or "", part, path)
    return claims


def _hive_claims(level: Level, text: str, part: str, path: PurePath) -> list[Claim]:
    by = f"its directory {part}"
    if level == "market" and (market := market_in(text)) is not None:
        return [] if market == ANY else claims_on(level, market, by)
    if level == "interval" and (interval := interval_in(text)) is not None:
        return claims_on(level, interval.name, by)
    if level == "symbol" and is_symbol(text) and _is_exact(text):
        return claims_on(level, text, by)
    spelled = symbol_in(text) if level == "symbol" else None
    if spelled is None:
        raise UsageError(f"{path}: {part} is no {level} of Binance", "rename the directory")
    market_claims = [Claim("market", spelled.market, by, level)] if spelled.market else []
    return [Claim(level, spelled.symbol, by, level), *market_claims]
