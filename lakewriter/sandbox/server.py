"""The sandbox's server: three markets, WebSocket and HTTP, on one port.

    async with serve(SandboxOptions(speed=60)) as sandbox:
        …connect to sandbox.url…

Joins clock, truth, feeds, REST, archive and recordings, and gives each URL to
the one who answers it. `Sandbox` is also where tests reach in: it counts, and
it misbehaves on request.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
from aiohttp import web

from lakewriter.errors import LakewriterError
from lakewriter.market import MARKETS
from lakewriter.sandbox import archive, rest
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.connection import Connection, Shared
from lakewriter.sandbox.feed import Feeds
from lakewriter.sandbox.listing import exchange_info, listings
from lakewriter.sandbox.protocol import ACCENTS
from lakewriter.sandbox.replay import load
from lakewriter.sandbox.truth import Truth

# Archive files kept, because a checksum and its zip are asked for one after the other.
_FILES_MAX = 16

# A closed connection that does not answer is cut after this.
_CLOSE_S = 2.0

_NO_SUCH_FILE = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


class Sandbox:
    """A running sandbox.

    Args:
        url: where it listens ("http://127.0.0.1:9080").
        truth: every candle it will ever send.
        violations: limits that clients broke, by kind: "messages", "streams",
            "pongs", "weight".
        requests: REST and archive calls answered, by kind: "klines", "time",
            "ping", "exchangeInfo", "archive".
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.url = ""
        self.clock = SimClock(options.start_ms, options.speed)
        self.truth = Truth(options.seed)
        self.violations: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self._listed = {name: listings(name, options.symbols) for name in MARKETS}
        self._by_symbol = {
            name: {item.symbol: item for item in listed} for name, listed in self._listed.items()
        }
        self._gate = asyncio.Event()
        self._gate.set()
        self._refusal = 0
        self._budget = rest.Budget()
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._open: set[Connection] = set()
        recordings = {item.market: item.frames for item in map(load, options.replay)}
        self._shared = {
            name: Shared(
                market=name,
                feeds=Feeds(name, self._listed[name], self.truth),
                clock=self.clock,
                open_gate=self._gate,
                violations=self.violations,
                muted=set(),
                push_every_ms=options.push_every_ms,
                ping_every_s=options.ping_every_s or ACCENTS[name].ping_every_s,
                recording=_paced(recordings[name], options.speed) if name in recordings else None,
            )
            for name in MARKETS
        }

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""
        return len(self._open)

    @property
    def streams(self) -> int:
        """How many streams are being sent, over all connections."""
        return sum(connection.streams for connection in self._open)

    @property
    def replayed(self) -> int:
        """How many recorded frames the open connections were sent."""
        return sum(connection.replayed for connection in self._open)

    def now_ms(self) -> int:
        """Return the simulated time."""
        return self.clock.now_ms()

    def symbols(self, market: str) -> list[str]:
        """Return the symbols of a market that trade, in the order of its list."""
        return [item.symbol for item in self._listed[market] if item.status == "TRADING"]

    async def drop_connections(self) -> None:
        """Cut every connection without a word, as a broken network does."""
        dropped = list(self._open)
        for connection in dropped:
            connection.abort()
        for connection in dropped:
            await connection.ended.wait()

    async def close_connections(self, code: int = 1001, reason: str = "") -> None:
        """End every connection in order, as a server that restarts does."""
        await asyncio.gather(*(connection.close(code, reason) for connection in self._open))

    def mute(self, market: str, symbol: str) -> None:
        """Lose every frame of a symbol, until `unmute`; REST still has the candles."""
        self._shared[market].muted.add(symbol)

    def unmute(self, market: str, symbol: str) -> None:
        """Send the symbol's frames again; those meanwhile stay lost."""
        self._shared[market].muted.discard(symbol)

    def stall(self) -> None:
        """Send nothing to any connection, not even a pong, until `resume`."""
        self._gate.clear()

    def resume(self) -> None:
        """Send again: first all that came due meanwhile."""
        self._gate.set()

    async def send_to_all(self, data: str | bytes) -> None:
        """Send one text frame of any content to every open connection."""
        for connection in list(self._open):
            with suppress(ConnectionResetError):
                await connection.send(data)

    def refuse(self, status: int) -> None:
        """Answer every further handshake with this HTTP status; 0 to accept again."""
        self._refusal = status

    def application(self) -> web.Application:
        """Return the routes of all three markets."""
        app = web.Application()
        app.router.add_get("/data/{path:.+}", self._archive)
        for name, market in MARKETS.items():
            routed = name == "usdt_futures"
            for route in ("", "/market", "/public", "/private") if routed else ("",):
                silent = routed and route != "/market"
                for path in ("ws", "ws/{streams:.+}", "stream"):
                    app.router.add_get(f"/{name}{route}/{path}", self._socket_of(name, silent=silent))
            for call in ("klines", "time", "ping", "exchangeInfo"):
                app.router.add_get(f"/{name}{market.rest_path}/{call}", self._rest_of(name, call))
            app.router.add_get(f"/{name}/data/{{path:.+}}", self._archive)
        return app

    def _socket_of(self, market: str, *, silent: bool) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._refusal:
                return web.Response(status=self._refusal, headers={"Retry-After": "1"})
            socket = web.WebSocketResponse(autoping=False, compress=False, timeout=_CLOSE_S)
            await socket.prepare(request)
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
            self._open.add(connection)
            try:
                await connection.run()
            finally:
                self._open.remove(connection)
            return socket

        return handle

    def _rest_of(self, market: str, call: str) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests[call] += 1
            weight = 1
            if call == "klines":
                weight = rest.klines_weight(market, request.query)
            elif call == "exchangeInfo" and market == "spot":
                weight = 20
            used, wait_s = self._budget.spend(market, request.remote or "", weight, self.clock.real_s())
            headers = {"x-mbx-used-weight-1m": str(used)}
            if market == "spot":
                headers["x-mbx-used-weight"] = str(used)
            if wait_s:
                self.violations["weight"] += 1
                headers["Retry-After"] = str(wait_s)
                answer = rest.Answer(429, {"code": -1003, "msg": "Too many requests."})
            else:
                answer = await self._answer(market, call, request)
            body = msgspec.json.encode(answer.body)
            return web.Response(
                body=body, status=answer.status, headers=headers, content_type="application/json"
            )

        return handle

    async def _answer(self, market: str, call: str, request: web.Request) -> rest.Answer:
        now_ms = self.now_ms()
        if call == "klines":
            # Years of candles take seconds to compute; the streams go on meanwhile.
            return await asyncio.to_thread(
                rest.klines, market, self._by_symbol[market], self.truth, dict(request.query), now_ms
            )
        if call == "time":
            return rest.Answer(200, {"serverTime": now_ms})
        if call == "exchangeInfo":
            return rest.Answer(200, exchange_info(market, self._listed[market], now_ms))
        return rest.Answer(200, {})

    async def _archive(self, request: web.Request) -> web.StreamResponse:
        self.requests["archive"] += 1
        path = "/data/" + request.match_info["path"]
        zip_path = path.removesuffix(".CHECKSUM")
        found = archive.find(zip_path, self._by_symbol, self.now_ms())
        if found is None:
            return web.Response(text=_NO_SUCH_FILE, status=404, content_type="application/xml")
        content = self._files.get(zip_path)
        if content is None:
            content = await asyncio.to_thread(self._zip, found)
            self._files[zip_path] = content
            if len(self._files) > _FILES_MAX:
                self._files.popitem(last=False)
        if path != zip_path:
            return web.Response(
                text=archive.checksum(found.name, content), content_type="binary/octet-stream"
            )
        return web.Response(body=content, content_type="application/zip")

    def _zip(self, found: archive.ArchiveFile) -> bytes:
        spec = self._by_symbol[found.market][found.symbol]
        return archive.zipped(found.name, archive.csv(self.truth, spec, found), found.start_ms)


def _paced(frames: list[tuple[float, bytes]], speed: float) -> list[tuple[float, bytes]]:
    return [(offset_s / speed, frame) for offset_s, frame in frames]


@asynccontextmanager
async def serve(options: SandboxOptions) -> AsyncIterator[Sandbox]:
    """Run a sandbox while the block runs.

    Raises:
        LakewriterError: if the port is taken.
        UsageError: if a recording cannot be read.
    """
    sandbox = Sandbox(options)
    runner = web.AppRunner(
        sandbox.application(), access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_S
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
        yield sandbox
    finally:
        await sandbox.drop_connections()
        await runner.cleanup()
