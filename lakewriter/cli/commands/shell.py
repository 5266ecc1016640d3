"""`lakewriter shell`, which queries the lake interactively."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.query_options import queries_option, table_option


@click.command()
@click.option(
    "--no-pager", is_flag=True, help="Do not send a table longer than the screen to $PAGER, or less."
)
@table_option
@queries_option
@cache_options
@lake_option
def command(**options: Any) -> None:
    """Query the lake interactively, with history, completion and multi-line editing.

    Each statement sees all candles recorded so far. A statement that ends with \\G
    instead of a semicolon shows one value on each line. Without a terminal, statements
    are read from standard input, and the first error ends the shell.

    \b
    lakewriter shell
    lakewriter shell --lake /srv/candles < questions.sql
    """
    run_command("shell", options)
