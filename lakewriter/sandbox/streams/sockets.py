"""The sandbox's WebSocket side: who may connect, and the connections that are open."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from lakewriter.market import MARKETS
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.caller_limits import AttemptLimit
from lakewriter.sandbox.faults.table import Faults
from lakewriter.sandbox.streams.connection import Connection, MarketContext

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A closed connection that does not answer is cut after this.
CLOSE_S = 2.0


class Sockets:
    """Whoever accepts or refuses connections.

    Args:
        shared: by market.
        violations: broken limits, by kind; counted here.

    Attributes:
        open: the connections that are open.
    """

    def __init__(
        self, shared: Mapping[str, MarketContext], faults: Faults, clock: SimClock, violations: Counter[str]
    ) -> None:
        self.open: set[Connection] = set()
        self._shared = shared
        self._faults = faults
        self._clock = clock
        self._violations = violations
        self._attempts = AttemptLimit()

    def add_routes(self, app: web.Application) -> None:
        """Give the stream URLs of all markets to their handlers."""
        for name in MARKETS:
            routed = name == "usdt_futures"
            for route in ("", "/market", "/public", "/private") if routed else ("",):
                silent = routed and route != "/market"
                for path in ("ws", "ws/{streams:.+}", "stream"):
                    app.router.add_get(f"/{name}{route}/{path}", self._socket_of(name, silent=silent))

    async def drop(self) -> None:
        """Cut every connection without a word."""
        dropped = list(self.open)
        for connection in dropped:
            connection.abort()
        await asyncio.gather(*(connection.ended.wait() for connection in dropped))

    def _refused(self, market: str, caller: str) -> web.Response | None:
        wait_s = self._attempts.attempt(market, caller, self._clock.real_s())
        if wait_s:
            self._violations["connects"] += 1
            return web.Response(status=429, headers={"Retry-After": str(wait_s)})
        fault = self._faults.active("refuse_handshake", market, now_ms=self._clock.now_ms())
        if fault is None:
            return None
        after = {"Retry-After": str(math.ceil(fault.retry_after_s))} if fault.retry_after_s else {}
        return web.Response(status=int(fault.value), headers=after)

    def _socket_of(self, market: str, *, silent: bool) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            refused = self._refused(market, request.remote or "")
            if refused is not None:
                return refused
            socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=CLOSE_S)
            try:
                await socket.prepare(request)
            except ConnectionResetError:
                return web.Response()  # to nobody: they left in the middle of their handshake
            combined = request.path.endswith("/stream")
            names = request.query.get("streams", "") if combined else request.match_info.get("streams", "")
            transport = request.transport
            if transport is None:
                return socket
            connection = Connection(
                socket,
                transport,
                self._shared[market],
                combined=combined,
                silent=silent,
                names=[name for name in names.split("/") if name],
            )
            self.open.add(connection)
            try:
                await connection.run()
            finally:
                self.open.remove(connection)
            return socket

        return handle
