"""A recorder under a service manager: when it is ready, and when its watchdog is fed."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from lakewriter.cli.service_manager import ServiceManager
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import SandboxOptions, serve
from support.ports import free_port
from support.running import child, until
from support.side_by_side import side_by_side

# A candle of a minute takes a second. It is stuck 70 s after its end, which are 1.2 s here.
FAST = SandboxOptions(speed=60.0, push_every_ms=200, symbols=4)

WATCHDOG_S = 2.0


class Manager:
    """A service manager: the socket of NOTIFY_SOCKET, and the messages that arrived with their times."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, list[str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(f"\0lakewriter-test-{os.getpid()}-{id(self)}")
        self.environment = {
            **os.environ,
            "NOTIFY_SOCKET": "@" + self._socket.getsockname()[1:].decode(),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }

    def receive(self) -> None:
        self.messages.append(
            (asyncio.get_running_loop().time(), self._socket.recv(4096).decode().split("\n"))
        )

    def times(self, line: str) -> list[float]:
        """Return the arrival times of a line."""
        return [time for time, lines in self.messages if line in lines]

    def status(self) -> str:
        """Return the last line of the status."""
        lines = [line for _, lines in self.messages for line in lines if line.startswith("STATUS=")]
        return lines[-1].removeprefix("STATUS=") if lines else ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Manager"]:
        """Receive messages during the block."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self.receive)
        try:
            yield self
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()


async def get(port: int, path: str) -> tuple[int, bytes]:
    """Return the status and the content of a path."""
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.read()


async def health(port: int) -> tuple[int, dict[str, object]]:
    """Return the status and the content of /healthz."""
    status, content = await get(port, "/healthz")
    return status, json.loads(content)


@pytest.mark.slow
@side_by_side
async def test_ready_with_the_first_candle_and_fed_while_candles_come(tmp_path: Path) -> None:
    """Without candles a recorder is not ready, and is not fed once they are overdue; later it is again."""
    port = free_port()
    async with serve(FAST) as sandbox, Manager().listening() as manager:

        def silence() -> None:
            sandbox.add_fault(Fault("silent_stream"))
            sandbox.add_fault(Fault("rest_status", value=503))

        silence()
        arguments = (
            "record",
            "spot:BTCUSDT,ETHUSDT:1m",
            "--exchange",
            sandbox.url,
            "--http",
            f"127.0.0.1:{port}",
        )
        with child(tmp_path / "log", *arguments, cwd=tmp_path, environment=manager.environment) as recorder:
            # Its process lives, and says so; but no candle comes.
            await until(lambda: len(manager.times("WATCHDOG=1")) >= 3)
            assert manager.times("READY=1") == []
            assert await health(port) == (
                503,
                {
                    "status": "starting",
                    "reason": "no candle is recorded yet",
                    "is_stuck": False,
                    "recorded": 0,
                    "overdue_series": 0,
                    "lag_ms": None,
                },
            )
            sandbox.clear_faults()
            await until(lambda: bool(manager.times("READY=1")))
            assert not manager.status().startswith(("0 ", "starting: no candle"))
            await until(lambda: manager.status().startswith(tuple("123456789")))
            assert (await health(port))[0] == 200
            assert b"<html" in (await get(port, "/"))[1]
            # A child process reads the lake.
            status, series = await get(port, "/page/series.json")
            assert (status, b"BTCUSDT" in series) == (200, True), series

            silence()
            await until(lambda: manager.status().startswith("failing: spot "))
            status, content = await health(port)
            assert (status, content["status"], content["is_stuck"]) == (503, "failing", True)
            assert "a candle is overdue by" in str(content["reason"])
            fed = len(manager.times("WATCHDOG=1"))
            await asyncio.sleep(WATCHDOG_S)  # the manager would end the recorder now
            assert len(manager.times("WATCHDOG=1")) == fed

            sandbox.clear_faults()
            await until(lambda: len(manager.times("WATCHDOG=1")) > fed)
            feeds = manager.times("WATCHDOG=1")[fed:]
            await until(lambda: len(manager.times("WATCHDOG=1")) > fed + 3)
            assert feeds
            assert manager.times("STOPPING=1") == []
            assert await asyncio.to_thread(recorder.stop) == 0
            await until(lambda: bool(manager.times("STOPPING=1")))
        assert len(manager.times("READY=1")) == 1


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_messages_reach_both_kinds_of_sockets(tmp_path: Path, is_abstract: bool) -> None:
    """Lines are one datagram, on a path or in the abstract namespace."""
    name = f"lakewriter-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("\0" if is_abstract else "") + name)
        manager = ServiceManager({"NOTIFY_SOCKET": ("@" if is_abstract else "") + name})
        assert manager.exists
        manager.tell("READY=1", "STATUS=…")
        assert receiver.recv(100).decode() == "READY=1\nSTATUS=…"


def test_no_manager_is_no_error(tmp_path: Path) -> None:
    """Without a socket, or with one that is gone, of another kind or full, nothing happens."""
    for name in ("", "vsock:2:1234", str(tmp_path / "gone"), "@gone", "@" + "a" * 200):
        ServiceManager({"NOTIFY_SOCKET": name}).tell("READY=1")
    assert not ServiceManager({}).exists
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(2_000):
            manager.tell("STATUS=" + "x" * 1_000)


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_for_this_process(environment: dict[str, str], watchdog_s: float | None) -> None:
    """A watchdog of another process, or an invalid one, is not fed."""
    assert ServiceManager(environment).watchdog_s == watchdog_s
