"""The cause of a failed connection, from the errors of sockets, TLS, proxies and HTTP. Pure.

A client's error hides the error of the socket. This module follows the chain of errors and
names the place of the fault, so that a user knows which machine to look at.
"""

import socket
import ssl
from collections.abc import Iterator
from typing import Literal, NamedTuple

import aiohttp
from websockets.exceptions import InvalidMessage, InvalidProxyStatus, ProxyError

# The place of a fault. "http" is an answer of the server, or of a device in its place;
# "silent" is an open connection without frames.
Place = Literal["dns", "refused", "unreachable", "timeout", "tls", "proxy", "http", "broken", "silent"]

_PROXY_ERRORS = (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError, ProxyError)

# What an HTTP status of the exchange means. Source: the general information of the REST documents.
_STATUSES = {
    403: "the exchange's firewall blocks this address",
    407: "the proxy wants a user and a password",
    418: "the exchange has banned this address",
    429: "too many requests",
    451: "the exchange does not serve this region",
}

_CHAIN_MAX = 20


class Cause(NamedTuple):
    """The cause of a failed connection.

    Args:
        place: the place of the fault.
        what: the fault in some words.
    """

    place: Place
    what: str


def cause_of(error: BaseException) -> Cause:
    """Return the cause of an error of a REST, archive or stream client."""
    errors = list(_chain(error))
    proxy = next((each for each in errors if _is_of_proxy(each)), None)
    if proxy is not None:
        return Cause("proxy", _proxy_words(proxy))
    for each in reversed(errors):
        cause = _cause(each)
        if cause is not None:
            return cause
    return Cause("broken", str(error) or type(error).__name__)


def status_cause(status: int) -> Cause:
    """Return the cause of an answer with an HTTP status other than 200."""
    if 300 <= status < 400:
        return Cause("http", f"HTTP {status}: a redirect, as of a login page of the network")
    meaning = _STATUSES.get(status, "the server has a fault" if status >= 500 else "the path is wrong")
    return Cause("proxy" if status == 407 else "http", f"HTTP {status}: {meaning}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then the errors that caused it."""
    for _ in range(_CHAIN_MAX):
        yield error
        inner = getattr(error, "os_error", None) or error.__cause__ or error.__context__
        if inner is None or inner is error:
            return
        error = inner


def _is_of_proxy(error: BaseException) -> bool:
    # Errors of python-socks, an optional package, are recognized by their module.
    return isinstance(error, _PROXY_ERRORS) or type(error).__module__.startswith("python_socks")


def _proxy_words(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return (
            status_cause(error.status).what
            if error.status == 407
            else f"the proxy answers HTTP {error.status}"
        )
    if isinstance(error, InvalidProxyStatus):
        return f"the proxy answers HTTP {error.response.status_code}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy cannot be reached: {error.os_error.strerror or error.os_error}"
    return f"the proxy: {error}"


def _cause(error: BaseException) -> Cause | None:
    if isinstance(error, socket.gaierror):
        return Cause("dns", f"the name is not known: {error.strerror or error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause("tls", f"the certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return Cause("tls", f"no TLS: {error.reason or error}")
    if isinstance(error, ConnectionRefusedError):
        return Cause("refused", "connection refused: no server listens there, or a firewall rejects it")
    if isinstance(error, TimeoutError | aiohttp.ServerTimeoutError):
        return Cause("timeout", "no answer in time: a firewall may drop the packets")
    if isinstance(error, ConnectionError | aiohttp.ServerDisconnectedError | EOFError):
        return Cause("broken", "the connection was cut: a firewall, or no server of this protocol")
    if isinstance(error, InvalidMessage | aiohttp.ClientResponseError):
        return Cause("broken", f"no HTTP: {error}")
    if isinstance(error, OSError) and error.errno is not None:
        return Cause("unreachable", f"{error.strerror or error}")
    return None
