"""Times as people write them: what they mean, and what is refused."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS
from lakewriter.written_time import AGE_MS_MAX, AGE_UNITS_MS, moment_ms, parse_age, parse_day, parse_time

NOW_MS = 1_719_759_600_500  # 2024-06-30T15:00:00.5Z
NOW = datetime(2024, 6, 30, 15, 0, 0, 500_000, tzinfo=UTC)


@given(st.integers(1, 10**9), st.sampled_from(sorted(AGE_UNITS_MS)))
def test_an_age_is_a_number_and_a_unit(number: int, unit: str) -> None:
    """It counts back from the present, up to a hundred years."""
    age_ms = number * AGE_UNITS_MS[unit]
    if age_ms > AGE_MS_MAX:
        assert parse_age(f"{number}{unit}") is None
        return
    assert parse_age(f" {number}{unit} ") == age_ms
    assert parse_time(f"{number}{unit}", "--since", NOW_MS).ms == NOW_MS - age_ms


@pytest.mark.parametrize(
    "text", ["", "d", "0d", "-7d", "7", "7 d", "1.5d", "7D", "7mo", "07d", "7d7d", "99999999999s", "36526d"]
)
def test_what_is_no_age(text: str) -> None:
    """Other numbers and units are no ages, and no times either."""
    assert parse_age(text) is None
    with pytest.raises(UsageError, match=r"--since: .* is not a day or time") as raised:
        parse_time(text, "--since", NOW_MS)
    assert raised.value.hint == "--since 2024-06-30, 2024-06-30T12:00:00Z, or 7d"


@pytest.mark.parametrize(
    ("text", "at", "is_day"),
    [
        ("2024-06-30", datetime(2024, 6, 30, tzinfo=UTC), True),
        (" 2024-06-30 ", datetime(2024, 6, 30, tzinfo=UTC), True),
        ("20240630", datetime(2024, 6, 30, tzinfo=UTC), True),
        ("2024-06-30T12:00", datetime(2024, 6, 30, 12, tzinfo=UTC), False),
        ("2024-06-30 12:00:00.000001Z", datetime(2024, 6, 30, 12, 0, 0, 1, tzinfo=UTC), False),
        ("2024-06-30T12:00+09:00", datetime(2024, 6, 30, 3, tzinfo=UTC), False),
        ("now", NOW, False),
        ("1d", NOW - timedelta(days=1), False),
        ("90m", NOW - timedelta(minutes=90), False),
        ("2w", NOW - timedelta(weeks=2), False),
    ],
)
def test_a_moment_is_a_day_a_time_or_an_age(text: str, at: datetime, is_day: bool) -> None:
    """A time without a zone is UTC; a day is its first moment, or ends with its last one."""
    moment = parse_time(text, "--since", NOW_MS)
    assert (moment.at, moment.is_day) == (at, is_day)
    assert moment.stop_ms == moment.ms + DAY_MS * is_day
    assert moment.ceil_ms - moment.ms == (at.microsecond % 1000 > 0)


def test_a_day_may_be_counted_back() -> None:
    """An age means the UTC day that contains its time."""
    assert parse_day("2024-06-29", "--since", NOW_MS) == date(2024, 6, 29)
    assert parse_day("now", "--since", NOW_MS) == date(2024, 6, 30)
    assert parse_day("15h", "--since", NOW_MS) == date(2024, 6, 30)
    assert parse_day("16h", "--since", NOW_MS) == date(2024, 6, 29)
    assert parse_day("30d", "--since", NOW_MS) == date(2024, 5, 31)
    for text in ("2024-06-30T12:00", "june", "2024-02-30", ""):
        with pytest.raises(UsageError, match=r"--since: .* is not a day") as raised:
            parse_day(text, "--since", NOW_MS)
        assert raised.value.hint == "--since 2024-06-30, or 7d"


def test_python_has_times_of_its_own() -> None:
    """Dates and datetimes mean what their texts mean; parts of a millisecond are rounded up."""
    assert moment_ms(date(2024, 6, 30), "start", NOW_MS) == moment_ms("2024-06-30", "start", NOW_MS)
    assert moment_ms(datetime(2024, 6, 30, 12, 0, 0, 1), "start", NOW_MS) % 1000 == 1
    tokyo = timezone(timedelta(hours=9))
    assert moment_ms(datetime(2024, 6, 30, 9, tzinfo=tokyo), "start", NOW_MS) == moment_ms(
        "2024-06-30", "start", NOW_MS
    )
    assert moment_ms("3h", "start", NOW_MS) == NOW_MS - 3 * HOUR_MS
    with pytest.raises(UsageError, match="start: 5 is no time"):
        moment_ms(5, "start", NOW_MS)  # type: ignore[arg-type]
