"""REST rows → candles: the exchange's values, or an error."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.kline_rows import decode_klines
from lakewriter.candle import Candle
from lakewriter.errors import FrameError
from lakewriter.series import Series

BTC = Series("spot", "BTCUSDT", "1m")
BEGIN_MS = 1_719_705_600_000
ROW = [
    BEGIN_MS, "1.5", "3.0", "0.5", "2.0", "10.0", BEGIN_MS + 59_999, "20.0", 7, "4.0", "8.0", "0",
]  # fmt: skip


def decoded(*rows: object, series: Series = BTC) -> list[Candle]:
    return decode_klines(json.dumps(rows).encode(), series, BEGIN_MS, BEGIN_MS + 600_000, 99)


def test_a_row_is_a_candle() -> None:
    """Each value of a row is in its field; the source is rest, and there is no event time."""
    assert decoded(ROW) == [
        Candle(
            "spot", "BTCUSDT", "1m", BEGIN_MS, BEGIN_MS + 60_000, 1.5, 3.0, 0.5, 2.0, 10.0, 20.0, 7, 4.0, 8.0,
            None, 99, "rest",
        )
    ]  # fmt: skip


def test_rows_that_nobody_asked_for_are_left_out_and_the_others_sorted() -> None:
    """Rows outside of the requested range are dropped, and the others are sorted."""
    rows = [[BEGIN_MS + minute * 60_000, *ROW[1:]] for minute in (3, -1, 0, 10, 2)]
    assert [each.begin_ms for each in decoded(*rows)] == [BEGIN_MS + n * 60_000 for n in (0, 2, 3)]


def test_a_close_time_cut_by_a_halt_is_no_error() -> None:
    """A candle shortened by a halt has an odd close time; its end is still the grid's."""
    cut = [*ROW[:6], BEGIN_MS + 41_646, *ROW[7:]]
    assert decoded(cut)[0].end_ms == BEGIN_MS + 60_000


@pytest.mark.parametrize(
    "row",
    [
        [],
        ROW[:10],
        [BEGIN_MS + 1, *ROW[1:]],
        [BEGIN_MS * 1000, *ROW[1:]],
        [BEGIN_MS // 60_000_000 * 60_000, *ROW[1:]],
        [60_000 * 10**25, *ROW[1:]],
        [-60_000, *ROW[1:]],
        ["1", *ROW[1:]],
        [*ROW[:8], "7", *ROW[9:]],
        [*ROW[:8], -1, *ROW[9:]],
        [ROW[0], "nan", *ROW[2:]],
        [ROW[0], "-1", *ROW[2:]],
        [ROW[0], 1.5, *ROW[2:]],
        [ROW[0], None, *ROW[2:]],
    ],
    ids=range(14),
)
def test_a_row_that_cannot_be_a_candle_is_an_error(row: list[object]) -> None:
    """One impossible row refuses the whole page."""
    with pytest.raises(FrameError):
        decoded(ROW, row)


@pytest.mark.parametrize("begin_ms", [BEGIN_MS * 1000, 10**17, -(10**17), 0])
def test_a_month_of_another_age_is_no_row(begin_ms: int) -> None:
    """A monthly row whose begin is outside of the calendar is an error like any other."""
    with pytest.raises(FrameError, match="1mo kline row that begins at"):
        decoded([begin_ms, *ROW[1:]], series=Series("spot", "BTCUSDT", "1mo"))


@given(st.binary(max_size=60) | st.text('[]{}:,"0123456789.', max_size=60).map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """Any bytes give rows or an ExchangeError."""
    with suppress(FrameError):
        assert isinstance(decode_klines(body, BTC, 0, 2**60, 0), list)
