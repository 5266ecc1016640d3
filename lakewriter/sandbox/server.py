"""The sandbox's server: three markets, WebSocket and HTTP, on one port.

    async with serve(SandboxOptions(speed=60)) as sandbox:
        …connect to sandbox.url…

Joins clock, truth, catalogues, faults, sockets and calls; each has its own URLs. `Sandbox` is also where tests reach in: it counts, and it
misbehaves on request.
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
from lakewriter.sandbox.faults.table import Fault, Faults
from lakewriter.sandbox.http import control
from lakewriter.sandbox.http.archive_http import Bucket
from lakewriter.sandbox.http.rest_http import Calls
from lakewriter.sandbox.streams.connection import MarketContext
from lakewriter.sandbox.streams.feed import Feeds
from lakewriter.sandbox.streams.incidents import ConnectionFaults
from lakewriter.sandbox.streams.protocol import ACCENTS
from lakewriter.sandbox.streams.replay import load
from lakewriter.sandbox.streams.sockets import CLOSE_S, Sockets
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import Catalogue
from lakewriter.sandbox.truth.symbols import listings


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a sandbox behaves.

    Args:
        port: 0 for a free one.
        speed: simulated seconds per real one.
        seed: what all prices follow from.
        start_ms: what its clock shows at first; None for now.
        symbols: trading symbols of each market.
        push_every_ms: real time between frames of an open candle; 0 for none.
        ping_every_s: real time between pings; 0 for each market's own.
        replay: recorded sessions, FILE or MARKET=FILE.
        faults: what goes wrong.
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

    Args:
        url: where it listens ("http://127.0.0.1:9080").
        truth: the candle of every place on the grid; which of them exist is
            what `expected` says.
        violations: limits that clients broke, by kind: "messages", "streams",
            "subscribe_size", "pongs", "connects", "weight", "ban", "retry_after".
        requests: REST and archive calls answered, by kind: "klines", "time",
            "ping", "exchangeInfo", "archive", "archive_list".
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.url = ""
        self.clock = SimClock(options.start_ms, options.speed)
        self.truth = Truth(options.seed)
        self.violations: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.faults = Faults()
        for fault in options.faults:
            self.faults.add(fault, self.clock.now_ms())
        self._catalogues = {
            name: Catalogue(name, listings(name, options.symbols), self.faults) for name in MARKETS
        }
        self._gate = asyncio.Event()
        self._gate.set()
        self._staged: dict[tuple[str, ...], int] = {}
        self._calls = Calls(
            catalogues=self._catalogues,
            truth=self.truth,
            faults=self.faults,
            clock=self.clock,
            violations=self.violations,
            requests=self.requests,
        )
        self._bucket = Bucket(self._catalogues, self.truth, self.faults, self.clock, self.requests)
        recordings = {item.market: item.frames for item in map(load, options.replay)}
        shared = {
            name: MarketContext(
                market=name,
                feeds=Feeds(self._catalogues[name], self.truth),
                catalogue=self._catalogues[name],
                faults=self.faults,
                clock=self.clock,
                open_gate=self._gate,
                violations=self.violations,
                push_every_ms=options.push_every_ms,
                ping_every_s=options.ping_every_s or ACCENTS[name].ping_every_s,
                recording=_paced(recordings[name], options.speed) if name in recordings else None,
            )
            for name in MARKETS
        }
        self._sockets = Sockets(shared, self.faults, self.clock, self.violations)
        self._incidents = ConnectionFaults(self.faults, self.clock, self._sockets.open)

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""
        return len(self._sockets.open)

    @property
    def streams(self) -> int:
        """How many streams are being sent, over all connections."""
        return sum(connection.streams for connection in self._sockets.open)

    @property
    def replayed(self) -> int:
        """How many recorded frames the open connections were sent."""
        return sum(connection.replayed for connection in self._sockets.open)

    def now_ms(self) -> int:
        """Return the simulated time."""
        return self.clock.now_ms()

    def symbols(self, market: str) -> list[str]:
        """Return the symbols of a market that trade now, in the order of its list."""
        listed = self._catalogues[market].listed(self.now_ms())
        return [item.symbol for item in listed if item.status == "TRADING"]

    def expected(self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin times of the candles that exist in the half-open range, ascending.

        That is the grid without what is before a listing, after a delisting or
        a delivery, or in a halt. Frames and rows that get lost are expected.

        Raises:
            UsageError: if there is no such market or interval.
        """
        grid = parse_interval(interval)
        if grid.name not in parse_market(market).intervals:
            raise UsageError(f"interval: {market} has no {grid.name}")
        return self._catalogues[market].begins(symbol, grid.name, start_ms, stop_ms)

    def add_fault(self, fault: Fault) -> int:
        """Let something go wrong from now on, or from its start on; return its id.

        Raises:
            UsageError: if there is no such fault, or it cannot be so.
        """
        fault_id = self.faults.add(fault, self.now_ms())
        self._changed()
        return fault_id

    def remove_fault(self, fault_id: int) -> None:
        """Let it go right again; candles that did not exist never will.

        Raises:
            UsageError: if there is no fault of that id.
        """
        self.faults.remove(fault_id, self.now_ms())
        self._changed()

    def clear_faults(self) -> None:
        """Let everything go right again."""
        self.faults.clear(self.now_ms())
        self._changed()

    def _changed(self) -> None:
        self._bucket.forget()
        self._incidents.look()

    def _stage(self, key: tuple[str, ...], fault: Fault | None) -> None:
        """Put a fault in the place of the one before it; None for none."""
        if self._staged.get(key) in self.faults.all():
            self.remove_fault(self._staged.pop(key))
        if fault is not None:
            self._staged[key] = self.add_fault(fault)

    async def drop_connections(self) -> None:
        """Cut every connection without a word, as a broken network does."""
        await self._sockets.drop()

    async def close_connections(self, code: int = 1001, reason: str = "") -> None:
        """End every connection in order, as a server that restarts does."""
        await asyncio.gather(*(connection.close(code, reason) for connection in self._sockets.open))

    def mute(self, market: str, symbol: str) -> None:
        """Lose every frame of a symbol, until `unmute`; REST still has the candles."""
        self._stage((market, symbol), Fault("silent_stream", market=market, symbols=(symbol,)))

    def unmute(self, market: str, symbol: str) -> None:
        """Send the symbol's frames again; those meanwhile stay lost."""
        self._stage((market, symbol), None)

    def stall(self) -> None:
        """Send nothing to any connection, not even a pong, until `resume`."""
        self._gate.clear()

    def resume(self) -> None:
        """Send again: first all that came due meanwhile."""
        self._gate.set()

    async def send_to_all(self, data: str | bytes) -> None:
        """Send one text frame of any content to every open connection but half open ones."""
        for connection in [item for item in self._sockets.open if not item.stalled]:
            with suppress(ConnectionResetError):
                await connection.send(data)

    def refuse(self, status: int) -> None:
        """Answer every further handshake with this HTTP status; 0 to accept again."""
        self._stage(("refuse",), Fault("refuse_handshake", value=status, retry_after_s=1) if status else None)

    def application(self) -> web.Application:
        """Return the routes of all three markets."""
        app = web.Application()
        self._calls.add_routes(app)
        self._bucket.add_routes(app)
        self._sockets.add_routes(app)
        control.add_routes(app, self)
        return app

    async def watch(self) -> None:
        """Let happen to open connections what is due, until cancelled."""
        await self._incidents.run()


def _paced(frames: list[tuple[float, bytes]], speed: float) -> list[tuple[float, bytes]]:
    return [(offset_s / speed, frame) for offset_s, frame in frames]


@asynccontextmanager
async def serve(options: SandboxOptions) -> AsyncIterator[Sandbox]:
    """Run a sandbox while the block runs.

    Raises:
        LakewriterError: if the port is taken.
        UsageError: if a recording cannot be read, or a fault cannot be.
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
        watch = asyncio.create_task(sandbox.watch())
        try:
            yield sandbox
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    finally:
        await sandbox.drop_connections()
        await runner.cleanup()
