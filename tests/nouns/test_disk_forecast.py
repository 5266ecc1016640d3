"""The forecast of a full disk, from numbers that are passed in."""

import pytest

from lakewriter.disk_forecast import MEASURED_S_MAX, MEASURED_S_MIN, FreeSpaceHistory, days_until_full

GB = 10**9


def test_the_days_follow_from_free_bytes_and_growth() -> None:
    """Ten gigabytes last five days at two gigabytes a day; without growth there is no forecast."""
    assert days_until_full(10 * GB, 2 * GB) == 5
    assert days_until_full(0, 2 * GB) == 0
    assert days_until_full(10 * GB, None) is None
    assert days_until_full(10 * GB, 0) is None
    assert days_until_full(10 * GB, -GB) is None


def test_growth_needs_an_hour() -> None:
    """A decrease within an hour is no growth yet."""
    history = FreeSpaceHistory()
    assert history.growth_bytes_a_day() is None
    history.add(0, 100 * GB)
    history.add(MEASURED_S_MIN - 1, 99 * GB)
    assert history.growth_bytes_a_day() is None
    history.add(MEASURED_S_MIN, 99 * GB)
    assert history.growth_bytes_a_day() == 24 * GB


def test_growth_forgets_what_is_older_than_a_day() -> None:
    """A big import two days ago does not count today."""
    history = FreeSpaceHistory()
    history.add(0, 500 * GB)
    for hour in range(1, 73):
        history.add(hour * 3600, 100 * GB - hour * GB // 24)
    assert history.growth_bytes_a_day() == pytest.approx(GB, rel=1e-6)


@pytest.mark.parametrize("free", [[50 * GB, 50 * GB], [50 * GB, 60 * GB]])
def test_a_disk_that_does_not_shrink_has_no_growth(free: list[int]) -> None:
    """Free bytes that stay or increase are no growth."""
    history = FreeSpaceHistory()
    history.add(0, free[0])
    history.add(MEASURED_S_MAX / 2, free[1])
    assert history.growth_bytes_a_day() is None
