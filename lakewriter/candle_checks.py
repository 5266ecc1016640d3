"""Plausibility checks of candles, shared by import, compaction and verify. Pure.

Rule 1: a price is finite and above 0, a volume is finite and not below 0. Low and high
enclose open and close. A takers' volume never exceeds the whole volume. A candle without
trades has one price and no volume. Quote volume divided by volume is a price between low
and high.
Rule 2: a null in an optional column means unknown. It is no violation.
Rule 3: import and compaction refuse violations in files of other tools, except the
kinds in NAMED_ONLY. Candles of the exchange itself are never refused: they enter
the lake, and verify reports them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.candle_arrays import OPTIONAL, PRICES, VOLUMES, Bools, Columns, Floats
from lakewriter.market import MARKETS

# Doubles cannot hold larger counts exactly.
TRADES_MAX = 2**53

# A file may count its quote volume in another currency or unit. Import accepts
# such candles and reports them, as verify does.
NAMED_ONLY = frozenset(("quote",))

# The takers' volume is a part of the whole: (part, whole).
_PARTS = (
    ("taker_buy_base_asset_volume", "volume"),
    ("taker_buy_quote_asset_volume", "quote_volume"),
)

# Dollars in one contract: 100 for BTCUSD, 10 for other symbols. Source: exchangeInfo of coin_futures.
CONTRACT_SIZES = (100.0, 10.0)

# Other tools store six digits of a number. Price, volume and quote volume are each off by at most 5e-6.
PRICE_RTOL = 2e-5

# The exchange writes at most 8 decimals; other tools write 8 significant digits of small numbers.
_DECIMALS_MAX = 12


class Violation(NamedTuple):
    """Candles that violate one check.

    Args:
        kind: one word for the violation ("price", "quote"); import and verify use the same words.
        rows: positions of the candles, ascending; at least one.
        describe: returns a description of the violation in one of these rows.
    """

    kind: str
    rows: IntArray
    describe: Callable[[int], str]


def violations(candles: Columns, market: str) -> list[Violation]:
    """Return the violations in these candles; each candle is checked separately."""
    priced = np.logical_and.reduce([_is_price(getattr(candles, name)) for name in PRICES])
    measured = np.logical_and.reduce([_is_volume(candles, name) for name in VOLUMES])
    uncounted = (candles.trade_num < 0) | (candles.trade_num > TRADES_MAX)
    found = [
        _violation(candles, "price", ~priced, lambda one: _named(one, PRICES)),
        _violation(candles, "volume", ~measured, lambda one: _named(one, VOLUMES)),
        _violation(
            candles,
            "trades",
            uncounted & ~candles.is_unknown("trade_num"),
            lambda one: f"trade_num {int(one.trade_num)}",
        ),
        *_shape(candles, priced),
        *_parts(candles, measured),
        _quote(candles, market, priced & measured),
        *_quiet(candles, priced, measured),
    ]
    return [violation for violation in found if len(violation.rows)]


def refused_violations(candles: Columns, market: str) -> list[Violation]:
    """Return the violations that make import refuse a file."""
    return [violation for violation in violations(candles, market) if violation.kind not in NAMED_ONLY]


def first_violation(candles: Columns, market: str) -> tuple[int, Violation] | None:
    """Return the first refused row and its violation; None if no row is refused."""
    found = refused_violations(candles, market)
    if not found:
        return None
    first = min(found, key=lambda violation: int(violation.rows[0]))
    return int(first.rows[0]), first


def unknown_columns(candles: Columns) -> set[str]:
    """Return the names of optional columns that are null in at least one candle."""
    return {name for name in OPTIONAL if candles.is_unknown(name).any()}


def may_be_quotes(market: str, low: Floats, high: Floats, volume: Floats, quote: Floats) -> Bools:
    """Return for each candle whether quote volume and volume imply a price between low and high.

    A number may be off by one in its last digit, because other tools round.

    Args:
        low, high: prices, finite and above 0.
        volume, quote: volumes, finite and at least 0. On coin_futures they count
            contracts and the base asset.
    """
    inverse = MARKETS[market].volume_in_contracts
    exact = _within(inverse, (low, high), (volume, volume), (quote, quote))
    if exact.all():
        return exact
    rest = np.flatnonzero(~exact)
    spans = []
    for numbers in (low[rest], high[rest], volume[rest], quote[rest]):
        digit = _last_digit(numbers)
        spans.append((np.maximum(numbers - digit, 0), numbers + digit))
    lows, highs, volumes, quotes = spans
    exact[rest] = _within(inverse, (lows[0], highs[1]), volumes, quotes)
    return exact


def _within(
    inverse: bool,
    prices: tuple[Floats, Floats],
    volumes: tuple[Floats, Floats],
    quotes: tuple[Floats, Floats],
) -> Bools:
    """Return for each candle whether some price times some volume is a possible quote volume.

    Args:
        inverse: whether a higher price gives a smaller quote volume, as for contracts in dollars.
        prices, volumes, quotes: the least and the greatest possible number of each candle.
    """
    (low, high), (volume, volume_max), (quote, quote_max) = prices, volumes, quotes
    more, less = 1 + PRICE_RTOL, 1 - PRICE_RTOL
    if not inverse:
        made: Bools = (low * volume * less <= quote_max) & (quote <= high * volume_max * more)
        return made
    of_sizes = [
        (size * volume * less <= quote_max * high) & (quote * low <= size * volume_max * more)
        for size in CONTRACT_SIZES
    ]
    any_size: Bools = np.logical_or.reduce(of_sizes)
    return any_size


def _last_digit(numbers: Floats) -> Floats:
    """Return the value of one unit in each number's last digit; 0 for a number with too many digits."""
    digit = np.zeros(len(numbers))
    with np.errstate(over="ignore", invalid="ignore"):
        for decimals in reversed(range(_DECIMALS_MAX + 1)):
            scaled = numbers * 10.0**decimals
            whole = np.abs(scaled - np.rint(scaled)) <= 4 * np.spacing(scaled)
            digit[whole] = 10.0**-decimals
    return digit


def _is_price(values: Floats) -> Bools:
    sound: Bools = np.isfinite(values) & (values > 0)
    return sound


def _is_volume(candles: Columns, name: str) -> Bools:
    values = getattr(candles, name)
    measured: Bools = np.isfinite(values) & (values >= 0)
    return measured | candles.is_unknown(name) if name in OPTIONAL else measured


def _shape(candles: Columns, priced: Bools) -> list[Violation]:
    bottom = np.minimum(candles.open, candles.close)
    top = np.maximum(candles.open, candles.close)
    return [
        _violation(
            candles,
            "low",
            priced & (candles.low > bottom),
            lambda one: f"low is above {'open' if one.low > one.open else 'close'}: {_named(one, PRICES)}",
        ),
        _violation(
            candles,
            "high",
            priced & (candles.high < top),
            lambda one: f"high is below {'open' if one.high < one.open else 'close'}: {_named(one, PRICES)}",
        ),
    ]


def _parts(candles: Columns, measured: Bools) -> list[Violation]:
    found = []
    for part, whole in _PARTS:
        # The exchange never rounds a part above its whole. Sums of doubles may be off by one digit.
        limit = np.nextafter(getattr(candles, whole), np.inf)
        more = measured & (getattr(candles, part) > limit)
        names = (part, whole)
        found.append(
            _violation(
                candles,
                "taker",
                more,
                lambda one, names=names: f"a part above its whole: {_named(one, names)}",  # type: ignore[misc]
            )
        )
    return found


def _quote(candles: Columns, market: str, sound: Bools) -> Violation:
    # The volumes cannot be checked against a wrong low or high.
    enclosed = candles.low <= np.minimum(candles.open, candles.close)
    enclosed &= candles.high >= np.maximum(candles.open, candles.close)
    rows = np.flatnonzero(sound & enclosed & ~candles.is_unknown("quote_volume"))
    checked = candles.where(rows)
    wrong = np.zeros(len(sound), np.bool_)
    wrong[rows] = ~may_be_quotes(market, checked.low, checked.high, checked.volume, checked.quote_volume)
    names = ("quote_volume", "volume", "low", "high")
    return _violation(
        candles, "quote", wrong, lambda one: f"no price from low to high makes it: {_named(one, names)}"
    )


def _quiet(candles: Columns, priced: Bools, measured: Bools) -> list[Violation]:
    quiet = candles.trade_num == 0
    spread = candles.high != candles.low
    for name in ("open", "close"):
        spread |= getattr(candles, name) != candles.low
    # A null is NaN here, and counts as no volume.
    volume = np.logical_or.reduce([getattr(candles, name) > 0 for name in VOLUMES])
    return [
        _violation(
            candles,
            "flat",
            quiet & priced & spread,
            lambda one: f"moved without a trade: {_named(one, PRICES)}",
        ),
        _violation(
            candles,
            "quiet",
            quiet & measured & volume,
            lambda one: f"volume without a trade: {_named(one, VOLUMES)}",
        ),
    ]


def _violation(candles: Columns, kind: str, wrong: Bools, describe: Callable[[Columns], str]) -> Violation:
    def describe_row(row: int) -> str:
        return describe(Columns._make(column[row] for column in candles))

    return Violation(kind, np.flatnonzero(wrong), describe_row)


def _named(one: Columns, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {float(getattr(one, name))!r}" for name in names)
