"""The files of the page, read once, with the headers that browsers need.

Each file has an ETag of its content, so a new version of lakewriter is seen at once. Files
are sent compressed: a phone fetches some 80 kB for the page, once.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from aiohttp import web

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".LICENSE": "text/plain",
    ".NOTICE": "text/plain",
}

# The chart library adds this one style to the page, for TradingView's logo.
CHART_STYLE_HASH = "sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY="

# Nothing may be loaded from elsewhere, and nothing inline runs.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' '{CHART_STYLE_HASH}'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Without any referrer, browsers hide the origin of the login form, too.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Asset(NamedTuple):
    """One file of the page.

    Args:
        content_type: its media type.
        body, compressed: its content, plain and by gzip.
        etag: the hash of the content.
    """

    content_type: str
    body: bytes
    compressed: bytes
    etag: str

    def response(self, request: web.Request) -> web.Response:
        """Return the file, or 304 if the browser has it."""
        headers = {"ETag": f'"{self.etag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if any(each.value in (self.etag, "*") for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        body = self.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = self.compressed
        return web.Response(body=body, content_type=self.content_type, charset="utf-8", headers=headers)


@cache
def assets() -> dict[str, Asset]:
    """Return the files of the page by their path below `static`."""
    found = {}
    pending = [("", files(__package__) / "static")]
    while pending:
        path, place = pending.pop()
        if place.is_dir():
            pending += ((f"{path}/{each.name}".lstrip("/"), each) for each in place.iterdir())
            continue
        suffix = path[path.rfind(".") :]
        if suffix in _TYPES:
            body = place.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:32]
            found[path] = Asset(_TYPES[suffix], body, gzip.compress(body, 6, mtime=0), digest)
    return found
