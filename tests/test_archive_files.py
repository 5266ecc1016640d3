"""The names of the archive's files are the exchange's, and say which candles they hold."""

from datetime import date

from lakewriter.binance.archive_files import DAILY_INTERVALS, ArchiveFile
from lakewriter.interval import DAY_MS
from lakewriter.series import Series


def test_a_daily_file() -> None:
    """It is named by its day, and holds what begins on it."""
    file = ArchiveFile(Series("spot", "BTCUSDT", "1m"), "daily", date(2020, 1, 2))
    assert file.path == "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-02.zip"
    assert (file.start_ms, file.stop_ms) == (1_577_923_200_000, 1_577_923_200_000 + DAY_MS)


def test_a_monthly_file_of_a_futures_market() -> None:
    """It is named by its month; months themselves are spelled as on disk."""
    file = ArchiveFile(Series("coin_futures", "BTCUSD_PERP", "1mo"), "monthly", date(2024, 2, 1))
    assert file.path == "/data/futures/cm/monthly/klines/BTCUSD_PERP/1mo/BTCUSD_PERP-1mo-2024-02.zip"
    assert file.stop_ms - file.start_ms == 29 * DAY_MS


def test_long_candles_have_no_daily_files() -> None:
    """What is longer than a day is in monthly files only."""
    assert "1d" in DAILY_INTERVALS
    assert not {"3d", "1w", "1mo"} & set(DAILY_INTERVALS)
