"""The candles of the sandbox, computed from a seed: `Truth(seed).candles(…)`.

Strategy: all candles derive from minutes. The prices of a minute are integers in ticks, its
volumes integers in lots. Only seed, market, symbol and minute determine them. So candles
are not stored, and any candle can be computed at any time. Longer candles are the exact
aggregates of their minutes. A minute is the exact aggregate of its 60 seconds. Text and
number come from the same integer: number == float(text).

Pure, and vectorised with numpy. A month of minutes takes a few milliseconds. This module
does not depend on frames, rows or files.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lakewriter.interval import INTERVALS, MINUTE_MS, SECOND_MS, Interval
from lakewriter.sandbox.truth.integer_candles import (
    IntegerCandles,
    Ints,
    aggregate,
    minutes,
    rows,
    split_into_seconds,
)
from lakewriter.sandbox.truth.symbols import LISTED_MS, SymbolListing, listing

Floats = npt.NDArray[np.float64]

# The minutes that are computed at once: three months. The limit bounds memory. No candle is longer.
CHUNK_MINUTES = 1 << 17


class TruthCandle(NamedTuple):
    """One candle in the exchange's form, with decimals as text."""

    begin_ms: int
    end_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trade_num: int
    taker_buy_base_asset_volume: str
    taker_buy_quote_asset_volume: str
    first_trade_id: int
    last_trade_id: int

    def numbers(self) -> tuple[float, ...]:
        """Return the candle's values in the lake's types and the order of its columns."""
        return tuple(float(value) for value in self[2:11])


class Truth:
    """The candles of one seed. Its only state is a cache of listings."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._listing = lru_cache(maxsize=10_000)(listing)

    def candles(
        self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int
    ) -> list[TruthCandle]:
        """Return the candles that begin in the half-open range, ascending.

        Args:
            interval: the interval's name on disk, like "1m" or "1mo".
        """
        spec = self._listing(market, symbol)
        grid = INTERVALS[interval]
        return [
            truth_candle(spec, row, grid)
            for row in rows(self.integer_candles(market, symbol, interval, start_ms, stop_ms))
        ]

    def candle(self, market: str, symbol: str, interval: str, begin_ms: int) -> TruthCandle:
        """Return the candle that begins at `begin_ms`, on the grid and not before the listing."""
        return self.candles(market, symbol, interval, begin_ms, begin_ms + 1)[0]

    def arrays(
        self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int
    ) -> dict[str, Floats | Ints]:
        """Return the candles of the method `candles` as arrays, named and typed like the lake's columns.

        `candle_begin_time` is in int64 milliseconds. Prices and volumes are the doubles
        nearest to the exchange's text.
        """
        spec = self._listing(market, symbol)
        candles = self.integer_candles(market, symbol, interval, start_ms, stop_ms)
        columns: dict[str, Floats | Ints] = {"candle_begin_time": candles.begin_ms}
        for name in ("open", "high", "low", "close"):
            columns[name] = _doubles(getattr(candles, name), spec.price_decimals)
        columns["volume"] = _doubles(candles.volume, spec.lot_decimals)
        columns["quote_volume"] = _doubles(candles.quote_volume, spec.quote_decimals)
        columns["trade_num"] = candles.trade_num
        columns["taker_buy_base_asset_volume"] = _doubles(candles.taker_volume, spec.lot_decimals)
        columns["taker_buy_quote_asset_volume"] = _doubles(candles.taker_quote_volume, spec.quote_decimals)
        return columns

    def integer_candles(
        self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int
    ) -> IntegerCandles:
        """Return the candles of the method `candles` as integers, without candles before the listing."""
        spec = self._listing(market, symbol)
        grid = INTERVALS[interval]
        start_ms = grid.ceil(max(start_ms, LISTED_MS))
        parts = [
            self._chunk(spec, grid, begin_ms, end_ms) for begin_ms, end_ms in _chunks(grid, start_ms, stop_ms)
        ]
        if not parts:
            return IntegerCandles(*(np.empty(0, np.int64) for _ in IntegerCandles._fields))
        if len(parts) == 1:
            return parts[0]
        return IntegerCandles(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _chunk(self, spec: SymbolListing, grid: Interval, start_ms: int, stop_ms: int) -> IntegerCandles:
        key = stream_key(self.seed, spec.market, spec.symbol)
        first = start_ms // MINUTE_MS
        if grid.name == "1s":
            seconds = split_into_seconds(key, minutes(spec, key, first, -(-stop_ms // MINUTE_MS)))
            chosen = slice(
                (start_ms - first * MINUTE_MS) // SECOND_MS, (stop_ms - first * MINUTE_MS + 999) // SECOND_MS
            )
            return IntegerCandles(*(column[chosen] for column in seconds))
        begins = np.array(grid.grid(start_ms, stop_ms), np.int64)
        atoms = minutes(spec, key, first, grid.end(int(begins[-1])) // MINUTE_MS)
        return atoms if grid.name == "1m" else aggregate(atoms, begins)


def stream_key(seed: int, market: str, symbol: str) -> int:
    """Return the 64-bit key for all random numbers of a symbol."""
    text = f"{seed}/{market}/{symbol}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def truth_candle(spec: SymbolListing, row: tuple[int, ...], grid: Interval) -> TruthCandle:
    """Return one row of `rows` in the exchange's form."""
    begin_ms, first, high, low, last, volume, quote, trades, taker, taker_quote, first_id, _ = row
    return TruthCandle(
        begin_ms,
        grid.end(begin_ms),
        spec.price_text(first),
        spec.price_text(high),
        spec.price_text(low),
        spec.price_text(last),
        spec.volume_text(volume),
        spec.quote_text(quote),
        trades,
        spec.volume_text(taker),
        spec.quote_text(taker_quote),
        first_id if trades else -1,
        first_id + trades - 1 if trades else -1,
    )


def _doubles(values: Ints, decimals: int) -> Floats:
    # Below 2^53 dividend and divisor are exact. The division rounds once, like float(text).
    if len(values) == 0 or int(values.max()) < 2**53:
        return values / np.float64(10**decimals)
    return np.array([int(unit) / 10**decimals for unit in values])


def _chunks(grid: Interval, start_ms: int, stop_ms: int) -> Iterator[tuple[int, int]]:
    # Chunks have whole candles. Seconds take 60 times the memory of minutes.
    span_ms = CHUNK_MINUTES * (SECOND_MS if grid.name == "1s" else MINUTE_MS)
    while start_ms < stop_ms:
        end_ms = min(stop_ms, grid.floor(start_ms + span_ms))
        yield start_ms, end_ms
        start_ms = grid.ceil(end_ms)
