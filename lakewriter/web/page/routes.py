"""The routes of the page.

/                          the page
/page/static/…             its files
/page/about.json           what this server offers
/page/status.json          recorders, lag, size, disk, and what needs attention
/page/series.json          the series of the lake
/page/candles.json         candles of one series: market, symbol, interval, and count,
                           before_ms or after_ms
/page/coverage.json        coverage by day: series (repeatable, market:symbol:interval), days
/page/gaps.json            the newest gaps: days
"""

from typing import NamedTuple

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from lakewriter import __version__
from lakewriter.clock import present_ms
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.web.page.assets import SECURITY_HEADERS, assets
from lakewriter.web.page.questions import COVERED_SERIES_MAX, CandleWindow, parse_series
from lakewriter.web.page.readers import Answer, BusyError, LakeReaders, failure

_NUMBER_DIGITS_MAX = 15


class About(NamedTuple):
    """What the page has to know of its server.

    Args:
        lake: the lake's name, as a person knows it.
        recorder: whether a recorder serves the page.
        sql: whether there is a SQL box.
        login: whether a person can log out.
    """

    lake: str
    recorder: bool
    sql: bool = False
    login: bool = False


def page_routes(readers: LakeReaders, about: About) -> list[web.RouteDef]:
    """Return the routes of the page. The caller closes the readers at the end."""
    described = msgspec.json.encode({**about._asdict(), "version": __version__})

    async def index(request: web.Request) -> web.StreamResponse:
        return assets()["index.html"].response(request)

    async def static(request: web.Request) -> web.StreamResponse:
        asset = assets().get(request.match_info["path"])
        if asset is None:
            raise web.HTTPNotFound
        return asset.response(request)

    async def tell(_request: web.Request) -> web.StreamResponse:
        return json_response(Answer(200, described))

    async def status(_request: web.Request) -> web.StreamResponse:
        return json_response(await readers.ask("read_status", present_ms(), key=()))

    async def series(_request: web.Request) -> web.StreamResponse:
        return json_response(await readers.ask("read_series"))

    async def candles(request: web.Request) -> web.StreamResponse:
        query = request.query
        chosen = parse_series(*(query.get(name, "") for name in ("market", "symbol", "interval")))
        window = CandleWindow(
            _number(request, "count", 600), _optional(request, "before_ms"), _optional(request, "after_ms")
        )
        return json_response(await readers.ask("read_candles", chosen, window))

    async def coverage(request: web.Request) -> web.StreamResponse:
        named = request.query.getall("series", [])
        if len(named) > COVERED_SERIES_MAX:
            raise UsageError(f"coverage: {len(named)} series; at most {COVERED_SERIES_MAX} at once")
        chosen = [parse_series(*_three(text)) for text in named]
        days = _number(request, "days", 30)
        key = (tuple(chosen), days)
        return json_response(await readers.ask("read_coverage", chosen, days, present_ms(), key=key))

    async def gaps(request: web.Request) -> web.StreamResponse:
        days = _number(request, "days", 30)
        return json_response(await readers.ask("read_gaps", days, present_ms(), key=days))

    return [
        web.get("/", checked(index)),
        web.get("/page/static/{path:.+}", checked(static)),
        web.get("/page/about.json", checked(tell)),
        web.get("/page/status.json", checked(status)),
        web.get("/page/series.json", checked(series)),
        web.get("/page/candles.json", checked(candles)),
        web.get("/page/coverage.json", checked(coverage)),
        web.get("/page/gaps.json", checked(gaps)),
    ]


def checked(handler: Handler) -> Handler:
    """Return a handler that answers errors as JSON, and sends the security headers."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            response = await handler(request)
        except UsageError as error:
            response = error_response(400, error)
        except BusyError as error:
            response = error_response(503, error)
        except LakewriterError as error:
            response = error_response(500, error)
        response.headers.update(SECURITY_HEADERS)
        return response

    return handle


def json_response(answer: Answer) -> web.Response:
    """Return an answer as JSON that no browser keeps."""
    response = web.Response(
        status=answer.status,
        body=answer.body,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
    response.enable_compression()
    return response


def error_response(status: int, error: LakewriterError) -> web.Response:
    """Return an error as JSON: {"error", "hint"}."""
    return json_response(failure(status, error.what, error.hint))


def _three(text: str) -> list[str]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"series: {text!r} is not MARKET:SYMBOL:INTERVAL", "spot:BTCUSDT:1m")
    return parts


def _number(request: web.Request, name: str, default: int) -> int:
    found = _optional(request, name)
    return default if found is None else max(1, found)


def _optional(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX):
        raise UsageError(f"{name}: {text!r} is not a whole number")
    return int(text)
