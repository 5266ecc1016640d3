"""The progress line of a recorder on a terminal: one line, always at the bottom."""

import asyncio
import logging

from rich.live import Live
from rich.text import Text

from lakewriter.cli.progress_bar import ConsoleHandler
from lakewriter.recording.recorder import Recorder, describe
from lakewriter.recording.supervisor import CompletenessSupervisor

REFRESH_S = 0.5


class ProgressLine(ConsoleHandler):
    """Shows how recording goes; log lines scroll by above it.

    Candles have no line of their own here: the progress line counts them.
    """

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("lakewriter.recorded").setLevel(logging.WARNING)

    async def follow(self, recorder: Recorder, watch: CompletenessSupervisor) -> None:
        """Keep the line current until cancelled."""
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(_line(recorder, watch), refresh=True)
                await asyncio.sleep(REFRESH_S)


def _line(recorder: Recorder, watch: CompletenessSupervisor) -> Text:
    stats, listeners = recorder.stats, watch.listeners.values()
    connections = sum(listener.stats.connections for listener in listeners)
    series = sum(len(listener.series) for listener in listeners)
    polled = sum(len(listener.polled) for listener in listeners)
    bad = sum(sum(listener.stats.bad_frames.values()) for listener in listeners)
    parts = [
        f"recorded {stats.recorded:,}",
        f"{series:,} series on {connections} connections",
        f"{len(recorder.buffer):,} to flush",
    ]
    if watch.healer.stats.healed:
        parts.append(f"{watch.healer.stats.healed:,} healed")
    if watch.healer.pending:
        parts.append(f"{watch.healer.pending:,} series being healed")
    if polled:
        parts.append(f"{polled:,} silent")
    if bad:
        parts.append(f"{bad:,} bad frames")
    if stats.failed:
        parts.append(f"{stats.failed} partitions cannot be merged")
    if stats.last is not None:
        parts.append(f"last {describe(stats.last)}")
    return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")
