"""The warnings of a long recording, by statuses that are passed in."""

from collections.abc import Iterator
from typing import Any

import pytest

from lakewriter.recording.recorder_warnings import CAUSE_S_MIN, GONE_S_MIN, Warnings
from lakewriter.recording.status import DiskUse, MarketStatus, RecorderStatus, SilentSeries
from support.statuses import NOW_MS, recorder_status

GB = 10**9
HOUR_S = 3_600.0


class Watched:
    """Warnings that get a status every ten seconds, and the lines that they log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("WARNING", "lakewriter")
        self._caplog = caplog
        self._warnings = Warnings()
        self._now_s = 1_000.0

    def during(self, seconds: float, **fields: Any) -> list[str]:
        """Pass the same status for some time; return the new lines."""
        self._caplog.clear()
        status = recorder_status(**fields)
        until_s = self._now_s + seconds
        while self._now_s < until_s:
            self._now_s += 10.0
            self._warnings.check(status, self._now_s)
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Iterator[Watched]:
    yield Watched(caplog)


def disk(free: int, growth: int | None) -> DiskUse:
    return DiskUse(free, 1000 * GB, growth)


def silent(*symbols: str, seconds: float = 300.0) -> dict[str, Any]:
    """Return the fields of a status with silent series, of which 20 are named."""
    series = [
        SilentSeries("spot", symbol, "1m", NOW_MS - 600_000, round(seconds * 1000)) for symbol in symbols
    ]
    return {"silent_series": len(series), "silent_longest": tuple(series[:20])}


def test_a_healthy_recorder_warns_of_nothing(watched: Watched) -> None:
    """A recorder with space and time logs no warning in a week."""
    assert watched.during(7 * 24 * HOUR_S, disk=disk(500 * GB, 10 * GB)) == []


def test_a_disk_that_fills_up_is_announced_twice(watched: Watched) -> None:
    """A week and a day before, and not in between; without a measured growth, never."""
    assert watched.during(HOUR_S, disk=disk(5 * GB, None)) == []
    (week,) = watched.during(24 * HOUR_S, disk=disk(65 * GB, 10 * GB))
    assert week == "the disk will be full in 6.5 days: 65.0 GB are free, and 10.0 GB a day are written to it"
    assert watched.during(24 * HOUR_S, disk=disk(25 * GB, 10 * GB)) == []
    (day,) = watched.during(24 * HOUR_S, disk=disk(9 * GB, 10 * GB))
    assert "full in 0.9 days" in day


def test_a_warning_comes_again_after_its_cause_was_gone(watched: Watched) -> None:
    """A disk that was cleaned and fills up again is announced again; one that flaps is not."""
    full, clean = disk(60 * GB, 10 * GB), disk(600 * GB, 10 * GB)
    assert len(watched.during(HOUR_S, disk=full)) == 1
    watched.during(GONE_S_MIN / 2, disk=clean)
    assert watched.during(HOUR_S, disk=full) == []
    watched.during(GONE_S_MIN + 20, disk=clean)
    assert len(watched.during(HOUR_S, disk=full)) == 1


@pytest.mark.parametrize(("offset_ms", "way"), [(3_400, "ahead of"), (-3_400, "behind")])
def test_a_clock_that_is_off_is_announced_once(watched: Watched, offset_ms: int, way: str) -> None:
    """The offset and its direction are named, once in a day; a short jump is no cause."""
    assert watched.during(CAUSE_S_MIN - 20, clock_offset_ms=offset_ms) == []
    assert watched.during(HOUR_S, clock_offset_ms=1_500) == []
    (line,) = watched.during(24 * HOUR_S, clock_offset_ms=offset_ms)
    assert f"clock is 3.4 s {way} the exchange's" in line


def test_each_silent_series_is_announced_once(watched: Watched) -> None:
    """A series that brought nothing for a minute is named; later only new ones are."""
    assert watched.during(HOUR_S, **silent("BTCUSDX", seconds=50)) == []
    (one,) = watched.during(HOUR_S, **silent("BTCUSDX"))
    assert one.startswith("spot BTCUSDX 1m: no candle came since the subscription")
    (two,) = watched.during(HOUR_S, **silent("BTCUSDX", "ETHUSDX"))
    assert "ETHUSDX" in two
    assert "BTCUSDX" not in two
    assert watched.during(HOUR_S) == []
    assert watched.during(HOUR_S, **silent("BTCUSDX")) == []


def test_many_silent_series_are_one_line(watched: Watched) -> None:
    """If all series bring nothing, one line has their number; while some come back, none is added."""
    symbols = [f"A{number:04}USDT" for number in range(3_000)]
    (line,) = watched.during(HOUR_S, **silent(*symbols))
    assert line.startswith("spot A0000USDT 1m, spot A0001USDT 1m, spot A0002USDT 1m and 2,997 more: ")
    for left in range(100, 2_900, 400):
        assert watched.during(60, **silent(*symbols[left:])) == []
    (few,) = watched.during(HOUR_S, **silent(*symbols[-5:]))
    assert "and 2 more" in few


def test_a_sandbox_is_silent_in_real_time(watched: Watched) -> None:
    """Five minutes of a clock that is 60 times as fast are five seconds."""
    fast: tuple[MarketStatus, ...] = (MarketStatus("spot", 2, 1, 0, 0, 0, NOW_MS, 60.0),)
    assert watched.during(HOUR_S, markets=fast, **silent("BTCUSDX")) == []
    assert len(watched.during(HOUR_S, markets=fast, **silent("BTCUSDX", seconds=3_700))) == 1


def test_fields_of_a_warning_are_numbers(caplog: pytest.LogCaptureFixture) -> None:
    """A log in JSON has the numbers of the warning."""
    caplog.set_level("WARNING", "lakewriter")
    warnings = Warnings()
    status: RecorderStatus = recorder_status(disk=disk(32 * GB, 10 * GB))
    for now_s in (0.0, CAUSE_S_MIN):
        warnings.check(status, now_s)
    (record,) = caplog.records
    assert record.args == {"days": 3.2, "free_gb": 32.0, "growth_gb": 10.0}
