"""The progress line of a recorder, which stays at the bottom of the terminal."""

import asyncio
import os
import sys

from rich.live import Live
from rich.text import Text

from lakewriter.cli.progress_bar import ConsoleHandler
from lakewriter.recording.recorder import Recorder, describe
from lakewriter.recording.status import RecorderStatus

REFRESH_S = 0.5


class ProgressLine(ConsoleHandler):
    """The progress line, with log lines that scroll above it."""

    async def follow(self, recorder: Recorder) -> None:
        """Update the progress line until cancelled; in the background of a shell, draw nothing."""
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                if _in_foreground():
                    live.update(_line(recorder.status()), refresh=True)
                await asyncio.sleep(REFRESH_S)


def _in_foreground() -> bool:
    """Return whether the shell has given this process the terminal; a prompt is there otherwise."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:
        return True  # it is a terminal without a shell


def _line(status: RecorderStatus) -> Text:
    parts = [
        f"recorded {status.recorded:,}",
        f"{status.series:,} series on {status.connections} connections",
        f"{status.buffered:,} to flush",
    ]
    if status.healed:
        parts.append(f"{status.healed:,} healed")
    if status.healing_series:
        parts.append(f"{status.healing_series:,} series being healed")
    if status.polled_series:
        parts.append(f"{status.polled_series:,} polled")
    if status.silent_series:
        parts.append(f"{status.silent_series:,} silent")
    if status.bad_frames:
        parts.append(f"{status.bad_frames:,} bad frames")
    if status.unmerged_partitions:
        parts.append(f"{status.unmerged_partitions} partitions cannot be merged")
    if status.last is not None:
        parts.append(f"last {describe(status.last)}")
    return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")
