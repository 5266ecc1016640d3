"""The network to the exchange: proxies, redirects, dead addresses, servers that do not read."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import io
import logging
import re
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.network import Network, check_proxies, proxy_of
from lakewriter.binance.rest import RestError
from lakewriter.binance.socket import CONNECTION_ERRORS, Timeouts, open_socket
from lakewriter.candle import Candle
from lakewriter.cli.terminal import log_to_stderr
from lakewriter.clock import Clock
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from support.http_server import serve_routes
from support.proxy import proxy
from support.running import PATIENCE_S
from support.running import run as run_command

OPTIONS = SandboxOptions(speed=600, push_every_ms=50)
VARIABLES = ("http_proxy", "https_proxy", "socks_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Remove all proxies from the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    yield monkeypatch


PLAIN = ("http://h.test:1/x", "ws://h.test:1/x")
SECURE = ("https://h.test/x", "wss://h.test/x")


@pytest.mark.parametrize(
    ("variables", "plain", "secure"),
    [
        ({}, None, None),
        ({"http_proxy": "http://p:3128"}, "http://p:3128", None),
        ({"https_proxy": "http://p:3128"}, None, "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, None, "http://p:3128"),
        ({"all_proxy": "https://p"}, "https://p", "https://p"),
        ({"https_proxy": "http://a:1", "all_proxy": "http://b:2"}, "http://b:2", "http://a:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "h.test"}, None, None),
        ({"all_proxy": "http://p:1", "no_proxy": "*"}, None, None),
        ({"all_proxy": "http://p:1", "no_proxy": "h.test:1"}, None, "http://p:1"),
        ({"all_proxy": "http://p:1", "no_proxy": ".other.test"}, "http://p:1", "http://p:1"),
        ({"https_proxy": "http://me:p%40ss@p:1"}, None, "http://me:p%40ss@p:1"),
        ({"https_proxy": "http://me@p:1"}, None, "http://me:@p:1"),
        ({"socks_proxy": "http://p:1"}, "socks5h://p:1", "socks5h://p:1"),
        ({"socks_proxy": "p:1"}, "socks5h://p:1", "socks5h://p:1"),
        ({"ALL_PROXY": "SOCKS5://p:1"}, "socks5://p:1", "socks5://p:1"),
    ],
)
def test_rest_and_streams_have_the_same_proxy(
    variables: dict[str, str], plain: str | None, secure: str | None, environment: pytest.MonkeyPatch
) -> None:
    """REST and streams of one market use the same proxy, set by any of the variables."""
    pytest.importorskip("aiohttp_socks")
    for name, value in variables.items():
        environment.setenv(name, value)
    for urls, expected in ((PLAIN, plain), (SECURE, secure)):
        assert [found and found.url for found in map(proxy_of, urls)] == [expected, expected]


@pytest.mark.parametrize(
    "value",
    ["ftp://p:1", "http://", "http://me:secret@p:port", "http://p/path", "http://me:sec/ret@p:1", "://"],
)
def test_a_proxy_that_cannot_be_is_named_without_its_password(
    value: str, environment: pytest.MonkeyPatch
) -> None:
    """An invalid proxy is refused with its variable's name, and without any part of its value."""
    environment.setenv("https_proxy", value)
    with pytest.raises(UsageError) as caught:
        proxy_of("wss://h.test")
    assert caught.value.what == "proxy: https_proxy does not name a proxy"
    assert "secret" not in caught.value.hint


@pytest.mark.slow
def test_a_socks_proxy_without_its_package_is_a_usage_error(
    environment: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The command names the missing extra, exits with 2, and creates no lake."""
    hidden = tmp_path / "site"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'python_socks' else real(name, *rest)\n"
    )
    environment.setenv("PYTHONPATH", str(hidden))
    environment.setenv("socks_proxy", "socks5://me:secret@127.0.0.1:17890")
    lake = tmp_path / "lake"
    done = run_command("record", "spot:BTCUSDT:1m", "--exchange", "http://127.0.0.1:9", "--lake", str(lake))
    assert done.returncode == 2
    assert done.stderr == (
        "lakewriter: proxy: socks5://127.0.0.1:17890: SOCKS proxies need python-socks\n"
        "  pip install 'lakewriter[socks]'\n"
    )
    assert not lake.exists()


@contextlib.asynccontextmanager
async def both(market: Market) -> AsyncIterator[tuple[Any, Any]]:
    """Yield a market's REST client and an open stream."""
    clock = Clock()
    async with Network() as network:
        rest = MarketClients(lambda _: market, network, clock)["spot"].rest
        async with open_socket(market, Timeouts(), clock) as stream:
            yield rest, stream


@pytest.mark.usefixtures("stream_library")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("user", ["", "me:p%40ss@"])
def test_rest_and_streams_go_through_a_proxy(kind: str, user: str, environment: pytest.MonkeyPatch) -> None:
    """REST and streams use the environment's proxy, with its user and password."""
    pytest.importorskip("aiohttp_socks")

    async def main() -> None:
        async with serve(OPTIONS) as sandbox, proxy(kind.rstrip("h")) as served:
            environment.setenv("http_proxy", f"{kind}://{user}127.0.0.1:{served.port}")
            market = served_at(MARKETS["spot"], sandbox.url)
            async with both(market) as (rest, stream):
                stream.set_streams({"btcusdt@kline_1m"})
                assert await stream.receive()
                assert (await rest.server_time()).server_ms > 0
            host = sandbox.url.removeprefix("http://")
            assert set(served.targets) == {host} and len(served.targets) == 2
            assert served.users == (["me:p@ss"] * 2 if user else [])

    asyncio.run(main())


@pytest.mark.slow
def test_the_environment_is_read_once_for_each_host(environment: pytest.MonkeyPatch) -> None:
    """The environment is read once per host, because reading it for each request would be slow."""
    asked: list[str] = []

    def counted(url: str) -> None:
        asked.append(url)

    environment.setattr("lakewriter.binance.network.proxy_of", counted)

    async def main() -> None:
        async with serve(OPTIONS) as sandbox, Network() as network:
            for path in ("/api/v3/ping", "/api/v3/time", "/api/v3/time"):
                async with network.get(f"{sandbox.url}{path}") as answer:
                    await answer.read()
            other = sandbox.url.replace("127.0.0.1", "localhost")
            async with network.get(f"{other}/api/v3/time") as answer:
                await answer.read()
            assert asked == [f"{sandbox.url}/api/v3/ping", f"{other}/api/v3/time"]

    asyncio.run(main())


@pytest.mark.usefixtures("stream_library")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_is_away_is_a_connection_error(kind: str, environment: pytest.MonkeyPatch) -> None:
    """An unreachable proxy ends neither client, and no error has its password."""
    pytest.importorskip("aiohttp_socks")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    environment.setenv("http_proxy", f"{kind}://me:secret@127.0.0.1:{port}")
    market = served_at(MARKETS["spot"], "http://h.test:1")

    async def main() -> None:
        async with Network() as network:
            rest = MarketClients(lambda _: market, network, Clock())["spot"].rest
            with pytest.raises(RestError) as asked:
                await rest.server_time()
            assert "secret" not in str(asked.value)
        with pytest.raises(CONNECTION_ERRORS) as connected:
            async with open_socket(market, Timeouts(), Clock()):
                pass
        assert "secret" not in str(connected.value)

    asyncio.run(main())


@pytest.mark.usefixtures("stream_library")
@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:1",
        "ws://no-such-host.invalid:1",
        "ws://a..b:1",
        f"ws://{'x' * 70}.test:1",
        "ws://me:secret@127.0.0.1:1",
        "ws://[::1:80",
        "ws://127.0.0.1:99999",
        "wss://127.0.0.1:1",
    ],
)
def test_each_connection_that_cannot_be_is_a_connection_error(url: str) -> None:
    """Any exception of a resolver, socket or library is one of CONNECTION_ERRORS."""
    market = MARKETS["spot"].__class__(
        **{name: getattr(MARKETS["spot"], name) for name in MARKETS["spot"].__struct_fields__}
        | {"stream_url": url}
    )

    async def main() -> None:
        with pytest.raises(CONNECTION_ERRORS) as caught:
            async with open_socket(market, Timeouts(), Clock()):
                pass
        assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_errors_say_no_password() -> None:
    """An error omits the user part of a URL, and nothing else."""
    error = LakewriterError("wss://me:p@ss@h.test/a: no", "try https://me@h.test")
    assert error.what == "wss://…@h.test/a: no" and error.hint == "try https://…@h.test"
    for text in ("btcusdt@kline_1m", "http://h.test/x?a=b@c", "a@b // c"):
        assert LakewriterError(text).what == text


def test_log_lines_say_no_password() -> None:
    """Log lines and tracebacks contain no password of a URL."""
    lines = io.StringIO()
    logger = logging.getLogger("lakewriter.password")
    handler = logging.StreamHandler(lines)
    log_to_stderr(handler=handler)
    try:
        logger.warning("tried %s", "http://me:secret@h.test:1/x")
        try:
            raise ValueError("https://me:secret@h.test")
        except ValueError:
            logger.exception("failed")
    finally:
        logging.getLogger("lakewriter").removeHandler(handler)
        logging.getLogger("lakewriter").propagate = True
        logging.getLogger("lakewriter").setLevel(logging.NOTSET)
    text = lines.getvalue()
    assert "tried http://…@h.test:1/x" in text and "https://…@h.test" in text and "secret@" not in text


@pytest.mark.usefixtures("stream_library")
@pytest.mark.slow
def test_a_redirected_handshake_is_refused() -> None:
    """A redirected handshake is refused, and the other host gets no connection."""
    from aiohttp import web

    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async def main() -> None:
        async with serve_routes(elsewhere) as other:

            async def moved(_: web.Request) -> web.Response:
                return web.Response(status=302, headers={"Location": f"ws{other[4:]}/stream"})

            async with serve_routes(moved) as url:
                with pytest.raises(CONNECTION_ERRORS, match=f"HTTP 302: redirected to ws{other[4:]}/stream"):
                    async with open_socket(served_at(MARKETS["spot"], url), Timeouts(), Clock()):
                        pass
        assert not asked

    asyncio.run(main())


@contextlib.contextmanager
def deaf_address(port: int) -> Iterator[str]:
    """Yield a local address that answers no connection, because its backlog is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.2", port))
        server.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


@pytest.mark.usefixtures("stream_library")
@pytest.mark.slow
def test_a_dead_first_address_holds_up_neither(environment: pytest.MonkeyPatch) -> None:
    """If a host's first address drops all packets, both clients use the second one within seconds."""

    async def main(sandbox: Sandbox) -> None:
        port = int(sandbox.url.rpartition(":")[2])
        loop = type(asyncio.get_running_loop())
        real = loop.getaddrinfo
        with deaf_address(port) as deaf:

            async def resolved(self: asyncio.AbstractEventLoop, host: Any, *rest: Any, **named: Any) -> Any:
                if host != "two.test":
                    return await real(self, host, *rest, **named)
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in (deaf, "127.0.0.1")
                ]

            environment.setattr(loop, "getaddrinfo", resolved)
            market = served_at(MARKETS["spot"], f"http://two.test:{port}")
            async with asyncio.timeout(PATIENCE_S), both(market) as (rest, stream):
                stream.set_streams({"btcusdt@kline_1m"})
                assert await stream.receive()
                assert (await rest.server_time()).server_ms > 0

    async def served() -> None:
        async with serve(OPTIONS) as sandbox:
            await main(sandbox)

    asyncio.run(served())


@pytest.mark.usefixtures("stream_library")
def test_a_cancelled_attempt_leaves_no_socket() -> None:
    """A connection attempt that is cancelled at any of its steps closes its socket itself."""

    async def attempt(market: Market) -> None:
        async with open_socket(market, Timeouts(), Clock()):
            pass

    async def main() -> None:
        async with serve(OPTIONS) as sandbox:
            market = served_at(MARKETS["spot"], f"{sandbox.url}/spot")
            for steps in range(100):
                task = asyncio.create_task(attempt(market))
                for _ in range(steps % 25):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    with warnings.catch_warnings(record=True, action="always") as caught:
        asyncio.run(main())
        gc.collect()
    assert not [each.message for each in caught if "unclosed <socket" in str(each.message)]


@contextlib.asynccontextmanager
async def flooding() -> AsyncIterator[str]:
    """Serve handshakes, then send pings without an end, and read nothing."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search(r"Sec-WebSocket-Key: (\S+)", head)
        assert key
        digest = hashlib.sha1(f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            while True:
                writer.write((b"\x89\x7d" + b"p" * 125) * 512)
                await writer.drain()
                await asyncio.sleep(0)

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.usefixtures("stream_library")
@pytest.mark.slow
def test_a_server_that_pings_and_does_not_read_is_left() -> None:
    """Unread pongs have a limit: the connection ends with this reason."""

    async def main() -> None:
        async with flooding() as url:
            market = served_at(MARKETS["spot"], url)
            with pytest.raises(CONNECTION_ERRORS, match="the server does not read"):
                async with asyncio.timeout(PATIENCE_S), open_socket(market, Timeouts(), Clock()) as stream:
                    await stream.receive()

    asyncio.run(main())


@pytest.mark.usefixtures("stream_library")
@pytest.mark.slow
def test_a_listener_stops_whatever_its_server_does() -> None:
    """A stop takes effect at once, even if the server floods pings and reads nothing."""

    async def main() -> None:
        async with flooding() as url:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10)
            listener = CandleListener(served_at(MARKETS["spot"], url), ["BTCUSDT"], "1m", queue)
            listening = asyncio.create_task(listener.run())
            async with asyncio.timeout(PATIENCE_S):
                while not listener.stats.connections:
                    await asyncio.sleep(0.001)
            listening.cancel()
            began_s = asyncio.get_running_loop().time()
            await asyncio.wait({listening})
            assert asyncio.get_running_loop().time() - began_s < 10

    asyncio.run(main())


def test_all_addresses_of_a_market_are_checked(environment: pytest.MonkeyPatch) -> None:
    """An invalid proxy of any of the market's addresses is found before the first request."""
    market = served_at(MARKETS["spot"], "http://h.test:1")
    check_proxies(market)
    environment.setenv("http_proxy", "ftp://p:1")
    with pytest.raises(UsageError, match="http_proxy"):
        check_proxies(market)
