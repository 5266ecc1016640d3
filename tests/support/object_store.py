"""A real S3 server on loopback (moto's), which counts requests and can return errors."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"


class Request(NamedTuple):
    """One request: a method and a key, or LIST and a prefix."""

    verb: str
    key: str


Hook = Callable[[Request], "tuple[str, list[tuple[str, str]], bytes] | None"]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


class Store:
    """A local S3 server with one bucket.

    Attributes:
        hook: gets each request before its answer; returns status, headers and body, or
            None for the usual answer.
        delay_s: extra seconds before each answer.
    """

    def __init__(self) -> None:
        # S3 gives an object as it was or as it is; moto would give it in pieces.
        self._lock = threading.Lock()
        # Its dispatcher would list all of moto's services for each request.
        self._app: Any = create_backend_app("s3")
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: list[Request] = []
        self.hook: Hook | None = None
        self.delay_s = 0.0
        # Objects come and go behind the server's back: what is asked is what is read.
        self._backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self._backend.create_bucket(BUCKET, "us-east-1")

    def _answer(self, environment: dict[str, Any], start: Any) -> Any:
        # WSGI hands over a path's bytes as if they were Latin-1.
        path = environment["PATH_INFO"].encode("latin-1").decode()
        query = parse_qs(environment.get("QUERY_STRING", ""))
        key = path.removeprefix(f"/{BUCKET}").removeprefix("/")
        request = Request(environment["REQUEST_METHOD"], key)
        if "list-type" in query:
            request = Request("LIST", query.get("prefix", [""])[0])
        self.requests.append(request)
        time.sleep(self.delay_s)
        answer = self.hook(request) if self.hook else None
        if answer is None:
            with self._lock:
                return list(self._app(environment, start))
        status, headers, body = answer
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._backend.reset()

    def uri(self, prefix: str) -> str:
        return f"s3://test:test@{BUCKET}/{prefix}?endpoint_override={self.url}&region=us-east-1"

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._backend.put_object(BUCKET, key, data)

    def delete(self, key: str) -> None:
        with self._lock:
            self._backend.delete_object(BUCKET, key)

    def upload(self, root: Path, prefix: str) -> str:
        """Upload a local lake object by object; return its URI."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(root)}", path.read_bytes())
        return self.uri(prefix)

    def counted(self) -> Counter[str]:
        return Counter(request.verb for request in self.requests)

    def asked(self, prefix: str) -> list[str]:
        """Return the keys and prefixes of all requests, relative to a lake's prefix."""
        return [request.key.removeprefix(f"{prefix}/") for request in self.requests]

    @contextlib.contextmanager
    def misbehaving(self, hook: Hook) -> Iterator[None]:
        self.hook = hook
        try:
            yield
        finally:
            self.hook = None

    @contextlib.contextmanager
    def before(self, request: Request, *doings: Callable[[], object]) -> Iterator[list[Callable[[], object]]]:
        """Run one more of the functions before each answer to a request; yield the remaining ones."""
        waiting = list(doings)

        def hook(seen: Request) -> None:
            if seen == request and waiting:
                waiting.pop(0)()

        with self.misbehaving(hook):
            yield waiting


def refusal(status: str, code: str, text: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """An answer in S3's format of errors."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    return status, [("Content-Type", "application/xml")], body


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set these environment variables for the block, and remove all others of AWS and Azure."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("AWS_", "AZURE_")):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
