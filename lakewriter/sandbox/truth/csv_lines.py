"""Candles as lines of CSV, a column at a time: the same text as REST's rows, without a step for each of them.

Strategy: every value is an integer with a fixed number of decimals, so a column
is a matrix of its digits, one byte each; leading zeros and whatever a shorter
number leaves free are NUL bytes, and are dropped when all columns stand side
by side. Pure, vectorised with numpy.
"""

import numpy as np
import numpy.typing as npt

from lakewriter.interval import Interval
from lakewriter.sandbox.truth.integer_candles import IntegerCandles, Ints
from lakewriter.sandbox.truth.symbols import SPOT_DECIMALS, SymbolListing

Bytes = npt.NDArray[np.uint8]

# Digits looked up at once, as the four bytes of an integer.
_AT_ONCE = 4
_DIGITS = np.frombuffer("".join(f"{number:04d}" for number in range(10**_AT_ONCE)).encode(), np.uint32)

_POWERS = 10 ** np.arange(19, dtype=np.int64)

# Rows written at once: bounds the matrix.
_ROWS = 1 << 16


def csv_lines(spec: SymbolListing, grid: Interval, units: IntegerCandles, *, micro: bool) -> bytes:
    """Return a line of twelve values for each candle.

    Args:
        micro: times in microseconds.
    """
    parts = []
    for start in range(0, len(units.begin_ms), _ROWS):
        part = IntegerCandles(*(column[start : start + _ROWS] for column in units))
        parts.append(_lines(spec, grid, part, micro=micro))
    return b"".join(parts)


def _lines(spec: SymbolListing, grid: Interval, units: IntegerCandles, *, micro: bool) -> bytes:
    price, lot, quote = spec.price_decimals, spec.lot_decimals, spec.quote_decimals
    last_ms = _ends(grid, units.begin_ms) - 1
    columns = [
        _number(units.begin_ms) + [_same("000")] * micro,
        *(_decimal(spec, column, price) for column in (units.open, units.high, units.low, units.close)),
        _decimal(spec, units.volume, lot),
        _number(last_ms) + [_same("999")] * micro,
        _decimal(spec, units.quote_volume, quote),
        _number(units.trade_num),
        _decimal(spec, units.taker_volume, lot),
        _decimal(spec, units.taker_quote_volume, quote),
    ]
    pieces = [piece for column in columns for piece in (*column, _same(","))]
    return _beside(len(units.begin_ms), [*pieces, _same("0\n")])


def _ends(grid: Interval, begin_ms: Ints) -> Ints:
    if grid.length_ms:
        return begin_ms + grid.length_ms
    return np.array([grid.end(each) for each in begin_ms.tolist()], np.int64)


def _same(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)[None, :]


def _number(values: Ints) -> list[Bytes]:
    return [_digits(values, 1)]


def _decimal(spec: SymbolListing, values: Ints, decimals: int) -> list[Bytes]:
    # As `SymbolListing` writes them: spot pads to eight decimals.
    padding = "0" * (SPOT_DECIMALS - decimals) if spec.market == "spot" else ""
    if not decimals:
        return [_digits(values, 1), _same("." + padding)] if padding else [_digits(values, 1)]
    digits = _digits(values, decimals + 1)
    return [digits[:, :-decimals], _same("."), digits[:, -decimals:], _same(padding)]


def _digits(values: Ints, least: int) -> Bytes:
    """Return the digits of each number, `least` of them at least, with NUL bytes before them."""
    counts = np.maximum(np.searchsorted(_POWERS, values, side="right"), least)
    width = int(counts.max())
    blocks = -(-width // _AT_ONCE)
    digits = np.empty((len(values), blocks), np.uint32)
    rest = values
    for block in range(blocks - 1, -1, -1):
        rest, low = np.divmod(rest, 10**_AT_ONCE)
        digits[:, block] = _DIGITS[low]
    chosen = digits.view(np.uint8)[:, -width:]
    free = width - counts
    if free.any():
        chosen *= np.arange(width) >= free[:, None]
    return chosen


def _beside(count: int, pieces: list[Bytes]) -> bytes:
    lines = np.empty((count, sum(piece.shape[1] for piece in pieces)), np.uint8)
    at = 0
    for piece in pieces:
        lines[:, at : at + piece.shape[1]] = piece
        at += piece.shape[1]
    return lines.tobytes().translate(None, b"\0")
