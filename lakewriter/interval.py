"""The 16 candle intervals, and the grid of candles that should exist.

Pure arithmetic on milliseconds since the epoch, all UTC. A candle of an
interval begins on the interval's grid and ends when the next one begins. Grids
start at the epoch, except `1w` (Mondays) and `1mo` (the first of the month). The
exchange does not document the anchor of `3d`. A series takes it from the first
begin time that it sees, by `Interval.anchored`.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal

import msgspec

from lakewriter.errors import UsageError

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# 2017-01-01 and 2100-01-01. The exchange opened in 2017-07; a time of a later century is an error.
TIME_MS_MIN = 1_483_228_800_000
TIME_MS_MAX = 4_102_444_800_000

# 9999-01-01. The calendars of most readers end soon after it.
CALENDAR_MS_MAX = 253_370_764_800_000

# 1970-01-05, the first Monday of the epoch.
MONDAY_MS = 4 * DAY_MS

# The length of the period that one file of a series covers.
FilePeriod = Literal["day", "month", "year"]

# Size of the cache of days. All series of a lake share the same few thousand days.
_DAYS_MAX = 30_000

_EPOCH = date(1970, 1, 1)


class Interval(msgspec.Struct, frozen=True):
    """One candle interval.

    Args:
        name: the name on disk and in SQL ("1m", "1mo").
        wire_name: the name at the exchange ("1m", "1M").
        length_ms: the length of every candle; 0 for months, whose lengths differ.
        anchor_ms: a begin time of the grid, less than one length after the epoch.
        file_period: the UTC period of one partition, chosen to give its file hundreds to
            thousands of rows.
    """

    name: str
    wire_name: str
    length_ms: int
    anchor_ms: int = 0
    file_period: FilePeriod = "day"

    def floor(self, time_ms: int) -> int:
        """Return the begin time of the candle that contains `time_ms`."""
        if self.length_ms:
            return time_ms - (time_ms - self.anchor_ms) % self.length_ms
        return _month_begin(*_year_month(time_ms))

    def end(self, begin_ms: int) -> int:
        """Return the end (exclusive) of the candle that begins at `begin_ms`."""
        if self.length_ms:
            return begin_ms + self.length_ms
        year, month = _year_month(begin_ms)
        return _month_begin(year + month // 12, month % 12 + 1)

    def ceil(self, time_ms: int) -> int:
        """Return the first begin time at or after `time_ms`."""
        begin_ms = self.floor(time_ms)
        return begin_ms if begin_ms == time_ms else self.end(begin_ms)

    def on_grid(self, begin_ms: int) -> bool:
        """Return whether a candle can begin at `begin_ms`."""
        return self.floor(begin_ms) == begin_ms

    def grid(self, start_ms: int, stop_ms: int) -> list[int]:
        """Return every begin time in the half-open range, ascending."""
        if self.length_ms:
            return list(range(self.ceil(start_ms), stop_ms, self.length_ms))
        begins = []
        begin_ms = self.ceil(start_ms)
        while begin_ms < stop_ms:
            begins.append(begin_ms)
            begin_ms = self.end(begin_ms)
        return begins

    def count(self, start_ms: int, stop_ms: int) -> int:
        """Return the number of candles that begin in the half-open range."""
        if self.length_ms:
            return max(0, -((self.ceil(start_ms) - stop_ms) // self.length_ms))
        return len(self.grid(start_ms, stop_ms))

    def period_start(self, time_ms: int) -> int:
        """Return the first millisecond of the file period that contains `time_ms`."""
        return _period(self.file_period, time_ms // DAY_MS)[0]

    def period_stop(self, time_ms: int) -> int:
        """Return the first millisecond after the file period that contains `time_ms`."""
        return _period(self.file_period, time_ms // DAY_MS)[1]

    def anchored(self, begin_ms: int) -> "Interval":
        """Return this interval on the grid that contains `begin_ms`.

        Only the anchor of `3d` is unknown.
        """
        if self.name != "3d":
            return self
        return msgspec.structs.replace(self, anchor_ms=begin_ms % self.length_ms)


@lru_cache(_DAYS_MAX)
def _period(period: FilePeriod, day_number: int) -> tuple[int, int]:
    """Return a period's first millisecond, and the first millisecond after it.

    Args:
        day_number: any day of the period, in days since the epoch.
    """
    first = last = _EPOCH + timedelta(days=day_number)
    if period == "year":
        first, last = date(first.year, 1, 1), date(first.year, 12, 31)
    elif period == "month":
        first = first.replace(day=1)
        # The next month is not used, because the calendar ends with a December.
        last = first.replace(day=monthrange(first.year, first.month)[1])
    return (first - _EPOCH).days * DAY_MS, ((last - _EPOCH).days + 1) * DAY_MS


def _year_month(time_ms: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return moment.year, moment.month


def _month_begin(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000


INTERVALS: dict[str, Interval] = {
    interval.name: interval
    for interval in (
        Interval("1s", "1s", SECOND_MS),
        Interval("1m", "1m", MINUTE_MS),
        Interval("3m", "3m", 3 * MINUTE_MS),
        Interval("5m", "5m", 5 * MINUTE_MS),
        Interval("15m", "15m", 15 * MINUTE_MS, file_period="month"),
        Interval("30m", "30m", 30 * MINUTE_MS, file_period="month"),
        Interval("1h", "1h", HOUR_MS, file_period="month"),
        Interval("2h", "2h", 2 * HOUR_MS, file_period="month"),
        Interval("4h", "4h", 4 * HOUR_MS, file_period="year"),
        Interval("6h", "6h", 6 * HOUR_MS, file_period="year"),
        Interval("8h", "8h", 8 * HOUR_MS, file_period="year"),
        Interval("12h", "12h", 12 * HOUR_MS, file_period="year"),
        Interval("1d", "1d", DAY_MS, file_period="year"),
        Interval("3d", "3d", 3 * DAY_MS, file_period="year"),
        Interval("1w", "1w", 7 * DAY_MS, MONDAY_MS, "year"),
        Interval("1mo", "1M", 0, file_period="year"),
    )
}

BY_WIRE_NAME: dict[str, Interval] = {interval.wire_name: interval for interval in INTERVALS.values()}


def parse_interval(text: str) -> Interval:
    """Parse an interval. `1M` and `1mo` both mean one month.

    Raises:
        UsageError: if no interval has this name.
    """
    found = (INTERVALS.get(text) or BY_WIRE_NAME.get(text)) if isinstance(text, str) else None
    if found is None:
        raise UsageError(
            f"interval: {text!r} is unknown",
            f"choose from: {' '.join(INTERVALS)}",
        )
    return found
