"""A WebSocket server of raw bytes, for frames and handshakes that no library sends."""

import asyncio
import base64
import contextlib
import hashlib
import re
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = False) -> bytes:
    """Return a frame of a server. Its length is written in the shortest way."""
    first = (0x80 if fin else 0) | rsv << 4 | kind
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, mask | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, mask | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, mask | 127, len(payload))
    return head + (b"\0\0\0\0" if masked else b"") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame with a code."""
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class Peer:
    """The server's side of one connection.

    Args:
        head: the request of the handshake.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head

    async def accept(self, *headers: str, connection: str | None = "Connection: Upgrade") -> None:
        """Answer the handshake as the protocol says, with additional headers.

        Args:
            connection: the header Connection; None if it is one of `headers`.
        """
        key = re.search(r"Sec-WebSocket-Key: (\S+)", self.head)
        assert key
        digest = hashlib.sha1(f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            *([] if connection is None else [connection]),
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
            *headers,
        ]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def read(self) -> tuple[int, bytes]:
        """Return the kind and the payload of the client's next frame, which is short."""
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2))
        mask = await self.reader.readexactly(4)
        masked = await self.reader.readexactly(length)
        return first & 15, bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))

    async def read_close(self) -> int:
        """Return the code of the client's close frame, after all its other frames; 1005 without a code."""
        while True:
            kind, payload = await self.read()
            if kind == CLOSE:
                return int.from_bytes(payload[:2]) if payload else 1005


class RawServer(NamedTuple):
    """A server that runs.

    Args:
        url: the server's URL.
        talks: the talks with its clients.
    """

    url: str
    talks: "list[asyncio.Task[None]]"


@contextlib.asynccontextmanager
async def raw_server(
    talk: Callable[[Peer], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """Run a server during the block. Errors of a talk are raised at its end, but for a lost connection."""
    talks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.append(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await talk(Peer(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode()))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    scheme = "http" if context is None else "https"
    try:
        yield RawServer(f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}", talks)
        await asyncio.gather(*talks)
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
