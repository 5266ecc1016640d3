"""`lakewriter init`, which writes a commented lakewriter.toml."""

from typing import Any

import click

from lakewriter.cli import lake_uri_option, run_command
from lakewriter.cli.option_values import FILE_NAME
from lakewriter.cli.subscription_options import exchange_option, subscriptions_argument


@click.command(name="init", short_help="Write a commented lakewriter.toml.")
@subscriptions_argument()
@click.option(
    "--config", "config_path", metavar="FILE", default=FILE_NAME, show_default=True, help="The file to write."
)
@click.option(
    "--since", metavar="DATE|AGE", help="Also fetch the history from this day on: 2024-06-30, or 30d."
)
@exchange_option
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@lake_uri_option
def command(**options: Any) -> None:
    """Write a lakewriter.toml with every option, its meaning and its default.

    The named subscriptions and options are set; all others are commented out.
    Without a subscription it records two symbols of spot. An existing file stays
    as it is without --force.

    \b
    lakewriter init
    lakewriter init 'usdt_futures:*USDT:1m,5m' --lake /srv/candles --since 2024-01-01
    lakewriter init spot:BTCUSDT:1m --exchange http://127.0.0.1:9080 --force
    """
    run_command("init", options)
