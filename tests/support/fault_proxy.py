"""A proxy before an object store that disturbs PUT requests as networks and stores do."""

import contextlib
import http.client
import threading
from collections import deque
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from support.loopback_server import LoopbackServer, QuietHandler
from support.running import PATIENCE_S

# Answers that a store gives without storing anything.
_REFUSALS = {
    "409": (409, "Conflict", "ConditionalRequestConflict"),
    "500": (500, "Internal Server Error", "InternalError"),
    "503": (503, "Slow Down", "SlowDown"),
}
# "lost": stored, and the connection is cut before the answer. "500 after": stored, and
# answered by an error. "cut": the connection is cut before anything is stored. "stall":
# nothing is stored, and nothing answered.
FAULTS = ("lost", "500 after", "cut", "stall", *_REFUSALS)

_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding"))


class FaultProxy(LoopbackServer):
    """A proxy on loopback.

    Attributes:
        plan: the faults of the next PUT requests; each is used once. None is no fault.
        choose: chooses the fault of a PUT request that the plan does not name.
        away: whether every connection is cut, as if the store were down.
        drop_conditions: whether a PUT loses its conditions on the way.
        met: the faults that were played.
        asked: the number of requests.
    """

    def __init__(self, target: str) -> None:  # noqa: C901 - the handler is inside
        self.plan: deque[str | None] = deque()
        self.choose: Callable[[], str | None] = lambda: None
        self.away = False
        self.drop_conditions = False
        self.met: list[str] = []
        self.asked = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        proxy, place = self, urlsplit(target)

        class Handler(QuietHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy._next() if self.command == "PUT" else None
                proxy.asked += 1
                if proxy.away:
                    self.close_connection = True
                elif fault in _REFUSALS:
                    self._refuse(fault)
                elif fault in ("cut", "stall"):
                    if fault == "stall":
                        proxy._ended.wait(PATIENCE_S)
                    self.close_connection = True
                else:
                    status, headers, data = self._forward(body)
                    if fault == "lost":
                        self.close_connection = True
                    elif fault == "500 after":
                        self._refuse("500")
                    else:
                        self._send(status, headers, data)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

            def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                upstream = http.client.HTTPConnection(place.netloc, timeout=PATIENCE_S)
                with contextlib.closing(upstream):
                    upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        is_condition = name.lower() in ("if-match", "if-none-match")
                        if not (is_condition and proxy.drop_conditions and self.command == "PUT"):
                            upstream.putheader(name, value)
                    upstream.endheaders(body)
                    answer = upstream.getresponse()
                    return answer.status, answer.getheaders(), answer.read()

            def _refuse(self, fault: str) -> None:
                status, _, code = _REFUSALS[fault]
                data = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
                self._send(status, [("Content-Type", "application/xml")], data)

            def _send(self, status: int, headers: Iterable[tuple[str, str]], data: bytes) -> None:
                self.send_response_only(status)
                is_head = self.command == "HEAD"
                for name, value in headers:
                    if name.lower() not in _HOP_BY_HOP and (is_head or name.lower() != "content-length"):
                        self.send_header(name, value)
                if not is_head:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        super().__init__(Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]

    def _next(self) -> str | None:
        with self._lock:
            fault = self.plan.popleft() if self.plan else self.choose()
            if fault is not None:
                self.met.append(fault)
            return fault

    def close(self) -> None:
        self._ended.set()
        super().close()
