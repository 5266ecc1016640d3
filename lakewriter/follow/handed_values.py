"""The values that were handed out, to notice corrections. Pure.

The newest candles of each series are remembered, with some 30 bytes each. A correction of
an older candle is not noticed.
"""

from array import array
from bisect import bisect_left

from lakewriter.candle import Candle

# Maximum number of remembered candles of all series, about 100 MB.
KEPT_MAX = 3_000_000

# A series is trimmed to its share if it exceeds the share by this factor.
_SLACK = 1.25

# Each of many series keeps at least so many candles, a day of 1m.
_SERIES_MIN = 1_440


class HandedValues:
    """The values of the newest candles of each series.

    Args:
        kept_max: the maximum number of candles of all series.
    """

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._series: dict[tuple[str, str, str], _SeriesValues] = {}

    def remember(self, candle: Candle) -> None:
        """Remember the values of a candle."""
        series = candle.market, candle.symbol, candle.interval
        values = self._series.get(series)
        if values is None:
            values = self._series[series] = _SeriesValues()
        values.put(candle)
        values.trim(max(_SERIES_MIN, self._kept_max // len(self._series)))

    def is_corrected_by(self, candle: Candle) -> bool:
        """Return whether a candle's key is remembered with other values, and the candle takes precedence."""
        values = self._series.get((candle.market, candle.symbol, candle.interval))
        return values is not None and values.is_corrected_by(candle)


class _SeriesValues:
    def __init__(self) -> None:
        self._begins = array("q")
        self._columns = [array("q"), array("b"), array("q"), array("q")]

    def put(self, candle: Candle) -> None:
        begins, at = self._begins, bisect_left(self._begins, candle.begin_ms)
        is_new = at == len(begins) or begins[at] != candle.begin_ms
        if is_new:
            begins.insert(at, candle.begin_ms)
        for column, value in zip(self._columns, (_hash(candle), *_rank(candle)), strict=True):
            if is_new:
                column.insert(at, value)
            else:
                column[at] = value

    def trim(self, share: int) -> None:
        surplus = len(self._begins) - share
        if surplus > share * (_SLACK - 1):
            for column in (self._begins, *self._columns):
                del column[:surplus]

    def is_corrected_by(self, candle: Candle) -> bool:
        begins, at = self._begins, bisect_left(self._begins, candle.begin_ms)
        if at == len(begins) or begins[at] != candle.begin_ms:
            return False
        known, *rank = (column[at] for column in self._columns)
        return known != _hash(candle) and _rank(candle) >= tuple(rank)


def _rank(candle: Candle) -> tuple[int, int, int]:
    """Return the integers of `candle.precedence`. An unknown number of trades is the lowest."""
    trades = -1 if candle.trade_num is None else candle.trade_num
    return int(candle.source == "archive"), trades, candle.recv_us or 0


def _hash(candle: Candle) -> int:
    """Return a hash of the values that make a correction if they differ."""
    return hash(
        (
            candle.open,
            candle.high,
            candle.low,
            candle.close,
            candle.volume,
            candle.quote_volume,
            candle.trade_num,
            candle.taker_buy_base_asset_volume,
            candle.taker_buy_quote_asset_volume,
        )
    )
