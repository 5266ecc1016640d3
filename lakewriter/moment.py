"""Times as people write them: a day, a time, `now`, or an age such as `7d`. Pure.

Each command, option, parameter and config key that takes a time is parsed here. An age
counts back from the present, which the caller passes in.
"""

import re
from datetime import UTC, date, datetime
from typing import NamedTuple

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS

# Unit of an age → milliseconds. A month is no unit, because it has no fixed length.
AGE_UNITS_MS = {"s": 1_000, "m": 60_000, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}

# An age, in the syntax of Python's and DuckDB's regular expressions.
AGE_PATTERN = f"([1-9][0-9]{{0,8}})([{''.join(AGE_UNITS_MS)}])"

# Maximum age, a hundred years. A longer age is a mistake.
AGE_MS_MAX = 36_525 * DAY_MS

_AGE = re.compile(AGE_PATTERN)
_DAY_LENGTH = len("2024-06-30")


class Moment(NamedTuple):
    """A parsed time.

    Args:
        ms: milliseconds since the epoch; the first one of a day.
        is_day: whether the text is a day without a time.
    """

    ms: int
    is_day: bool

    @property
    def stop_ms(self) -> int:
        """The end of an inclusive range: the time itself, or the end of the day."""
        return self.ms + DAY_MS if self.is_day else self.ms

    @property
    def day(self) -> date:
        """The UTC day that contains the time."""
        return datetime.fromtimestamp(self.ms // 1000, UTC).date()


def parse_age(text: str) -> int | None:
    """Return an age in milliseconds; None if the text is no age, or exceeds a hundred years."""
    found = _AGE.fullmatch(text.strip())
    age_ms = int(found[1]) * AGE_UNITS_MS[found[2]] if found else 0
    return age_ms if 0 < age_ms <= AGE_MS_MAX else None


def parse_moment(text: str, name: str, now_ms: int) -> Moment:
    """Parse a time. A time without a zone is UTC.

    Args:
        text: a day, an ISO 8601 time, `now`, or an age.
        name: the name of the option or argument, for the error.
        now_ms: the present, in milliseconds since the epoch.

    Raises:
        UsageError: if the text is none of these, or the time is before 1970.
    """
    text = text.strip()
    age_ms = 0 if text == "now" else parse_age(text)
    if age_ms is not None:
        moment = Moment(now_ms - age_ms, is_day=False)
    else:
        try:
            written = datetime.fromisoformat(text)
            zoned = written if written.tzinfo else written.replace(tzinfo=UTC)
            moment = Moment(int(zoned.timestamp() * 1000), is_day=len(text) <= _DAY_LENGTH)
        except (ValueError, OverflowError):
            raise UsageError(
                f"{name}: {text!r} is not a day or time", f"{name} 2024-06-30, 2024-06-30T12:00:00Z, or 7d"
            ) from None
    if moment.ms < 0:
        raise UsageError(f"{name}: {text!r} is before 1970", f"{name} 2024-06-30")
    return moment


def parse_day(text: str, name: str, now_ms: int) -> date:
    """Parse a day, or an age, which is the day that contains that time.

    Raises:
        UsageError: if the text is neither.
    """
    text = text.strip()
    if parse_age(text) is not None or text == "now":
        return parse_moment(text, name, now_ms).day
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not a day", f"{name} 2024-06-30, or 7d") from None
