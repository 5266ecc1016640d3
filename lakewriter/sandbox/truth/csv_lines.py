"""Candles as lines of CSV, with the same text as REST's rows.

Strategy: lines are made column by column. Each value is an integer with a fixed number of
decimals. So a column is a matrix of digits, with one byte for each digit. Leading zeros and
unused places are NUL bytes. They are removed after all columns are joined. Pure, vectorised
with numpy.
"""

import numpy as np
import numpy.typing as npt

from lakewriter.interval import Interval
from lakewriter.sandbox.truth.integer_candles import IntegerCandles, Ints
from lakewriter.sandbox.truth.symbols import SPOT_DECIMALS, SymbolListing

Bytes = npt.NDArray[np.uint8]

# The digits of one look-up, which are the four bytes of an integer.
_BLOCK_DIGITS = 4
_BLOCKS = np.frombuffer("".join(f"{number:04d}" for number in range(10**_BLOCK_DIGITS)).encode(), np.uint32)

_POWERS = 10 ** np.arange(19, dtype=np.int64)

# The rows that are written at once. The limit bounds the matrix.
_ROWS_AT_ONCE = 1 << 16


def csv_lines(spec: SymbolListing, grid: Interval, candles: IntegerCandles, *, micro: bool) -> bytes:
    """Return the lines, each with the twelve values of a candle.

    Args:
        micro: whether times are in microseconds.
    """
    parts = []
    for start in range(0, len(candles.begin_ms), _ROWS_AT_ONCE):
        part = IntegerCandles(*(column[start : start + _ROWS_AT_ONCE] for column in candles))
        parts.append(_lines(spec, grid, part, micro=micro))
    return b"".join(parts)


def _lines(spec: SymbolListing, grid: Interval, candles: IntegerCandles, *, micro: bool) -> bytes:
    price, lot, quote = spec.price_decimals, spec.lot_decimals, spec.quote_decimals
    last_ms = _end_times(grid, candles.begin_ms) - 1
    columns = [
        _integer_column(candles.begin_ms) + [_constant("000")] * micro,
        *(
            _decimal_column(spec, column, price)
            for column in (candles.open, candles.high, candles.low, candles.close)
        ),
        _decimal_column(spec, candles.volume, lot),
        _integer_column(last_ms) + [_constant("999")] * micro,
        _decimal_column(spec, candles.quote_volume, quote),
        _integer_column(candles.trade_num),
        _decimal_column(spec, candles.taker_volume, lot),
        _decimal_column(spec, candles.taker_quote_volume, quote),
    ]
    parts = [piece for column in columns for piece in (*column, _constant(","))]
    return _join_columns(len(candles.begin_ms), [*parts, _constant("0\n")])


def _end_times(grid: Interval, begin_ms: Ints) -> Ints:
    if grid.length_ms:
        return begin_ms + grid.length_ms
    return np.array([grid.end(each) for each in begin_ms.tolist()], np.int64)


def _constant(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)[None, :]


def _integer_column(values: Ints) -> list[Bytes]:
    return [_digits(values, 1)]


def _decimal_column(spec: SymbolListing, values: Ints, decimals: int) -> list[Bytes]:
    # Spot pads decimals to eight digits, as in `SymbolListing`.
    padding = "0" * (SPOT_DECIMALS - decimals) if spec.market == "spot" else ""
    if not decimals:
        return [_digits(values, 1), _constant("." + padding)] if padding else [_digits(values, 1)]
    digits = _digits(values, decimals + 1)
    return [digits[:, :-decimals], _constant("."), digits[:, -decimals:], _constant(padding)]


def _digits(values: Ints, digits_min: int) -> Bytes:
    """Return at least `digits_min` digits of each number, after NUL bytes."""
    counts = np.maximum(np.searchsorted(_POWERS, values, side="right"), digits_min)
    width = int(counts.max())
    blocks = -(-width // _BLOCK_DIGITS)
    digits = np.empty((len(values), blocks), np.uint32)
    remaining = values
    for block in range(blocks - 1, -1, -1):
        remaining, low = np.divmod(remaining, 10**_BLOCK_DIGITS)
        digits[:, block] = _BLOCKS[low]
    digit_bytes = digits.view(np.uint8)[:, -width:]
    padding = width - counts
    if padding.any():
        digit_bytes *= np.arange(width) >= padding[:, None]
    return digit_bytes


def _join_columns(count: int, parts: list[Bytes]) -> bytes:
    lines = np.empty((count, sum(piece.shape[1] for piece in parts)), np.uint8)
    at = 0
    for piece in parts:
        lines[:, at : at + piece.shape[1]] = piece
        at += piece.shape[1]
    return lines.tobytes().translate(None, b"\0")
