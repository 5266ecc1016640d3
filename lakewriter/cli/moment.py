"""The parsers for days, times and ages on the command line."""

import re
from datetime import UTC, datetime

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS

_DAY_LENGTH = len("2024-06-30")
_AGE = re.compile(r"([1-9][0-9]{0,5})([hd])")

# Maximum age, a hundred years. A longer age is a mistake.
AGE_MS_MAX = 36_525 * DAY_MS


def parse_start(text: str | None, option: str) -> int | None:
    """Parse a time into milliseconds since the epoch. A day is its first millisecond.

    Args:
        text: the time or day; for None the result is None.
        option: the option's name, for the error.

    Raises:
        UsageError: if the text is neither a time nor a day.
    """
    return None if text is None else _moment(text, option)[0]


def parse_stop(text: str | None, option: str) -> int | None:
    """Parse a time into milliseconds since the epoch. A day is the first millisecond after it.

    Args:
        text: the time or day; for None the result is None.
        option: the option's name, for the error.

    Raises:
        UsageError: if the text is neither a time nor a day.
    """
    if text is None:
        return None
    moment_ms, is_day = _moment(text, option)
    return moment_ms + DAY_MS if is_day else moment_ms


def parse_age(text: str) -> int:
    """Parse an age such as "365d" or "12h" into milliseconds.

    Raises:
        UsageError: if the text is no age, or the age exceeds a hundred years.
    """
    found = _AGE.fullmatch(text.strip())
    age_ms = int(found[1]) * (DAY_MS if found[2] == "d" else HOUR_MS) if found else 0
    if not 0 < age_ms <= AGE_MS_MAX:
        raise UsageError(f"--older-than: {text!r} is not a number of days or hours", "--older-than 365d")
    return age_ms


def _moment(text: str, option: str) -> tuple[int, bool]:
    """Return a time in milliseconds since the epoch, and whether it is a day.

    A time without a zone is UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        moment_ms = int(zoned.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option}: {text!r} is not a day or time", f"{option} 2024-06-30 or 2024-06-30T12:00:00Z"
        ) from None
    if moment_ms < 0:
        raise UsageError(f"{option}: {text!r} is before 1970", f"{option} 2024-06-30")
    return moment_ms, len(text) <= _DAY_LENGTH
