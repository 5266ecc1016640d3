"""The files of the public archive: the candles and the path of each. Pure.

    <archive_url><archive_path>/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-06-30.zip
    <archive_url><archive_path>/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-06.zip

Each zip has a `.CHECKSUM` in the same directory. Only finished days and months have
files. A day's file appears the next morning, a month's in the week after its end.

Source: binance-public-data, README.md and python/enums.py.
"""

import re
from datetime import date
from typing import Literal, NamedTuple

from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.partition import day_start_ms
from lakewriter.series import Series

Period = Literal["daily", "monthly"]

# Longer candles have monthly files only.
DAILY_INTERVALS = tuple(name for name in INTERVALS if name not in ("3d", "1w", "1mo"))

# Maximum bytes of a row: 12 values of at most 20 characters. Most rows have half of that.
ROW_BYTES_MAX = 256
# Margin for a header, a few surplus rows, and the zip's own records.
_ROWS_SPARE = 64
_ZIP_BYTES = 4096

_NAME = re.compile(r"(?P<symbol>.+)-(?P<interval>[0-9]+[a-z]+)-[0-9]{4}-[0-9]{2}(?P<day>-[0-9]{2})?\.zip")
_MONTH_DAYS = 31
_ANY_MONTH = date(2024, 1, 1)


class ArchiveFile(NamedTuple):
    """One file of the archive.

    Args:
        series: the series of the candles.
        period: a day or a month.
        day: the first day of the period, UTC.
    """

    series: Series
    period: Period
    day: date

    @property
    def name(self) -> str:
        """The name of the zip and of its CSV, without suffix."""
        day = self.day.isoformat() if self.period == "daily" else f"{self.day:%Y-%m}"
        return f"{self.series.symbol}-{self.series.interval}-{day}"

    @property
    def directory(self) -> str:
        """The file's directory below the archive's URL, with a slash at both ends."""
        market, symbol, interval = self.series
        return f"{MARKETS[market].archive_path}/{self.period}/klines/{symbol}/{interval}/"

    @property
    def path(self) -> str:
        """The zip's path below the archive's URL."""
        return f"{self.directory}{self.name}.zip"

    @property
    def start_ms(self) -> int:
        """The begin of the period, in milliseconds since the epoch."""
        return day_start_ms(self.day)

    @property
    def stop_ms(self) -> int:
        """The end of the period, exclusive, in milliseconds since the epoch."""
        return INTERVALS["1d" if self.period == "daily" else "1mo"].end(self.start_ms)

    @property
    def csv_bytes_max(self) -> int:
        """The maximum size of the CSV in bytes: a row for each candle, and a margin."""
        length_ms = self.series.grid.length_ms or self.stop_ms - self.start_ms
        rows = (self.stop_ms - self.start_ms) // length_ms
        return (rows + _ROWS_SPARE) * ROW_BYTES_MAX

    @property
    def zip_bytes_max(self) -> int:
        """The maximum size of the zip in bytes: that of the CSV and a margin, for incompressible data."""
        return self.csv_bytes_max + _ZIP_BYTES


def csv_bytes_max_of(zip_name: str) -> int | None:
    """Return the maximum size of the CSV in a zip; None if the archive has no such name.

    The limit of a day's file is a month's size, because it may have a month's candles.
    """
    found = _NAME.fullmatch(zip_name)
    if found is None or found["interval"] not in INTERVALS:
        return None
    series = Series("spot", found["symbol"], found["interval"])
    period: Period = "daily" if found["day"] else "monthly"
    return _MONTH_DAYS * ArchiveFile(series, period, _ANY_MONTH).csv_bytes_max


def parse_name(series: Series, period: Period, zip_name: str) -> ArchiveFile | None:
    """Return the archive file of a zip name, or None if the series has no file of that name."""
    written = zip_name.removeprefix(f"{series.symbol}-{series.interval}-").removesuffix(".zip")
    try:
        day = date.fromisoformat(written if period == "daily" else f"{written}-01")
    except ValueError:
        return None
    file = ArchiveFile(series, period, day)
    return file if f"{file.name}.zip" == zip_name else None
