"""The network of one host: a TCP forwarder with an address of its own, which can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

_PART_BYTES = 1 << 16


class Link:
    """A forwarder on loopback to one server.

    Args:
        target: the server's URL.
        source: the loopback address from which the server sees this host.

    Attributes:
        url: the forwarder's URL.
        is_cut: whether connections are closed at once; see `cut`.
        connections: the number of forwarded connections.
    """

    def __init__(self, target: str, source: str) -> None:
        self.url = ""
        self.is_cut = False
        self.connections = 0
        self._place = urlsplit(target)
        self._source = source
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_gate = asyncio.Event()
        self._open_gate.set()

    def cut(self) -> None:
        """Close all connections, and refuse new ones until `mend`."""
        self.is_cut = True
        self.drop()

    def drop(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()

    def stall(self) -> None:
        """Forward nothing until `mend`, and keep the connections open."""
        self._open_gate.clear()

    def mend(self) -> None:
        """Forward again."""
        self.is_cut = False
        self._open_gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until one side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self.is_cut:
                self.connections += 1
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """Close all connections, and wait for their tasks."""
        tasks = list(self._tasks)
        self.drop()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            self._place.hostname, self._place.port, local_addr=(self._source, 0)
        )
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))
        except* OSError:
            pass
        finally:
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(_PART_BYTES):
            await self._open_gate.wait()
            writer.write(part)
            await writer.drain()
        with contextlib.suppress(RuntimeError):
            writer.write_eof()


@contextlib.asynccontextmanager
async def link(target: str, source: str) -> AsyncIterator[Link]:
    """Run a forwarder to a server during the block."""
    forwarder = Link(target, source)
    server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
    forwarder.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield forwarder
    finally:
        server.close()
        await forwarder.close()
