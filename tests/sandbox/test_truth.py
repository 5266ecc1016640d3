"""Invariants of the sandbox's candles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import VALUE_COLUMNS
from lakewriter.interval import INTERVALS, MINUTE_MS
from lakewriter.market import MARKETS
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.integer_candles import TRADES_EVERY, IntegerCandles
from lakewriter.sandbox.truth.noise import uniform, uniform_at
from lakewriter.sandbox.truth.symbols import LISTED_MS, decimal_text, listings
from support.lengths import examples

START_MS = 1_767_225_600_000  # 2026-01-01

SERIES = [
    ("spot", "BTCUSDT"),
    ("spot", "BELBTC"),
    ("spot", "SHIBUSDT"),
    ("usdt_futures", "币安人生USDT"),
    ("usdt_futures", "A007USDT"),
    ("coin_futures", "BTCUSD_PERP"),
    ("coin_futures", "DOGEUSD_PERP"),
]
LONGER = [name for name in INTERVALS if name not in ("1s", "1m")]

series = st.sampled_from(SERIES)
seeds = st.integers(0, 2**32)
begins = st.integers(LISTED_MS // MINUTE_MS, START_MS // MINUTE_MS + 10**6).map(lambda m: m * MINUTE_MS)


def summed(units: IntegerCandles, chosen: slice) -> dict[str, int]:
    part = IntegerCandles(*(column[chosen] for column in units))
    return {
        "open": int(part.open[0]),
        "high": max(part.high.tolist()),
        "low": min(part.low.tolist()),
        "close": int(part.close[-1]),
        "volume": sum(part.volume.tolist()),
        "quote_volume": sum(part.quote_volume.tolist()),
        "trade_num": sum(part.trade_num.tolist()),
        "taker_volume": sum(part.taker_volume.tolist()),
        "taker_quote_volume": sum(part.taker_quote_volume.tolist()),
        "first_trade_id": int(part.first_trade_id[0]),
    }


@given(seed=seeds, name=series, interval=st.sampled_from(LONGER), moment=begins)
@examples(20, 100)
def test_longer_candles_are_the_sum_of_their_minutes(
    seed: int, name: tuple[str, str], interval: str, moment: int
) -> None:
    """Longer candles, up to months, are the exact aggregates of their minutes."""
    truth, grid = Truth(seed), INTERVALS[interval]
    begin = grid.floor(moment)
    whole = truth.integer_candles(*name, interval, begin, begin + 1)
    minutes = truth.integer_candles(*name, "1m", begin, grid.end(begin))
    assert {key: int(getattr(whole, key)[0]) for key in summed(minutes, slice(None))} == summed(
        minutes, slice(None)
    )


@given(seed=seeds, symbol=st.sampled_from([s for m, s in SERIES if m == "spot"]), moment=begins)
@examples(20, 100)
def test_a_minute_is_the_sum_of_its_seconds(seed: int, symbol: str, moment: int) -> None:
    """A minute is the exact aggregate of its sixty seconds, each a valid candle."""
    truth = Truth(seed)
    seconds = truth.integer_candles("spot", symbol, "1s", moment, moment + 10 * MINUTE_MS)
    assert seconds.begin_ms.tolist() == list(range(moment, moment + 10 * MINUTE_MS, 1000))
    minutes = truth.integer_candles("spot", symbol, "1m", moment, moment + 10 * MINUTE_MS)
    assert seconds.begin_ms.tolist() == [moment + 1000 * second for second in range(600)]
    for number in range(10):
        expected = summed(seconds, slice(60 * number, 60 * number + 60))
        assert {key: int(getattr(minutes, key)[number]) for key in expected} == expected
    check_shape(seconds)


def check_shape(units: IntegerCandles) -> None:
    for column in units:
        assert (column >= 0).all()
    assert (units.low >= 1).all()
    assert (units.low <= np.minimum(units.open, units.close)).all()
    assert (units.high >= np.maximum(units.open, units.close)).all()
    assert (units.taker_volume <= units.volume).all()
    assert (units.taker_quote_volume <= units.quote_volume).all()
    assert (units.volume >= units.trade_num).all()
    assert ((units.volume == 0) == (units.trade_num == 0)).all()
    # Ids have no gaps, and a candle without trades stays at the close before it.
    assert (np.diff(units.first_trade_id) == units.trade_num[:-1]).all()
    quiet = units.trade_num == 0
    for column in (units.open, units.high, units.low, units.close):
        assert (column[quiet] == units.previous_close[quiet]).all()
    assert (units.previous_close[1:] == units.close[:-1]).all()


@given(seed=seeds, name=series, moment=begins)
@examples(15, 100)
def test_minutes_are_candles(seed: int, name: tuple[str, str], moment: int) -> None:
    """Minutes are valid: low is lowest, takers are a part, ids have no gaps, quiet minutes are flat and few."""
    units = Truth(seed).integer_candles(*name, "1m", moment, moment + 600 * MINUTE_MS)
    check_shape(units)
    traded = np.flatnonzero(units.trade_num)
    assert (np.diff(traded) <= TRADES_EVERY).all()


@given(
    seed=seeds,
    name=series,
    interval=st.sampled_from(["1m", "3m", "1h"]),
    moment=begins,
    cut=st.integers(1, 9),
)
@examples(15, 100)
def test_the_answer_does_not_depend_on_the_question(
    seed: int, name: tuple[str, str], interval: str, moment: int, cut: int
) -> None:
    """A range gives the same candles at once, in two parts, or again."""
    grid = INTERVALS[interval]
    start = grid.ceil(moment)
    middle, stop = start + cut * grid.length_ms, start + 10 * grid.length_ms
    whole = Truth(seed).candles(*name, interval, start, stop)
    parts = Truth(seed)
    assert parts.candles(*name, interval, middle, stop) == whole[cut:]
    assert parts.candles(*name, interval, start, middle) == whole[:cut]
    assert parts.candle(*name, interval, middle) == whole[cut] if cut < 10 else True


@pytest.mark.parametrize("name", SERIES)
def test_numbers_are_what_the_text_says(name: tuple[str, str]) -> None:
    """The arrays have float(text) of each value, also above 2^53."""
    truth = Truth(3)
    for interval, stop in (("1m", START_MS + 50 * MINUTE_MS), ("1mo", START_MS + 10 * 86_400_000)):
        candles = truth.candles(*name, interval, START_MS, stop)
        arrays = truth.arrays(*name, interval, START_MS, stop)
        assert list(arrays) == ["candle_begin_time", *VALUE_COLUMNS]
        for number, candle in enumerate(candles):
            values = tuple(arrays[column][number] for column in VALUE_COLUMNS)
            assert values == candle.numbers()
            assert arrays["candle_begin_time"][number] == candle.begin_ms


@pytest.mark.parametrize("market", MARKETS)
def test_no_sum_overflows(market: str) -> None:
    """The sums of a month, at its busiest minute, stay far below 63 bits."""
    truth = Truth(1)
    for spec in listings(market, 40):
        units = truth.integer_candles(market, spec.symbol, "1m", START_MS, START_MS + 3 * 86_400_000)
        check_shape(units)
        assert int(units.quote_volume.max()) * 31 * 1440 < 2**63
        assert int(units.volume.max()) ** 2 < 2**63
        assert int(units.high.max()) < 2 * spec.price_ticks


def test_spot_has_eight_decimals_and_contracts_none() -> None:
    """Each market has its own number of decimals."""
    truth = Truth(0)
    spot = truth.candle("spot", "SHIBUSDT", "1m", START_MS)
    assert [len(text.partition(".")[2]) for text in spot[2:8]] == [8] * 6
    perpetual = truth.candle("usdt_futures", "BTCUSDT", "1m", START_MS)
    assert [len(text.partition(".")[2]) for text in perpetual[2:8]] == [2, 2, 2, 2, 3, 5]
    coin = truth.candle("coin_futures", "BTCUSD_PERP", "1m", START_MS)
    assert coin.volume.isdigit()
    assert len(coin.quote_volume.partition(".")[2]) == 8


@given(units=st.integers(0, 2**62), decimals=st.integers(0, 8))
def test_decimal_text_is_exact(units: int, decimals: int) -> None:
    """The text has all decimals, without rounding."""
    text = decimal_text(units, decimals)
    assert int(text.replace(".", "")) == units
    assert len(text.partition(".")[2]) == decimals


def test_seeds_markets_and_symbols_differ() -> None:
    """No two series have the same prices."""
    opens = {
        Truth(seed).candle(market, symbol, "1h", START_MS).close
        for seed in (0, 1)
        for market, symbol in [*SERIES, ("usdt_futures", "BTCUSDT")]
    }
    assert len(opens) == 2 * (len(SERIES) + 1)


def test_history_begins_at_the_listing() -> None:
    """No candle begins before 2018, and the first candle of each interval is whole."""
    truth = Truth(0)
    for name, grid in INTERVALS.items():
        first = truth.integer_candles("spot", "BTCUSDT", name, 0, LISTED_MS + 1)
        assert first.begin_ms.tolist() == [LISTED_MS]
        assert grid.on_grid(LISTED_MS)
    assert truth.candles("spot", "BTCUSDT", "1m", 0, LISTED_MS) == []


@given(key=st.integers(0, 2**64 - 1), channel=st.integers(0, 200), index=st.integers(0, 2**60))
def test_one_random_number_or_many(key: int, channel: int, index: int) -> None:
    """`uniform_at` and `uniform` return the same number."""
    value = uniform_at(key, channel, index)
    assert 0 <= value < 1
    assert uniform(key, channel, np.array([index]))[0] == value
