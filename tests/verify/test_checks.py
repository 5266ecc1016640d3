"""The single checks: the grid, the compared candles, and price jumps."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import UNKNOWN
from lakewriter.candle_arrays import OPTIONAL, Columns, columns_of, concatenated, ends, floors
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS
from lakewriter.partition import partition_at
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.verify.aggregates import compare_intervals, sources_of
from lakewriter.verify.checks import check_candles, check_rows, is_on_grid
from lakewriter.verify.findings import CHECKS, LOCAL_CHECKS, Defect, VerifyReport, file_defect
from lakewriter.verify.price_jumps import DEVIATIONS, RETURNS_MIN, find_jumps
from support.truth_lakes import BTC, MONDAY_MS, edited, truth_table

MINUTE = INTERVALS["1m"]
times = st.lists(st.integers(0, 2 * 10**12), min_size=1, max_size=20)


@given(st.sampled_from(list(INTERVALS.values())), times)
def test_grids_of_many_times(grid, moments):
    """The grid of an array of times equals that of each time."""
    array = np.array(moments, np.int64)
    begins = floors(grid, array)
    assert begins.tolist() == [grid.floor(moment) for moment in moments]
    assert ends(grid, begins).tolist() == [grid.end(begin) for begin in begins.tolist()]


@pytest.mark.parametrize(
    ("interval", "first", "last"),
    [
        ("1mo", "1d", "1d"),
        ("1w", "1d", "1d"),
        ("3d", "1d", "1d"),
        ("1d", "1m", "1s"),
        ("8h", "1m", "1s"),
        ("1h", "1m", "1s"),
        ("5m", "1m", "1s"),
        ("1m", "1s", "1s"),
    ],
)
def test_sources(interval, first, last):
    """Minutes are the best source and seconds the last; weeks and months are made of days only."""
    assert (sources_of(interval)[0], sources_of(interval)[-1]) == (first, last)


def test_every_source_divides_its_interval():
    """A source's candles fill the longer candle exactly."""
    assert sources_of("1s") == []
    assert sources_of("8h") == ["1m", "4h", "2h", "1h", "30m", "15m", "5m", "3m", "1s"]
    assert "3m" not in sources_of("5m")


@given(st.sampled_from(["3m", "15m", "1h", "4h"]), st.sets(st.integers(0, 479)), st.integers(0, 2**32))
def test_intervals_are_compared_where_they_are_whole(interval, absent, seed):
    """With any minutes absent the truth has no finding, and only complete longer candles are compared."""
    truth, grid = Truth(seed), INTERVALS[interval]
    stop_ms = MONDAY_MS + 480 * MINUTE_MS
    minutes = columns_of(truth_table(truth, BTC, MONDAY_MS, stop_ms))
    there = np.ones(480, np.bool_)
    there[list(absent)] = False
    longer = columns_of(truth_table(truth, BTC._replace(interval=interval), MONDAY_MS, stop_ms))
    compared = compare_intervals(grid, longer, "1m", minutes.where(there))
    assert compared.defects == []
    assert compared.compared == there.reshape(-1, grid.length_ms // MINUTE_MS).all(axis=1).sum()


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("shorter_lacks_it", [False, True])
def test_unknown_values_are_not_compared(name, shorter_lacks_it):
    """If the longer candle or a shorter one lacks a value, that column is not compared; others are."""
    minutes = columns_of(truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + 2 * HOUR_MS))
    hours = columns_of(truth_table(Truth(), BTC._replace(interval="1h"), MONDAY_MS, MONDAY_MS + 2 * HOUR_MS))
    lacking = minutes if shorter_lacks_it else hours
    unknown, values = lacking.unknown.copy(), getattr(lacking, name).copy()
    unknown[1, OPTIONAL.index(name)] = True
    values[1] = UNKNOWN if name == "trade_num" else np.nan
    lacking = lacking._replace(unknown=unknown, **{name: values})
    minutes, hours = (lacking, hours) if shorter_lacks_it else (minutes, lacking)
    assert compare_intervals(INTERVALS["1h"], hours, "1m", minutes).defects == []
    wrong = compare_intervals(INTERVALS["1h"], hours._replace(volume=hours.volume + 1), "1m", minutes)
    assert [flaw.begins.tolist() for flaw in wrong.defects] == [hours.begin.tolist()]


def walk(count: int, step: float = 1e-3, seed: int = 0) -> Columns:
    """Return candles that each open at the previous close."""
    random = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(random.normal(0, step, count)))
    opens = np.append(100.0, closes[:-1])
    begins = MONDAY_MS + np.arange(count) * MINUTE_MS
    ones = np.ones(count)
    return Columns(
        begins, opens, closes, closes, closes, ones, ones, begins, ones, ones, np.zeros((count, 4), np.bool_)
    )


@pytest.mark.parametrize(("off", "jumps"), [(0.5, 0), (0.9, 0), (1.1, 1), (3.0, 1)])
def test_a_jump_is_so_many_deviations(off, jumps):
    """A jump is a return of at least K deviations of all returns."""
    candles = walk(2000)
    returns = np.diff(np.log(candles.close))
    scale = 1.4826 * np.median(np.abs(returns - np.median(returns)))
    opens = candles.open.copy()
    opens[1000] *= np.exp(off * DEVIATIONS * scale)
    found = find_jumps(MINUTE, None, candles._replace(open=opens), DEVIATIONS)
    assert found.compared == 1999
    assert sum(len(flaw.begins) for flaw in found.defects) == jumps
    if jumps:
        assert found.defects[0].begins.tolist() == [MONDAY_MS + 1000 * MINUTE_MS]
        assert "from the close before" in found.defects[0].describe(0)


def test_days_on_which_nothing_moves_have_a_scale():
    """If most returns are 0, the others set the scale, and equal steps are no jumps."""
    candles = walk(2000, step=5e-3)
    moves = np.arange(2000) % 40 == 0
    closes = candles.close[(np.cumsum(moves) - 1) * 40]
    quiet = candles._replace(close=closes, open=np.append(100.0, closes[:-1]))
    assert find_jumps(MINUTE, None, quiet, DEVIATIONS).defects == []
    stepped = quiet._replace(open=closes)  # opens at once where it will close
    assert find_jumps(MINUTE, None, stepped, DEVIATIONS).defects == []


def test_ticks_are_no_jumps():
    """A price that moves by single coarse ticks has no jump."""
    closes = np.where(np.arange(2000) % 50 < 25, 1e-8 * 500, 1e-8 * 501)
    candles = walk(2000)._replace(close=closes, open=np.append(closes[:1], closes[:-1]) + 1e-8)
    assert find_jumps(MINUTE, None, candles, 1.5).defects == []


def test_too_few_returns_tell_nothing():
    """A series of a few candles is not checked for jumps, and its count is zero."""
    assert find_jumps(MINUTE, None, walk(RETURNS_MIN), DEVIATIONS).compared == 0
    assert find_jumps(MINUTE, None, walk(RETURNS_MIN + 1), DEVIATIONS).compared == RETURNS_MIN


def test_prices_that_are_none_have_no_logarithm():
    """NaN and prices of 0 or less are other checks' findings, and their steps are skipped."""
    candles = walk(100)
    for bad in (np.nan, 0.0, -1.0, np.inf):
        closes = candles.close.copy()
        closes[50] = bad
        found = find_jumps(MINUTE, None, candles._replace(close=closes), DEVIATIONS)
        assert (found.compared, found.defects) == (97, [])


def test_a_window_goes_on_where_the_last_one_ended():
    """The step between two windows is checked once."""
    candles = walk(400)
    first, second = candles.where(slice(0, 200)), candles.where(slice(200, None))
    second = second._replace(open=np.append(200.0, second.open[1:]))
    assert find_jumps(MINUTE, None, second, DEVIATIONS).defects == []
    found = find_jumps(MINUTE, first.where(slice(-1, None)), second, DEVIATIONS)
    assert found.compared == 200
    assert found.defects[0].begins.tolist() == [int(second.begin[0])]
    assert concatenated([first, second]).begin.tolist() == candles.begin.tolist()


def test_only_rows_in_their_place_are_looked_at():
    """Rows of another day or off the grid are findings of the file, and other checks skip them."""
    partition = partition_at(BTC, MONDAY_MS)
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + DAY_MS).slice(0, 4)
    rows = edited(rows, 1, candle_begin_time=MONDAY_MS + 61_000)
    rows = edited(
        rows, 3, candle_begin_time=MONDAY_MS + DAY_MS, candle_end_time=MONDAY_MS + DAY_MS + MINUTE_MS
    )
    assert {flaw.kind for flaw in check_rows(partition, MINUTE, rows)} == {"grid", "day"}
    assert is_on_grid(partition, MINUTE, columns_of(rows).begin).tolist() == [True, False, True, False]


def test_words_name_the_values():
    """A finding's text has the columns and their values."""
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + MINUTE_MS)
    rows = edited(
        rows, 0, open=10.0, high=11.0, low=10.5, close=10.75, taker_buy_base_asset_volume=1e9, volume=1.0
    )
    said = {flaw.kind: flaw.describe(0) for flaw in check_candles(columns_of(rows), "spot")}
    assert said == {
        "low": "low is above open: open 10.0, high 11.0, low 10.5, close 10.75",
        "taker": "a part above its whole: taker_buy_base_asset_volume 1000000000.0, volume 1.0",
    }


def test_the_end_is_told_as_a_time():
    """A wrong end time is written as a time, with the right one."""
    partition = partition_at(BTC, MONDAY_MS)
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + MINUTE_MS)
    for end, said in ((MONDAY_MS + 59_999, "2024-06-03 00:00:59.999"), (None, "nowhere")):
        (flaw,) = check_rows(partition, MINUTE, edited(rows, 0, candle_end_time=end))
        assert flaw.describe(0) == f"its end is {said}, not 2024-06-03 00:01:00"


def test_a_report_keeps_some_of_each_check():
    """Many findings of one check do not displace those of another."""
    report = VerifyReport(2)
    many = Defect("candle", "low", np.arange(10) * MINUTE_MS, lambda at: f"number {at}")
    report.add(BTC, [many, many, file_defect(0, "foreign", "x")])
    assert [finding.what for finding in report.findings] == ["number 0", "number 1", "x"]
    assert (report.total, report.counts_of(BTC, "candle").findings) == (21, 20)
    assert set(LOCAL_CHECKS) | {"against"} == set(CHECKS)


def test_no_rows_have_no_defects():
    """An empty file has no defect."""
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS)
    assert isinstance(rows, pa.Table)
    assert check_rows(partition_at(BTC, MONDAY_MS), MINUTE, rows) == []
    assert check_candles(columns_of(rows), "spot") == []
    assert compare_intervals(INTERVALS["1h"], columns_of(rows), "1m", columns_of(rows)).compared == 0
