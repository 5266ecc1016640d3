"""Real files of the public archive, imported: the lake equals them row by row."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

import pytest

from lakewriter.interval import INTERVALS
from support.running import CAPTURES, KEY_AND_VALUES, plain_rows, run

MARKETS = {"spot": "spot", "um": "usdt_futures", "cm": "coin_futures"}
FILES = sorted(
    path for path in (CAPTURES / "archive").glob("*/*-*.*") if path.suffix in (".csv", ".gz", ".zip")
)

pytestmark = [
    pytest.mark.captures,
    pytest.mark.skipif(not CAPTURES.is_dir(), reason="no recorded exchange files here"),
]


def text_of(path: Path) -> str:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read(archive.namelist()[0]).decode()
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def rows_of(path: Path) -> list[tuple[object, ...]]:
    """Return a file's rows as expected in the lake, with numbers that Python reads."""
    symbol, interval = path.name.split("-")[:2]
    key = (MARKETS[path.parent.name], symbol, interval)
    rows = []
    for row in csv.reader(io.StringIO(text_of(path))):
        if row[0] == "open_time":
            continue
        begin_ms = int(row[0]) // (1000 if len(row[0]) == 16 else 1)
        prices, volumes = map(float, row[1:6]), (float(row[7]), int(row[8]), float(row[9]), float(row[10]))
        rows.append((*key, begin_ms, begin_ms + INTERVALS[interval].length_ms, *prices, *volumes))
    return rows


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_real_file_is_imported_row_by_row(path: Path, tmp_path: Path) -> None:
    """Each row is in the lake once, with the doubles of `float(text)` and the source archive."""
    lake = tmp_path / "lake"
    done = run("import", "--market", MARKETS[path.parent.name], str(path), "--lake", str(lake))
    assert done.returncode == 0, done.stderr
    truth = rows_of(path)
    assert plain_rows(lake) == [row[:4] for row in truth]
    assert plain_rows(lake, KEY_AND_VALUES) == truth
    said = {(event, source) for event, source in plain_rows(lake, "event_time, source")}
    assert said == {(None, "archive")}


@pytest.mark.slow
def test_all_real_files_of_a_tree_at_once(tmp_path: Path) -> None:
    """A directory laid out like the archive imports without any claim, and a second time without a change."""
    for path in FILES:
        tree = {"spot": "spot", "um": "futures/um", "cm": "futures/cm"}[path.parent.name]
        place = tmp_path / "data" / tree / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    lake = tmp_path / "lake"
    rows = sorted(row for path in FILES for row in rows_of(path))
    for added in (len(rows), 0):
        done = run("import", str(tmp_path / "data"), "--lake", str(lake))
        assert done.returncode == 0, done.stderr
        assert f"{len(rows):,} candles: {added:,} added, 0 replaced" in done.stdout
    assert plain_rows(lake, KEY_AND_VALUES) == rows
