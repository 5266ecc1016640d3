"""Faults of open connections: stalls, shutdowns, closes, and the limit on a connection's age.

Strategy: faults are checked often. A fault is applied once, at its start, to the open
connections. A connection beyond the maximum age is closed.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from lakewriter.interval import HOUR_MS
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.streams.connection import ABNORMAL, GOING_AWAY, Connection

# The maximum age of a connection in hours.
AGE_MAX_H = 24.0

_APPLY_EVERY_S = 0.02

# Faults that are applied once, at their start.
_ONE_TIME_FAULTS = ("stalled_socket", "server_shutdown", "close_code")


class ConnectionFaults:
    """Applies faults to the open connections.

    Args:
        exchange: the exchange.
        connections: the open connections, which `Sockets` adds and removes.
    """

    def __init__(self, exchange: SimulatedExchange, connections: set[Connection]) -> None:
        self._faults = exchange.faults
        self._clock = exchange.clock
        self._open = connections
        self._applied: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Apply faults until cancelled."""
        try:
            while True:
                self.apply_due()
                await asyncio.sleep(_APPLY_EVERY_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def apply_due(self) -> None:
        """Apply the faults that are due."""
        now_ms = self._clock.now_ms()
        for fault_id, fault in self._faults.all().items():
            if fault.name in _ONE_TIME_FAULTS and fault_id not in self._applied and fault.holds_at(now_ms):
                self._applied.add(fault_id)
                for connection in self._open:
                    if fault.concerns(connection.market) and not connection.stalled:
                        self._apply(fault, connection)
        for connection in self._open:
            fewer = self._faults.active("connection_age", connection.market, now_ms=now_ms)
            age_h = AGE_MAX_H if fewer is None else fewer.value
            if (
                not (connection.leaving or connection.stalled)
                and now_ms - connection.opened_ms >= age_h * HOUR_MS
            ):
                connection.leaving = True
                self._start(connection.close(GOING_AWAY, ""))

    def _apply(self, fault: Fault, connection: Connection) -> None:
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
        task = asyncio.create_task(_ignore_gone_client(ending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _ignore_gone_client(ending: Coroutine[Any, Any, None]) -> None:
    with suppress(ConnectionResetError):
        await ending


async def _shut_down(connection: Connection, lead_s: float) -> None:
    await connection.announce_shutdown()
    await asyncio.sleep(lead_s)
    await connection.close(GOING_AWAY, "")
