"""The parser of kline rows: a REST answer → candles. Pure.

A row has 12 values: open time, open, high, low, close, volume, close time,
quote volume, trades, taker buy volume, taker buy quote volume, ignore. Their units
differ between the markets, as they do in frames.
"""

from typing import Literal

import msgspec

from lakewriter.binance.wire import BEGIN_MS_MAX, BEGIN_MS_MIN, number
from lakewriter.candle import Candle
from lakewriter.candle_checks import TRADES_MAX
from lakewriter.errors import FrameError
from lakewriter.interval import DAY_MS, Interval
from lakewriter.series import Series

_ROW_VALUES_MIN = 11

_decode = msgspec.json.Decoder(list[list[int | str | None]]).decode


def decode_klines(body: bytes, series: Series, start_ms: int, stop_ms: int, recv_us: int) -> list[Candle]:
    """Parse the candles of an answer that begin in [start_ms, stop_ms), ascending.

    The last candle may be open; only the caller knows the exchange's time.

    Raises:
        FrameError: if the answer is not a list of rows, or a row cannot be a candle.
    """
    try:
        rows = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError("json", f"klines cannot be read: {error}") from None
    candles = {}
    for row in rows:
        candle = _candle(row, series, "rest", recv_us)
        if start_ms <= candle.begin_ms < stop_ms:
            candles[candle.begin_ms] = candle
    return [candles[begin_ms] for begin_ms in sorted(candles)]


def _candle(
    row: list[int | str | None], series: Series, source: Literal["rest", "archive"], recv_us: int
) -> Candle:
    if len(row) < _ROW_VALUES_MIN:
        raise FrameError("shape", f"kline row of {len(row)} values")
    begin_ms, trades = row[0], row[8]
    grid = series.grid
    if not isinstance(begin_ms, int) or not _on_grid(grid, begin_ms):
        raise FrameError("time", f"{series.interval} kline row that begins at {begin_ms!r}")
    if not isinstance(trades, int) or not 0 <= trades <= TRADES_MAX:
        raise FrameError("number", f"kline row of {trades!r} trades")
    return Candle(
        market=series.market,
        symbol=series.symbol,
        interval=series.interval,
        begin_ms=begin_ms,
        end_ms=grid.end(begin_ms),
        open=_number(row[1]),
        high=_number(row[2]),
        low=_number(row[3]),
        close=_number(row[4]),
        volume=_number(row[5]),
        quote_volume=_number(row[7]),
        trade_num=trades,
        taker_buy_base_asset_volume=_number(row[9]),
        taker_buy_quote_asset_volume=_number(row[10]),
        event_ms=None,
        recv_us=recv_us,
        source=source,
    )


def _on_grid(grid: Interval, begin_ms: int) -> bool:
    # The anchor of 3d is not documented, so any midnight is accepted.
    if not BEGIN_MS_MIN <= begin_ms < BEGIN_MS_MAX:
        return False
    return begin_ms % DAY_MS == 0 if grid.name == "3d" else grid.on_grid(begin_ms)


def _number(value: int | str | None) -> float:
    if not isinstance(value, str):
        raise FrameError("number", f"kline row with {value!r} for a number")
    return number(value)
