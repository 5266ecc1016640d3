"""`lakewriter serve`, which shows a lake in a browser, with a SQL box."""

import asyncio
import socket
from typing import TYPE_CHECKING

import click

from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.query_options import queries_directory, queries_option
from lakewriter.cli.signals import stop_on_signals
from lakewriter.cli.terminal import log_to_stderr
from lakewriter.config import parse_duration
from lakewriter.errors import UsageError, without_passwords
from lakewriter.without_pandas import without_pandas

if TYPE_CHECKING:
    from lakewriter.web.lake_server import LakeServerOptions


@click.command(short_help="Show a lake in a browser: candles, coverage, gaps, SQL.")
@click.option(
    "--http",
    "address",
    default="127.0.0.1:9464",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to listen on; port 0 is a free one.",
)
@click.option(
    "--token",
    envvar="LAKEWRITER_TOKEN",
    metavar="TEXT",
    help="What visitors must know. Required beyond this machine. LAKEWRITER_TOKEN hides it from ps.",
)
@click.option(
    "--timeout",
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="The longest that a statement may take.",
)
@click.option(
    "--memory-limit",
    default="1GB",
    show_default=True,
    metavar="SIZE",
    help="Memory of the engine for one statement; two run at once.",
)
@queries_option
@cache_options
@lake_option
def command(
    address: str, token: str | None, timeout: str, memory_limit: str, queries: str | None, lake: str | None
) -> None:
    """Show a lake in a browser: live candles, coverage, gaps, and a box for SQL.

    The lake is only read. It may have a recorder, or none, and it may be on an
    object store. The first line on standard output is the URL. A server on a
    network needs a token; it speaks plain HTTP, so put TLS in front of it.

    \b
    lakewriter serve
    lakewriter serve --lake /srv/candles --http 127.0.0.1:9465
    lakewriter serve --lake s3://bucket/candles
    LAKEWRITER_TOKEN=$(openssl rand -hex 16) lakewriter serve --http 0.0.0.0:9464
    """
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
    with without_pandas():
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
