"""Whether a longer candle is what the shorter ones in it add up to. Pure.

Open, high, low, close and trades must be equal; volumes as nearly as sums of
doubles can be. A longer candle is compared only where every shorter one in it
is there.

The exchange takes prices from trades. A candle without trades repeats the close
before it, and that price is none of the longer candle's if the first trades come
later. So prices are taken from the candles that traded; those of all candles,
the quiet ones included, are accepted too. A null is unknown, and equals anything.
"""

from typing import NamedTuple

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.candle_arrays import OPTIONAL, PRICES, VOLUMES, Bools, Columns, Numbers, ends
from lakewriter.interval import DAY_MS, INTERVALS, Interval
from lakewriter.verify.findings import Defect

# Sums of doubles differ by their order: of 86,400 of them by some 1e-11 at most.
VOLUME_RTOL = 1e-9

# The exchange writes no more than 8 decimals, and price times quantity may have
# more: a quote volume is rounded in each of the candles that are added up.
QUOTE_ROUNDING = 1e-8

_ROUNDED = ("quote_volume", "taker_buy_quote_asset_volume")


class Compared(NamedTuple):
    """What became of a comparison: how many candles were compared, and which are wrong."""

    candles: int
    flaws: list[Defect]


class _Totals(NamedTuple):
    """What the shorter candles add up to: prices by name of all and of those that traded, sums by name.

    `unknown` has by optional column where one of the shorter candles lacks it.
    """

    prices: dict[str, Numbers]
    traded: dict[str, Numbers]
    trades: Numbers
    volumes: dict[str, Numbers]
    unknown: dict[str, Bools]
    sources: IntArray


def sources_of(interval: str) -> list[str]:
    """Return the shorter intervals that a longer one can be added up from, the best first.

    Minutes, since everything else is made of them; then whatever is longest, for
    it is the least to read. Weeks, months and three days are made of days alone.
    """
    length_ms = INTERVALS[interval].length_ms or 31 * DAY_MS
    if length_ms > DAY_MS:
        return ["1d"]
    shorter = [
        name
        for name, grid in INTERVALS.items()
        if grid.length_ms and grid.length_ms < length_ms and length_ms % grid.length_ms == 0
    ]
    return sorted(shorter, key=lambda name: (name != "1m", -INTERVALS[name].length_ms))


def compare_intervals(grid: Interval, longer: Columns, source: str, shorter: Columns) -> Compared:
    """Compare longer candles with the shorter ones in them.

    Args:
        grid: the interval of the longer ones.
        longer, shorter: sorted by begin time, each once, on their grids.
        source: the interval of the shorter ones.
    """
    stops = ends(grid, longer.begin)
    first = np.searchsorted(shorter.begin, longer.begin)
    last = np.searchsorted(shorter.begin, stops)
    whole = (last - first) == (stops - longer.begin) // INTERVALS[source].length_ms
    if not whole.any():
        return Compared(0, [])
    longer = longer.where(whole)
    totals = _totals(shorter, first[whole], last[whole])
    wrong = _wrong(longer, totals)
    at = np.flatnonzero(np.logical_or.reduce(list(wrong.values())))

    def say(position: int) -> str:
        each = at[position]
        parts = [
            f"{name} {getattr(longer, name)[each].item()!r}, {source} candles make {_made(totals, name, each)!r}"
            for name, mask in wrong.items()
            if mask[each]
        ]
        return "; ".join(parts)

    kinds = [Defect("intervals", "differs", longer.begin[at], say)] if len(at) else []
    return Compared(len(longer.begin), kinds)


def _totals(shorter: Columns, first: IntArray, last: IntArray) -> _Totals:
    traded = shorter.where(
        np.where(shorter.is_unknown("trade_num"), shorter.volume > 0, shorter.trade_num > 0)
    )
    first_traded = np.searchsorted(traded.begin, shorter.begin[first])
    last_traded = np.searchsorted(traded.begin, shorter.begin[last - 1], side="right")
    none = first_traded == last_traded
    prices = _prices(shorter, first, last)
    of_traded = prices
    if len(traded.begin):
        # Where none traded, all of them are flat at one price, and any bounds will do.
        starts = np.minimum(first_traded, len(traded.begin) - 1)
        moved = _prices(traded, starts, np.maximum(last_traded, starts + 1))
        of_traded = {name: np.where(none, prices[name], moved[name]) for name in PRICES}
    volumes = {name: _spans(np.add, getattr(shorter, name), first, last) for name in VOLUMES}
    trades = _spans(np.add, shorter.trade_num, first, last)
    unknown = {name: _spans(np.logical_or, shorter.is_unknown(name), first, last) for name in OPTIONAL}
    return _Totals(prices, of_traded, trades, volumes, unknown, last - first)


def _prices(candles: Columns, first: IntArray, last: IntArray) -> dict[str, Numbers]:
    return {
        "open": candles.open[first],
        "high": _spans(np.maximum, candles.high, first, last),
        "low": _spans(np.minimum, candles.low, first, last),
        "close": candles.close[last - 1],
    }


def _spans(reduce: np.ufunc, values: Numbers, first: IntArray, last: IntArray) -> Numbers:
    """Return each span [first, last) of the values, none of them empty, as one."""
    # One value more, so that the end of the last span is a position too.
    bounds = np.column_stack((first, last)).ravel()
    spans: Numbers = reduce.reduceat(np.append(values, values[-1:]), bounds)[::2]
    return spans


def _wrong(longer: Columns, totals: _Totals) -> dict[str, Bools]:
    """Return by column where it is not what the shorter candles add up to."""
    of_all = {name: getattr(longer, name) != totals.prices[name] for name in PRICES}
    of_traded = {name: getattr(longer, name) != totals.traded[name] for name in PRICES}
    as_all = ~np.logical_or.reduce(list(of_all.values()))
    wrong: dict[str, Bools] = {name: of_traded[name] & ~as_all for name in PRICES}
    wrong["trade_num"] = longer.trade_num != totals.trades
    for name in VOLUMES:
        rounding = QUOTE_ROUNDING * totals.sources if name in _ROUNDED else 0.0
        limit = VOLUME_RTOL * np.abs(totals.volumes[name]) + rounding
        # Asked so that NaN is wrong.
        wrong[name] = ~(np.abs(getattr(longer, name) - totals.volumes[name]) <= limit)
    for name in OPTIONAL:
        wrong[name] &= ~(longer.is_unknown(name) | totals.unknown[name])
    return wrong


def _made(totals: _Totals, name: str, at: int) -> float | int:
    if name in PRICES:
        column = totals.traded[name]
    else:
        column = totals.trades if name == "trade_num" else totals.volumes[name]
    made: float | int = column[at].item()
    return made
