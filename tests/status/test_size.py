"""The size of a lake: exact if it is small, estimated if it is large, and its growth."""

from datetime import date
from pathlib import Path

import pytest

from lakewriter.interval import DAY_MS, HOUR_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import Partition, day_start_ms
from lakewriter.series import Series
from lakewriter.status.size import FOOTERS_MAX, growth_a_day, measure_size
from support.candles import stream_candle
from support.lakes import make_lake, rest_candle, write_foreign
from support.truth_lakes import BTC, MONDAY_MS, truth_lake

TODAY = date(2026, 11, 30)
NOON_MS = day_start_ms(TODAY) + 12 * HOUR_MS


def day(number: int, interval: str = "1m") -> Partition:
    return Partition("spot", "BTCUSDT", interval, date(2026, 11, number))


@pytest.mark.parametrize(
    ("newest", "since_ms", "expected"),
    [
        pytest.param([(day(29), [1000]), (day(30), [500])], None, 1000, id="yesterday was whole"),
        pytest.param([(day(29), [10]), (day(30), [500])], None, 1000, id="began late yesterday"),
        pytest.param([(day(29), [1000])], None, 1000, id="nothing flushed today"),
        pytest.param([(day(28), [1000])], None, 0, id="ended two days ago"),
        pytest.param([(day(30), [500])], None, 1000, id="first day"),
        pytest.param([(day(30), [500])], NOON_MS - 3 * HOUR_MS, 4000, id="began three hours ago"),
        pytest.param([(day(30), [500])], NOON_MS, 12_000, id="began this moment"),
        pytest.param([], None, 0, id="no file"),
        pytest.param([(day(1, "1h"), [29_500])], None, 1000, id="a month's file"),
        pytest.param([(day(29), [400, 600])], None, 1000, id="with a foreign file"),
    ],
)
def test_growth_follows_the_newest_periods(
    newest: list[tuple[Partition, list[int]]], since_ms: int | None, expected: float
) -> None:
    """The growth is the larger rate of the present and the previous period."""
    assert growth_a_day(newest, NOON_MS, since_ms) == pytest.approx(expected)


def test_growth_right_after_midnight_is_that_of_yesterday() -> None:
    """A minute after midnight, a first file of today does not look like a gigabyte a day."""
    newest = [(day(29), [1000]), (day(30), [900])]
    assert growth_a_day(newest, day_start_ms(TODAY) + 60_000, None) == 1000


def test_a_small_lake_is_counted(tmp_path: Path) -> None:
    """Files, bytes and rows of a small lake are exact."""
    store = make_lake(
        tmp_path,
        [*map(stream_candle, range(0, 3000, 7)), *(rest_candle(n, interval="1h") for n in range(50))],
    )
    size = measure_size(store, NOON_MS)
    paths = list(tmp_path.glob("market=*/**/candles.parquet"))
    assert (size.series, size.partitions, size.files) == (2, len(paths), len(paths))
    assert size.file_bytes == sum(path.stat().st_size for path in paths)
    assert (size.rows, size.rows_are_estimated, size.is_estimated) == (429 + 50, False, False)


def test_foreign_files_are_estimated(tmp_path: Path) -> None:
    """A file of another program counts by its bytes, so the rows are an estimate."""
    store = make_lake(tmp_path, map(stream_candle, range(500)))
    write_foreign(store, "part-0.parquet", map(stream_candle, range(500, 1000)))
    size = measure_size(store, NOON_MS)
    assert (size.partitions, size.files) == (1, 2)
    assert size.rows_are_estimated


def test_an_unreadable_file_does_not_stop_the_status(tmp_path: Path) -> None:
    """A broken file counts with its bytes."""
    store = make_lake(tmp_path, map(stream_candle, range(3000)))
    broken = next(tmp_path.rglob("candles.parquet"))
    broken.write_bytes(b"PAR1 torn")
    size = measure_size(store, NOON_MS)
    assert size.rows_are_estimated
    assert size.files == 3


def test_an_empty_lake_has_no_size(tmp_path: Path) -> None:
    """A lake without candles has zeros."""
    size = measure_size(LakeStore.create(str(tmp_path), "test"), NOON_MS)
    assert (size.series, size.files, size.file_bytes, size.rows, size.growth_bytes_a_day) == (0, 0, 0, 0, 0)
    assert not size.rows_are_estimated


@pytest.mark.slow
def test_a_large_lake_is_estimated_within_some_percent(tmp_path: Path) -> None:
    """Sizing one partition of several, the bytes and rows differ little from the true ones."""
    store = truth_lake(tmp_path, [(BTC, 30), (Series("spot", "ETHUSDT", "5m"), 40)])
    exact = measure_size(store, MONDAY_MS + 40 * DAY_MS)
    assert (exact.partitions, exact.is_estimated) == (70, False)
    assert exact.rows == 30 * 1440 + 40 * 288
    assert not exact.rows_are_estimated
    some = measure_size(store, MONDAY_MS + 40 * DAY_MS, sized_max=20)
    assert (some.partitions, some.series, some.is_estimated, some.rows_are_estimated) == (70, 2, True, True)
    assert some.files == 70
    assert some.file_bytes == pytest.approx(exact.file_bytes, rel=0.05)
    assert some.rows == pytest.approx(exact.rows, rel=0.05)
    assert some.growth_bytes_a_day == exact.growth_bytes_a_day > 0
    assert FOOTERS_MAX > 40
