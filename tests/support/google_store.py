"""A bucket on loopback that speaks as much of Google's XML API as the client uses.

No emulator has this API with conditions. So this is an own imitation, written from the
documentation: objects have generations, and `x-goog-if-generation-match` guards a PUT.
"""

import hashlib
import threading
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from support.loopback_server import LoopbackServer, QuietHandler

BUCKET = "bucket"

# Small pages, so that tests have several.
KEYS_MAX = 25


class _Object(NamedTuple):
    data: bytes
    generation: int
    metadata: dict[str, str]

    @property
    def e_tag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'

    def headers(self) -> dict[str, str]:
        return {
            "ETag": self.e_tag,
            "x-goog-generation": str(self.generation),
            "Last-Modified": formatdate(1_700_000_000, usegmt=True),
            **self.metadata,
        }


class GoogleStore(LoopbackServer):
    """A server with one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self._generation = 1_000
        self._lock = threading.Lock()
        store = self

        class Handler(QuietHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                address = urlsplit(self.path)
                bucket, _, key = unquote(address.path).removeprefix("/").partition("/")
                query = {name: values[0] for name, values in parse_qs(address.query).items()}
                with store._lock:
                    if bucket != BUCKET:
                        status, headers, data = _refusal(404, "NoSuchBucket")
                    elif not key:
                        status, headers, data = 200, {}, store._list(query)
                    else:
                        headers = {name.lower(): value for name, value in self.headers.items()}
                        status, headers, data = store._object(self.command, key, headers, body)
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_DELETE = _answer

        super().__init__(Handler)

    def uri(self, prefix: str) -> str:
        return f"gs://{BUCKET}/{prefix}?endpoint_override={self.url}&anonymous=true"

    def _object(
        self, verb: str, key: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        found = self.objects.get(key)
        if verb == "PUT":
            expected = headers.get("x-goog-if-generation-match")
            if expected is not None and int(expected) != (found.generation if found else 0):
                return _refusal(412, "PreconditionFailed")
            self._generation += 1
            metadata = {name: value for name, value in headers.items() if name.startswith("x-goog-meta-")}
            stored = self.objects[key] = _Object(body, self._generation, metadata)
            return 200, stored.headers(), b""
        if found is None:
            return _refusal(404, "NoSuchKey")
        if verb == "DELETE":
            del self.objects[key]
            return 204, {}, b""
        return 200, found.headers(), found.data

    def _list(self, query: dict[str, str]) -> bytes:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token", "")
        lines: dict[str, str] = {}
        last = more = ""
        for key in sorted(self.objects):
            if not key.startswith(prefix) or key <= after:
                continue
            rest, cut, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            name = prefix + rest + cut if cut else key
            if name not in lines and len(lines) == KEYS_MAX:
                more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
                break
            last = key
            lines[name] = (
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                if cut
                else f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key].data)}</Size>"
                "<LastModified>2024-01-01T00:00:00Z</LastModified>"
                f"<ETag>{escape(self.objects[key].e_tag)}</ETag></Contents>"
            )
        return f"<ListBucketResult>{''.join(lines.values())}{more}</ListBucketResult>".encode()


def _refusal(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()
