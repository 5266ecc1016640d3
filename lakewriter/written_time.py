"""Times as people write them: a day, a time, `now`, or an age such as `7d`. Pure.

Each command, option, parameter and config key that takes a time is parsed here. An age
counts back from the present, which the caller passes in.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS

# Unit of an age → milliseconds. A month is no unit, because it has no fixed length.
AGE_UNITS_MS = {"s": 1_000, "m": 60_000, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}

# Maximum age, a hundred years. A longer age is a mistake.
AGE_MS_MAX = 36_525 * DAY_MS

NOW = "now"

_AGE = re.compile(f"([1-9][0-9]{{0,9}})([{''.join(AGE_UNITS_MS)}])")
_DAY_LENGTH = len("2024-06-30")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# A time in Python.
Time = str | date | datetime


class WrittenTime(NamedTuple):
    """A parsed time.

    Args:
        at: the time, with its zone; the first moment of a day.
        is_day: whether the text is a day without a time.
    """

    at: datetime
    is_day: bool

    @property
    def ms(self) -> int:
        """Milliseconds since the epoch, rounded down."""
        return (self.at - _EPOCH) // timedelta(milliseconds=1)

    @property
    def ceil_ms(self) -> int:
        """Milliseconds since the epoch, rounded up."""
        return -((_EPOCH - self.at) // timedelta(milliseconds=1))

    @property
    def stop_ms(self) -> int:
        """The end of a range up to this moment, in milliseconds: the end of the day, or the time itself."""
        return self.ms + DAY_MS if self.is_day else self.ms


def parse_age(text: str) -> int | None:
    """Return an age in milliseconds; None if the text is no age, or exceeds a hundred years."""
    found = _AGE.fullmatch(text.strip())
    age_ms = int(found[1]) * AGE_UNITS_MS[found[2]] if found else 0
    return age_ms if 0 < age_ms <= AGE_MS_MAX else None


def relative_time(text: str, now_ms: int) -> datetime | None:
    """Return the time that an age or `now` means, in UTC; None for another text.

    Args:
        now_ms: the present, in milliseconds since the epoch.
    """
    age_ms = 0 if text.strip() == NOW else parse_age(text)
    return None if age_ms is None else _EPOCH + timedelta(milliseconds=now_ms - age_ms)


def parse_time(text: str, name: str, now_ms: int) -> WrittenTime:
    """Parse a time. A time without a zone is UTC.

    Args:
        text: a day, an ISO 8601 time, `now`, or an age.
        name: the name of the option or argument, for the error.
        now_ms: the present, in milliseconds since the epoch.

    Raises:
        UsageError: if the text is none of these.
    """
    relative = relative_time(text, now_ms)
    if relative is not None:
        return WrittenTime(relative, is_day=False)
    text = text.strip()
    try:
        written = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{name}: {text!r} is not a day or time", f"{name} 2024-06-30, 2024-06-30T12:00:00Z, or 7d"
        ) from None
    return WrittenTime(written if written.tzinfo else written.replace(tzinfo=UTC), len(text) <= _DAY_LENGTH)


def parse_day(text: str, name: str, now_ms: int) -> date:
    """Parse a UTC day. An age, or `now`, is the day that contains its time.

    Raises:
        UsageError: if the text is neither a day, an age nor `now`.
    """
    relative = relative_time(text, now_ms)
    if relative is not None:
        return relative.date()
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not a day", f"{name} 2024-06-30, or 7d") from None


def moment_ms(moment: Time, name: str, now_ms: int) -> int:
    """Return a time in milliseconds since the epoch, rounded up. A time without a zone is UTC.

    Args:
        moment: a text for `parse_time`, a date, or a datetime.
        name: the name of the argument, for the error.
        now_ms: the present, in milliseconds since the epoch.

    Raises:
        UsageError: if the value is no time.
    """
    if isinstance(moment, str):
        return parse_time(moment, name, now_ms).ceil_ms
    if not isinstance(moment, date):  # a datetime is a date, too
        raise UsageError(f"{name}: {moment!r} is no time", f"{name}=datetime(2024, 6, 30)")
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if moment != moment:  # pandas.NaT
        raise UsageError(f"{name}: {moment!r} is no time", f"leave {name} out")
    return WrittenTime(moment if moment.tzinfo else moment.replace(tzinfo=UTC), is_day=False).ceil_ms
