"""What happens to open connections all at once: stalls, shutdowns, closes, and old age.

Strategy: look often. Whatever fault begins, happens once to the connections
open at that time; whatever connection is too old, is ended.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from lakewriter.interval import HOUR_MS
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.table import Fault, Faults
from lakewriter.sandbox.streams.connection import ABNORMAL, GOING_AWAY, Connection

# The exchange ends every connection at this age.
AGE_MAX_H = 24.0

_LOOK_EVERY_S = 0.02

# Faults that happen once, when they start.
_ONCE = ("stalled_socket", "server_shutdown", "close_code")


class ConnectionFaults:
    """What happens to the connections that are open.

    Args:
        connections: the open ones; others add and remove.
    """

    def __init__(self, faults: Faults, clock: SimClock, connections: set[Connection]) -> None:
        self._faults = faults
        self._clock = clock
        self._open = connections
        self._happened: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def look(self) -> None:
        """Let happen what is due."""
        now_ms = self._clock.now_ms()
        for fault_id, fault in self._faults.all().items():
            if fault.name in _ONCE and fault_id not in self._happened and fault.holds(now_ms):
                self._happened.add(fault_id)
                for connection in self._open:
                    if fault.concerns(connection.market) and not connection.stalled:
                        self._happen(fault, connection)
        for connection in self._open:
            fewer = self._faults.active("connection_age", connection.market, now_ms=now_ms)
            age_h = AGE_MAX_H if fewer is None else fewer.value
            if (
                not (connection.leaving or connection.stalled)
                and now_ms - connection.opened_ms >= age_h * HOUR_MS
            ):
                connection.leaving = True
                self._start(connection.close(GOING_AWAY, ""))

    def _happen(self, fault: Fault, connection: Connection) -> None:
        if fault.name == "stalled_socket":
            connection.stall()
        elif fault.name == "server_shutdown":
            connection.leaving = True
            self._start(_shut_down(connection, fault.value))
        elif fault.value == ABNORMAL:
            connection.abort()
        else:
            self._start(connection.close(int(fault.value), ""))

    def _start(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_unless_gone(ending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _unless_gone(ending: Coroutine[Any, Any, None]) -> None:
    with suppress(ConnectionResetError):
        await ending


async def _shut_down(connection: Connection, lead_s: float) -> None:
    await connection.announce_shutdown()
    await asyncio.sleep(lead_s)
    await connection.close(GOING_AWAY, "")
