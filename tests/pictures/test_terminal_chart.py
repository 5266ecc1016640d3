"""Charts as text have known shapes, and fit their screen."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.pictures.bars import ChartData, WantedRange, read_chart
from lakewriter.pictures.canvas import Screen, cell_width, plain
from lakewriter.pictures.terminal_chart import COLUMNS_MIN, LINES_MIN, chart_lines
from lakewriter.series import Series
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap

BTC = Series("spot", "BTCUSDT", "1m")


def candle(number: int, open_: float, high: float, low: float, close: float, volume: float = 8.0) -> Candle:
    return rest_candle(number, open=open_, high=high, low=low, close=close, volume=volume)


def data_of(store: LakeStore, minutes: int = 500) -> ChartData:
    asked = WantedRange(None, None, minutes * MINUTE_MS, 50)
    return read_chart(store, BTC, BTC, asked, BEGIN_MS + DAY_MS)


def text_of(store: LakeStore, screen: Screen, minutes: int = 500) -> list[str]:
    return [plain(line) for line in chart_lines(data_of(store, minutes), screen)]


@pytest.fixture
def shapes(tmp_path: Path) -> LakeStore:
    """A rise, a fall, a doji, two missing candles, and a rise without wicks."""
    rows = [
        candle(0, 100, 108, 100, 106),
        candle(1, 106, 108, 100, 102, volume=4.0),
        candle(2, 104, 108, 100, 104, volume=1.0),
        candle(5, 100, 108, 100, 108),
    ]
    store = make_lake(tmp_path, rows)
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 3, 4, "exchange_halt")
    recorder.die()
    return store


def test_shapes_without_colours(shapes: LakeStore) -> None:
    """Rising bodies are lines and falling ones blocks; gaps with and without a reason differ."""
    assert text_of(shapes, Screen(40, 15)) == [
        "spot BTCUSDT 1m  108  ▲ +8.00 %",
        "2024-06-30 00:00 – 2024-06-30 00:06 UTC",
        "4 candles",
        " │   │   │  ░░░░▒▒▒▒ ┃  ◂ 108",
        " ╽   ▄   │  ░░░░▒▒▒▒ ┃",
        " ┃   █   │  ░░░░▒▒▒▒ ┃",
        " ┃   █   ╿  ░░░░▒▒▒▒ ┃",
        " ┃   █   │  ░░░░▒▒▒▒ ┃",
        " ┃   ▀   │  ░░░░▒▒▒▒ ┃",
        " ┃   │   │  ░░░░▒▒▒▒ ┃  ┤ 100",
        " █   ▄   ▁           █  ┤ 8",
        "─┬──────────░░░░▒▒▒▒────",
        "06-30      00:03",
        "┃ up  █ down  ▒ 1 missing: unexplained",
        "░ 1 missing: exchange_halt",
    ]


def test_ascii_has_ascii_only(shapes: LakeStore) -> None:
    """A chart for a terminal without Unicode has the same shapes in ASCII."""
    lines = text_of(shapes, Screen(60, 16, ascii_only=True))
    assert all(line.isascii() for line in lines)
    assert lines[0] == "spot BTCUSDT 1m  108  up +8.00 %"
    assert " O   #   O  ::::???? O" in lines
    assert lines[-2:] == ["O up  # down  ? 1 missing: unexplained", ": 1 missing: exchange_halt"]


def test_colours_say_the_direction(shapes: LakeStore) -> None:
    """With colours each candle has the role of its direction, and the legend needs no shapes."""
    lines = chart_lines(data_of(shapes), Screen(60, 16, colours=True))
    roles = {cells.role for line in lines for cells in line}
    assert {"up", "down", "gap", "open gap", "dim", "title"} <= roles
    assert not plain(lines[-1]).startswith("┃ up")
    assert "█" not in "".join(plain(line) for line in lines[2:6])


def test_many_candles_are_drawn_in_longer_bars(tmp_path: Path) -> None:
    """More candles than columns are joined, and the title names the bar; a partial gap is on the axis."""
    store = make_lake(tmp_path, [rest_candle(n) for n in range(500) if n != 250])
    lines = text_of(store, Screen(80, 24))
    assert "in bars of 10m" in lines[1]
    assert "499 candles" in lines[1]
    axis = lines.index(next(line for line in lines if line.startswith("┬─")))
    assert lines[axis].count("▒") == 1 and lines[axis].index("▒") == 25
    assert "▒" not in "".join(lines[:axis])


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 300), st.booleans())
def test_a_chart_fits_its_screen(columns: int, rows: int, candles: int, ascii_only: bool) -> None:
    """No chart has more lines or columns than its screen, from the smallest useful size on."""
    data = DATA_OF_SIZE.setdefault(candles, _synthetic(candles))
    lines = [plain(line) for line in chart_lines(data, Screen(columns, rows, ascii_only=ascii_only))]
    assert max(map(cell_width, lines)) <= max(columns, COLUMNS_MIN)
    assert len(lines) <= max(rows, LINES_MIN)


DATA_OF_SIZE: dict[int, ChartData] = {}


def _synthetic(candles: int) -> ChartData:
    import numpy as np

    from lakewriter.pictures.bars import Bars

    begins = BEGIN_MS + np.arange(candles, dtype=np.int64) * MINUTE_MS
    middle = 81_000 + 500 * np.sin(np.arange(candles) / 7)
    bars = Bars(begins, middle, middle + 9, middle - 9, middle + np.cos(np.arange(candles)), middle * 0 + 3)
    return ChartData(BTC, BTC, BEGIN_MS, BEGIN_MS + candles * MINUTE_MS, bars, [])


def test_flat_prices_and_no_volume_have_a_chart(tmp_path: Path) -> None:
    """Candles that never move and never trade are drawn."""
    store = make_lake(tmp_path, [candle(n, 5, 5, 5, 5, volume=0.0) for n in range(10)])
    lines = text_of(store, Screen(60, 20))
    assert any("◂ 5" in line for line in lines)
