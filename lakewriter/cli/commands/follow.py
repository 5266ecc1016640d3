"""`lakewriter follow`, which prints the candles of a lake as they become durable."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.subscription_options import subscriptions_argument


@click.command(name="follow", short_help="Print each candle as soon as it is durable.")
@subscriptions_argument(required=True)
@click.option(
    "--since", metavar="TIME|AGE", help="First the candles from this time on.  [default: only new candles]"
)
@click.option("--until", metavar="TIME", help="End when each series has reached this time.")
@click.option("--duration", metavar="DURATION", help="Stop after this long.")
@click.option(
    "--corrections", is_flag=True, help='Also print candles whose values changed, with "correction":true.'
)
@click.option(
    "--resume", metavar="FILE", help="Keep the place in FILE, and go on from there after a stop or a kill."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Append to FILE; with --resume each candle is there exactly once."
)
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
@lake_option
def command(**options: Any) -> None:
    """Print the closed candles of a lake, each as soon as it is durable, until stopped.

    One line of JSON for each candle, with the columns of the table candles. It
    reads what a recorder on this machine writes; the exchange is not asked. A
    candle that is healed after a later one of its series has "late":true.

    \b
    lakewriter follow spot:BTCUSDT:1m
    lakewriter follow 'usdt_futures:*USDT:1m' --since 1d --resume place.json
    lakewriter follow spot:BTCUSDT,ETHUSDT:1m,1h -o candles.ndjson --resume place.json
    """
    run_command("follow", options)
