"""The HTTP server: what it answers, refuses and survives, over real sockets."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from lakewriter.errors import UsageError
from lakewriter.web import server
from lakewriter.web.app import HEADERS, json_answer, make_app
from lakewriter.web.server import Address, bind, listening, parse_address, url_of
from lakewriter.web.throttle import Throttle
from support.running import PATIENCE_S

ANY = Address("127.0.0.1", 0)


async def _hello(_: web.Request) -> web.Response:
    return json_answer({"hello": "world"})


async def _broken(_: web.Request) -> web.Response:
    raise ZeroDivisionError


async def _large(_: web.Request) -> web.Response:
    return web.Response(body=b"x" * 8_000_000)


ROUTES = [web.get("/hello", _hello), web.get("/broken", _broken), web.get("/large", _large)]


def serve(scenario: Callable[[str, aiohttp.ClientSession], Awaitable[None]]) -> None:
    """Run a scenario against a server; its arguments are the server's URL and a client."""

    async def main() -> None:
        sockets = bind(ANY, "--http")
        async with (
            asyncio.timeout(PATIENCE_S),
            aiohttp.ClientSession() as client,
            listening(make_app(ROUTES), sockets),
        ):
            await scenario(url_of(sockets[0]), client)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server; end the connection without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", Address("127.0.0.1", 9464)),
        ("9464", Address("127.0.0.1", 9464)),
        (":9464", Address("127.0.0.1", 9464)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:1", Address("localhost", 1)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    """Without a host the address is the loopback one."""
    assert parse_address(text, "--http") == address


@pytest.mark.parametrize(
    "text", ["", "host", "127.0.0.1", "a:b", "1.2.3.4:70000", "::1", "::1:80", "a:-1", "a:٣"]
)
def test_wrong_addresses_are_one_line(text: str) -> None:
    """The error quotes the text, and the hint is an address that works."""
    with pytest.raises(UsageError) as caught:
        parse_address(text, "--http")
    assert str(caught.value) == f"--http: {text!r} is not HOST:PORT"
    assert caught.value.hint == "--http 127.0.0.1:9464"


def test_a_port_in_use_is_one_line() -> None:
    """The error comes when the address is bound, and leaves no socket open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            bind(Address("127.0.0.1", port), "--http")
    assert str(caught.value) == f"--http 127.0.0.1:{port}: Address already in use"
    assert caught.value.hint.endswith("--http 127.0.0.1:0")


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 70 + ".example"])
def test_hosts_of_others_are_one_line(host: str) -> None:
    """An address of another machine, and a name without an address, cannot be bound."""
    with pytest.raises(UsageError, match=f"^--http {host}:9464: "):
        bind(Address(host, 9464), "--http")


def test_answers_and_their_headers() -> None:
    """GET and HEAD are answered, never cached, and by this server's headers."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{url}/hello") as answer:
            assert (answer.status, await answer.json()) == (200, {"hello": "world"})
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        async with client.head(f"{url}/hello") as answer:
            assert (answer.status, await answer.read()) == (200, b"")

    serve(scenario)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    """A server whose parts only read answers nothing else, whatever the body."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with client.request(method, f"{url}/hello", data=b"x" * 100_000) as answer:
            assert answer.status == 405
            assert await answer.text() == "405: /hello answers GET, HEAD only\n"

    serve(scenario)


def test_a_wrong_path_names_the_right_ones() -> None:
    """The answer to an unknown path lists the paths."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{url}/metric") as answer:
            assert answer.status == 404
            assert await answer.text() == "404: nothing is at /metric; there are /broken /hello /large\n"

    serve(scenario)


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("localhost", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("[", 421)],
)
def test_other_hosts_names_are_refused_on_loopback(host: str, status: int) -> None:
    """A web page that points its own name at 127.0.0.1 learns nothing."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{url}/hello", headers={"Host": host}) as answer:
            assert answer.status == status

    serve(scenario)


def test_a_bug_in_a_handler_ends_one_request(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is 500, the log has the error, and the next request is answered."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{url}/broken") as answer:
            assert answer.status == 500
            assert "ZeroDivisionError" not in await answer.text()
        async with client.get(f"{url}/hello") as answer:
            assert answer.status == 200

    serve(scenario)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
        b"GET /hello HTTP/9.9\r\n\r\n",
    ],
    ids=["long header", "long path", "many headers", "TLS", "version"],
)
def test_requests_beyond_the_limits_get_400(request_bytes: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends, no line is logged, and others are answered."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with connected(url) as (reader, writer):
            writer.write(request_bytes)
            assert (await reader.read(64)).split()[1] == b"400"
        async with client.get(f"{url}/hello") as answer:
            assert answer.status == 200

    serve(scenario)
    assert not caplog.records


def test_slow_clients_keep_no_client_out() -> None:
    """With more open connections than allowed, each new client replaces the oldest one."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with contextlib.AsyncExitStack() as stack:
            slow = []
            for number in range(server.CONNECTIONS_MAX + 5):
                slow.append(await stack.enter_async_context(connected(url)))
                # Half of them send half a request; the others read no answer.
                end = b"\r\n" if number % 2 else b""
                slow[-1][1].write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n" + end)
            async with client.get(f"{url}/hello") as answer:
                assert answer.status == 200
            with contextlib.suppress(ConnectionResetError):
                assert not await slow[0][0].read()

    serve(scenario)


def test_thousands_of_requests_leave_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of answers has a limit. Meanwhile another task of the loop is not delayed."""
    monkeypatch.setattr("lakewriter.web.app.REQUESTS_BURST", 10)
    answered: list[int] = []

    async def ask(url: str) -> None:
        async with connected(url) as (reader, writer):
            writer.write(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
            while await reader.readuntil(b'{"hello":"world"}\n'):
                answered.append(1)

    async def scenario(url: str, _: aiohttp.ClientSession) -> None:
        asking = [asyncio.create_task(ask(url)) for _ in range(20)]
        delays = []
        began_s = time.monotonic()
        while len(answered) < 60:
            at_s = time.monotonic()
            await asyncio.sleep(0.01)
            delays.append(time.monotonic() - at_s)
        took_s = time.monotonic() - began_s
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        # 10 at once, and then 50 a second.
        assert took_s > 0.9
        assert sorted(delays)[len(delays) // 2] < 0.1

    serve(scenario)


def test_the_throttle_allows_bursts() -> None:
    """A burst is free, then events have their distance; a pause allows the next burst."""
    throttle = Throttle(10, 3)
    assert [round(throttle.wait_s(100.0), 3) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    assert [round(throttle.wait_s(101.0), 3) for _ in range(4)] == [0, 0, 0, 0.1]
