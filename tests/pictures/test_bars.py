"""The candles and gaps of a chart, read from small lakes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.pictures import bars as bars_module
from lakewriter.pictures.bars import (
    Bars,
    ChartData,
    WantedRange,
    buckets_of_gaps,
    gap_totals,
    in_buckets,
    read_chart,
    source_of,
)
from lakewriter.pictures.timescale import SPANS
from lakewriter.series import Series
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap

BTC = Series("spot", "BTCUSDT", "1m")
HOURS = Series("spot", "BTCUSDT", "1h")
NOW_MS = BEGIN_MS + 100 * DAY_MS
NEWEST = WantedRange(None, None, None, 50)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Three hours of BTCUSDT, the last five minutes in the journal; minutes 60 to 79 are absent."""
    rows = [rest_candle(n) for n in (*range(60), *range(80, 175))]
    return make_lake(tmp_path, rows, hot=[rest_candle(n) for n in range(175, 180)])


def read(store: LakeStore, wanted: Series, asked: WantedRange = NEWEST) -> ChartData:
    source = source_of(store, wanted)
    assert source is not None
    return read_chart(store, wanted, source, asked, NOW_MS)


def test_the_newest_candles_are_the_default(store: LakeStore) -> None:
    """Without a range the newest candles are read, also those in the journal."""
    data = read(store, BTC)
    assert (data.start_ms, data.stop_ms) == (BEGIN_MS + 130 * MINUTE_MS, BEGIN_MS + 180 * MINUTE_MS)
    assert len(data.candles) == 50
    assert data.candles.close[-1] == rest_candle(179).close
    assert data.change == pytest.approx(rest_candle(179).close / rest_candle(130).open - 1)


def test_longer_candles_are_made_of_shorter_ones(store: LakeStore) -> None:
    """If the lake lacks the interval, the longest one that divides it is read."""
    assert source_of(store, HOURS) == BTC
    assert source_of(store, HOURS._replace(symbol="ETHUSDT")) is None
    assert source_of(store, HOURS._replace(interval="1s")) is None
    assert source_of(store, HOURS._replace(interval="1mo")) == BTC
    data = read(store, HOURS)
    bars = data.bars(data.span_for(50))
    assert data.span_for(50).name == "1h"
    assert bars.begins.tolist() == [BEGIN_MS + n * HOUR_MS for n in range(3)]
    assert bars.open.tolist() == [rest_candle(n).open for n in (0, 80, 120)]
    assert bars.close.tolist() == [rest_candle(n).close for n in (59, 119, 179)]
    assert bars.high.tolist() == [rest_candle(n).high for n in (59, 119, 179)]
    assert bars.volume.tolist() == [120.0, 80.0, 120.0]


def test_gaps_have_their_reasons_and_the_range(store: LakeStore) -> None:
    """Gaps are clipped to the range, and totals have those without a reason first."""
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 60, 70, "exchange_halt")
    recorder.die()
    asked = WantedRange(BEGIN_MS + 65 * MINUTE_MS, BEGIN_MS + 100 * MINUTE_MS, None, 50)
    data = read(store, BTC, asked)
    assert [(gap.reason, gap.candles) for gap in data.gaps] == [("exchange_halt", 5), ("unexplained", 10)]
    assert data.gaps[0].start_ms == asked.since_ms
    totals = gap_totals(data.gaps)
    assert [(each.reason, each.has_reason, each.candles) for each in totals] == [
        ("unexplained", False, 10),
        ("exchange_halt", True, 5),
    ]
    begins = [BEGIN_MS + n * 10 * MINUTE_MS for n in range(6, 10)]
    assert buckets_of_gaps(data.gaps, begins, begins[-1] + 10 * MINUTE_MS) == {0: True, 1: False}


def test_until_expects_candles_up_to_then(store: LakeStore) -> None:
    """With an end after the last candle, the rest is a gap; without one it is no part of the chart."""
    LivingRecorder(store.root).die()
    asked = WantedRange(None, BEGIN_MS + 200 * MINUTE_MS, HOUR_MS, 50)
    data = read(store, BTC, asked)
    assert (data.start_ms, data.stop_ms) == (BEGIN_MS + 140 * MINUTE_MS, BEGIN_MS + 200 * MINUTE_MS)
    assert [(gap.candles, gap.has_reason) for gap in data.gaps] == [(20, False)]
    assert read(store, BTC, WantedRange(None, None, HOUR_MS, 50)).gaps == []


def test_a_range_before_the_first_candle_begins_with_it(store: LakeStore) -> None:
    """A start before the series' first candle leaves no empty part."""
    data = read(store, BTC, WantedRange(0, None, None, 50))
    assert data.start_ms == BEGIN_MS
    assert len(data.candles) == 160


def test_an_empty_range_says_what_there_is(store: LakeStore) -> None:
    """A range without candles is an error that names the first and the last one."""
    with pytest.raises(UsageError) as raised:
        read(store, BTC, WantedRange(BEGIN_MS + 4 * HOUR_MS, NOW_MS, None, 50))
    assert raised.value.what.startswith("chart: spot:BTCUSDT:1m has no candles from 2024-06-30 04:00 to ")
    assert raised.value.hint == "it has candles from 2024-06-30 00:00 to 2024-06-30 03:00"
    with pytest.raises(UsageError):
        read(store, BTC, WantedRange(None, BEGIN_MS - 1, HOUR_MS, 50))


def test_too_many_candles_are_an_error(tmp_path: Path) -> None:
    """A range of more candles than fit into memory says how many days fit."""
    far = bars_module.CANDLES_MAX + 10
    store = make_lake(tmp_path, [rest_candle(0, interval="1s"), rest_candle(far, interval="1s")])
    with pytest.raises(UsageError) as raised:
        read(store, BTC._replace(interval="1s"), WantedRange(0, None, None, 50))
    assert "there are 5,000,011 candles of 1s, and a chart reads 5,000,000 at most" in raised.value.what
    assert raised.value.hint == "--last 57d, or a longer interval"


@given(
    st.lists(st.integers(0, 20_000), min_size=1, max_size=60, unique=True),
    st.sampled_from([span for span in SPANS if span.months or span.length_ms >= HOUR_MS]),
)
def test_buckets_have_the_candles_that_begin_in_them(hours: list[int], span) -> None:
    """Each bucket has the first open, the last close, the extremes and the sum of its candles."""
    begins = np.array(sorted(hours), np.int64) * HOUR_MS + BEGIN_MS
    values = [np.sin(begins / (n + 3) / HOUR_MS) for n in range(4)]
    candles = Bars(
        begins, values[0], np.maximum.reduce(values), np.minimum.reduce(values), values[3], begins / 1e9
    )
    wanted: dict[int, list[int]] = {}
    for at, begin_ms in enumerate(begins):
        wanted.setdefault(span.floor(int(begin_ms)), []).append(at)
    bars = in_buckets(candles, span)
    assert bars.begins.tolist() == sorted(wanted)
    for number, members in enumerate(wanted.values()):
        assert bars.open[number] == candles.open[members[0]]
        assert bars.close[number] == candles.close[members[-1]]
        assert bars.high[number] == candles.high[members].max()
        assert bars.low[number] == candles.low[members].min()
        assert bars.volume[number] == pytest.approx(candles.volume[members].sum())
