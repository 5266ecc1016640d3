"""The recorder's report on itself: its status file, for other processes on its host, and warnings.

A thread encodes and writes the status, and measures the disk. So a disk that hangs
delays the reports, and never the event loop. A report that cannot be written is left
out: the journal already reports a disk that refuses.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from lakewriter.clock import Clock
from lakewriter.disk_forecast import READ_EVERY_S, FreeSpaceHistory
from lakewriter.lake.recorder_status_file import write_status
from lakewriter.recording.recorder_warnings import Warnings
from lakewriter.recording.status import DiskUse, RecorderStatus

# Pause between two reports. An older status means that the recorder or its disk hangs.
REPORT_EVERY_S = 2.0


class SelfReport:
    """The task that publishes a recorder's status, and logs warnings.

    Args:
        directory: the recorder's journal directory.
        clock: measures the age of the disk's measurement.

    Attributes:
        disk: the last measurement of the disk; None before the first one.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.disk: DiskUse | None = None
        self._directory = directory
        self._clock = clock
        self._free = FreeSpaceHistory()
        self._measured_s: float | None = None
        self._thread = ThreadPoolExecutor(1, "status")

    async def run(self, status: Callable[[], RecorderStatus]) -> None:
        """Publish the status, and check it for warnings, until cancelled.

        Args:
            status: returns the present status.
        """
        loop, warnings = asyncio.get_running_loop(), Warnings()
        while True:
            present = status()
            warnings.check(present, self._clock.monotonic_s())
            await loop.run_in_executor(self._thread, self._publish, present)
            await asyncio.sleep(REPORT_EVERY_S)

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()

    def _publish(self, status: RecorderStatus) -> None:
        self._measure_disk()
        with contextlib.suppress(OSError):
            write_status(self._directory, msgspec.json.encode(status))

    def _measure_disk(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._measured_s is not None and now_s - self._measured_s < READ_EVERY_S:
            return
        try:
            usage = shutil.disk_usage(self._directory)
        except OSError:
            return
        self._measured_s = now_s
        self._free.add(now_s, usage.free)
        self.disk = DiskUse(usage.free, usage.total, self._free.growth_bytes_a_day())
