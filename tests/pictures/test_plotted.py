"""Pictures in files: their format, size, colours, gaps and fonts."""

import io
import logging
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lakewriter.interval import DAY_MS
from lakewriter.lake.coverage.absences import series_absences
from lakewriter.lake.lake import LakeStore
from lakewriter.pictures.bars import ChartData, WantedRange, read_chart
from lakewriter.pictures.look import DARK, LIGHT, Look
from lakewriter.pictures.plotted_chart import bars_for, plot_chart
from lakewriter.pictures.plotted_heatmap import default_size, plot_heatmap
from lakewriter.series import Series
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap

pytest.importorskip("matplotlib", reason="needs matplotlib")
image = pytest.importorskip("PIL.Image")

BTC = Series("spot", "BTCUSDT", "1m")
LOOK = Look(800, 450)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Two hours; 20 minutes are absent with a reason and 10 without, after an hour."""
    root = tmp_path_factory.mktemp("plotted")
    store = make_lake(root, [rest_candle(n) for n in (*range(60), *range(90, 120))])
    recorder = LivingRecorder(root)
    mark_gap(recorder, 60, 80, "exchange_halt")
    recorder.die()
    return store


@pytest.fixture(scope="module")
def data(store: LakeStore) -> ChartData:
    return read_chart(store, BTC, BTC, WantedRange(0, None, None, 50), BEGIN_MS + DAY_MS)


def drawn(plot, format_name: str) -> bytes:
    out = io.BytesIO()
    plot(out, format_name)
    return out.getvalue()


def pixels(png: bytes):
    return np.asarray(image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_png_has_its_size_and_shades_gaps(data: ChartData) -> None:
    """The picture has the wanted size. In a gap the background is shaded, and no candle is drawn."""
    picture = pixels(drawn(plot_chart(data, LOOK), "png"))
    assert picture.shape == (450, 800, 3)
    assert (picture[0, 0] == 255).all()
    # The axis of times is from 24 to 716 pixels; gaps are from 60 to 90 of 120 minutes.
    column = {minute: picture[90:330, 24 + minute * 692 // 120] for minute in (33, 70, 85, 97)}
    white = {minute: (pixel.sum(axis=1) == 765).mean() for minute, pixel in column.items()}
    assert white[33] > 0.8 and white[97] > 0.8
    assert white[70] < 0.1 and white[85] < 0.1
    # The gap without a reason is orange: much less blue than red.
    assert np.median(column[85][:, 0] - column[85][:, 2]) > 20
    assert np.abs(column[70][:, 0] - column[70][:, 2]).max() < 20


def test_an_svg_names_its_parts(data: ChartData) -> None:
    """Each gap of an SVG has its reason as id; texts stay texts; the same data makes the same bytes."""
    first, second = (drawn(plot_chart(data, LOOK), "svg") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    ids = {each.get("id", "") for each in root.iter()}
    assert {"gap-exchange_halt-prices-0", "gap-unexplained-prices-0", "gap-exchange_halt-volume-0"} <= ids
    assert {"wicks-up", "bodies-up", "volume-up"} <= ids and "bodies-down" not in ids
    texts = "".join(root.itertext())
    for text in ("spot BTCUSDT 1m", "20 missing: exchange_halt", "10 missing: unexplained", "220"):
        assert text in texts
    assert root.get("viewBox") == "0 0 576 324"  # points; 72 of them are 100 pixels


def test_the_dark_is_dark(data: ChartData) -> None:
    """With a dark look the background is dark, and the text is light."""
    picture = pixels(drawn(plot_chart(data, LOOK._replace(dark=True)), "png"))
    assert "#{:02x}{:02x}{:02x}".format(*picture[0, 0]) == DARK.background
    assert picture[20:40, 24:200].max() > 220
    assert LIGHT.background == "#ffffff"


@pytest.mark.parametrize(("width", "height"), [(200, 200), (320, 240), (3_000, 300)])
def test_small_and_wide_pictures_can_be_drawn(data: ChartData, width: int, height: int) -> None:
    """The smallest pictures and very wide ones have their size, and candles in them."""
    picture = pixels(drawn(plot_chart(data, Look(width, height)), "png"))
    assert picture.shape == (height, width, 3)
    assert ((picture[..., 2] - picture[..., 0]) > 100).sum() > 50, "blue candles"


def test_a_short_gap_can_be_seen(tmp_path: Path) -> None:
    """One missing candle of thousands is at least a pixel wide."""
    store = make_lake(tmp_path, [rest_candle(n) for n in range(6_000) if n != 3_000])
    data = read_chart(store, BTC, BTC, WantedRange(0, None, None, 50), BEGIN_MS + 10 * DAY_MS)
    picture = pixels(drawn(plot_chart(data, LOOK), "png"))
    orange = ((picture[90:330, :, 0] - picture[90:330, :, 2]) > 15).mean(axis=0) > 0.8
    assert 1 <= orange.sum() <= 4
    assert len(data.bars(data.span_for(bars_for(LOOK)))) <= bars_for(LOOK)


def test_a_heat_map_has_a_row_for_each_series(store: LakeStore) -> None:
    """The picture has the wanted size; a bin with an unexplained gap is orange, the others blue."""
    found = list(series_absences(store))
    look = Look(*default_size(len(found)))
    picture = pixels(drawn(plot_heatmap(found, look), "png"))
    assert picture.shape == (look.height, look.width, 3)
    row = picture[90]
    assert (row[400, 2] - row[400, 0]) > 100
    orange = row[:, 0] - row[:, 2] > 60
    assert 10 < orange.sum() < look.width / 2
    texts = "".join(ElementTree.fromstring(drawn(plot_heatmap(found, look), "svg")).itertext())
    for text in ("coverage", "spot BTCUSDT 1m", "75.00 %", "complete", "a cell is 5m"):
        assert text in texts


def test_a_symbol_without_a_font_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A Chinese symbol is drawn, or the log says that no font has it; it is never an error."""
    from matplotlib import font_manager

    store = make_lake(tmp_path, [rest_candle(n, symbol="币安人生USDT") for n in range(5)])
    chinese = BTC._replace(symbol="币安人生USDT")
    data = read_chart(store, chinese, chinese, WantedRange(0, None, None, 50), BEGIN_MS + DAY_MS)
    with caplog.at_level(logging.WARNING):
        assert drawn(plot_chart(data, LOOK), "png").startswith(b"\x89PNG")
    has_font = any(
        "CJK" in font.name or "WenQuanYi" in font.name for font in font_manager.fontManager.ttflist
    )
    assert has_font or "no font of this machine has 人" in caplog.text
