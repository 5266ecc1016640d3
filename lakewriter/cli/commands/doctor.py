"""`lakewriter doctor`, which checks the machine, the lake and each endpoint, and says what to do."""

from typing import Any

import click

from lakewriter.cli import lake_uri_option, run_command
from lakewriter.cli.option_values import FILE_NAME
from lakewriter.cli.state_dir import state_dir_option
from lakewriter.cli.subscription_options import exchange_option, subscriptions_argument


@click.command(name="doctor", short_help="Check the machine, the lake and each endpoint.")
@subscriptions_argument()
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help=f"The config to check with.  [default: {FILE_NAME}, if present]",
)
@exchange_option
@click.option(
    "--timeout", metavar="DURATION", default="10s", show_default=True, help="The most time for one endpoint."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lake_uri_option
@state_dir_option
def command(**options: Any) -> None:
    """Check what a recorder needs here, and say what to do.

    It checks versions, the lake and its disk, open files, time zone data, proxies,
    the clock, and REST, stream and archive of each market in use: those of the
    subscriptions, of lakewriter.toml, or all. It says how an endpoint is blocked:
    by DNS, a firewall, TLS, a proxy or the exchange. All checks run at once.

    Exit 1 if a check failed. Warnings do not stop a recorder.

    \b
    lakewriter doctor
    lakewriter doctor spot:BTCUSDT:1m --lake /srv/candles
    lakewriter doctor --config /etc/lakewriter.toml --json
    """
    run_command("doctor", options)
