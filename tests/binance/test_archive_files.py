"""The names of the archive's files: they are the exchange's, and determine the candles in each file."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.archive_files import (
    DAILY_INTERVALS,
    ArchiveFile,
    Period,
    csv_bytes_max_of,
    parse_name,
)
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.series import Series


def test_a_daily_file() -> None:
    """A daily file is named by its day, and has the candles that begin on it."""
    file = ArchiveFile(Series("spot", "BTCUSDT", "1m"), "daily", date(2020, 1, 2))
    assert file.path == "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-02.zip"
    assert (file.start_ms, file.stop_ms) == (1_577_923_200_000, 1_577_923_200_000 + DAY_MS)


def test_a_monthly_file_of_a_futures_market() -> None:
    """A monthly file's name has its month; the interval of a month is spelled as on disk."""
    file = ArchiveFile(Series("coin_futures", "BTCUSD_PERP", "1mo"), "monthly", date(2024, 2, 1))
    assert file.path == "/data/futures/cm/monthly/klines/BTCUSD_PERP/1mo/BTCUSD_PERP-1mo-2024-02.zip"
    assert file.stop_ms - file.start_ms == 29 * DAY_MS


def test_long_candles_have_no_daily_files() -> None:
    """Candles longer than a day are in monthly files only."""
    assert "1d" in DAILY_INTERVALS
    assert not {"3d", "1w", "1mo"} & set(DAILY_INTERVALS)


@pytest.mark.parametrize("period", ["daily", "monthly"])
@pytest.mark.parametrize("interval", DAILY_INTERVALS)
def test_the_bound_of_a_file_follows_from_its_candles(interval: str, period: Period) -> None:
    """A file of the longest possible rows is within its limit, one with ten times as many rows is not."""
    file = ArchiveFile(Series("spot", "BTCUSDT", interval), period, date(2024, 1, 1))
    rows = INTERVALS[interval].count(file.start_ms, file.stop_ms)
    assert rows * 12 * 21 + 200 < file.csv_bytes_max < file.zip_bytes_max
    assert file.csv_bytes_max < max(rows, 64) * 600
    assert ArchiveFile(Series("spot", "X", "1m"), "daily", date(2024, 1, 1)).csv_bytes_max < 400_000


@pytest.mark.parametrize(
    ("name", "bytes_max"),
    [
        ("BTCUSDT-1m-2024-06-30.zip", 31 * 1504 * 256),
        ("币安人生USDT-1d-2024-06.zip", 31 * 95 * 256),
        ("BTCUSD_261225-1mo-2024-06.zip", 31 * 65 * 256),
        ("BTCUSDT-7m-2024-06-30.zip", None),
        ("BTCUSDT-1m.zip", None),
        ("BTCUSDT-1m-2024-06-30.csv", None),
    ],
)
def test_the_bound_that_a_name_promises(name: str, bytes_max: int | None) -> None:
    """The limit of a day's name is a month of such days; other names have no limit."""
    assert csv_bytes_max_of(name) == bytes_max


@pytest.mark.parametrize("interval", ["3d", "1w", "1mo"])
def test_the_bound_of_a_file_of_few_candles(interval: str) -> None:
    """A month of long candles has at most ten rows; the limit also fits a header."""
    file = ArchiveFile(Series("spot", "BTCUSDT", interval), "monthly", date(2024, 1, 1))
    assert 11 * 12 * 21 < file.csv_bytes_max < 20_000


@given(
    symbol=st.sampled_from(["BTCUSDT", "BTCUSD_261225", "龙虾USDT", "A-1"]),
    interval=st.sampled_from(list(INTERVALS)),
    day=st.dates(date(2017, 1, 1), date(2030, 1, 1)),
)
def test_a_name_says_which_file_it_is(symbol: str, interval: str, day: date) -> None:
    """A file's name is parsed back to the same file, for days and months."""
    series = Series("spot", symbol, interval)
    for file in (ArchiveFile(series, "daily", day), ArchiveFile(series, "monthly", day.replace(day=1))):
        assert parse_name(series, file.period, f"{file.name}.zip") == file


@pytest.mark.parametrize(
    ("period", "name"),
    [
        ("daily", "BTCUSDT-1m-2020-01.zip"),
        ("daily", "BTCUSDT-1m-2020-02-30.zip"),
        ("daily", "BTCUSDT-1m-20200102.zip"),
        ("daily", "BTCUSDT-1m-2020-W01-1.zip"),
        ("daily", "BTCUSDT-1m-2020-01-02"),
        ("daily", "BTCUSDT-1m-2020-01-02.zip.CHECKSUM"),
        ("daily", "BTCUSDT-1m-2020-01-02.ZIP"),
        ("daily", "ETHUSDT-1m-2020-01-02.zip"),
        ("daily", "BTCUSDT-3m-2020-01-02.zip"),
        ("daily", "2020-01-02.zip"),
        ("daily", ""),
        ("monthly", "BTCUSDT-1m-2020-01-02.zip"),
        ("monthly", "BTCUSDT-1m-2020-13.zip"),
        ("monthly", "BTCUSDT-1m-202001.zip"),
    ],
)
def test_other_names_are_no_file(period: Period, name: str) -> None:
    """Names of another series, an impossible day, another spelling or another type are no file."""
    assert parse_name(Series("spot", "BTCUSDT", "1m"), period, name) is None
