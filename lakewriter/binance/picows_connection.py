"""Connections by the core of picows, a package of the extra `fast`. No proxies.

The core hands over frames: this module joins fragments, answers pings and closes, and stops
reading when messages are not received. Errors are those of websockets, so that no caller
needs to know which library made a connection.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import socket
from collections import deque
from collections.abc import Callable
from email.message import Message
from email.parser import HeaderParser
from typing import Any

from picows import (
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidUpgradeError,
    WSListener,
    WSMsgType,
    WSProtocolError,
    ws_connect,
)
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHeader,
    InvalidMessage,
    InvalidUpgrade,
    NegotiationError,
)
from websockets.frames import OK_CLOSE_CODES, Close, CloseCode
from websockets.headers import build_authorization_basic, build_host
from websockets.uri import WebSocketURI, parse_uri

from lakewriter.binance.frame_connection import FRAME_BYTES_MAX, WRITE_BYTES_MAX, unread_error
from lakewriter.binance.handshake_errors import handshake_error
from lakewriter.binance.network import connected_socket
from lakewriter.errors import ExchangeError

# Messages that may wait for `receive` after a read, as in websockets. More pause the reading. A read
# has at most one message and what the kernel buffers for the socket (tcp_rmem of Linux).
_WAITING_MAX = 16

# A control frame has at most 125 bytes, by RFC 6455.
_CONTROL_BYTES_MAX = 125

_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3})(?: .*)?")

# picows logs errors that `receive` or `close` raises.
_SILENT = logging.Logger("picows", logging.CRITICAL + 1)


class PicowsConnection(WSListener):
    """A `FrameConnection`. `connect_picows` creates it.

    Args:
        close_s: maximum duration of the closing handshake.
    """

    def __init__(self, close_s: float) -> None:
        self.frames = 0
        self.skip: Callable[[bytes], bool] | None = None
        self._close_s = close_s
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._received: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._fragments: bytearray | None = None
        # Whether a message may begin: no fragment of another one came before, nor a close.
        self._may_begin = True
        self._is_closing = False
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reason: ExchangeError | None = None

    async def receive(self) -> bytes:
        """Return the next message."""
        while not self._received:
            await self._wait()
        self.frames += 1
        return self._received.popleft()

    async def send(self, message: str) -> None:
        """Send a message."""
        self._check_open()
        self._transport.send(WSMsgType.TEXT, message)

    async def ping(self) -> "asyncio.Future[None]":
        """Send a ping; return the future of its pong."""
        self._check_open()
        data = secrets.token_bytes(4)
        self._pings[data] = self._loop.create_future()
        self._transport.send_ping(data)
        return self._pings[data]

    def abort(self, reason: ExchangeError) -> None:
        """Give the connection up without a closing handshake."""
        if self._reason is None:
            self._reason = reason
            self._transport.disconnect(False)

    async def close(self, code: int) -> None:
        """Close the connection with a code."""
        try:
            if not self._lost.done():
                self._received.clear()
                self._end(code)
                self._resume_reading()
            await asyncio.shield(self._lost)
        finally:
            self._transport.disconnect(False)
        # picows keeps the error of a callback, which is a bug, until here. `receive` raised only that
        # the connection closed, as for an error of the protocol.
        with contextlib.suppress(WSProtocolError):
            await self._transport.wait_disconnected()

    def on_ws_connected(self, transport: Any) -> None:
        """Take over the open connection."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:  # noqa: ARG002 - as picows calls it
        """Skip a message, or handle the frame."""
        # Nearly all frames are skipped. To read their `msg_type` would take a tenth of the time of a
        # frame, and a long frame is no control frame.
        if (
            self.skip is not None
            and self._may_begin
            and frame.fin
            and frame.payload_size > _CONTROL_BYTES_MAX
            and not frame.rsv1
            and self.skip(frame.get_payload_as_bytes())
        ):
            self.frames += 1
        else:
            self._take(frame)
        if frame.last_in_buffer:
            self._finish_read()

    def on_ws_disconnected(self, transport: Any) -> None:  # noqa: ARG002
        """Wake all that waits for the connection."""
        self._lost.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(self._closed())
                pong.exception()  # the pong may be of no interest any more
        self._wake()

    def pause_writing(self) -> None:
        """Abort the connection; a wait for the peer could delay its close indefinitely."""
        if self._reason is None:
            self._reason = unread_error()
        # Abort later, because the other pongs of this read are not written yet.
        self._loop.call_soon(self._transport.disconnect, False)

    def resume_writing(self) -> None:
        """Do nothing: the connection is aborted."""

    def _take(self, frame: Any) -> None:
        kind = frame.msg_type
        if self._is_closing and kind != WSMsgType.CLOSE:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._end(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
        elif kind == WSMsgType.PING:
            self._transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PONG:
            self._take_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._end(int(frame.get_close_code()) or CloseCode.NO_STATUS_RCVD, frame.get_close_reason() or "")
        else:
            self._take_part(frame.get_payload_as_bytes(), kind == WSMsgType.CONTINUATION, bool(frame.fin))

    def _take_part(self, payload: bytes, continues: bool, is_last: bool) -> None:
        if continues != (self._fragments is not None):
            expected = "unexpected" if continues else "expected a"
            self._end(CloseCode.PROTOCOL_ERROR, f"{expected} continuation frame")
            return
        if self._fragments is None and is_last:
            self._take_message(payload)
            return
        fragments = bytearray() if self._fragments is None else self._fragments
        if len(fragments) + len(payload) > FRAME_BYTES_MAX:
            self._end(CloseCode.MESSAGE_TOO_BIG, f"over size limit ({FRAME_BYTES_MAX} bytes)")
            return
        fragments += payload
        self._may_begin = is_last
        self._fragments = None if is_last else fragments
        if is_last:
            self._take_message(bytes(fragments))

    def _take_message(self, message: bytes) -> None:
        if self.skip is not None and self.skip(message):
            self.frames += 1
        else:
            self._received.append(message)

    def _take_pong(self, data: bytes) -> None:
        """Complete a ping, and all earlier ones, which the peer need not answer."""
        if data not in self._pings:
            return
        for sent in list(self._pings):
            pong = self._pings.pop(sent)
            if not pong.done():
                pong.set_result(None)
            if sent == data:
                return

    def _finish_read(self) -> None:
        """Wake `receive` after the last frame of a read; pause the reading if messages wait."""
        if self._received:
            self._wake()
        if len(self._received) > _WAITING_MAX and not self._is_paused:
            transport = self._transport.underlying_transport
            if not transport.is_closing():
                self._is_paused = True
                transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            transport = self._transport.underlying_transport
            if not transport.is_closing():
                transport.resume_reading()

    async def _wait(self) -> None:
        if self._lost.done():
            raise self._reason or self._closed()
        self._resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, code: int, reason: str = "") -> None:
        """Send a close frame, or answer one; abort if the peer does not close in time."""
        self._may_begin = False
        self._is_closing = True
        if code == CloseCode.NO_STATUS_RCVD:
            self._transport.send(WSMsgType.CLOSE, b"")
        else:
            self._transport.send_close(code, reason)
        if self._timer is None:
            self._timer = self._loop.call_later(self._close_s, self._transport.disconnect, False)

    def _check_open(self) -> None:
        if self._lost.done() or self._is_closing:
            raise self._closed()

    def _closed(self) -> ConnectionClosed:
        """Return the error of the end of the connection, with the codes of both sides."""
        handshake = self._transport.close_handshake
        received = None if handshake is None else _close(handshake.recv)
        sent = None if handshake is None else _close(handshake.sent)
        if received is None:
            error = ConnectionClosedError(None, sent)
            error.__cause__ = EOFError("the connection was cut")
            return error
        sent = sent or received  # the answer to a close without a code has none either
        order = bool(handshake.recv_then_sent)
        if {received.code, sent.code} <= OK_CLOSE_CODES:
            return ConnectionClosedOK(received, sent, order)
        return ConnectionClosedError(received, sent, order)


async def connect_picows(url: str, open_s: float, close_s: float) -> PicowsConnection:
    """Open a connection.

    Raises:
        HandshakeRefusedError: if the server refuses the handshake.
        Exception: if the connection fails for another reason.
    """
    server = parse_uri(url)
    sockets: list[socket.socket] = []

    async def connected(_: Any) -> socket.socket:
        sockets.append(await connected_socket(server.host, server.port))
        return sockets[0]

    try:
        async with asyncio.timeout(open_s):
            _, connection = await ws_connect(
                lambda _, response: _accepted(response.headers, close_s),
                _url(server),
                extra_headers=_authorization(server),
                socket_factory=connected,
                websocket_handshake_timeout=None,
                enable_auto_pong=False,  # picows does not hand over a ping it answers, and a read may end with one
                use_aiofastnet=False,  # aiofastnet 1.2 keeps data over TLS back after a pause of reading
                max_frame_size=FRAME_BYTES_MAX,
                max_redirects=0,
                logger_name=_SILENT,
            )
        if connection is None:
            raise InvalidMessage("did not receive a valid HTTP response") from EOFError(
                "connection closed during the handshake"
            )
    except BaseException as error:
        # The transport of a cancelled handshake has no other end: now it reads the end of the stream.
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if isinstance(error, WSHandshakeError):
            raise _handshake_error(error) from None
        if isinstance(error, TimeoutError):
            raise TimeoutError("timed out during opening handshake") from None
        raise
    return connection  # type: ignore[no-any-return]


def _accepted(headers: Any, close_s: float) -> PicowsConnection:
    """Return the connection of a handshake, unless the server claims what was not offered."""
    for header, what in (
        ("Sec-WebSocket-Extensions", "extensions"),
        ("Sec-WebSocket-Protocol", "subprotocols"),
    ):
        if header in headers:
            raise NegotiationError(f"no {what} supported")
    return PicowsConnection(close_s)


def _url(server: WebSocketURI) -> str:
    """Return a URL without the user, which picows would send as part of the host's name."""
    scheme = "wss" if server.secure else "ws"
    return f"{scheme}://{build_host(server.host, server.port, server.secure)}{server.resource_name}"


def _authorization(server: WebSocketURI) -> dict[str, str]:
    if server.user_info is None:
        return {}
    return {"Authorization": build_authorization_basic(*server.user_info)}


def _handshake_error(error: WSHandshakeError) -> Exception:
    """Return the error of websockets, or of a refusal, for one of picows."""
    status, headers = _answer(error.raw_header or b"")
    if status not in (None, 101):
        return handshake_error(status, headers["Retry-After"], headers["Location"])
    if isinstance(error, WSInvalidUpgradeError):
        return InvalidUpgrade(error.name, error.value)
    if isinstance(error, WSInvalidHeaderError):
        return InvalidHeader(error.name, error.value)
    return InvalidMessage(str(error))


def _answer(head: bytes) -> tuple[int | None, Message]:
    """Return the status and the headers of an answer. picows knows no status beyond the standard's."""
    line, _, rest = head.partition(b"\r\n")
    found = _STATUS_LINE.fullmatch(line)
    return (int(found[1]) if found else None), HeaderParser().parsestr(rest.decode("latin-1"))


def _close(info: Any) -> Close | None:
    return None if info is None else Close(int(info.code) or CloseCode.NO_STATUS_RCVD, info.reason or "")
