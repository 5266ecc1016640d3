"""Find jumps of the price between adjacent candles. Pure.

A candle opens near the close of the previous candle, if no candle is missing between them.
The scale of "near" depends on the series. The scale is 1.4826 times the median absolute
deviation of the logarithmic returns from close to close. For normally distributed returns
it equals the standard deviation, and jumps do not distort it. Returns of 0 are left out,
because on quiet days most are 0.
"""

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.candle_arrays import Columns, Floats, concatenated, ends
from lakewriter.interval import INTERVALS, Interval
from lakewriter.verify.aggregates import Comparison
from lakewriter.verify.findings import Defect

# The minimum deviations of a jump. On real days from 2017 to 2026, the widest step had 3.1
# deviations. These days include a first day of a market and a day with a halt. A price with
# a wrong digit has hundreds.
DEVIATIONS = 20.0

# The number of candles that share a scale: a month of 1m candles. The volatility of a
# series changes.
WINDOW_CANDLES = 43_200

# The minimum number of returns for a scale.
RETURNS_MIN = 20

# The minimum scale: a basis point. The scale is also at least one step of the price.
SCALE_MIN = 1e-4

_NORMAL = 1.4826


def window_ms(grid: Interval) -> int:
    """Return the length of a window in milliseconds."""
    return WINDOW_CANDLES * (grid.length_ms or INTERVALS["1d"].length_ms)


def find_jumps(grid: Interval, before: Columns | None, candles: Columns, deviations: float) -> Comparison:
    """Return the candles that open far from the previous close.

    Args:
        before: the last candle of the previous window, for the first step of this window.
        candles: the candles of one window, sorted by begin time, unique.
        deviations: the minimum deviations of a jump.

    Returns:
        The number of compared steps, and the jumps.
    """
    if before is not None:
        candles = concatenated([before, candles])
    # An impossible price has no logarithm. Another check reports it.
    sane = np.isfinite(candles.open) & np.isfinite(candles.close) & (candles.open > 0) & (candles.close > 0)
    adjacent = (candles.begin[1:] == ends(grid, candles.begin[:-1])) & sane[1:] & sane[:-1]
    opens, closes = candles.open[1:][adjacent], candles.close[:-1][adjacent]
    scale = _scale(closes, candles.close[1:][adjacent])
    if scale is None:
        return Comparison(0, [])
    steps = np.log(opens / closes)
    at = np.flatnonzero(np.abs(steps) > deviations * scale)
    begins: IntArray = candles.begin[1:][adjacent][at]

    def describe(position: int) -> str:
        each = at[position]
        return (
            f"opens at {opens[each].item()!r}, {np.expm1(steps[each]):+.2%} from the close before, "
            f"{closes[each].item()!r}: {abs(steps[each]) / scale:,.0f} deviations"
        )

    return Comparison(len(steps), [Defect("jumps", "jump", begins, describe)] if len(at) else [])


def _scale(befores: Floats, closes: Floats) -> float | None:
    """Return the robust deviation of the returns; None for too few returns."""
    moved = closes != befores
    returns = np.log(closes[moved] / befores[moved])
    if len(returns) < RETURNS_MIN:
        return None
    spread = _NORMAL * float(np.median(np.abs(returns - np.median(returns))))
    prices = np.unique(closes)
    tick = float(np.min(np.diff(prices)) / np.median(prices))
    return max(spread, tick, SCALE_MIN)
