"""`lakewriter serve`, which shows a lake in a browser, with a SQL box."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.query_options import queries_option


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
def command(**options: Any) -> None:
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
    run_command("serve", options)
