"""The series: one market, one symbol, one interval. Pure.

A connection carries a series as a stream. The lake stores each period of it as a
partition.
"""

from typing import NamedTuple

from lakewriter.interval import INTERVALS, Interval


class Series(NamedTuple):
    """One symbol of one market in one interval.

    Args:
        market: "spot", "usdt_futures" or "coin_futures".
        symbol: upper case, as the exchange names it.
        interval: the interval's name on disk ("1m", "1mo").
    """

    market: str
    symbol: str
    interval: str

    @property
    def grid(self) -> Interval:
        """The interval with its grid. The anchor of `3d` is unknown here."""
        return INTERVALS[self.interval]

    def __str__(self) -> str:
        return f"{self.market} {self.symbol} {self.interval}"
