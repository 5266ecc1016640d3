"""The server: it listens on an address, and limits connections.

Rule 1: addresses are bound before anything else begins, so a port in use is a clear
error at the start. Rule 2: at most `CONNECTIONS_MAX` connections are open. The next one
replaces the oldest. So clients that read or send slowly take no memory without a limit,
and no new client is refused. Rule 3: connections above `ACCEPTS_PER_S` wait in the kernel.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from aiohttp import web

from lakewriter.errors import UsageError
from lakewriter.web.app import request_log
from lakewriter.web.throttle import Throttle

# A scraper, a probe and some open pages need about 20.
CONNECTIONS_MAX = 64

ACCEPTS_PER_S = 50.0
ACCEPTS_BURST = 100

# Connections that wait in the kernel.
_BACKLOG = 128

# Maximum lengths of a request's line and of one header.
_LINE_BYTES_MAX = 8 * 1024

# A connection without a request is closed after this time.
_IDLE_S = 60.0

# Maximum wait for running requests at the end.
_END_S = 0.5

# Pause after the kernel refused to accept, for instance because too many files are open.
_REFUSED_S = 1.0

LOOPBACK = "127.0.0.1"


class Address(NamedTuple):
    """An address to listen on. Port 0 is a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, what: str) -> Address:
    """Parse "HOST:PORT", "[IPv6]:PORT", or a port of the loopback address.

    Args:
        what: the name of the option, or of the config's key, for the error.

    Raises:
        UsageError: if the text is not an address.
    """
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # an IPv6 address needs brackets
    if (not colon and host) or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{what}: {text!r} is not HOST:PORT", _setting(what, Address(LOOPBACK, 9464)))
    return Address(host or LOOPBACK, int(port))


def bind(address: Address, what: str) -> list[socket.socket]:
    """Bind and return a listening socket for each address of a host.

    Args:
        what: the name of the option, or of the config's key, for the error.

    Raises:
        UsageError: if the host is unknown or not of this machine, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise UsageError(
            f"{what} {address}: {reason}", _setting(what, Address(LOOPBACK, address.port))
        ) from None
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
        # A host of several addresses has one port.
        port = sockets[0].getsockname()[1] if sockets else address.port
        try:
            sockets.append(_bound(family, kind, protocol, (sockaddr[0], port, *sockaddr[2:])))
        except OSError as error:
            refused = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    if refused is not None and (not sockets or refused.errno == errno.EADDRINUSE):
        for each in sockets:
            each.close()
        raise UsageError(f"{what} {address}: {refused.strerror}", _hint(refused, address, what))
    return sockets


def _bound(family: int, kind: int, protocol: int, sockaddr: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(sockaddr)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _hint(error: OSError, address: Address, what: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program uses it; a free port: {_setting(what, Address(address.host, 0))}"
    return _setting(what, Address(LOOPBACK, 9464))


def _setting(what: str, address: Address) -> str:
    """Return an option with its value, or a key of the config with its value."""
    return f"{what} {address}" if what.startswith("--") else f'{what} = "{address}"'


def url_of(listener: socket.socket) -> str:
    """Return the URL of a bound socket: "http://127.0.0.1:9464"."""
    host, port = listener.getsockname()[:2]
    return f"http://{Address(host, port)}"


@contextlib.asynccontextmanager
async def listening(app: web.Application, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Answer requests during the context; close the sockets at its end.

    An error of a connection or a handler ends that connection only.
    """
    runner = web.AppRunner(
        app,
        logger=request_log(),
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_IDLE_S,
        lingering_time=0,
        max_line_size=_LINE_BYTES_MAX,
        max_field_size=_LINE_BYTES_MAX,
        shutdown_timeout=_END_S,
    )
    await runner.setup()
    assert runner.server is not None
    connections = _Connections(runner.server)
    accepting = [asyncio.create_task(connections.accept(each)) for each in sockets]
    try:
        yield
    finally:
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for each in sockets:
            each.close()
        await runner.cleanup()


class _Connections:
    """The open connections of a server, the oldest first."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._open: dict[asyncio.Transport, None] = {}
        self._throttle = Throttle(ACCEPTS_PER_S, ACCEPTS_BURST)

    async def accept(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(_REFUSED_S)
                continue
            self._make_room()
            with contextlib.suppress(OSError):  # it is gone already
                transport, _ = await loop.connect_accepted_socket(self._server, peer)
                self._open[transport] = None
            await asyncio.sleep(self._throttle.wait_s(loop.time()))

    def _make_room(self) -> None:
        for transport in [each for each in self._open if each.is_closing()]:
            del self._open[transport]
        while len(self._open) >= CONNECTIONS_MAX:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.abort()
