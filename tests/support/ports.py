"""Ports of loopback on which no program listens."""

import contextlib
import socket


def free_ports(number: int) -> list[int]:
    """Return some different ports that are free now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


def free_port() -> int:
    """Return a port that is free now."""
    return free_ports(1)[0]
