"""The sandbox's own HTTP endpoint: what it counts, what goes wrong, and what should be there.

    GET    /control                  counters, faults with their ids, names of faults
    POST   /control/faults           a fault as JSON → {"id": 1}
    DELETE /control/faults/1         one of them; without the number, all
    GET    /control/expected         ?market=&symbol=&interval=&start=&stop= → begin times
    POST   /control/drop             cut every connection

It is no part of the exchange.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import web

from lakewriter.errors import UsageError
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.fault_syntax import moment_ms, parse_json
from lakewriter.sandbox.faults.table import FAULTS, Fault, Faults

_Handler = Callable[[web.Request], Awaitable[web.Response]]

# More candles in one answer are a mistake.
_EXPECTED_MAX = 1_000_000


class Controlled(Protocol):
    """What the endpoint needs of a sandbox."""

    clock: SimClock
    faults: Faults
    violations: Counter[str]
    requests: Counter[str]

    @property
    def connections(self) -> int:
        """How many connections are open."""

    @property
    def streams(self) -> int:
        """How many streams they have."""

    def add_fault(self, fault: Fault) -> int:
        """Let something go wrong."""

    def remove_fault(self, fault_id: int) -> None:
        """Let it go right again."""

    def clear_faults(self) -> None:
        """Let everything go right again."""

    def expected(self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin times of the candles that exist."""

    async def drop_connections(self) -> None:
        """Cut every connection."""


def add_routes(app: web.Application, sandbox: Controlled) -> None:
    """Offer the endpoint."""

    async def state(_request: web.Request) -> web.Response:
        return _json(_state(sandbox))

    async def add(request: web.Request) -> web.Response:
        return _json({"id": sandbox.add_fault(parse_json(await request.read(), sandbox.clock.now_ms()))})

    async def remove(request: web.Request) -> web.Response:
        sandbox.remove_fault(int(request.match_info["id"]))
        return _json({})

    async def clear(_request: web.Request) -> web.Response:
        sandbox.clear_faults()
        return _json({})

    async def expected(request: web.Request) -> web.Response:
        return _json(_expected(sandbox, request))

    async def drop(_request: web.Request) -> web.Response:
        await sandbox.drop_connections()
        return _json({})

    app.router.add_get("/control", state)
    app.router.add_post("/control/faults", _polite(add))
    app.router.add_delete("/control/faults", clear)
    app.router.add_delete(r"/control/faults/{id:\d{1,18}}", _polite(remove))
    app.router.add_get("/control/expected", _polite(expected))
    app.router.add_post("/control/drop", drop)


def _polite(handler: _Handler) -> _Handler:
    """Answer nonsense with 400 and one line that says why."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except UsageError as error:
            return web.Response(text=f"{error.what}\n", status=400)

    return handle


def _state(sandbox: Controlled) -> dict[str, object]:
    return {
        "now_ms": sandbox.clock.now_ms(),
        "speed": sandbox.clock.speed,
        "faults": {str(key): msgspec.to_builtins(fault) for key, fault in sandbox.faults.all().items()},
        "violations": dict(sandbox.violations),
        "requests": dict(sandbox.requests),
        "connections": sandbox.connections,
        "streams": sandbox.streams,
        "names": {
            name: {"description": kind.description, "value": kind.value, "default": kind.default}
            for name, kind in FAULTS.items()
        },
    }


def _expected(sandbox: Controlled, request: web.Request) -> list[int]:
    said = {name: request.query.get(name, "") for name in ("market", "symbol", "interval", "start", "stop")}
    missing = [name for name, value in said.items() if not value]
    if missing:
        raise UsageError(f"expected: {missing[0]} was not said")
    start_ms, stop_ms = moment_ms(said["start"]), moment_ms(said["stop"])
    begins = sandbox.expected(said["market"], said["symbol"], said["interval"], start_ms, stop_ms)
    if len(begins) > _EXPECTED_MAX:
        raise UsageError(f"expected: more than {_EXPECTED_MAX} candles: ask for a shorter range")
    return begins


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
