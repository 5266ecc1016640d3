"""The application: routes of several parts, with limits and headers that hold for all of them.

Rule 1: a request changes nothing. Only GET and HEAD are answered, unless a part
registers another method itself. Rule 2: requests above `REQUESTS_PER_S` wait, so that
no client can keep the event loop busy; the loop also records. Rule 3: a server on a
loopback address answers no request to another host's name, because a web page could
reach it by such a name (DNS rebinding). A server with a token needs no such rule.

A handler must not block the event loop: it reads disks in a thread.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from lakewriter.web.throttle import Throttle

# One page with several open tabs needs about ten requests a second. A request costs about 1 ms.
REQUESTS_PER_S = 50.0
REQUESTS_BURST = 100

# Maximum size of the body of a request. GET and HEAD need none.
BODY_BYTES_MAX = 64 * 1024

# Maximum number of errors of handlers that are logged. All are counted by the client's status 500.
ERRORS_LOGGED_MAX = 20

# Headers of each answer, unless its handler sets them.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def make_app(routes: Iterable[web.AbstractRouteDef], *, any_host: bool = False) -> web.Application:
    """Return the application of some routes.

    Args:
        routes: for example `aiohttp.web.get("/healthz", handler)`; a GET route also answers HEAD.
        any_host: whether a request may name any host, as one that a proxy passes on does. Only
            for a server with a token: a page that reaches it by another name lacks the token.
    """
    guards = [] if any_host else [_for_this_host]
    app = web.Application(middlewares=[_throttled(), *guards, _in_one_line], client_max_size=BODY_BYTES_MAX)
    app.add_routes(routes)
    app.on_response_prepare.append(_add_headers)
    return app


def json_answer(content: object, status: int = 200) -> web.Response:
    """Return an answer of JSON.

    Args:
        content: a struct, or plain values.
    """
    return web.Response(
        body=msgspec.json.encode(content) + b"\n", status=status, content_type="application/json"
    )


def request_log() -> logging.Logger:
    """Return the log of failed requests. It has the errors of handlers, not those of clients."""
    log = logging.getLogger("lakewriter.web.requests")
    if not log.filters:
        log.addFilter(_own_errors())
    return log


def _own_errors() -> Callable[[logging.LogRecord], bool]:
    left = ERRORS_LOGGED_MAX

    def is_logged(record: logging.LogRecord) -> bool:
        nonlocal left
        error = record.exc_info[1] if record.exc_info else None
        # A malformed request, a client that left, or a request that outlasted the server.
        if isinstance(error, HttpProcessingError | ConnectionError | asyncio.InvalidStateError):
            return False
        left -= 1
        return left >= 0

    return is_logged


def _throttled() -> Middleware:
    throttle = Throttle(REQUESTS_PER_S, REQUESTS_BURST)

    @web.middleware
    async def throttled(request: web.Request, handler: Handler) -> web.StreamResponse:
        wait_s = throttle.wait_s(asyncio.get_running_loop().time())
        if wait_s:
            await asyncio.sleep(wait_s)
        return await handler(request)

    return throttled


@web.middleware
async def _for_this_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if here is not None and _is_loopback(here[0]) and not _names_loopback(request.host):
        raise web.HTTPMisdirectedRequest(
            text=f"421: this server listens on {here[0]} only, and {request.host!r} is another host\n"
        )
    return await handler(request)


def _names_loopback(host: str) -> bool:
    """Return whether a Host header names this machine, or has an address instead of a name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_address(name)


def _is_loopback(address: str) -> bool:
    return _is_address(address) and ipaddress.ip_address(address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@web.middleware
async def _in_one_line(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the paths that exist, or the methods, in the answer to a wrong request."""
    try:
        return await handler(request)
    except web.HTTPNotFound as error:
        paths = sorted({route.canonical for route in request.app.router.resources()})
        error.text = f"404: nothing is at {request.path[:200]}; there are {' '.join(paths)}\n"
        raise
    except web.HTTPMethodNotAllowed as error:
        error.text = f"405: {request.path[:200]} answers {', '.join(sorted(error.allowed_methods))} only\n"
        raise


async def _add_headers(_: web.Request, answer: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    answer.headers["Server"] = "lakewriter"  # in place of the versions of Python and aiohttp
