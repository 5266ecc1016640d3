"""The times and ages of the command line, counted from the present."""

from datetime import date

from lakewriter import written_time
from lakewriter.clock import present_ms
from lakewriter.errors import UsageError
from lakewriter.interval import HOUR_MS
from lakewriter.written_time import WrittenTime


def parse_day(text: str | None, option: str) -> date | None:
    """Parse a day, or the age of a day.

    Args:
        text: the day, such as "2024-06-30" or "7d"; for None the result is None.
        option: the option's name, for the error.

    Raises:
        UsageError: if the text is not a day.
    """
    return None if text is None else written_time.parse_day(text, option, present_ms())


def parse_start(text: str | None, option: str) -> int | None:
    """Parse a time into milliseconds since the epoch. A day is its first millisecond.

    Args:
        text: the time, day or age; for None the result is None.
        option: the option's name, for the error.

    Raises:
        UsageError: if the text is none of these.
    """
    return None if text is None else _parse(text, option).ms


def parse_stop(text: str | None, option: str) -> int | None:
    """Parse a time into milliseconds since the epoch. A day is the first millisecond after it.

    Args:
        text: the time, day or age; for None the result is None.
        option: the option's name, for the error.

    Raises:
        UsageError: if the text is none of these.
    """
    return None if text is None else _parse(text, option).stop_ms


def parse_age(text: str) -> int:
    """Parse an age such as "365d" or "12h" into milliseconds.

    Raises:
        UsageError: if the text is no age of hours or more, or exceeds a hundred years.
    """
    age_ms = written_time.parse_age(text)
    # A short age is probably a mistake for months or minutes, and would remove too much.
    if age_ms is None or age_ms < HOUR_MS or text.strip()[-1] not in "hdw":
        raise UsageError(
            f"--older-than: {text!r} is not a number of hours, days or weeks", "--older-than 365d"
        )
    return age_ms


def _parse(text: str, option: str) -> WrittenTime:
    parsed = written_time.parse_time(text, option, present_ms())
    if parsed.ms < 0:
        raise UsageError(f"{option}: {text!r} is before 1970", f"{option} 2024-06-30")
    return parsed
