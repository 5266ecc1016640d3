"""The sandbox's WebSocket routes: limits on handshakes, and the open connections."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from lakewriter.market import MARKETS
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.faults.caller_limits import AttemptLimit
from lakewriter.sandbox.streams.connection import Connection
from lakewriter.sandbox.streams.market_context import MarketContext

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The maximum seconds that a client may take to answer a close frame.
CLOSE_S = 2.0


class Sockets:
    """The handlers of the stream URLs.

    Args:
        exchange: the exchange, which counts violations.
        contexts: the context of each market, by its name.

    Attributes:
        open: the open connections.
    """

    def __init__(self, exchange: SimulatedExchange, contexts: Mapping[str, MarketContext]) -> None:
        self.open: set[Connection] = set()
        self._contexts = contexts
        self._exchange = exchange
        self._attempts = AttemptLimit()

    def add_routes(self, app: web.Application) -> None:
        """Add the routes of the streams of all markets."""
        for name in MARKETS:
            routed = name == "usdt_futures"
            for route in ("", "/market", "/public", "/private") if routed else ("",):
                silent = routed and route != "/market"
                for path in ("ws", "ws/{streams:.+}", "stream"):
                    app.router.add_get(f"/{name}{route}/{path}", self._handler(name, silent=silent))

    async def drop_all(self) -> None:
        """Cut all connections without a close frame."""
        dropped = list(self.open)
        for connection in dropped:
            connection.abort()
        await asyncio.gather(*(connection.ended.wait() for connection in dropped))

    def _refusal(self, market: str, caller: str) -> web.Response | None:
        wait_s = self._attempts.attempt(market, caller, self._exchange.clock.real_s())
        if wait_s:
            self._exchange.violations["connects"] += 1
            return web.Response(status=429, headers={"Retry-After": str(wait_s)})
        fault = self._exchange.faults.active("refuse_handshake", market, now_ms=self._exchange.clock.now_ms())
        if fault is None:
            return None
        after = {"Retry-After": str(math.ceil(fault.retry_after_s))} if fault.retry_after_s else {}
        return web.Response(status=int(fault.value), headers=after)

    def _handler(self, market: str, *, silent: bool) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            refused = self._refusal(market, request.remote or "")
            if refused is not None:
                return refused
            socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=CLOSE_S)
            try:
                await socket.prepare(request)
            except ConnectionResetError:
                return web.Response()  # the client disconnected during its handshake
            combined = request.path.endswith("/stream")
            names = request.query.get("streams", "") if combined else request.match_info.get("streams", "")
            transport = request.transport
            if transport is None:
                return socket
            connection = Connection(
                socket,
                transport,
                self._contexts[market],
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
