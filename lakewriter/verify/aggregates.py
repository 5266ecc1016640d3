"""Comparison of longer candles with the sums of shorter ones. Pure.

Open, high, low, close and trades must be equal. Volumes may differ by the rounding of sums
of doubles. A longer candle is compared only if all of its shorter candles are present.

The exchange takes prices from trades. A candle without trades repeats the close before it.
A longer candle lacks that price if its first trades come later. So prices are taken from
the candles with trades. Prices of all candles, including those without trades, are accepted
too. A null is unknown, and equals any value.
"""

from typing import NamedTuple

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.candle_arrays import OPTIONAL, PRICES, VOLUMES, Bools, Columns, Numbers, ends
from lakewriter.interval import DAY_MS, INTERVALS, Interval
from lakewriter.verify.findings import Defect

# Sums of doubles depend on their order. Sums of 86,400 doubles differ by at most about 1e-11.
VOLUME_RTOL = 1e-9

# The exchange writes at most 8 decimals. Price times quantity may have more, so the quote
# volume of each shorter candle is rounded.
QUOTE_ROUNDING = 1e-8

_ROUNDED = ("quote_volume", "taker_buy_quote_asset_volume")


class Comparison(NamedTuple):
    """The number of compared candles or pairs of candles, and the wrong ones."""

    compared: int
    defects: list[Defect]


class _Totals(NamedTuple):
    """The aggregates of the shorter candles of each longer one.

    Args:
        prices: the aggregates of all shorter candles, by column.
        traded: the aggregates of the shorter candles with trades, by column.
        trades: the sums of trades.
        volumes: the sums of volumes, by column.
        unknown: whether a shorter candle lacks the value, by optional column.
        sources: the number of shorter candles.
    """

    prices: dict[str, Numbers]
    traded: dict[str, Numbers]
    trades: Numbers
    volumes: dict[str, Numbers]
    unknown: dict[str, Bools]
    sources: IntArray


def sources_of(interval: str) -> list[str]:
    """Return the shorter intervals that add up to a longer one, best first.

    Minutes come first, because the exchange makes all other candles from them. Then longer
    intervals precede shorter ones, because they have fewer rows to read. Candles of weeks,
    months and three days are made only from days.
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


def compare_intervals(grid: Interval, longer: Columns, source: str, shorter: Columns) -> Comparison:
    """Compare longer candles with the shorter ones that they contain.

    Args:
        grid: the interval of the longer candles.
        longer, shorter: sorted by begin time, unique, on their grids.
        source: the interval of the shorter candles.
    """
    stops = ends(grid, longer.begin)
    first = np.searchsorted(shorter.begin, longer.begin)
    last = np.searchsorted(shorter.begin, stops)
    whole = (last - first) == (stops - longer.begin) // INTERVALS[source].length_ms
    if not whole.any():
        return Comparison(0, [])
    longer = longer.where(whole)
    totals = _totals(shorter, first[whole], last[whole])
    differing = _differing_columns(longer, totals)
    at = np.flatnonzero(np.logical_or.reduce(list(differing.values())))

    def describe(position: int) -> str:
        each = at[position]
        parts = [
            f"{name} {getattr(longer, name)[each].item()!r}, {source} candles make {_total_at(totals, name, each)!r}"
            for name, mask in differing.items()
            if mask[each]
        ]
        return "; ".join(parts)

    defects = [Defect("intervals", "differs", longer.begin[at], describe)] if len(at) else []
    return Comparison(len(longer.begin), defects)


def _totals(shorter: Columns, first: IntArray, last: IntArray) -> _Totals:
    traded = shorter.where(
        np.where(shorter.is_unknown("trade_num"), shorter.volume > 0, shorter.trade_num > 0)
    )
    first_traded = np.searchsorted(traded.begin, shorter.begin[first])
    last_traded = np.searchsorted(traded.begin, shorter.begin[last - 1], side="right")
    without_trades = first_traded == last_traded
    prices = _prices(shorter, first, last)
    traded_prices = prices
    if len(traded.begin):
        # Without trades, all shorter candles are flat at one price, and any bounds are right.
        starts = np.minimum(first_traded, len(traded.begin) - 1)
        prices_that_traded = _prices(traded, starts, np.maximum(last_traded, starts + 1))
        traded_prices = {
            name: np.where(without_trades, prices[name], prices_that_traded[name]) for name in PRICES
        }
    volumes = {name: _reduce_spans(np.add, getattr(shorter, name), first, last) for name in VOLUMES}
    trades = _reduce_spans(np.add, shorter.trade_num, first, last)
    unknown = {name: _reduce_spans(np.logical_or, shorter.is_unknown(name), first, last) for name in OPTIONAL}
    return _Totals(prices, traded_prices, trades, volumes, unknown, last - first)


def _prices(candles: Columns, first: IntArray, last: IntArray) -> dict[str, Numbers]:
    return {
        "open": candles.open[first],
        "high": _reduce_spans(np.maximum, candles.high, first, last),
        "low": _reduce_spans(np.minimum, candles.low, first, last),
        "close": candles.close[last - 1],
    }


def _reduce_spans(reduce: np.ufunc, values: Numbers, first: IntArray, last: IntArray) -> Numbers:
    """Return the reduced value of each non-empty span [first, last)."""
    # An additional value makes the end of the last span a valid position.
    bounds = np.column_stack((first, last)).ravel()
    spans: Numbers = reduce.reduceat(np.append(values, values[-1:]), bounds)[::2]
    return spans


def _differing_columns(longer: Columns, totals: _Totals) -> dict[str, Bools]:
    """Return whether each candle differs from its aggregate, by column."""
    of_all = {name: getattr(longer, name) != totals.prices[name] for name in PRICES}
    of_traded = {name: getattr(longer, name) != totals.traded[name] for name in PRICES}
    as_all = ~np.logical_or.reduce(list(of_all.values()))
    wrong: dict[str, Bools] = {name: of_traded[name] & ~as_all for name in PRICES}
    wrong["trade_num"] = longer.trade_num != totals.trades
    for name in VOLUMES:
        rounding = QUOTE_ROUNDING * totals.sources if name in _ROUNDED else 0.0
        limit = VOLUME_RTOL * np.abs(totals.volumes[name]) + rounding
        # The negation makes NaN count as wrong.
        wrong[name] = ~(np.abs(getattr(longer, name) - totals.volumes[name]) <= limit)
    for name in OPTIONAL:
        wrong[name] &= ~(longer.is_unknown(name) | totals.unknown[name])
    return wrong


def _total_at(totals: _Totals, name: str, at: int) -> float | int:
    if name in PRICES:
        column = totals.traded[name]
    else:
        column = totals.trades if name == "trade_num" else totals.volumes[name]
    made: float | int = column[at].item()
    return made
