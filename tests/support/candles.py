"""Candles for tests: builders, hypothesis strategies, and rows of a table as candles."""

from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import strategies as st

from lakewriter.candle import SCHEMA, Candle, precedence
from lakewriter.interval import MINUTE_MS
from lakewriter.series import Series

DAY_START_MS = 1_719_705_600_000  # 2024-06-30


def stream_candle(minute: int = 0, symbol: str = "BTCUSDT", **changes: Any) -> Candle:
    """Return a streamed candle of spot 1m, of that minute of 2024-06-30, with changes."""
    begin_ms = DAY_START_MS + minute * 60_000
    fields = {
        "market": "spot",
        "symbol": symbol,
        "interval": "1m",
        "begin_ms": begin_ms,
        "end_ms": begin_ms + 60_000,
        "open": 60_000.5 + minute,
        "high": max(60_010.25, 60_000.5 + minute),
        "low": 59_990.0,
        "close": 60_001.125,
        "volume": 12.34567,
        "quote_volume": 740_800.123,
        "trade_num": 100,
        "taker_buy_base_asset_volume": 6.5,
        "taker_buy_quote_asset_volume": 390_000.25,
        "event_ms": begin_ms + 60_004,
        "recv_us": (begin_ms + 60_050) * 1000,
        "source": "stream",
    }
    return Candle(**{**fields, **changes})


positive = st.floats(0, 1e15, allow_nan=False, allow_infinity=False)


def candles(minutes: int = 20) -> st.SearchStrategy[Candle]:
    """Draw candles with few keys, trade counts, sources and times, so that duplicates and ties are frequent."""
    return st.builds(
        stream_candle,
        st.integers(0, minutes - 1),
        open=positive,
        volume=positive,
        trade_num=st.integers(0, 3),
        source=st.sampled_from(["stream", "rest", "archive"]),
        event_ms=st.none() | st.integers(DAY_START_MS, DAY_START_MS + 10**8),
        recv_us=st.integers(DAY_START_MS * 1000, DAY_START_MS * 1000 + 3),
    )


def unknown_candles(minutes: int = 20) -> st.SearchStrategy[Candle]:
    """Draw candles like `candles`; some lack the trades, and some of those also the volume."""
    volumes = st.none() | st.just(float("nan")) | st.sampled_from([0.0, 1.0, 2.5])
    return st.one_of(
        candles(minutes),
        st.builds(
            stream_candle,
            st.integers(0, minutes - 1),
            trade_num=st.none(),
            volume=volumes,
            source=st.sampled_from(["rest", "archive"]),
            recv_us=st.integers(DAY_START_MS * 1000, DAY_START_MS * 1000 + 3),
        ),
    )


def possible_candles(minutes: int = 20) -> st.SearchStrategy[Candle]:
    """Draw candles like `candles`, without violations."""

    def possible(one: Candle, volume: float) -> Candle:
        return msgspec.structs.replace(
            one, open=60_001.0, volume=volume, quote_volume=volume * 60_000.5, trade_num=one.trade_num + 1,
            taker_buy_base_asset_volume=0.0, taker_buy_quote_asset_volume=0.0,
        )  # fmt: skip

    return st.builds(possible, candles(minutes), st.floats(1e-6, 1e12))


def from_table(
    table: pa.Table, market: str = "spot", symbol: str = "BTCUSDT", interval: str = "1m"
) -> list[Candle]:
    """Return a table's rows as candles, read as integers."""
    times = ("candle_begin_time", "candle_end_time", "event_time", "recv_time")
    columns = {
        name: (table[name].cast(pa.int64()) if name in times else table[name]).to_pylist()
        for name in SCHEMA.names
    }
    return [Candle(market, symbol, interval, *row) for row in zip(*columns.values(), strict=True)]


def settled(rows: list[Candle]) -> list[Candle]:
    """Return the winner of each key in plain Python: the greatest precedence, then the last."""
    winners: dict[int, Candle] = {}
    for row in rows:
        old = winners.get(row.begin_ms)
        if old is None or precedence(row) >= precedence(old):
            winners[row.begin_ms] = row
    return [winners[begin_ms] for begin_ms in sorted(winners)]


BTC = Series("spot", "BTCUSDT", "1m")
ETH = Series("spot", "ETHUSDT", "1m")


def begin_of_minute(number: int) -> int:
    return DAY_START_MS + number * MINUTE_MS
