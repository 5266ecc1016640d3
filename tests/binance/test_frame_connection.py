"""Both connections, frame by frame: fragments, limits, closes, pings, backpressure and handshakes."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

from lakewriter.binance.connection_cause import cause_of
from lakewriter.binance.frame_connection import FRAME_BYTES_MAX, StreamError
from lakewriter.binance.handshake_errors import HandshakeRefusedError, broke_rule
from lakewriter.binance.socket import CONNECTION_ERRORS, StreamSocket, Timeouts, open_socket
from lakewriter.clock import Clock
from lakewriter.market import MARKETS, served_at
from lakewriter.recording.listening.reopening import reason_of
from support.raw_frames import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    RawServer,
    close_frame,
    frame,
    raw_server,
)
from support.running import PATIENCE_S, until

pytestmark = pytest.mark.usefixtures("stream_library")

LONG = b'{"x":false}' * 20
HALF = b"x" * (FRAME_BYTES_MAX // 2)


@contextlib.asynccontextmanager
async def connected(server: RawServer, timeouts: Timeouts | None = None) -> AsyncIterator[StreamSocket]:
    at = served_at(MARKETS["spot"], server.url)
    async with asyncio.timeout(PATIENCE_S), open_socket(at, timeouts or Timeouts(), Clock()) as stream:
        yield stream


def received(*frames: bytes, count: int) -> tuple[list[bytes], int]:
    """Return what is received of a server's frames, and the code with which the client closes."""
    codes = []

    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send(b"".join(frames))
        codes.append(await peer.read_close())

    async def main() -> list[bytes]:
        async with raw_server(talk) as server, connected(server) as stream:
            return [await stream.receive() for _ in range(count)]

    return asyncio.run(main()), codes[0]


def ended(*frames: bytes, before: int = 0) -> tuple[ConnectionClosed, int]:
    """Return the error after a server's frames, and the code with which the client closes.

    Args:
        before: number of messages that are received before the error.
    """
    codes = []

    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send(b"".join(frames))
        codes.append(await peer.read_close())

    async def main() -> ConnectionClosed:
        async with raw_server(talk) as server, connected(server) as stream:
            for _ in range(before):
                await stream.receive()
            with pytest.raises(ConnectionClosed) as caught:
                await stream.receive()
            assert stream.frames == before
        return caught.value

    return asyncio.run(main()), codes[0]


@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        ([frame(TEXT, b"a"), frame(TEXT), frame(TEXT, LONG)], [b"a", b"", LONG]),
        ([frame(BINARY, b"\xff"), frame(BINARY, LONG)], [b"\xff", LONG]),
        ([frame(TEXT, b"x" * 65_535), frame(TEXT, b"y" * 65_536)], [b"x" * 65_535, b"y" * 65_536]),
        ([frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b")], [b"ab"]),
        ([frame(TEXT, LONG, fin=False), frame(CONTINUATION, LONG), frame(TEXT, LONG)], [LONG * 2, LONG]),
        ([frame(TEXT, b"a", fin=False), frame(CONTINUATION, fin=False), frame(CONTINUATION)], [b"a"]),
        ([frame(TEXT, LONG, fin=False), frame(PING), frame(PONG), frame(CONTINUATION, LONG)], [LONG * 2]),
        ([frame(TEXT, HALF, fin=False), frame(CONTINUATION, HALF)], [HALF * 2]),
        ([frame(TEXT, HALF * 2)], [HALF * 2]),
        ([frame(PONG, b"unasked"), frame(TEXT, LONG), frame(PING, b"last")], [LONG]),
    ],
)
def test_messages_arrive_whole(frames: list[bytes], messages: list[bytes]) -> None:
    """Text, binary and fragments are messages in their order; the client closes with 1000."""
    assert received(*frames, count=len(messages)) == (messages, 1000)


def test_messages_are_skipped_as_told() -> None:
    """Skipped messages are counted, not returned, in one piece or in fragments; the others keep their order."""

    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send(frame(TEXT, b"first"))
        kind, _ = await peer.read()
        assert kind == TEXT
        await peer.send(frame(TEXT, LONG) * 100 + frame(TEXT, b"a") + frame(TEXT, LONG[:100], fin=False))
        await peer.send(frame(CONTINUATION, LONG[100:]) + frame(TEXT, LONG) * 100)
        await peer.send(frame(TEXT, b"b") + frame(TEXT, LONG))
        await peer.read_close()

    async def main() -> None:
        async with raw_server(talk) as server, connected(server) as stream:
            assert await stream.receive() == b"first"
            stream.skip(lambda message: message == LONG)
            stream.set_streams(["btcusdt@kline_1m"])
            assert [await stream.receive(), await stream.receive()] == [b"a", b"b"]
            receiving = asyncio.create_task(stream.receive())
            await until(lambda: stream.frames == 205)
            assert not receiving.done()
            receiving.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("frames", "before", "code"),
    [
        ([frame(CONTINUATION, b"a")], 0, 1002),
        ([frame(CONTINUATION, LONG)], 0, 1002),
        ([frame(TEXT, LONG, fin=False), frame(TEXT, LONG)], 0, 1002),
        ([frame(TEXT, LONG), frame(TEXT, LONG, rsv=4)], 1, 1002),
        ([frame(TEXT, b"a", rsv=1)], 0, 1002),
        ([frame(TEXT, LONG, rsv=1)], 0, 1002),
        ([frame(TEXT, LONG, rsv=2)], 0, 1002),
        ([frame(TEXT, LONG, masked=True)], 0, 1002),
        ([frame(3, b"a")], 0, 1002),
        ([frame(PING, b"a", fin=False)], 0, 1002),
        ([frame(TEXT, HALF * 2 + b"x")[:1000]], 0, 1009),
        (
            [frame(TEXT, HALF, fin=False), frame(CONTINUATION, HALF, fin=False), frame(CONTINUATION, LONG)],
            0,
            1009,
        ),
    ],
)
def test_a_server_that_breaks_the_protocol_is_left(frames: list[bytes], before: int, code: int) -> None:
    """The client closes with the code for the fault, and the end counts as a lost connection."""
    error, sent = ended(*frames, before=before)
    assert isinstance(error, ConnectionClosedError) and sent == code
    assert error.rcvd is None and error.sent is not None and error.sent.code == code
    assert reason_of(error) == "lost" and not broke_rule(error)


@pytest.mark.parametrize(
    ("close", "code", "reason", "word"),
    [
        (close_frame(1008, "Too many requests"), 1008, "Too many requests", "rule_broken"),
        (close_frame(1001, "going away"), 1001, "going away", "closed"),
        (close_frame(1000), 1000, "", "closed"),
        (close_frame(3999, "—"), 3999, "—", "closed"),
        (frame(8), 1005, "", "closed"),
    ],
)
def test_a_close_has_its_code_and_reason(close: bytes, code: int, reason: str, word: str) -> None:
    """Messages before a close are received first. The close is answered with its code."""
    error, sent = ended(frame(TEXT, LONG), close, before=1)
    assert error.rcvd is not None and (error.rcvd.code, error.rcvd.reason) == (code, reason)
    assert sent == code and error.sent is not None and error.sent.code == code
    assert isinstance(error, ConnectionClosedOK) == (code in (1000, 1001, 1005))
    assert error.rcvd_then_sent and reason_of(error) == word


def test_a_cut_connection_has_no_code() -> None:
    """A connection that ends without a close is lost; its messages were received before."""

    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send(frame(TEXT, LONG) * 3 + frame(TEXT, LONG)[:9])

    async def main() -> None:
        async with raw_server(talk) as server, connected(server) as stream:
            assert [await stream.receive() for _ in range(3)] == [LONG] * 3
            with pytest.raises(ConnectionClosedError) as caught:
                await stream.receive()
        assert (caught.value.rcvd, caught.value.sent) == (None, None)
        assert reason_of(caught.value) == "lost" and cause_of(caught.value).place == "broken"

    asyncio.run(main())


def test_each_ping_is_answered_with_its_data() -> None:
    """Pings are answered in their order, also between fragments, and while nothing is received."""
    data = [b"", b"1", b"p" * 125]

    async def talk(peer: Peer) -> None:
        await peer.accept()
        for each in data:
            await peer.send(frame(PING, each))
        assert [await peer.read() for _ in data] == [(PONG, each) for each in data]
        await peer.send(frame(TEXT, b"done"))
        await peer.read_close()

    async def main() -> None:
        async with raw_server(talk) as server, connected(server) as stream:
            assert await stream.receive() == b"done"

    asyncio.run(main())


@pytest.mark.parametrize("answers", [True, False])
def test_a_silent_connection_is_pinged(answers: bool) -> None:
    """A server that answers pings is kept; one that does not ends the connection as silent."""
    pings = []

    async def talk(peer: Peer) -> None:
        await peer.accept()
        kind, request = await peer.read()
        assert kind == TEXT and b"SUBSCRIBE" in request
        await peer.send(frame(TEXT, b'{"result":null,"id":1}'))
        while True:
            kind, payload = await peer.read()
            if kind == PING:
                pings.append(payload)
                if answers:
                    await peer.send(frame(PONG, payload))

    async def main() -> None:
        hasty = Timeouts(ping_after_s=0.05, pong_s=PATIENCE_S if answers else 0.1, close_s=0.2)
        async with raw_server(talk) as server, connected(server, hasty) as stream:
            stream.set_streams(["btcusdt@kline_1m"])
            await stream.receive()
            stream._subscribed.add("btcusdt@kline_1m")
            receiving = asyncio.create_task(stream.receive())
            if answers:
                await until(lambda: len(set(pings)) > 2)
                assert not receiving.done()
                receiving.cancel()
            with pytest.raises(asyncio.CancelledError if answers else StreamError):
                await receiving
            if not answers:
                assert reason_of(receiving.exception()) == "silent"

    asyncio.run(main())


def test_a_socket_is_not_read_while_messages_wait() -> None:
    """Without `receive` a server can send only what sockets and one read hold; later all arrives in order."""
    count, sent = 25_000, 0
    payload = b"x" * 1000

    async def talk(peer: Peer) -> None:
        nonlocal sent
        await peer.accept()
        for number in range(count):
            await peer.send(frame(TEXT, b"%d" % number + payload))
            sent = number
        await peer.read_close()

    async def main() -> None:
        async with raw_server(talk) as server, connected(server) as stream:
            assert await stream.receive() == b"0" + payload
            before = -1
            while sent != before:  # until the server stalls
                before = sent
                await asyncio.sleep(0.2)
            assert sent < count * 0.7
            for number in range(1, count):
                assert await stream.receive() == b"%d" % number + payload
            assert stream.frames == count

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "status", "wait_s"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nContent-Length: 4\r\n\r\nbody", 429, 7.0),
        (b"HTTP/1.1 520 \r\nRetry-After: 7\r\n\r\n", 520, None),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, 60.0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, None),
        (b"HTTP/1.1 307 Elsewhere\r\nLocation: ws://h.test\r\nContent-Length: 0\r\n\r\n", 307, None),
        (b"HTTP/1.1 429 x\r\nRetry-After: 7\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", 429, 7.0),
        (b"HTTP/1.1 418 x\r\nRetry-After: \xe9\r\nContent-Length: 0\r\n\r\n", 418, 120.0),
    ],
)
def test_a_refusal_has_its_status(answer: bytes, status: int, wait_s: float | None) -> None:
    """Each status but 101 is a refusal, also one that no standard knows, whatever its headers are."""
    error = failed(answer)
    assert isinstance(error, HandshakeRefusedError)
    assert (error.status, error.wait_s) == (status, wait_s)
    assert ("redirected to ws://h.test" in str(error)) == (status == 307)


def test_an_error_of_a_callback_is_raised() -> None:
    """A bug in the function that skips messages ends the connection as a bug, not as a lost connection."""

    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.read()
        await peer.send(frame(TEXT, LONG))
        await peer.read_close()

    def skip(message: bytes) -> bool:
        raise LookupError(len(message))

    async def main() -> None:
        async with raw_server(talk) as server:
            with pytest.raises(LookupError, match=str(len(LONG))):
                async with connected(server) as stream:
                    stream.skip(skip)
                    stream.set_streams(["btcusdt@kline_1m"])
                    await stream.receive()

    asyncio.run(main())


@pytest.mark.parametrize(
    "headers", [["Connection: keep-alive, Upgrade"], ["Connection: keep-alive", "Connection: upgrade"]]
)
def test_the_connection_header_may_be_a_list(headers: list[str]) -> None:
    """A server, or a proxy before it, may name more than the upgrade."""

    async def talk(peer: Peer) -> None:
        await peer.accept(*headers, connection=None)
        await peer.send(frame(TEXT, LONG))
        await peer.read_close()

    async def main() -> None:
        async with raw_server(talk) as server, connected(server) as stream:
            assert await stream.receive() == LONG

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 101 Switching",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nno header\r\n\r\n",
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        ),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_an_answer_that_is_no_handshake_is_a_connection_error(answer: bytes) -> None:
    """Whatever answers instead of the exchange, the attempt fails as broken, and is tried again."""
    error = failed(answer)
    assert reason_of(error) == "broken" and cause_of(error).place == "broken"


def failed(answer: bytes) -> BaseException:
    """Return the error of an attempt that a server answers with these bytes, and an end."""

    async def talk(peer: Peer) -> None:
        await peer.send(answer)

    async def main() -> BaseException:
        async with raw_server(talk) as server:
            with pytest.raises(CONNECTION_ERRORS) as caught:
                async with connected(server):
                    pass
        return caught.value

    return asyncio.run(main())


@pytest.mark.parametrize(
    "header", ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: x"]
)
def test_an_extension_that_was_not_offered_is_refused(header: str) -> None:
    """No extension is offered, so a server that claims one is left."""
    heads = []

    async def talk(peer: Peer) -> None:
        heads.append(peer.head)
        await peer.accept(header)
        await peer.reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            with pytest.raises(CONNECTION_ERRORS):
                async with connected(server):
                    pass

    asyncio.run(main())
    assert "Extensions" not in heads[0]


def test_a_handshake_that_takes_too_long_ends() -> None:
    """After `open_s` an attempt without an answer is a timeout, and its socket is closed."""
    ends = []

    async def talk(peer: Peer) -> None:
        ends.append(await peer.reader.read())

    async def main() -> None:
        async with raw_server(talk) as server:
            with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                async with connected(server, Timeouts(open_s=0.2)):
                    pass
            await until(lambda: ends == [b""])

    asyncio.run(main())


def test_a_server_that_does_not_close_is_left_in_time() -> None:
    """The closing handshake ends after `close_s`, whatever the server still sends."""

    async def talk(peer: Peer) -> None:
        await peer.accept()
        while True:
            await peer.send(frame(TEXT, LONG) * 100)
            await asyncio.sleep(0)

    async def main() -> None:
        async with raw_server(talk) as server:
            async with connected(server, Timeouts(close_s=0.2)) as stream:
                await stream.receive()
                began_s = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began_s < PATIENCE_S / 10

    asyncio.run(main())


def test_the_user_of_a_url_is_sent_as_authorization() -> None:
    """User and password are a header, and no part of the host's name."""
    heads = []

    async def talk(peer: Peer) -> None:
        heads.append(peer.head)
        await peer.accept()
        await peer.read_close()

    async def main() -> None:
        async with raw_server(talk) as server:
            place = server.url.removeprefix("http://")
            market = msgspec.structs.replace(MARKETS["spot"], stream_url=f"ws://me:secret@{place}")
            async with open_socket(market, Timeouts(), Clock()):
                pass
            assert f"\r\nHost: {place}\r\n" in heads[0]

    asyncio.run(main())
    assert "\r\nAuthorization: Basic bWU6c2VjcmV0\r\n" in heads[0]


def test_an_encrypted_connection_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS messages, pings and the close arrive alike; the server's name is verified."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    try:
        subprocess.run(
            [
                *command.split(),
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                key,
                "-out",
                certificate,
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("needs openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send(frame(PING, b"1"))
        assert await peer.read() == (PONG, b"1")
        await peer.send(frame(TEXT, LONG) * 1000 + close_frame(1008, "no"))
        assert await peer.read_close() == 1008

    async def main() -> None:
        async with raw_server(talk, context) as server:
            async with connected(server) as stream:
                assert [await stream.receive() for _ in range(1000)] == [LONG] * 1000
                with pytest.raises(ConnectionClosedError) as caught:
                    await stream.receive()
            assert broke_rule(caught.value)
            with pytest.raises(CONNECTION_ERRORS) as refused:
                async with connected(RawServer(server.url.replace("localhost", "127.0.0.1"), [])):
                    pass
            assert cause_of(refused.value).place == "tls"

    asyncio.run(main())
