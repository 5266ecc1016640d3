"""The token of a server: programs send it as a header, and people log in once.

    Authorization: Bearer TOKEN
    GET, POST /login       the form, which sets a cookie
    POST /logout           removes the cookie

The cookie is derived from the token, so a login outlasts a restart and ends with
another token. The cookie does not reveal the token.
"""

import asyncio
import hmac

from aiohttp import web
from aiohttp.typedefs import Handler

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.web.page.assets import SECURITY_HEADERS, assets
from lakewriter.web.page.routes import checked, error_response
from lakewriter.web.statements import check_same_origin

# A shorter token could be guessed.
TOKEN_CHARS_MIN = 16

COOKIE = "lakewriter_session"
_COOKIE_S = 30 * 86_400

# Pause after a wrong token.
_WRONG_S = 0.5

# Files of the login form.
_OPEN_PREFIX = "/page/static/"

_FAILED = ' data-failed="yes"'


def checked_token(token: str) -> str:
    """Return a token that is long enough.

    Raises:
        UsageError: if it is too short, or a header cannot hold it.
    """
    if len(token) < TOKEN_CHARS_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"--token: must have at least {TOKEN_CHARS_MIN} characters: letters, digits and signs",
            "export LAKEWRITER_TOKEN=$(openssl rand -hex 16)",
        )
    return token


def require_token(app: web.Application, token: str) -> None:
    """Refuse all requests to an application that lack the token, and add the login form."""
    session = hmac.digest(token.encode(), b"lakewriter page session 1", "sha256").hex()

    def is_known(request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        by_header = scheme.lower() == "bearer" and _equal(given.strip(), token)
        return by_header or _equal(request.cookies.get(COOKIE, ""), session)

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/login" or request.path.startswith(_OPEN_PREFIX) or is_known(request):
            return await handler(request)
        if request.path == "/":
            raise web.HTTPSeeOther("/login")
        response = error_response(
            401, LakewriterError("page: this needs the token", "Authorization: Bearer TOKEN, or /login")
        )
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    async def form(request: web.Request) -> web.StreamResponse:
        if is_known(request):
            raise web.HTTPSeeOther("/")
        return _form(failed=False)

    async def log_in(request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        given = (await request.post()).get("token", "")
        if not isinstance(given, str) or not _equal(given.strip(), token):
            await asyncio.sleep(_WRONG_S)
            return _form(failed=True)
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(COOKIE, session, max_age=_COOKIE_S, httponly=True, samesite="Strict", path="/")
        return response

    async def log_out(request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(COOKIE, path="/")
        return response

    app.middlewares.append(gate)
    app.add_routes(
        [
            web.get("/login", checked(form)),
            web.post("/login", checked(log_in)),
            web.post("/logout", checked(log_out)),
        ]
    )


def _form(*, failed: bool) -> web.Response:
    body = assets()["login.html"].body
    if failed:
        body = body.replace(b"<body", b"<body" + _FAILED.encode(), 1)
    return web.Response(
        status=401 if failed else 200,
        body=body,
        content_type="text/html",
        charset="utf-8",
        headers={"Cache-Control": "no-store", **SECURITY_HEADERS},
    )


def _equal(given: str, wanted: str) -> bool:
    """Compare in a time that does not depend on where the texts differ."""
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
