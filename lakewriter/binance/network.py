"""The network to the exchange: proxies and HTTP sessions, for REST, the archive and the streams.

`https_proxy` is the proxy of https:// and wss:// addresses. `http_proxy` is the
proxy of http:// and ws:// addresses. Without them `socks_proxy` is used, then
`all_proxy`. `no_proxy` names hosts that are reached directly. SOCKS proxies need
the extra `socks`.
"""

import asyncio
import contextlib
import importlib.util
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohappyeyeballs import start_connection

from lakewriter.errors import UsageError
from lakewriter.market import Market

# RFC 8305: delay before the next address is tried. aiohttp uses the same delay.
HAPPY_EYEBALLS_S = 0.25

# The variables by whether the address is encrypted. The first variable that is set wins.
_VARIABLES = {True: ("https", "socks", "all"), False: ("http", "socks", "all")}

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_EXAMPLE = "http://HOST:PORT, or socks5h://HOST:PORT"


class Proxy(NamedTuple):
    """A proxy that the environment names.

    Args:
        scheme: http, https, socks4, socks4a, socks5 or socks5h. With socks4a and
            socks5h the proxy resolves host names.
        host, port: the proxy's address.
        user: user name and password, percent-decoded; None without a user.
        url: the whole URL, including the password.
    """

    scheme: str
    host: str
    port: int
    user: tuple[str, str] | None
    url: str

    @property
    def is_socks(self) -> bool:
        """Whether the proxy speaks SOCKS."""
        return self.scheme.startswith("socks")


def proxy_of(url: str) -> Proxy | None:
    """Return the proxy of a URL; None if its host is reached directly.

    Raises:
        UsageError: if the environment names an invalid proxy, or a proxy that needs a
            package that is not installed. The message omits the password.
    """
    target = urlsplit(url)
    host = target.netloc.rpartition("@")[2]
    if target.hostname is None or proxy_bypass(host) or proxy_bypass(target.hostname):
        return None
    proxies = getproxies()
    for name in _VARIABLES[target.scheme in ("https", "wss")]:
        if value := proxies.get(name, ""):
            proxy = _parse(name, value)
            _check_installed(proxy)
            return proxy
    return None


async def connected_socket(host: str, port: int) -> socket.socket:
    """Return a TCP socket that is connected to a host, by the first of its addresses that answers.

    asyncio's own happy eyeballs lose a connected socket if they are cancelled just then.

    Raises:
        OSError: if the name has no address, or no address answers.
    """
    addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_S)


def check_proxies(market: Market) -> None:
    """Check the proxies of all addresses of a market.

    Raises:
        UsageError: in the same cases as `proxy_of`.
    """
    for url in (market.stream_url, market.rest_url, market.archive_url, market.archive_list_url):
        proxy_of(url)


def _parse(name: str, value: str) -> Proxy:
    """Parse the proxy in a variable. Without a scheme it is an HTTP proxy, as for curl."""
    otherwise = "socks5h" if name == "socks" else "http"
    scheme, separator, rest = value.strip().rpartition("://")
    scheme = scheme.lower() if separator else otherwise
    if name == "socks" and scheme == "http":  # macOS writes socks_proxy with http://
        scheme = otherwise
    url = f"{scheme}://{rest}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(scheme, 0)
    except ValueError:
        host, port = None, 0
    if not host or scheme not in _PORTS or parts.path not in ("", "/") or (parts.query or parts.fragment):
        raise UsageError(f"proxy: {name}_proxy does not name a proxy", f"export {name}_proxy={_EXAMPLE}")
    user = None
    if parts.username is not None:
        user = (unquote(parts.username), unquote(parts.password or ""))
        if parts.password is None:  # websockets refuses a name without a password
            url = f"{scheme}://{parts.username}:@{rest.rpartition('@')[2]}"
    return Proxy(scheme, host, port, user, url)


def _check_installed(proxy: Proxy) -> None:
    if proxy.is_socks and not all(map(importlib.util.find_spec, ("python_socks", "aiohttp_socks"))):
        raise UsageError(
            f"proxy: {proxy.scheme}://{proxy.host}:{proxy.port}: SOCKS proxies need python-socks",
            "pip install 'lakewriter[socks]'",
        )


class Network:
    """HTTP requests to the exchange, each through the proxy of its address.

    The environment is read at the first request to each host. Reading it for each
    request took a fifth of a backfill's time.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._proxies: dict[tuple[str, str], Proxy | None] = {}

    async def __aenter__(self) -> "Network":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for session in self._sessions.values():
                stack.push_async_callback(session.close)
            self._sessions.clear()

    @contextlib.asynccontextmanager
    async def get(self, url: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a GET request, as `aiohttp.ClientSession.get` does.

        Raises:
            aiohttp.ClientError, OSError, ValueError: if the request gets no answer.
        """
        async with await self._answer(url, options) as answer:
            yield answer

    async def _answer(self, url: str, options: dict[str, Any]) -> aiohttp.ClientResponse:
        try:
            proxy = self._proxy(url)
            if proxy is None or proxy.is_socks:
                return await self._session(proxy).get(url, **options)
            return await self._session(None).get(url, proxy=proxy.url, **options)
        except (aiohttp.ClientError, OSError, ValueError):
            raise
        except Exception as error:
            # Proxies, resolvers and threads raise their own errors.
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _proxy(self, url: str) -> Proxy | None:
        scheme, netloc, *_ = urlsplit(url)
        if (scheme, netloc) not in self._proxies:
            self._proxies[scheme, netloc] = proxy_of(url)
        return self._proxies[scheme, netloc]

    def _session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        key = proxy.url if proxy is not None else ""
        if key not in self._sessions:
            connector = None if proxy is None else _socks_connector(proxy)
            self._sessions[key] = aiohttp.ClientSession(connector=connector)
        return self._sessions[key]


def _socks_connector(proxy: Proxy) -> aiohttp.TCPConnector:
    from aiohttp_socks import ProxyConnector, ProxyType  # noqa: PLC0415 - of an extra

    name, password = proxy.user or (None, None)
    connector = ProxyConnector(
        proxy.host,
        proxy.port,
        ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5,
        name,
        password,
        proxy.scheme in ("socks4a", "socks5h"),
    )
    return cast("aiohttp.TCPConnector", connector)
