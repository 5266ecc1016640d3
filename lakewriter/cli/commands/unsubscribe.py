"""`lakewriter unsubscribe`, which ends the subscriptions of a recorder that ended permanently."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.subscription_options import subscriptions_argument


@click.command(name="unsubscribe", short_help="Unsubscribe series of an ended recorder on purpose.")
@subscriptions_argument()
@click.option(
    "--host", metavar="HOST", help="Only those of a host that is gone for good; see lakewriter status."
)
@lake_option
def command(**options: Any) -> None:
    """Unsubscribe series on purpose: coverage expects no more candles of them.

    For recorders that ended for good. A recorder that starts, or reloads its
    config, ends its old subscriptions by itself. With --host no subscription
    is needed: all of that host are ended, and status no longer shows it.

    Exit 1 if a running recorder subscribes to one of them, 2 if no recorder does.

    \b
    lakewriter unsubscribe spot:ETHUSDT:1m
    lakewriter unsubscribe 'usdt_futures:*:1m,5m' --lake /srv/candles
    lakewriter unsubscribe --host db1-5a0c11f2 --lake s3://bucket/candles
    """
    run_command("unsubscribe", options)
