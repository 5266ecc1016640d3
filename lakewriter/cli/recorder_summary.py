"""The summary of a recorder in its log: one line every hour, with the counts of that hour."""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import NamedTuple

from lakewriter.clock import Clock
from lakewriter.recording.histogram import Histogram
from lakewriter.recording.recorder import Recorder
from lakewriter.recording.status import RecorderStatus

log = logging.getLogger(__name__)

_TEXT = (
    "summary of %(minutes).1f min: %(recorded)d candles recorded, %(flushed)d flushed;"
    " %(series)d series on %(connections)d connections; 99%% durable within %(durable_ms_99)d ms;"
    " %(healed)d healed, %(explained)d explained, %(unhealable)d unhealable;"
    " %(overdue_series)d series overdue, %(polled_series)d polled, %(silent_series)d silent,"
    " %(healing_series)d being healed; %(buffered)d candles to flush"
)


class _Moment(NamedTuple):
    """The counts at one moment, and the freshness of streamed candles until then."""

    at_s: float
    status: RecorderStatus
    streamed: Histogram


class RecorderSummary:
    """The task that logs a summary after each period.

    Args:
        recorder: the recorder.
        every_s: length of a period.
        directory: a directory on the disk of the lake or its state.
        clock: measures the periods.
    """

    def __init__(self, recorder: Recorder, *, every_s: float, directory: Path, clock: Clock) -> None:
        self._recorder = recorder
        self._every_s = every_s
        self._directory = directory
        self._clock = clock
        self._before = self._moment()

    async def run(self) -> None:
        """Log a summary after each period, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            self.write()

    def write(self) -> None:
        """Log the summary of the time since the previous one."""
        now = self._moment()
        fields: dict[str, float | None] = dict(_counts(self._before, now))
        text = _TEXT
        try:
            fields["free_bytes"] = shutil.disk_usage(self._directory).free
        except OSError:
            fields["free_bytes"] = None
        else:
            fields["free_gb"] = round((fields["free_bytes"] or 0) / 1e9, 1)
            text += "; %(free_gb).1f GB free"
        log.info(text, fields)
        self._before = now

    def _moment(self) -> _Moment:
        streamed = self._recorder.freshness.streamed
        return _Moment(self._clock.monotonic_s(), self._recorder.status(), streamed.copy())


def _counts(before: _Moment, now: _Moment) -> dict[str, float]:
    streamed = now.streamed.since(before.streamed)
    grown = ("recorded", "flushed", "healed", "explained", "unhealable", "bad_frames", "pages_asked")
    present = (
        "series", "connections", "overdue_series", "polled_series", "silent_series", "healing_series",
        "buffered", "unmerged_partitions",
    )  # fmt: skip
    return {
        "minutes": round((now.at_s - before.at_s) / 60, 2),
        **{name: getattr(now.status, name) - getattr(before.status, name) for name in grown},
        **{name: getattr(now.status, name) for name in present},
        "durable_ms_half": streamed.at_most(0.5),
        "durable_ms_99": streamed.at_most(0.99),
    }
