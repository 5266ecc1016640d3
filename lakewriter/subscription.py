"""The subscription: a market, symbols and intervals, as in "spot:BTCUSDT,ETHUSDT:1m".

Symbols may be globs (`*USDT`). `recording/subscribed_series.py` resolves them by
the exchange's list.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.market import is_symbol, parse_market, parse_symbol

EXAMPLE = "spot:BTCUSDT,BNBUSDT:1m"

# A longer list of symbols is a mistake.
SYMBOLS_MAX = 10_000

_GLOB = frozenset("*?[]")


class Subscription(msgspec.Struct, frozen=True):
    """One market, its symbols, and the intervals of each.

    Args:
        market: the market's name.
        symbols: symbols in upper case and globs, without duplicates.
        intervals: names of intervals of the market, without duplicates.
    """

    market: str
    symbols: tuple[str, ...]
    intervals: tuple[str, ...]

    def covers(self, market: str, symbol: str, interval: str) -> bool:
        """Return whether the subscription includes a series, even if the series is not listed."""
        return (
            market == self.market
            and interval in self.intervals
            and any(fnmatchcase(symbol, name) if is_glob(name) else symbol == name for name in self.symbols)
        )

    def __str__(self) -> str:
        return f"{self.market}:{','.join(self.symbols)}:{','.join(self.intervals)}"


def parse_subscription(text: str) -> Subscription:
    """Parse a subscription of the form MARKET:SYMBOLS:INTERVALS.

    Raises:
        UsageError: if the text has another form, or an unknown market, symbol or interval.
    """
    parts = text.split(":")
    if len(parts) != 3 or not all(part.strip() for part in parts):
        raise UsageError(f"subscription: {text!r} is not MARKET:SYMBOLS:INTERVALS", f"for example {EXAMPLE}")
    market = parse_market(parts[0].strip())
    symbols = _split(parts[1])
    intervals = tuple(dict.fromkeys(parse_interval(name).name for name in _split(parts[2])))
    if not symbols or not intervals:
        raise UsageError(f"subscription: {text!r} names no symbol or no interval", f"for example {EXAMPLE}")
    if len(symbols) > SYMBOLS_MAX:
        raise UsageError(
            f"subscription: {len(symbols)} symbols are more than {SYMBOLS_MAX}", "use a glob: spot:*USDT:1m"
        )
    for interval in intervals:
        if interval not in market.intervals:
            raise UsageError(
                f"interval: {market.name} has no {interval} candles",
                f"choose from: {' '.join(market.intervals)}",
            )
    checked = tuple(dict.fromkeys(parse_symbol_or_glob(symbol) for symbol in symbols))
    return Subscription(market.name, checked, intervals)


def is_glob(symbol: str) -> bool:
    """Return whether a symbol is a glob."""
    return not _GLOB.isdisjoint(symbol)


def matching(glob: str, symbols: list[str]) -> list[str]:
    """Return the symbols that match the glob, case-sensitively, in their order."""
    return [symbol for symbol in symbols if fnmatchcase(symbol, glob)]


def chosen(names: Iterable[str], symbols: Iterable[str]) -> list[str]:
    """Return the symbols that equal a name or match a glob, in their order.

    Args:
        names: symbols and globs.
    """
    written = set(names)
    globs = [name for name in written if is_glob(name)]
    exact = written.difference(globs)
    return [
        symbol for symbol in symbols if symbol in exact or any(fnmatchcase(symbol, glob) for glob in globs)
    ]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_symbol_or_glob(text: str) -> str:
    """Return a symbol or a glob of symbols in upper case.

    Raises:
        UsageError: if the text is neither a valid symbol nor a glob that can match one.
    """
    if not is_glob(text):
        return parse_symbol(text)
    glob = "".join(char.upper() if char.isascii() else char for char in text)
    # All other characters must be valid in a symbol.
    rest = "".join(char for char in glob if char not in "*?[]!-")
    if rest and not is_symbol("A" + rest):
        raise UsageError(f"symbol: {text!r} matches no possible symbol", "globs look like *USDT or BTCUSD_*")
    return glob
