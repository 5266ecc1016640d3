"""Candles in integers. Minutes are made from noise, longer candles and seconds from minutes.

Rule 1: only the key, the listing and the minute's number determine a minute.
Rule 2: all other candles are made from minutes. Their sums equal the minutes' sums exactly.
Rule 3: a minute without trades is flat at the previous close. Trade ids have no gaps.

Pure, and vectorised with numpy. This module does not depend on text, seeds or calendars.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lakewriter.interval import MINUTE_MS, SECOND_MS
from lakewriter.sandbox.truth.noise import log_price, uniform
from lakewriter.sandbox.truth.symbols import LISTED_MS, SymbolListing

Ints = npt.NDArray[np.int64]

# A minute whose number is a multiple of this always has trades. This bounds the look-back.
TRADES_EVERY = 8

# The number of trades in a burst. They suffice for open, high, low and close.
_BURST_TRADES = 4

SECONDS = 60


class IntegerCandles(NamedTuple):
    """Candles in integers: prices in ticks, volumes in lots, one array each.

    `previous_close` is the close of the previous candle. `first_trade_id` counts from the
    listing, even in a candle without trades.
    """

    begin_ms: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    quote_volume: Ints
    trade_num: Ints
    taker_volume: Ints
    taker_quote_volume: Ints
    first_trade_id: Ints
    previous_close: Ints


def rows(candles: IntegerCandles) -> Iterator[tuple[int, ...]]:
    """Yield the candles as rows, with values in the order of `IntegerCandles`."""
    return zip(*(column.tolist() for column in candles), strict=True)


def minutes(spec: SymbolListing, key: int, first: int, stop: int) -> IntegerCandles:
    """Return the minutes in [`first`, `stop`), numbered from the epoch."""
    # The range has an additional minute before the look-back, because each minute needs the
    # previous close.
    start = (first - 1) // TRADES_EVERY * TRADES_EVERY
    number = np.arange(start, stop, dtype=np.int64)
    quiet = uniform(key, 1, number) * 64 < spec.quiet_per_64
    traded = ~quiet | (number % TRADES_EVERY == 0)
    price_path = np.maximum(1, np.rint(spec.price_ticks * np.exp(log_price(key, number)))).astype(np.int64)
    latest = np.maximum.accumulate(np.where(traded, np.arange(len(number)), 0))
    close = price_path[latest]
    # The number of trades since the listing has a closed form, so ids have no gaps. The
    # count ends at the last minute with trades. It begins slightly before the listing,
    # where look-backs begin.
    usual_trades = spec.trades_per_minute
    counted = number[latest] + 1 + 2 * TRADES_EVERY - LISTED_MS // MINUTE_MS
    trades_so_far = counted * usual_trades + (uniform(key, 2, counted) * usual_trades).astype(np.int64)

    lead = first - start
    chosen = slice(lead, None)
    before = slice(lead - 1, len(number) - 1)
    trades = trades_so_far[chosen] - trades_so_far[before]
    return _candles_of_minutes(
        spec, key, number[chosen], close[chosen], close[before], trades, trades_so_far[before]
    )


def _candles_of_minutes(
    spec: SymbolListing, key: int, number: Ints, close: Ints, previous: Ints, trades: Ints, first_id: Ints
) -> IntegerCandles:
    opened = np.where(trades == 1, close, previous)
    above, below = np.maximum(opened, close), np.minimum(opened, close)
    # Wicks have up to 8 basis points. Candles with fewer than four trades have no wicks.
    wick = np.where(trades >= _BURST_TRADES, above * 0.0008, 0.0)
    high = above + (uniform(key, 3, number) ** 2 * wick).astype(np.int64)
    low = np.maximum(1, below - (uniform(key, 4, number) ** 2 * wick).astype(np.int64))
    size = uniform(key, 5, number) * 2 * spec.lots_per_trade
    lots = np.minimum(trades + (trades * size).astype(np.int64), spec.lots_max)
    volume = np.maximum(trades, lots)
    taker = (volume * uniform(key, 6, number)).astype(np.int64)
    average = low + ((high - low) * uniform(key, 7, number)).astype(np.int64)
    if spec.contract_size:
        worth = spec.contract_size * 10 ** (8 + spec.price_decimals)
        quote, taker_quote = volume * worth // average, taker * worth // average
    else:
        quote, taker_quote = volume * average, taker * average
    return IntegerCandles(
        number * MINUTE_MS,
        opened,
        high,
        low,
        close,
        volume,
        quote,
        trades,
        taker,
        taker_quote,
        first_id,
        previous,
    )


def aggregate(atoms: IntegerCandles, begins_ms: Ints) -> IntegerCandles:
    """Return the candles that begin at these times, made from consecutive minutes."""
    first = (begins_ms - atoms.begin_ms[0]) // MINUTE_MS
    last = np.append(first[1:], len(atoms.begin_ms)) - 1
    totals = {
        name: np.add.reduceat(getattr(atoms, name), first)
        for name in ("volume", "quote_volume", "trade_num", "taker_volume", "taker_quote_volume")
    }
    return IntegerCandles(
        begin_ms=begins_ms,
        open=atoms.open[first],
        high=np.maximum.reduceat(atoms.high, first),
        low=np.minimum.reduceat(atoms.low, first),
        close=atoms.close[last],
        first_trade_id=atoms.first_trade_id[first],
        previous_close=atoms.previous_close[first],
        **totals,
    )


def split_into_seconds(key: int, atoms: IntegerCandles) -> IntegerCandles:
    """Return the 60 seconds of each minute. If the minute has trades, its first second has trades."""
    second = (atoms.begin_ms // SECOND_MS)[:, None] + np.arange(SECONDS, dtype=np.int64)
    trades, burst = _split_trades(key, atoms, second)
    extra_weight = trades * (1 + (uniform(key, 12, second) * 8).astype(np.int64))
    volume = trades + _split_totals((atoms.volume - atoms.trade_num)[:, None], extra_weight)
    taker = _split_totals(atoms.taker_volume[:, None], volume)
    # Each second trades at its minute's average, which is an integer.
    average = (atoms.quote_volume // np.maximum(1, atoms.volume))[:, None]
    opened, high, low, close, previous = _split_prices(key, atoms, second, trades, burst, average)
    first_id = atoms.first_trade_id[:, None] + np.cumsum(trades, axis=1) - trades
    columns = (
        second * SECOND_MS, opened, high, low, close, volume, volume * average, trades,
        taker, taker * average, first_id, previous,
    )  # fmt: skip
    return IntegerCandles(*(column.reshape(-1) for column in columns))


def _split_totals(total: Ints, weights: Ints) -> Ints:
    """Return the shares of each total in proportion to its row of weights. They add up exactly."""
    reached = np.cumsum(weights, axis=1)
    upto = total * reached // np.maximum(1, reached[:, -1:])
    return np.diff(upto, axis=1, prepend=0)


def _split_trades(key: int, atoms: IntegerCandles, second: Ints) -> tuple[Ints, Ints]:
    total = atoms.trade_num
    burst = np.where(total > _BURST_TRADES, (uniform(key, 10, atoms.begin_ms) * SECONDS).astype(np.int64), 0)
    in_burst = np.minimum(total, _BURST_TRADES)
    at_open = (total > _BURST_TRADES).astype(np.int64)
    weight = 1 + (uniform(key, 11, second) * 16).astype(np.int64)
    trades = _split_totals((total - in_burst - at_open)[:, None], weight)
    trades[np.arange(len(total)), burst] += in_burst
    trades[:, 0] += at_open
    return trades, burst


def _split_prices(
    key: int, atoms: IntegerCandles, second: Ints, trades: Ints, burst: Ints, average: Ints
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    row = np.arange(len(burst))
    column = np.arange(SECONDS)
    traded = trades > 0
    drift = (atoms.close - atoms.open)[:, None] * ((column + 1) / SECONDS)
    noise = (uniform(key, 13, second) - 0.5) * (atoms.high - atoms.low)[:, None] * 0.5
    close = atoms.open[:, None] + (drift + noise).astype(np.int64)
    close = np.clip(close, atoms.low[:, None], atoms.high[:, None])
    close = np.where(trades == 1, average, close)
    close[:, 0] = np.where(trades[:, 0] == 1, atoms.open, close[:, 0])
    last = np.max(np.where(traded, column, 0), axis=1)
    close[row, last] = atoms.close
    # A second without trades is flat at the close of the last second with trades.
    latest = np.maximum.accumulate(np.where(traded, column, 0), axis=1)
    close = np.take_along_axis(close, latest, axis=1)
    previous = np.concatenate([atoms.previous_close[:, None], close[:, :-1]], axis=1)
    opened = np.where(trades == 1, close, previous)
    opened[:, 0] = atoms.open
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    high[row, burst] = atoms.high
    low[row, burst] = atoms.low
    # The quote volume uses the average, so the average is a price of each second with trades.
    high = np.where(traded, np.maximum(high, average), high)
    low = np.where(traded, np.minimum(low, average), low)
    return opened, high, low, close, previous
