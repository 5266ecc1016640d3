"""The sandbox's server: three markets on one port, with WebSocket and HTTP.

    async with serve(SandboxOptions(speed=60)) as sandbox:
        …connect to sandbox.url…

It connects clock, truth, catalogues, faults, sockets, REST and archive. Tests use `Sandbox`
to read counters and to add faults.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
from aiohttp import web

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.interval import parse_interval
from lakewriter.market import MARKETS, parse_market
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.http import control
from lakewriter.sandbox.http.archive_http import ArchiveHttp
from lakewriter.sandbox.http.rest_http import RestHttp
from lakewriter.sandbox.streams.connection_faults import ConnectionFaults
from lakewriter.sandbox.streams.feed import Feeds
from lakewriter.sandbox.streams.market_context import MarketContext
from lakewriter.sandbox.streams.protocol import DIALECTS
from lakewriter.sandbox.streams.replay import load_recording
from lakewriter.sandbox.streams.sockets import CLOSE_S, Sockets
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue
from lakewriter.sandbox.truth.symbols import listings


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a sandbox.

    Args:
        port: the port; 0 for a free port.
        speed: simulated seconds per real second.
        seed: the seed that determines all candles.
        start_ms: the first time of the clock; None for the present.
        symbols: the number of trading symbols of each market.
        push_every_ms: real time between frames of an open candle; 0 to send no such frames.
        ping_every_s: real time between pings; 0 for each market's default.
        replay: recorded sessions, FILE or MARKET=FILE.
        faults: the initial faults.
    """

    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 1.0
    seed: int = 0
    start_ms: int | None = None
    symbols: int = 60
    push_every_ms: float = 1000.0
    ping_every_s: float = 0.0
    replay: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


class Sandbox:
    """A running sandbox.

    Attributes:
        url: its address ("http://127.0.0.1:9080").
        truth: the candles of the whole grid; `expected` returns those that exist.
        faults: its faults.
        violations: counts of the limits that clients broke, by kind: "messages", "streams",
            "subscribe_size", "pongs", "connects", "weight", "ban", "retry_after".
        requests: counts of answered REST and archive calls, by kind: "klines", "time",
            "ping", "exchangeInfo", "archive", "archive_list".
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.url = ""
        self.clock = SimClock(options.start_ms, options.speed)
        self.truth = Truth(options.seed)
        self.violations: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.faults = FaultSet()
        for fault in options.faults:
            self.faults.add(fault, self.clock.now_ms())
        self._catalogues = {
            name: SymbolCatalogue(name, listings(name, options.symbols), self.faults) for name in MARKETS
        }
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        self._own_faults: dict[tuple[str, ...], int] = {}
        exchange = SimulatedExchange(
            self._catalogues, self.truth, self.faults, self.clock, self.violations, self.requests
        )
        self._rest = RestHttp(exchange)
        self._archive = ArchiveHttp(exchange)
        recordings = {item.market: item.frames for item in map(load_recording, options.replay)}
        contexts = {
            name: MarketContext(
                market=name,
                exchange=exchange,
                feeds=Feeds(self._catalogues[name], self.truth),
                open_gate=self._open_gate,
                push_every_ms=options.push_every_ms,
                ping_every_s=options.ping_every_s or DIALECTS[name].ping_every_s,
                recording=_at_speed(recordings[name], options.speed) if name in recordings else None,
            )
            for name in MARKETS
        }
        self._sockets = Sockets(exchange, contexts)
        self._connection_faults = ConnectionFaults(exchange, self._sockets.open)

    @property
    def connections(self) -> int:
        """The number of open WebSocket connections."""
        return len(self._sockets.open)

    @property
    def streams(self) -> int:
        """The number of subscribed streams of all open connections."""
        return sum(connection.streams for connection in self._sockets.open)

    @property
    def replayed(self) -> int:
        """The number of recorded frames that were sent to the open connections."""
        return sum(connection.replayed for connection in self._sockets.open)

    def now_ms(self) -> int:
        """Return the simulated time."""
        return self.clock.now_ms()

    def symbols(self, market: str) -> list[str]:
        """Return the symbols of a market that trade now, in the market's order."""
        listed = self._catalogues[market].listed(self.now_ms())
        return [item.symbol for item in listed if item.status == "TRADING"]

    def expected(self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin times of the candles that exist in the half-open range, ascending.

        No candle exists before a listing, after a delisting or a delivery, or in a halt. A
        candle exists even if its frame or row is lost.

        Raises:
            UsageError: if the market or interval is unknown.
        """
        grid = parse_interval(interval)
        if grid.name not in parse_market(market).intervals:
            raise UsageError(f"interval: {market} has no {grid.name}")
        return self._catalogues[market].begin_times(symbol, grid.name, start_ms, stop_ms)

    def add_fault(self, fault: Fault) -> int:
        """Add a fault, and return its id. Without a start, the fault begins now.

        Raises:
            UsageError: if the fault is unknown, or a field is not allowed.
        """
        fault_id = self.faults.add(fault, self.now_ms())
        self._on_faults_changed()
        return fault_id

    def remove_fault(self, fault_id: int) -> None:
        """Remove a fault. Candles that did not exist remain absent.

        Raises:
            UsageError: if no fault has this id.
        """
        self.faults.remove(fault_id, self.now_ms())
        self._on_faults_changed()

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.faults.clear(self.now_ms())
        self._on_faults_changed()

    def _on_faults_changed(self) -> None:
        self._archive.clear_cache()
        self._connection_faults.apply_due()

    def _replace_own_fault(self, key: tuple[str, ...], fault: Fault | None) -> None:
        """Replace the fault of this key; None removes it."""
        if self._own_faults.get(key) in self.faults.all():
            self.remove_fault(self._own_faults.pop(key))
        if fault is not None:
            self._own_faults[key] = self.add_fault(fault)

    async def drop_connections(self) -> None:
        """Cut each connection without a close frame, like a broken network."""
        await self._sockets.drop_all()

    async def close_connections(self, code: int = 1001, reason: str = "") -> None:
        """Close each connection with a close frame, like a restarting server."""
        await asyncio.gather(*(connection.close(code, reason) for connection in self._sockets.open))

    def mute(self, market: str, symbol: str) -> None:
        """Drop all frames of a symbol until `unmute`; REST still has its candles."""
        self._replace_own_fault((market, symbol), Fault("silent_stream", market=market, symbols=(symbol,)))

    def unmute(self, market: str, symbol: str) -> None:
        """Send the symbol's frames again; dropped frames stay lost."""
        self._replace_own_fault((market, symbol), None)

    def stall(self) -> None:
        """Stop sending frames and pongs to all connections until `resume`."""
        self._open_gate.clear()

    def resume(self) -> None:
        """Send frames again, beginning with the overdue ones."""
        self._open_gate.set()

    async def send_to_all(self, data: str | bytes) -> None:
        """Send a text frame to each open connection, except half open ones."""
        for connection in [item for item in self._sockets.open if not item.stalled]:
            with suppress(ConnectionResetError):
                await connection.send(data)

    def refuse(self, status: int) -> None:
        """Refuse all further handshakes with this HTTP status; 0 accepts handshakes again."""
        self._replace_own_fault(
            ("refuse",), Fault("refuse_handshake", value=status, retry_after_s=1) if status else None
        )

    def application(self) -> web.Application:
        """Return the routes of all three markets."""
        app = web.Application()
        self._rest.add_routes(app)
        self._archive.add_routes(app)
        self._sockets.add_routes(app)
        control.add_routes(app, self)
        return app

    async def apply_faults(self) -> None:
        """Apply faults to open connections until cancelled."""
        await self._connection_faults.run()


def _at_speed(frames: list[tuple[float, bytes]], speed: float) -> list[tuple[float, bytes]]:
    return [(offset_s / speed, frame) for offset_s, frame in frames]


@asynccontextmanager
async def serve(options: SandboxOptions) -> AsyncIterator[Sandbox]:
    """Start a sandbox, and stop it at the end of the block.

    Raises:
        LakewriterError: if another program uses the port.
        UsageError: if a recording is unreadable, or a fault is not allowed.
    """
    sandbox = Sandbox(options)
    runner = web.AppRunner(
        sandbox.application(), access_log=None, handle_signals=False, shutdown_timeout=CLOSE_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise LakewriterError(
                f"port: cannot listen on {options.host}:{options.port}: {reason}",
                "lakewriter sandbox --port 0",
            ) from None
        host, port = runner.addresses[0][:2]
        sandbox.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        watch = asyncio.create_task(sandbox.apply_faults())
        try:
            yield sandbox
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    finally:
        await sandbox.drop_connections()
        await runner.cleanup()
