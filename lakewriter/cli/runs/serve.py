"""`lakewriter serve`, which shows a lake in a browser, with a SQL box."""

import asyncio
import socket
from typing import TYPE_CHECKING

import click

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.query_values import queries_directory
from lakewriter.cli.signals import stop_on_signals
from lakewriter.cli.terminal import log_to_stderr
from lakewriter.config import parse_duration
from lakewriter.errors import UsageError, without_passwords

if TYPE_CHECKING:
    from lakewriter.web.lake_server import LakeServerOptions


def run(
    address: str, token: str | None, timeout: str, memory_limit: str, queries: str | None, lake: str | None
) -> None:
    """Serve the pages until a signal."""
    from lakewriter.query.limits import QueryLimits
    from lakewriter.web.lake_server import LakeServerOptions
    from lakewriter.web.server import bind, parse_address
    from lakewriter.web.statements import StatementLimits
    from lakewriter.web.token import checked_token

    limits = StatementLimits(parse_duration(timeout) / 1000, memory_limit)
    QueryLimits(timeout_s=limits.timeout_s, memory=limits.memory)  # checks both
    options = LakeServerOptions(
        lake or DEFAULT_LAKE,
        None if token is None else checked_token(token),
        limits,
        queries_directory(queries),
    )
    sockets = bind(parse_address(address, "--http"), "--http")
    if token is None and not all(_is_loopback(each) for each in sockets):
        raise UsageError(
            f"serve: {address} can be reached from other machines, and has no token",
            "export LAKEWRITER_TOKEN=$(openssl rand -hex 16)",
        )
    log_to_stderr(quiet=False)
    asyncio.run(_serve(sockets, options))


def _is_loopback(listener: socket.socket) -> bool:
    import ipaddress

    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


async def _serve(sockets: list[socket.socket], options: "LakeServerOptions") -> None:
    from lakewriter.web.lake_server import serving
    from lakewriter.web.server import url_of

    stopped = asyncio.Event()
    stop_on_signals(stopped)
    async with serving(sockets, options):
        print(url_of(sockets[0]), flush=True)
        click.echo(f"showing {without_passwords(options.lake)}; stop with Ctrl-C", err=True)
        await stopped.wait()
