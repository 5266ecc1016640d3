"""One connection to the sandbox: its subscriptions, and the reasons for its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from lakewriter.binance.handshake_errors import HandshakeRefusedError, TooManyStreamsError
from lakewriter.binance.socket import StreamSocket, Timeouts, open_socket
from lakewriter.binance.wire import Reply, decode
from lakewriter.clock import Clock
from lakewriter.errors import ExchangeError
from lakewriter.market import MARKETS, served_at
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from support.running import PATIENCE_S, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("stream_library")]

OPTIONS = SandboxOptions(speed=600, push_every_ms=50)


async def read(socket: StreamSocket) -> None:
    """Read frames until cancelled, and pass answers to the socket."""
    while True:
        message = decode(await socket.receive(), "any", 0)
        if isinstance(message, Reply):
            socket.take_reply(message)


@contextlib.asynccontextmanager
async def connected(
    sandbox: Sandbox, market: str, timeouts: Timeouts | None = None
) -> AsyncIterator[tuple[StreamSocket, "asyncio.Task[None]"]]:
    """Open a connection, and read it during the block."""
    at = served_at(MARKETS[market], sandbox.url)
    async with open_socket(at, timeouts or Timeouts(), Clock()) as socket:
        reading = asyncio.create_task(read(socket))
        try:
            yield socket, reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def test_subscriptions_follow_what_is_wanted() -> None:
    """Acknowledged streams become the wanted ones, within the limit of messages, after any changes."""

    async def main() -> None:
        async with serve(OPTIONS) as sandbox, connected(sandbox, "coin_futures") as (socket, _):
            names = [f"s{number}@kline_1m" for number in range(150)]
            for count in range(1, 151):
                socket.set_streams(names[:count])
                if count % 30 == 0:
                    await asyncio.sleep(0.01)
            await until(lambda: set(socket.acknowledged) == set(names))
            socket.set_streams(names[140:])
            await until(lambda: set(socket.acknowledged) == set(names[140:]))
            assert not sandbox.violations

    asyncio.run(main())


def test_a_connection_ends_at_once_however_its_answer_comes() -> None:
    """A close right after the last answer waits for nothing."""

    async def main() -> None:
        async with serve(OPTIONS) as sandbox:
            at = served_at(MARKETS["spot"], sandbox.url)
            async with asyncio.timeout(PATIENCE_S), open_socket(at, Timeouts(), Clock()) as socket:
                socket.set_streams(["btcusdt@kline_1m"])
                while not socket.acknowledged:
                    message = decode(await socket.receive(), "spot", 0)
                    if isinstance(message, Reply):
                        socket.take_reply(message)
            await until(lambda: not sandbox.connections)

    asyncio.run(main())


def test_too_many_streams_say_how_many_were_granted() -> None:
    """Above the limit the connection ends, and its error has the number of acknowledged streams."""

    async def main() -> None:
        async with serve(OPTIONS) as sandbox, connected(sandbox, "coin_futures") as (socket, reading):
            socket.set_streams([f"somesymbolusd_perp{number:03}@kline_1m" for number in range(250)])
            await asyncio.wait({reading}, timeout=PATIENCE_S)
            error = reading.exception()
            assert isinstance(error, TooManyStreamsError)
            assert error.acknowledged == len(socket.acknowledged) > 100
            assert "Too many subscriptions" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize("status", [403, 418, 429, 451, 503])
def test_a_refused_handshake_says_why(status: int) -> None:
    """A refused handshake is an error with the status, and with the delay if the server gave one."""

    async def main() -> None:
        async with serve(OPTIONS) as sandbox:
            sandbox.refuse(status)
            with pytest.raises(HandshakeRefusedError, match=f"refused with HTTP {status}") as caught:
                async with connected(sandbox, "spot"):
                    pass
            if status in (418, 429):
                assert caught.value.wait_s == 1.0

    asyncio.run(main())


def test_a_close_by_the_exchange_says_its_code() -> None:
    """`receive` raises an error with the close code."""

    async def main() -> None:
        async with serve(OPTIONS) as sandbox, connected(sandbox, "spot") as (socket, reading):
            socket.set_streams(["btcusdt@kline_1m"])
            await until(lambda: bool(socket.acknowledged))
            await sandbox.close_connections(1008, "Too many requests")
            await asyncio.wait({reading}, timeout=PATIENCE_S)
            error = reading.exception()
            assert isinstance(error, ConnectionClosed)
            assert error.rcvd is not None
            assert (error.rcvd.code, error.rcvd.reason) == (1008, "Too many requests")

    asyncio.run(main())


def test_an_unanswered_request_ends_the_connection() -> None:
    """A SUBSCRIBE without an answer ends the connection after the timeout."""

    async def main() -> None:
        hasty = Timeouts(reply_s=0.2)
        async with serve(OPTIONS) as sandbox, connected(sandbox, "spot", hasty) as (socket, reading):
            sandbox.stall()
            socket.set_streams(["btcusdt@kline_1m"])
            await asyncio.wait({reading}, timeout=PATIENCE_S)
            assert isinstance(reading.exception(), ExchangeError)
            assert str(reading.exception()) == "no answer to SUBSCRIBE within 0 s"

    asyncio.run(main())
