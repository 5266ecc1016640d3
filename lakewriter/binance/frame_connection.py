"""The WebSocket connection that a `StreamSocket` uses: its methods, its limits and its error.

Contract: `receive` returns complete messages in their order. It raises the reason of `abort`
if this side gave the connection up, and otherwise `ConnectionClosed` of websockets with the
close codes. Pings are answered. If messages are not received, the socket is not read.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from lakewriter.errors import ExchangeError

# Frames above the limit of `wire` still arrive. `wire` counts them; they do not end
# the connection.
FRAME_BYTES_MAX = 16 * 1024 * 1024

# Maximum unsent bytes. All names of 1,024 streams have about 30 kB. More bytes are
# unsent only if the peer sends pings and reads no pongs.
WRITE_BYTES_MAX = 128 * 1024


class StreamError(ExchangeError):
    """The end of a connection by this side.

    Args:
        kind: one word for the counter ("silent", "no_reply", "refused_streams", "unread", "broken").
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class FrameConnection(Protocol):
    """An open WebSocket connection.

    Attributes:
        frames: number of messages that `receive` returned or skipped.
        skip: returns whether `receive` need not return a message; None to return all. To skip a
            message at once is much cheaper than to wake its receiver.
    """

    frames: int
    skip: Callable[[bytes], bool] | None

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ExchangeError: if this side gave the connection up; it has the reason.
            ConnectionClosed: if the connection closed for another reason.
        """

    async def send(self, message: str) -> None:
        """Send a message.

        Raises:
            ConnectionClosed: if the connection is closed.
        """

    async def ping(self) -> "asyncio.Future[None]":
        """Send a ping; return the future of its pong.

        Raises:
            ConnectionClosed: if the connection is closed. The future raises it, too.
        """

    def abort(self, reason: ExchangeError) -> None:
        """Give the connection up without a closing handshake. The first reason counts."""

    async def close(self, code: int) -> None:
        """Close the connection with a code; give up after the timeout."""


def unread_error() -> StreamError:
    """Return the error of a server that sends, but does not read."""
    return StreamError("unread", f"the server does not read: {WRITE_BYTES_MAX} bytes are unsent")
