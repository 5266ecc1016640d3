"""`lakewriter record`, which listens to the exchange and writes closed candles into the lake."""

from typing import Any

import click

from lakewriter.cli import lake_uri_option, run_command
from lakewriter.cli.log_options import with_log_options
from lakewriter.cli.option_values import FILE_NAME
from lakewriter.cli.state_dir import state_dir_option
from lakewriter.cli.subscription_options import exchange_option, subscriptions_argument


@click.command(name="record", short_help="Record closed candles until stopped.")
@subscriptions_argument()
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help=f"The config with the subscriptions; a relative lake in it starts at its directory.  [default: {FILE_NAME}, if present]",
)
@click.option(
    "--flush-every", metavar="DURATION", help="The greatest age of a buffered candle.  [default: 5m]"
)
@click.option(
    "--journal-limit",
    metavar="SIZE",
    help="Recording waits at this size of the journal, while the lake takes no candles.  [default: 4GB]",
)
@click.option(
    "--heal-limit",
    metavar="DURATION",
    help="Older gaps are not healed.  [default: 7d]",
)
@click.option(
    "--grace",
    metavar="DURATION",
    help="How long after its end a closed candle may arrive.  [default: 10s, 15s on the futures]",
)
@click.option(
    "--since", metavar="DATE|AGE", help="Also backfill missing candles from this day on: 2024-06-30, or 30d."
)
@click.option("--duration", metavar="DURATION", help="Stop after this long.")
@exchange_option
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="Offer a page, /healthz, /metrics and /status.json there, for example on 127.0.0.1:9464.",
)
@with_log_options
@lake_uri_option
@state_dir_option
def command(**options: Any) -> None:
    """Record closed candles until SIGINT or SIGTERM, then flush and exit.

    A subscription is MARKET:SYMBOLS:INTERVALS, both lists comma-separated;
    symbols may be globs, and follow the exchange's list. Candles that miss their
    deadline are fetched by REST. Candles that the exchange lacks are entered into
    the gap ledger with their reason (lakewriter gaps). SIGHUP reloads the config.

    \b
    lakewriter record spot:BTCUSDT,BNBUSDT:1m usdt_futures:BTCUSDT,ETHUSDT:1m
    lakewriter record 'usdt_futures:*USDT:1m,5m' --lake /srv/candles
    lakewriter record --config lakewriter.toml --http 127.0.0.1:9464
    """
    run_command("record", options)
