"""The questions that the page may ask, and their limits. Pure.

A process that only passes questions on needs nothing else, in particular no engine.
"""

from typing import Literal, NamedTuple

from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.market import parse_market
from lakewriter.series import Series
from lakewriter.subscription import is_glob, parse_symbol_or_glob

# The functions of `lake_reads`.
ReadName = Literal["read_status", "read_series", "read_candles", "read_coverage", "read_gaps"]

# The limits of one answer.
SERIES_MAX = 20_000
CANDLES_MAX = 2_000
COVERED_SERIES_MAX = 60
COVERED_DAYS_MAX = 366
GAPS_MAX = 300
GAP_DAYS_MAX = 366


class CandleWindow(NamedTuple):
    """The window of candles that a chart asks for.

    Args:
        places: the number of places on the grid.
        before_ms: the candles begin before it; None for the newest ones.
        after_ms: the first begin time of interest; None for `places` places.
    """

    places: int = 600
    before_ms: int | None = None
    after_ms: int | None = None


def parse_series(market: str, symbol: str, interval: str) -> Series:
    """Return the series of three names.

    Raises:
        UsageError: if a name is invalid.
    """
    name = parse_symbol_or_glob(symbol.strip())
    if is_glob(name):
        raise UsageError(f"symbol: {symbol!r} is a glob, not a name", "BTCUSDT")
    return Series(parse_market(market).name, name, parse_interval(interval).name)
