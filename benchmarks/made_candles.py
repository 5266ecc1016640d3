"""Candles for benchmarks, with numbers that compress as little as real ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from lakewriter.candle import Candle
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.journal import create_journal
from lakewriter.partition import Partition

# Unflushed candles of each series: three times the minutes between two flushes.
_HOT_OF_SERIES = 15
_COMMIT_CANDLES = 2_000


def candle(partition: Partition, minute: int, recv_us: int | None = None) -> Candle:
    """Return the candle of a minute of the day, received 90 ms after its end unless `recv_us` is given."""
    begin_ms = partition.start_ms + minute * MINUTE_MS
    wave = (begin_ms // MINUTE_MS * 7919) % 10_007 / 100
    return Candle(
        market=partition.market,
        symbol=partition.symbol,
        interval=partition.interval,
        begin_ms=begin_ms,
        end_ms=begin_ms + MINUTE_MS,
        open=60_000 + wave,
        high=60_020 + wave,
        low=59_980 + wave,
        close=60_001 + wave,
        volume=wave * 1.00321,
        quote_volume=wave * 60_193.27,
        trade_num=minute * 31 % 2000,
        taker_buy_base_asset_volume=wave * 0.50117,
        taker_buy_quote_asset_volume=wave * 30_096.13,
        event_ms=begin_ms + MINUTE_MS + 4,
        recv_us=(begin_ms + MINUTE_MS + 90) * 1000 if recv_us is None else recv_us,
        source="stream",
    )


@contextmanager
def hot_candles(root: Path, day: date, number: int) -> Iterator[None]:
    """Keep a living journal of so many 1m candles of a day during the block."""
    journal = create_journal(root, "benchmark")
    series = [Partition("spot", f"S{at:04d}USDT", "1m", day) for at in range(-(-number // _HOT_OF_SERIES))]
    candles = [candle(each, minute) for minute in range(_HOT_OF_SERIES) for each in series][:number]
    for first in range(0, len(candles), _COMMIT_CANDLES):
        journal.commit(candles[first : first + _COMMIT_CANDLES])
    try:
        yield
    finally:
        journal.drop(journal.roll())
        journal.close()
