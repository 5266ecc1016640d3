"""The plausibility checks of candles: values, nulls, and quote volumes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle, to_table
from lakewriter.candle_arrays import OPTIONAL, columns_of
from lakewriter.candle_checks import first_violation, may_be_quotes, unknown_columns, violations
from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.symbols import LISTED_MS
from support.candles import possible_candles, stream_candle


def kinds(*rows: Candle, market: str = "spot") -> list[tuple[str, list[int]]]:
    return [(each.kind, each.rows.tolist()) for each in violations(columns_of(to_table(rows)), market)]


def quote_fits(market: str, low: float, high: float, volume: float, quote: float) -> bool:
    one = (np.array([value]) for value in (low, high, volume, quote))
    return bool(may_be_quotes(market, *one)[0])


def test_padding_of_zeros():
    """A row of zeros is no candle, and the other rows are not affected."""
    zeros = dict.fromkeys(
        ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_base_asset_volume",
         "taker_buy_quote_asset_volume"), 0.0,
    )  # fmt: skip
    assert kinds(stream_candle(0), stream_candle(1, trade_num=0, **zeros), stream_candle(2)) == [
        ("price", [1])
    ]


def test_the_first_row_that_cannot_be():
    """The error names the first of several impossible rows, with its values."""
    rows = to_table([stream_candle(0), stream_candle(1, high=1.0), stream_candle(2, low=0.0)])
    found = first_violation(columns_of(rows), "spot")
    assert found is not None
    row, violation = found
    assert (row, violation.kind) == (1, "high")
    assert violation.describe(row) == (
        "high is below open: open 60001.5, high 1.0, low 59990.0, close 60001.125"
    )
    assert first_violation(columns_of(to_table([stream_candle(0)])), "spot") is None


@pytest.mark.parametrize("names", [OPTIONAL, OPTIONAL[:1], OPTIONAL[1:2], OPTIONAL[2:]])
def test_unknown_is_no_violation(names):
    """A null in an optional column is no violation; the column is reported as unknown."""
    rows = to_table([stream_candle(0), stream_candle(1)])
    for name in names:
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.nulls(2, rows.schema.field(at).type))
    candles = columns_of(rows)
    assert violations(candles, "spot") == []
    assert unknown_columns(candles) == set(names)


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_a_null_that_is_a_violation(name):
    """A candle without a price or the volume is a violation."""
    rows = to_table([stream_candle(0)])
    at = rows.schema.get_field_index(name)
    rows = rows.set_column(at, rows.schema.field(at), pa.nulls(1, pa.float64()))
    assert [each.kind for each in violations(columns_of(rows), "spot")] == [
        "volume" if name == "volume" else "price"
    ]


@given(st.lists(possible_candles(), min_size=1))
def test_possible_candles(rows):
    """Possible candles have no violation."""
    assert kinds(*rows) == []


amounts = st.floats(1e-6, 1e9)


@given(amounts, st.floats(1, 1.2), st.floats(0, 1), amounts, st.integers(0, 8))
def test_rounding_is_no_violation(low, factor, share, volume, decimals):
    """A quote volume rounded to any number of decimals is no violation."""
    high = low * factor
    quote = volume * min(low + share * (high - low), high)
    kept = [round(value, decimals) for value in (low, high, volume, quote)]
    assert quote_fits("spot", low, high, volume, quote)
    assert quote_fits("usdt_futures", *kept)
    assert quote_fits("spot", *(float(np.float32(value)) for value in (low, high, volume, quote)))
    assert quote_fits("spot", *(float(f"{value:.6g}") for value in (low, high, volume, quote)))


@given(st.sampled_from([10, 100]), st.floats(1, 1e5), st.floats(1, 1.2), st.integers(0, 10**6))
def test_contracts_are_worth_dollars(size, low, factor, contracts):
    """On coin_futures the volume counts contracts, and the quote volume counts the coin."""
    high = low * factor
    for price in (low, (low + high) / 2, high):
        assert quote_fits("coin_futures", low, high, contracts, round(size * contracts / price, 8))


@pytest.mark.parametrize(
    ("market", "volume", "quote"),
    [
        ("spot", 5.0, 900_000.0),
        ("spot", 5.0, 5.0),
        ("spot", 5.25, 0.0),
        ("spot", 0.0, 1_000.0),
        ("spot", 500.25, 5.0),
        ("usdt_futures", 12.5, 1_300.0),
        ("usdt_futures", 12.5, 1_200.0),
        ("coin_futures", 180.0, 18_000.5),
        ("coin_futures", 180.0, 1.8),
    ],
)
def test_quotes_of_no_price(market, volume, quote):
    """A quote volume in another unit, from another column, or zero does not fit prices of 98 to 102 dollars."""
    assert not quote_fits(market, 98.25, 102.25, volume, quote)


@pytest.mark.parametrize("market", MARKETS)
@given(seed=st.integers(0, 2**32), minute=st.integers(0, 10**6))
def test_the_sandboxs_candles(market, seed, minute):
    """The sandbox's candles have no violation, in any market and interval."""
    truth = Truth(seed)
    symbol = {"coin_futures": "BTCUSD_PERP"}.get(market, "BTCUSDT")
    for interval in MARKETS[market].intervals[:3]:
        start_ms = LISTED_MS + minute * 60_000
        found = truth.arrays(
            market, symbol, interval, start_ms, start_ms + 30 * INTERVALS[interval].length_ms
        )
        begins = found.pop("candle_begin_time")
        unknown = np.zeros((len(begins), len(OPTIONAL)), np.bool_)
        columns = columns_of(to_table([]))._replace(begin=begins, unknown=unknown, **found)
        assert violations(columns, market) == []
