"""Numbers on axes: round ticks, and prices with as many decimals as the axis needs. Pure."""

import math
from decimal import Decimal
from typing import NamedTuple

_STEPS = (1, 2, 2.5, 5, 10)

# Maximum number of decimals. The exchange's prices have 8; steps between them, and ratios, more.
DECIMALS_MAX = 16

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class ValueTick(NamedTuple):
    """A tick of an axis of values.

    Args:
        value: its value.
        label: its text.
    """

    value: float
    label: str


def value_ticks(low: float, high: float, count_max: int) -> list[ValueTick]:
    """Return ticks at round values from low to high.

    Args:
        count_max: the maximum number of ticks.
    """
    if not high > low:
        return [ValueTick(low, format_price(low))]
    step = _step((high - low) / max(1, count_max - 1))
    decimals = _decimals(step)
    first = math.ceil(low / step - 1e-9)
    ticks: list[ValueTick] = []
    while (first + len(ticks)) * step <= high + step * 1e-9 and len(ticks) < count_max:
        value = (first + len(ticks)) * step
        ticks.append(ValueTick(value, f"{value:.{decimals}f}"))
    return ticks


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(step for step in _STEPS if step * power >= least * (1 - 1e-9))


def _decimals(step: float) -> int:
    for decimals in range(DECIMALS_MAX + 1):
        if math.isclose(round(step, decimals), step, rel_tol=1e-6):
            return decimals
    return DECIMALS_MAX


def format_price(price: float) -> str:
    """Return a price with all its digits, and without powers of ten."""
    text = f"{price:.15g}"
    return format(Decimal(text), "f") if "e" in text else text


def format_amount(amount: float) -> str:
    """Return a volume with three digits and a unit, such as "12.3k"."""
    for unit, letter in _UNITS:
        if abs(amount) >= unit:
            # Three digits of a thousand or more would be written with a power of ten.
            digits = ".3g" if abs(amount) < unit * 999.5 else ".0f"
            return f"{amount / unit:{digits}}{letter}"
    return f"{amount:.3g}"


def format_change(change: float) -> str:
    """Return a relative change as a percentage with a sign, such as "+1.31 %"."""
    return f"{change * 100:+,.2f} %"
