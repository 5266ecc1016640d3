"""Candles for benchmarks, with numbers that compress as little as real ones."""

from lakewriter.candle import Candle
from lakewriter.interval import MINUTE_MS
from lakewriter.partition import Partition


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
