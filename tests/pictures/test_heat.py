"""Heat maps count as `lakewriter coverage` does, and say it without colours too."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS
from lakewriter.lake.coverage.absences import AbsentCandles, SeriesAbsences, series_absences
from lakewriter.lake.coverage.days import series_coverage
from lakewriter.lake.lake import LakeStore
from lakewriter.pictures.canvas import Screen, cell_width, plain
from lakewriter.pictures.heat import COMPLETE, NEVER, heat_map, level_of
from lakewriter.pictures.terminal_heatmap import heatmap_lines
from lakewriter.series import Series
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.lengths import either
from support.living_recorder import LivingRecorder, mark_gap


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Two hours of two symbols, hours apart, and two days of hours; BTCUSDT misses ten minutes."""
    rows = [rest_candle(n) for n in range(120) if not 50 <= n < 60]
    rows += [rest_candle(n, symbol="ETHUSDT") for n in range(600, 720)]
    rows += [rest_candle(n, market="usdt_futures", interval="1h") for n in range(48)]
    store = make_lake(tmp_path, rows)
    recorder = LivingRecorder(tmp_path)
    mark_gap(recorder, 50, 55, "exchange_halt")
    recorder.die()
    return store


def test_rows_count_as_coverage_does(store: LakeStore) -> None:
    """The totals of a row are the sums of its days."""
    heat = heat_map(list(series_absences(store)), 48)
    assert heat.span.name == "1h"
    for row, days in zip(heat.rows, series_coverage(store), strict=True):
        assert row.series == days.series
        assert row.expected == sum(day.expected for day in days.days)
        assert row.missing == sum(day.missing for day in days.days)
        assert row.without_reason == sum(day.without_reason for day in days.days)


def test_bins_have_levels(store: LakeStore) -> None:
    """A bin has the share of its candles; a bin outside of the series' range has none."""
    btc, eth, _hours = heat_map(list(series_absences(store)), 48).rows
    assert btc.levels == [2, COMPLETE] + [NEVER] * 46
    assert btc.open_bins == [True] + [False] * 47
    assert eth.levels == [NEVER] * 10 + [COMPLETE] * 2 + [NEVER] * 36
    assert btc.percent == 91.66
    assert eth.percent == 100.0


def test_a_candle_longer_than_a_bin_fills_its_bins(store: LakeStore) -> None:
    """A bin in which no candle begins has the level of the candle that contains it."""
    hours = [each for each in series_absences(store) if each.series.interval == "1h"]
    heat = heat_map(hours, 200)
    assert heat.span.name == "15m"
    assert heat.rows[0].levels == [COMPLETE] * 192
    assert heat.rows[0].expected == 48


def test_the_text_says_it_without_colours(store: LakeStore) -> None:
    """Each series is a line below its market; without colours an unexplained bin is an exclamation mark."""
    lines = [plain(line) for line in heatmap_lines(list(series_absences(store)), Screen(90, 24), None)]
    assert lines[:2] == ["coverage", "2024-06-30 00:00 – 2024-07-02 00:00 UTC · a column is 1h"]
    assert lines[3] == "spot"
    assert lines[4] == " BTCUSDT 1m  !█" + "·" * 46 + "    91.66          5"
    assert lines[5] == " ETHUSDT 1m  " + "·" * 10 + "██" + "·" * 36 + "   100.00"
    assert lines[6:8] == ["usdt_futures", " BTCUSDT 1h  " + "█" * 48 + "   100.00"]
    assert lines[8].split() == ["06-30", "12:00", "07-01", "12:00"]
    assert " ".join(lines[-2:]).endswith("· never recorded ! missing without a reason")
    text = [plain(line) for line in heatmap_lines(list(series_absences(store)), Screen(90, 24, ascii_only=True), None)]  # fmt: skip
    assert all(line.isascii() for line in text)
    assert text[4].startswith(" BTCUSDT 1m  !#~~~")


def test_the_roles_say_it_with_colours(store: LakeStore) -> None:
    """With colours a bin keeps the height of its level, and its role says whether it is explained."""
    lines = heatmap_lines(list(series_absences(store)), Screen(90, 24, colours=True), None)
    btc = [(cells.text, cells.role) for cells in lines[4][1:4]]
    assert btc == [("▃", "open 2"), ("█", "level 6"), ("·", "never")]


def test_only_the_worst_are_shown(store: LakeStore) -> None:
    """With a limit of rows, the series that miss most stay, and the title says so."""
    lines = [plain(line) for line in heatmap_lines(list(series_absences(store)), Screen(80, 24), 1)]
    assert "the 1 of 3 series that miss most" in lines[2]
    assert [line for line in lines if line.startswith(" ")][1].startswith(" BTCUSDT 1m")
    assert not any("ETHUSDT" in line for line in lines)


@pytest.mark.parametrize(
    ("expected", "missing", "level"),
    [
        (0, 0, NEVER), (10, 10, 0), (10, 9, 1), (10, 5, 2), (10, 1, 3), (100, 1, 4), (1_000, 1, 5),
        (1_000_000, 1, 5), (1_000_000, 0, COMPLETE), (1_000_000, 999_999, 1),
    ],
)  # fmt: skip
def test_levels(expected: int, missing: int, level: int) -> None:
    """Only a bin without any missing candle is complete, and only one without any candle is empty."""
    assert level_of(expected, missing) == level


RUNS = st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 500), st.booleans()), max_size=5)


@settings(max_examples=either(30, 200), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 5_000), RUNS), min_size=1, max_size=6),
    st.integers(40, 160),
)
def test_any_map_fits_its_screen(drawn: list, columns: int) -> None:
    """No line is wider than the screen, every series has a line, and each bin has a level."""
    found = []
    for number, (first, length, runs) in enumerate(drawn):
        series = Series("spot", f"币{number}USDT", "1m")
        start_ms, taken, absent = BEGIN_MS + first * HOUR_MS, 0, []
        for offset, count, has_reason in sorted(runs):
            low = max(offset, taken)
            taken = low + count
            absent.append(
                AbsentCandles(
                    series,
                    start_ms + low * MINUTE_MS,
                    start_ms + taken * MINUTE_MS,
                    count,
                    "pending",
                    has_reason,
                )
            )
        found.append(SeriesAbsences(series, INTERVALS["1m"], start_ms, start_ms + length * MINUTE_MS, absent))
    lines = [plain(line) for line in heatmap_lines(found, Screen(columns, 24), None)]
    assert max(map(cell_width, lines)) <= columns
    assert sum("USDT 1m" in line for line in lines) == len(found)
    heat = heat_map(found, 30)
    assert len(heat.begins) <= 30
    for row in heat.rows:
        assert len(row.levels) == len(heat.begins)
        assert row.without_reason <= row.missing <= row.expected
        assert (COMPLETE in row.levels) or row.missing


def test_a_year_has_bins_of_days() -> None:
    """A year in 60 columns has bins of a week or longer, which begin on Monday."""
    series = Series("spot", "BTCUSDT", "1d")
    found = [SeriesAbsences(series, INTERVALS["1d"], BEGIN_MS, BEGIN_MS + 365 * DAY_MS, [])]
    heat = heat_map(found, 60)
    assert heat.span.name == "1w"
    assert len(heat.begins) == 53
    assert heat.rows[0].levels == [COMPLETE] * 53
