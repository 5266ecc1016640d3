"""Local HTTP and SOCKS5 proxies for tests, which count their connections."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Served:
    """What a proxy has served.

    Attributes:
        targets: HOST:PORT of each of its connections.
        users: NAME:PASSWORD of each client that gave them.
    """

    def __init__(self) -> None:
        self.port = 0
        self.targets: list[str] = []
        self.users: list[str] = []


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()


async def _join(
    served: Served,
    host: str,
    port: int,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    answer: bytes,
    begin: bytes = b"",
) -> None:
    served.targets.append(f"{host}:{port}")
    reader, writer = await asyncio.open_connection(host, port)
    client[1].write(answer)
    writer.write(begin)
    try:
        await asyncio.gather(_pump(client[0], writer), _pump(reader, client[1]))
    finally:
        writer.close()


async def _http(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    for name, _, value in (field.partition(": ") for field in fields):
        if name.lower() == "proxy-authorization":
            served.users.append(base64.b64decode(value.split()[1]).decode())
    method, target, _ = line.split()
    if method == "CONNECT":
        host, _, port = target.rpartition(":")
        await _join(served, host, int(port), (reader, writer), b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        url = urlsplit(target)
        await _join(served, url.hostname or "", url.port or 80, (reader, writer), b"", head)


async def _socks(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, methods = await reader.readexactly(2)
    offered = await reader.readexactly(methods)
    writer.write(b"\x05\x02" if b"\x02" in offered else b"\x05\x00")
    if b"\x02" in offered:
        _, length = await reader.readexactly(2)
        name = await reader.readexactly(length)
        password = await reader.readexactly((await reader.readexactly(1))[0])
        served.users.append(f"{name.decode()}:{password.decode()}")
        writer.write(b"\x01\x00")
    kind = (await reader.readexactly(4))[3]
    if kind == 1:
        host = ".".join(map(str, await reader.readexactly(4)))
    else:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    port = int.from_bytes(await reader.readexactly(2), "big")
    await _join(served, host, port, (reader, writer), b"\x05\x00\x00\x01\0\0\0\0\0\0")


@contextlib.asynccontextmanager
async def proxy(kind: str) -> AsyncIterator[Served]:
    """Run a proxy of a kind, "http" or "socks5", during the block."""
    served = Served()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await (_http if kind == "http" else _socks)(served, reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
