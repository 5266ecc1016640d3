"""Probes of endpoints: each way to be blocked has its own place, in bounded time."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from lakewriter.binance.market_clients import MarketClient, MarketClients
from lakewriter.binance.network import Network
from lakewriter.binance.reachability import (
    Reached,
    probe_archive,
    probe_archive_list,
    probe_rest,
    probe_stream,
)
from lakewriter.clock import Clock
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.sandbox import Fault, SandboxOptions, serve
from support.http_server import serve_routes
from support.proxy import proxy

TIMEOUT_S = 30.0


@contextlib.asynccontextmanager
async def client_of(market: Market) -> AsyncIterator[tuple[MarketClient, Network]]:
    async with Network() as network:
        clients = MarketClients(lambda _: market, network, Clock())
        yield clients[market.name], network


def probed(market: Market, timeout_s: float = TIMEOUT_S) -> Coroutine[Any, Any, list[Reached]]:
    """Probe REST, stream, list and archive of a market at once."""

    async def probe() -> list[Reached]:
        async with client_of(market) as (client, network):
            clock, symbol = Clock(), "BTCUSDT"
            return await asyncio.gather(
                probe_rest(client, clock, timeout_s),
                probe_stream(client, symbol, clock, timeout_s),
                probe_archive_list(client, symbol, clock, timeout_s),
                probe_archive(client, network, symbol, clock, timeout_s),
            )

    return probe()


def at(url: str) -> Market:
    return served_at(MARKETS["spot"], url)


def with_sandbox(*faults: Fault) -> list[Reached]:
    async def main() -> list[Reached]:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            for fault in faults:
                sandbox.add_fault(fault)
            # Silence is proven only by the end of the time.
            silent = any(fault.name == "ack_then_silence" for fault in faults)
            return await probed(at(sandbox.url), 2.0 if silent else TIMEOUT_S)

    return asyncio.run(main())


def test_all_endpoints_of_an_exchange_answer() -> None:
    """Without a fault all answer, and REST tells the time."""
    reached = with_sandbox()
    assert [each.place for each in reached] == [None] * 4, reached
    assert reached[0].ahead_ms is not None and all(each.seconds > 0 for each in reached)
    assert reached[1].what == "sends BTCUSDT 1m"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (451, "does not serve this region"),
        (403, "firewall blocks this address"),
        (418, "has banned"),
        (503, "has a fault"),
    ],
)
def test_a_status_is_told_with_its_meaning(status: int, words: str) -> None:
    """Each status of a refusal has its meaning, on every endpoint."""
    names = ("rest_status", "refuse_handshake", "archive_list_status", "archive_status")
    reached = with_sandbox(*(Fault(name, value=status) for name in names))
    assert [each.place for each in reached] == ["http"] * 4, reached
    for each in reached:
        assert f"HTTP {status}" in each.what and words in each.what, each


def test_a_silent_stream_is_told_from_a_closed_one() -> None:
    """A stream that acknowledges and sends nothing is "silent"; the others answer."""
    reached = with_sandbox(Fault("ack_then_silence"))
    assert [each.place for each in reached] == [None, "silent", None, None]
    assert "sent nothing of BTCUSDT" in reached[1].what


def test_a_closed_port_an_unknown_name_and_no_tls_are_told_apart() -> None:
    """Refused, DNS and TLS: each endpoint has its own cause."""
    port = closed_port()

    async def main() -> None:
        async with serve_routes(answer_empty) as plain:
            market = msgspec.structs.replace(
                at(f"http://127.0.0.1:{port}"),
                stream_url="ws://no-such-host.invalid",
                rest_url=plain.replace("http:", "https:"),
            )
            rest, stream, listed, archive = await probed(market)
            assert (rest.place, stream.place, listed.place, archive.place) == (
                "tls",
                "dns",
                "refused",
                "refused",
            )
            assert "name is not known" in stream.what and "connection refused" in archive.what
            market = msgspec.structs.replace(
                market, rest_url="http://no-such-host.invalid", stream_url=f"ws://127.0.0.1:{port}"
            )
            rest, stream, *_ = await probed(market)
            assert (rest.place, stream.place) == ("dns", "refused")
            market = msgspec.structs.replace(
                market, rest_url=plain, stream_url=plain.replace("http:", "wss:")
            )
            rest, stream, *_ = await probed(market)
            assert (rest.place, stream.place) == ("broken", "tls"), (rest, stream)

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_an_untrusted_certificate_is_named(tmp_path: Path) -> None:
    """A certificate of an unknown authority, as of a proxy that reads the traffic, is told as such."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
         key, "-out", certificate, "-subj", "/CN=localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def main() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            market = msgspec.structs.replace(
                at(f"https://localhost:{port}"), stream_url=f"wss://localhost:{port}"
            )
            for each in await probed(market):
                assert each.place == "tls" and "certificate is not trusted" in each.what, each

    asyncio.run(main())


def test_a_host_that_never_answers_costs_only_its_time() -> None:
    """A port that accepts and says nothing: each probe ends at its time, all at once."""

    async def main() -> None:
        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            began_s = asyncio.get_running_loop().time()
            reached = await probed(at(f"http://127.0.0.1:{port}"), 1.0)
            took_s = asyncio.get_running_loop().time() - began_s
            for writer in writers:
                writer.close()
        assert [each.place for each in reached] == ["timeout"] * 4, reached
        assert 1.0 <= took_s < 20.0

    asyncio.run(main())


def test_a_proxy_is_named_and_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a proxy the result names it, without its password; a closed or refusing proxy is the fault."""
    port = closed_port()

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            async with proxy("http") as served:
                monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{served.port}")
                for each in await probed(at(sandbox.url)):
                    assert (each.place, each.via) == (None, f"http://127.0.0.1:{served.port}"), each
            monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
            for each in await probed(at(sandbox.url)):
                assert each.place in ("proxy", "refused") and "secret" not in str(each), each
            async with serve_routes(answer_407) as refusing:
                monkeypatch.setenv("http_proxy", refusing)
                rest, *_ = await probed(at(sandbox.url))
                assert rest.place == "proxy" and "user and a password" in rest.what, rest
            monkeypatch.setenv("http_proxy", "ftp://nowhere")
            for each in await probed(at(sandbox.url)):
                assert each.place == "proxy" and "does not name a proxy" in each.what, each

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asyncio.run(main())


def test_a_redirect_is_no_answer() -> None:
    """A login page of the network redirects; that is told, and not followed."""

    async def main() -> None:
        async with serve_routes(redirect) as url:
            for each in await probed(at(url)):
                assert each.place == "http" and "a redirect" in each.what, each

    asyncio.run(main())


async def answer_empty(_: web.Request) -> web.StreamResponse:
    return web.Response(text="")


async def answer_407(_: web.Request) -> web.StreamResponse:
    return web.Response(status=407)


async def redirect(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1/login")


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
