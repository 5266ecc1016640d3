"""The partition and its path: one series in one period, one directory with one file.

The interval decides the period, a UTC day, month or year (`Interval.file_period`).
The path contains the first day of the period.
Only this module formats and parses these paths. It refuses every name that could
leave the lake's root.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec
import numpy as np
import pyarrow as pa

from lakewriter.candle import Candle, int_column
from lakewriter.errors import LakeError
from lakewriter.interval import CALENDAR_MS_MAX, DAY_MS, INTERVALS, TIME_MS_MAX, FilePeriod
from lakewriter.market import MARKETS, is_symbol
from lakewriter.ranges import Range
from lakewriter.series import Series

FILE_NAME = "candles.parquet"
LEVELS = ("market", "symbol", "interval", "date")

# Size of the cache of days. All series of a lake share the same few thousand days.
DAYS_MAX = 10_000

# Size of the cache of series. The series of each candle of a journal is checked.
SERIES_MAX = 20_000

_INTEGER_MAX = 1 << 63

_EPOCH = date(1970, 1, 1)


class Partition(msgspec.Struct, frozen=True, order=True):
    """One series in one period of its interval.

    The constructor checks nothing. `checked_partition` and `parse_partition` do.

    Args:
        market, symbol, interval: the series.
        date: the first UTC day of the period.
    """

    market: str
    symbol: str
    interval: str
    date: date

    @property
    def path(self) -> str:
        """The directory below the lake's root, with `/` between the levels.

        The path is plain UTF-8, because Spark cannot read percent-encoded names. No valid
        symbol has a character that Hive would escape.
        """
        return (
            f"market={self.market}/symbol={self.symbol}/interval={self.interval}/date={self.date.isoformat()}"
        )

    @property
    def file(self) -> str:
        """The path of the partition's file below the lake's root."""
        return f"{self.path}/{FILE_NAME}"

    @property
    def series(self) -> Series:
        """The series of the partition."""
        return Series(self.market, self.symbol, self.interval)

    @property
    def start_ms(self) -> int:
        """The first millisecond of the period."""
        return day_start_ms(self.date)

    @property
    def stop_ms(self) -> int:
        """The first millisecond after the period."""
        return INTERVALS[self.interval].period_stop(self.start_ms)

    @property
    def period(self) -> FilePeriod:
        """The length of the period: "day", "month" or "year"."""
        return INTERVALS[self.interval].file_period

    def __str__(self) -> str:
        return f"{self.market} {self.symbol} {self.interval} {self.date}"


def series_path(series: tuple[str, str, str]) -> str:
    """Return the directory of a series below the lake's root."""
    market, symbol, interval = series
    return f"market={market}/symbol={symbol}/interval={interval}"


def partition_of(candle: Candle) -> Partition:
    """Return the partition of a candle."""
    return partition_at((candle.market, candle.symbol, candle.interval), candle.begin_ms)


def partition_at(series: tuple[str, str, str], begin_ms: int) -> Partition:
    """Return the partition of a series' candle with this begin time."""
    return Partition(*series, day_of(INTERVALS[series[2]].period_start(begin_ms)))


def partition_on(series: tuple[str, str, str], day: date) -> Partition:
    """Return the partition of a series' candles on a UTC day."""
    return Partition(*series, period_date(series[2], day))


def period_date(interval: str, day: date) -> date:
    """Return the first day of the interval's period that contains a day."""
    grid = INTERVALS[interval]
    return day if grid.file_period == "day" else day_of(grid.period_start(day_start_ms(day)))


def by_partition(candles: Iterable[Candle]) -> dict[Partition, list[Candle]]:
    """Group the candles by partition; keep their order."""
    found: dict[Partition, list[Candle]] = {}
    for candle in candles:
        found.setdefault(partition_of(candle), []).append(candle)
    return found


def split_by_partition(series: Series, rows: pa.Table) -> list[tuple[Partition, pa.Table]]:
    """Return the partitions of a series' rows, ascending, each with its rows.

    Args:
        rows: a table of SCHEMA, sorted by begin time.
    """
    begins = int_column(rows, "candle_begin_time")
    found = []
    first = 0
    while first < len(begins):
        partition = partition_at(series, int(begins[first]))
        stop = int(np.searchsorted(begins, partition.stop_ms))
        found.append((partition, rows.slice(first, stop - first)))
        first = stop
    return found


def day_range(day: date) -> Range:
    """Return a UTC day as a half-open range of milliseconds."""
    start_ms = day_start_ms(day)
    return start_ms, start_ms + DAY_MS


def day_start_ms(day: date) -> int:
    """Return the first millisecond of a UTC day."""
    return (day - _EPOCH).days * DAY_MS


def day_of(time_ms: int) -> date:
    """Return the UTC day that contains `time_ms`."""
    return _EPOCH + timedelta(days=time_ms // DAY_MS)


def checked_partition(partition: Partition) -> Partition:
    """Check that each part can be a directory of the lake; return the partition.

    Raises:
        LakeError: if a name is invalid, because it could leave the lake's root; or if no
            period begins on the date.
    """
    if partition.market not in MARKETS:
        raise LakeError(f"partition: market {partition.market!r} is unknown")
    if not is_symbol(partition.symbol):
        raise LakeError(f"partition: {partition.symbol!r} cannot be a symbol")
    if partition.interval not in INTERVALS:
        raise LakeError(f"partition: interval {partition.interval!r} is unknown")
    if partition.date != period_date(partition.interval, partition.date):
        raise LakeError(f"partition: no file of {partition.interval} begins on {partition.date}")
    return partition


def parse_partition(path: str) -> Partition:
    """Parse the path of a partition's directory, relative to the lake.

    Percent-encoded names are decoded, because DuckDB, pyarrow and Polars write them.
    `Partition.path` is never encoded, and contains the first day of the period. If a
    path differs from its partition's `path`, another tool or an older lakewriter wrote
    that directory.

    Raises:
        LakeError: if the path is not a partition's path.
    """
    parts = path.split("/")
    names = tuple(part.partition("=")[0] for part in parts)
    if names != LEVELS:
        raise LakeError(f"{path}: not a partition (market=/symbol=/interval=/date=)")
    values = []
    for level, part in zip(LEVELS, parts, strict=True):
        value = level_value(level, part)
        if value is None:
            raise LakeError(f"{path}: {part.partition('=')[2]!r} is not UTF-8")
        values.append(value)
    day = parse_date_value(values[3])
    if day is None:
        raise LakeError(f"{path}: {values[3]!r} is not a date")
    checked_partition(Partition(values[0], values[1], values[2], _EPOCH))
    return partition_on((values[0], values[1], values[2]), day)


def place_of(partition: Partition, name: str) -> Partition:
    """Return a partition with the date of a file's directory.

    The date is another day of the period if another program, or lakewriter before
    format 2, wrote the directory.

    Args:
        name: the file's path relative to the lake, of a file of the partition.
    """
    day = parse_date_value(name.rpartition("/")[0].rpartition("/")[2].partition("=")[2])
    return partition if day is None else Partition(*partition.series, day)


def is_own_file(partition: Partition, name: str) -> bool:
    """Return whether a file of a partition has the path of one of lakewriter's own files.

    That is the path of the partition's file. Before format 2 each day had its own file.

    Args:
        name: as for `place_of`.
    """
    return name == place_of(partition, name).file


@lru_cache(DAYS_MAX)
def parse_date_value(text: str) -> date | None:
    """Parse the value of a date directory; return None if it is not an ISO date since 1970."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text and day >= _EPOCH else None


def level_value(level: str, name: str) -> str | None:
    """Return the value in a directory's name; None if it is not UTF-8 or the level differs.

    Args:
        level: one of LEVELS.
        name: the name of a directory ("symbol=BTCUSDT").
    """
    prefix = level + "="
    if not name.startswith(prefix):
        return None
    value = name[len(prefix) :]
    if "%" not in value:
        return value
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        return None


@lru_cache(SERIES_MAX)
def is_series(market: str, symbol: str, interval: str) -> bool:
    """Return whether these names can form a series."""
    try:
        checked_partition(Partition(market, symbol, interval, _EPOCH))
    except LakeError:
        return False
    return True


def is_storable(candle: Candle) -> bool:
    """Return whether a candle read from a journal can be a row of the lake.

    Another program, another version or a faulty clock may have written the line.
    """
    return (
        is_series(candle.market, candle.symbol, candle.interval)
        and 0 <= candle.begin_ms < candle.end_ms <= TIME_MS_MAX
        and 0 <= candle.recv_us <= CALENDAR_MS_MAX * 1000
        and (candle.event_ms is None or 0 <= candle.event_ms <= CALENDAR_MS_MAX)
        and 0 <= candle.trade_num < _INTEGER_MAX
    )


def is_candle_file(name: str) -> bool:
    """Return whether a name in a partition's directory is a candle file: visible, with a Parquet suffix."""
    return name.endswith(".parquet") and not name.startswith((".", "_"))
