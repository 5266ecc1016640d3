"""The candle that a follower hands out, and its line of JSON. Pure.

The columns of a line and their spelling are those of `lakewriter query "FROM candles"
--format ndjson`. A line of a late candle also has `"late":true`, one of a correction has
`"correction":true`.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from lakewriter.candle import Candle
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS
from lakewriter.partition import day_of, is_series
from lakewriter.series import Series
from lakewriter.written_time import parse_time

# Size of the caches of times. All series of a lake share their times.
_TIMES_MAX = 4_096


class FollowedCandle(Candle, frozen=True, gc=False):
    """A candle with two marks. The fields of `Candle` come first.

    Args:
        late: whether a later candle of its series was handed out before: the candle was
            healed, backfilled or imported afterwards.
        correction: whether its key was handed out before, with other values.
    """

    late: bool = False
    correction: bool = False


def followed(candle: Candle) -> FollowedCandle:
    """Return a candle of a journal without marks."""
    return FollowedCandle(*msgspec.structs.astuple(candle))


def candles_of(series: Iterable[Series], rows: pa.Table) -> list[FollowedCandle]:
    """Return rows as candles.

    Args:
        series: the series of each row. Further ones are ignored.
        rows: a table of SCHEMA. Values that another tool left out are None.
    """
    columns = [
        column.cast(pa.int64()).to_pylist() if pa.types.is_timestamp(column.type) else column.to_pylist()
        for column in rows.columns
    ]
    values = zip(*columns, strict=True)
    return [FollowedCandle(*each, *row) for row, each in zip(values, series, strict=False)]


class _Line(msgspec.Struct, omit_defaults=True):
    market: str
    symbol: str
    interval: str
    date: str
    candle_begin_time: str
    candle_end_time: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trade_num: int
    taker_buy_base_asset_volume: float
    taker_buy_quote_asset_volume: float
    event_time: str | None
    recv_time: str | None
    source: str
    late: bool = False
    correction: bool = False


_encode = msgspec.json.Encoder().encode


def encode_line(candle: FollowedCandle) -> bytes:
    """Return the line of a candle, with its newline."""
    fields: tuple[Any, ...] = msgspec.structs.astuple(candle)
    begin_ms, event_ms, recv_us = candle.begin_ms, candle.event_ms, candle.recv_us
    values: tuple[Any, ...] = (
        *fields[:3],
        _day_text(begin_ms // DAY_MS),
        _time_text(begin_ms),
        _time_text(candle.end_ms),
        *fields[5:14],
        None if event_ms is None else _time_text(event_ms),
        None if recv_us is None else _micros_text(recv_us),
        *fields[16:],
    )
    return _encode(_Line(*values)) + b"\n"


@lru_cache(_TIMES_MAX)
def _day_text(day_number: int) -> str:
    return day_of(day_number * DAY_MS).isoformat()


@lru_cache(_TIMES_MAX)
def _time_text(time_ms: int) -> str:
    return _micros_text(time_ms * 1000)


def _micros_text(time_us: int) -> str:
    seconds, micros = divmod(time_us, 1_000_000)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    return f"{_seconds_text(seconds)}{fraction}Z"


@lru_cache(_TIMES_MAX)
def _seconds_text(time_s: int) -> str:
    minutes, second = divmod(time_s, 60)
    minute_of_day = minutes % 1440
    return f"{_day_text(time_s // 86_400)}T{minute_of_day // 60:02}:{minute_of_day % 60:02}:{second:02}"


class _Key(msgspec.Struct):
    market: str
    symbol: str
    interval: str
    candle_begin_time: str


def key_of_line(line: bytes) -> tuple[Series, int] | None:
    """Return the series and the begin time in a line of a follower; None for another line."""
    try:
        key = msgspec.json.decode(line, type=_Key)
        begin_ms = parse_time(key.candle_begin_time, "candle_begin_time", 0).ms
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError):
        return None
    series = Series(key.market, key.symbol, key.interval)
    return (series, begin_ms) if is_series(*series) else None
