"""Whether the price goes on where the candle before left it. Pure.

A candle opens near the close of the one before, if there is no gap between
them. How near is a matter of the series: the scale is 1.4826 times the median
absolute deviation of its logarithmic returns from close to close, which is the
standard deviation if they were normal, and which no jump can drag along. A
return of 0 says that nothing moved, not how far things move, so it is no part
of it: on quiet days most are 0.
"""

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.candle_arrays import Columns, Floats, concatenated, ends
from lakewriter.interval import INTERVALS, Interval
from lakewriter.verify.aggregates import Compared
from lakewriter.verify.findings import Defect

# How many deviations are a jump. Of real days (2017 to 2026, the first one of a
# market and one with a halt among them) the widest step was 3.1; a price that is
# off by a digit is hundreds.
DEVIATIONS = 20.0

# As much of the grid has one scale: a month of minutes, and never less than a day. Times change.
WINDOW_CANDLES = 43_200

# Fewer returns than this tell nothing of a series.
RETURNS_MIN = 20

# The scale is never below these: one step of the price, and a basis point.
SCALE_MIN = 1e-4

_NORMAL = 1.4826


def window_ms(grid: Interval) -> int:
    """Return how long a window is."""
    return WINDOW_CANDLES * (grid.length_ms or INTERVALS["1d"].length_ms)


def find_jumps(grid: Interval, before: Columns | None, candles: Columns, deviations: float) -> Compared:
    """Find the candles that open far from the close before them.

    Args:
        before: the last candle of the window before, for the first step of this one.
        candles: one window, sorted by begin time, each once.
        deviations: how many are far.

    Returns:
        how many steps between adjacent candles were looked at, and the jumps.
    """
    if before is not None:
        candles = concatenated([before, candles])
    # A price that is none is a finding of its own, and has no logarithm.
    sane = np.isfinite(candles.open) & np.isfinite(candles.close) & (candles.open > 0) & (candles.close > 0)
    adjacent = (candles.begin[1:] == ends(grid, candles.begin[:-1])) & sane[1:] & sane[:-1]
    opens, closes = candles.open[1:][adjacent], candles.close[:-1][adjacent]
    scale = _scale(closes, candles.close[1:][adjacent])
    if scale is None:
        return Compared(0, [])
    steps = np.log(opens / closes)
    at = np.flatnonzero(np.abs(steps) > deviations * scale)
    begins: IntArray = candles.begin[1:][adjacent][at]

    def say(position: int) -> str:
        each = at[position]
        return (
            f"opens at {opens[each].item()!r}, {np.expm1(steps[each]):+.2%} from the close before, "
            f"{closes[each].item()!r}: {abs(steps[each]) / scale:,.0f} deviations"
        )

    return Compared(len(steps), [Defect("jumps", "jump", begins, say)] if len(at) else [])


def _scale(befores: Floats, closes: Floats) -> float | None:
    """Return the robust deviation of the returns; None if there are too few."""
    moved = closes != befores
    returns = np.log(closes[moved] / befores[moved])
    if len(returns) < RETURNS_MIN:
        return None
    spread = _NORMAL * float(np.median(np.abs(returns - np.median(returns))))
    prices = np.unique(closes)
    tick = float(np.min(np.diff(prices)) / np.median(prices))
    return max(spread, tick, SCALE_MIN)
