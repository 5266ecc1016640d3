"""The warnings of a long recording: the disk will be full, the clock is off, a series brings nothing.

Rule 1: each warning is one line. Rule 2: it is repeated only after its cause was gone for
an hour, except that a full disk is announced twice: a week and a day before. Rule 3: what
lasts less than a minute is no cause.
"""

import logging
from typing import NamedTuple

from lakewriter.disk_forecast import FULL_SOON_DAYS, FULL_VERY_SOON_DAYS, days_until_full
from lakewriter.recording.status import CLOCK_OFF_MS, RecorderStatus
from lakewriter.series import Series

log = logging.getLogger(__name__)

# A cause counts once it lasted this long, and is gone once it was absent this long.
CAUSE_S_MIN = 60.0
GONE_S_MIN = 3_600.0

# Maximum number of series named in one line.
_SHOWN = 3


class Warnings:
    """The warnings of one recorder. Each status is passed in, with the monotonic time."""

    def __init__(self) -> None:
        self._disk_soon = _Cause()
        self._disk_very_soon = _Cause()
        self._clock = _Cause()
        self._silent: set[Series] = set()
        self._are_many_silent = False

    def check(self, status: RecorderStatus, now_s: float) -> None:
        """Log a warning for each new cause."""
        self._check_disk(status, now_s)
        self._check_clock(status, now_s)
        self._check_silent(status)

    def _check_disk(self, status: RecorderStatus, now_s: float) -> None:
        disk = status.disk
        growth = None if disk is None else disk.growth_bytes_a_day
        days = None if disk is None else days_until_full(disk.free_bytes, growth)
        soon = self._disk_soon.begins(days is not None and days <= FULL_SOON_DAYS, now_s)
        very_soon = self._disk_very_soon.begins(days is not None and days <= FULL_VERY_SOON_DAYS, now_s)
        if (soon or very_soon) and disk is not None and growth is not None and days is not None:
            log.warning(
                "the disk will be full in %(days).1f days: %(free_gb).1f GB are free, and %(growth_gb).1f GB"
                " a day are written to it",
                {
                    "days": round(days, 2),
                    "free_gb": round(disk.free_bytes / 1e9, 1),
                    "growth_gb": round(growth / 1e9, 1),
                },
            )

    def _check_clock(self, status: RecorderStatus, now_s: float) -> None:
        offset_ms = status.clock_offset_ms
        is_off = offset_ms is not None and abs(offset_ms) > CLOCK_OFF_MS
        if self._clock.begins(is_off, now_s) and offset_ms is not None:
            log.warning(
                "this host's clock is %(off_s).1f s %(way)s the exchange's; recv_time is wrong by that, and no"
                " other column",
                {"off_s": abs(offset_ms) / 1000, "way": "ahead of" if offset_ms > 0 else "behind"},
            )

    def _check_silent(self, status: RecorderStatus) -> None:
        """Warn of series that brought nothing, each once. If they are many, warn of their number once."""
        rates = {each.market: max(each.clock_rate, 1.0) for each in status.markets}
        named = {
            each.series
            for each in status.silent_longest
            if each.silent_ms / 1000 / rates.get(each.market, 1.0) >= CAUSE_S_MIN
        }
        new = sorted(named - self._silent)
        are_many = status.silent_series > len(status.silent_longest)
        if not new or (are_many and self._are_many_silent):
            return
        self._are_many_silent = are_many
        self._silent |= named
        count = status.silent_series if are_many else len(new)
        shown = ", ".join(map(str, new[:_SHOWN]))
        more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
        log.warning(
            "%(series)s: no candle came since the subscription, by stream or REST; is each name right?",
            {"series": shown + more, "silent_series": status.silent_series},
        )


class _Since(NamedTuple):
    """The state of a cause, and the monotonic time of its last change."""

    is_there: bool
    since_s: float


class _Cause:
    """One cause, which may come and go."""

    def __init__(self) -> None:
        self._state = _Since(False, float("-inf"))
        self._is_known = False

    def begins(self, is_there: bool, now_s: float) -> bool:
        """Return whether the cause is worth a warning now: once, until it was gone for GONE_S_MIN."""
        if is_there != self._state.is_there:
            self._state = _Since(is_there, now_s)
        lasted_s = now_s - self._state.since_s
        if not is_there:
            self._is_known = self._is_known and lasted_s < GONE_S_MIN
            return False
        if self._is_known or lasted_s < CAUSE_S_MIN:
            return False
        self._is_known = True
        return True
