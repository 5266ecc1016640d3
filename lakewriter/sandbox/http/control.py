"""The sandbox's control endpoint: its counters, its faults, and the existing candles.

    GET    /control                  counters, faults with their ids, names of faults
    POST   /control/faults           a fault as JSON → {"id": 1}
    DELETE /control/faults/1         remove a fault; without the number, all faults
    GET    /control/expected         ?market=&symbol=&interval=&start=&stop= → begin times
    POST   /control/drop             cut all connections

The exchange has no such endpoint.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import web

from lakewriter.errors import UsageError
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.faults.fault_syntax import parse_json, parse_moment
from lakewriter.sandbox.faults.table import FAULTS, Fault

_Handler = Callable[[web.Request], Awaitable[web.Response]]

# The maximum candles of an answer. A request for more is a client's mistake.
_EXPECTED_MAX = 1_000_000


class ControlledSandbox(Protocol):
    """The part of a sandbox that the endpoint uses."""

    clock: SimClock
    faults: FaultSet
    violations: Counter[str]
    requests: Counter[str]

    @property
    def connections(self) -> int:
        """The number of open connections."""

    @property
    def streams(self) -> int:
        """The number of subscribed streams of all open connections."""

    def add_fault(self, fault: Fault) -> int:
        """Add a fault; return its id."""

    def remove_fault(self, fault_id: int) -> None:
        """Remove a fault."""

    def clear_faults(self) -> None:
        """Remove all faults."""

    def expected(self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin times of the existing candles."""

    async def drop_connections(self) -> None:
        """Cut all connections."""


def add_routes(app: web.Application, sandbox: ControlledSandbox) -> None:
    """Add the routes of the endpoint."""

    async def state(_request: web.Request) -> web.Response:
        return _json_response(_state(sandbox))

    async def add(request: web.Request) -> web.Response:
        return _json_response(
            {"id": sandbox.add_fault(parse_json(await request.read(), sandbox.clock.now_ms()))}
        )

    async def remove(request: web.Request) -> web.Response:
        sandbox.remove_fault(int(request.match_info["id"]))
        return _json_response({})

    async def clear(_request: web.Request) -> web.Response:
        sandbox.clear_faults()
        return _json_response({})

    async def expected(request: web.Request) -> web.Response:
        return _json_response(_expected(sandbox, request))

    async def drop(_request: web.Request) -> web.Response:
        await sandbox.drop_connections()
        return _json_response({})

    app.router.add_get("/control", state)
    app.router.add_post("/control/faults", _with_usage_errors(add))
    app.router.add_delete("/control/faults", clear)
    app.router.add_delete(r"/control/faults/{id:\d{1,18}}", _with_usage_errors(remove))
    app.router.add_get("/control/expected", _with_usage_errors(expected))
    app.router.add_post("/control/drop", drop)


def _with_usage_errors(handler: _Handler) -> _Handler:
    """Return the handler; it answers a `UsageError` with status 400 and the error's text."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except UsageError as error:
            return web.Response(text=f"{error.what}\n", status=400)

    return handle


def _state(sandbox: ControlledSandbox) -> dict[str, object]:
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


def _expected(sandbox: ControlledSandbox, request: web.Request) -> list[int]:
    params = {name: request.query.get(name, "") for name in ("market", "symbol", "interval", "start", "stop")}
    missing = [name for name, value in params.items() if not value]
    if missing:
        raise UsageError(f"expected: {missing[0]} is missing")
    start_ms, stop_ms = parse_moment(params["start"]), parse_moment(params["stop"])
    begins = sandbox.expected(params["market"], params["symbol"], params["interval"], start_ms, stop_ms)
    if len(begins) > _EXPECTED_MAX:
        raise UsageError(f"expected: more than {_EXPECTED_MAX} candles: ask for a shorter range")
    return begins


def _json_response(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
