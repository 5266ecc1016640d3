"""The messages to the service manager, which is systemd or speaks its protocol.

    READY=1      once, after the first recorded candle
    WATCHDOG=1   again and again, while candles become durable (see `recording.health`)
    STATUS=…     one line for `systemctl status`
    STOPPING=1   at the stop

Without `NOTIFY_SOCKET` nothing is sent. A message that cannot be sent is left out: the
manager then ends or restarts the recorder, as it would after a crash.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

from lakewriter.clock import Clock
from lakewriter.recording.health import Health, judge
from lakewriter.recording.status import RecorderStatus

# Pause between two looks at the recorder, and between two lines of its status without news.
TICK_S = 1.0
STATUS_EVERY_S = 10.0

# The watchdog is fed so often in its time. sd_watchdog_enabled(3) recommends 2.
_FEEDS = 4


class ServiceManager:
    """The socket of the service manager.

    Args:
        environment: the environment of this process.

    Attributes:
        watchdog_s: the time without a feed after which the manager ends this process;
            None without a watchdog.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(environment)

    @property
    def exists(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._address[:1] in ("/", "@")

    def tell(self, *lines: str) -> None:
        """Send some lines as one message. It never waits."""
        if not self.exists or not lines:
            return
        # A name that begins with @ is in the abstract namespace, which has no files.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's time, if the watchdog is meant for this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        watchdog_us = int(environment.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return watchdog_us / 1_000_000 if watchdog_us > 0 else None


async def report_to(
    manager: ServiceManager, status: Callable[[], RecorderStatus], stop: asyncio.Event, clock: Clock
) -> None:
    """Tell the service manager about a recorder, until `stop` is set or the task is cancelled.

    Args:
        status: returns the recorder's status.
        clock: measures the pauses between messages.
    """
    feed_every_s = None if manager.watchdog_s is None else manager.watchdog_s / _FEEDS
    tick_s = TICK_S if feed_every_s is None else min(TICK_S, feed_every_s)
    is_ready, told, told_s, fed_s = False, "", 0.0, float("-inf")
    while not stop.is_set():
        now_s, health = clock.monotonic_s(), judge(status())
        lines = []
        if health.recorded and not is_ready:
            is_ready = True
            lines.append("READY=1")
        if health.reason != told or lines or now_s >= told_s + STATUS_EVERY_S:
            told, told_s = health.reason, now_s
            lines.append(f"STATUS={_line(health)}")
        if feed_every_s is not None and now_s >= fed_s + feed_every_s and not health.is_stuck:
            fed_s = now_s
            lines.append("WATCHDOG=1")
        manager.tell(*lines)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(tick_s):
                await stop.wait()
    manager.tell("STOPPING=1", "STATUS=flushing")


def _line(health: Health) -> str:
    recorded = f"{health.recorded} candles recorded"
    if health.reason:
        return f"{health.status}: {health.reason}; {recorded}"
    return recorded if health.lag_ms is None else f"{recorded}, the last one {health.lag_ms} ms after its end"
