"""`lakewriter chart`, which draws the candles of a series in the terminal or as a picture."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.completion_values import complete_subscription
from lakewriter.cli.picture_options import with_picture


@click.command(name="chart", short_help="Draw the candles of a series.")
@click.argument("series", metavar="SERIES", shell_complete=complete_subscription)
@click.option(
    "--last", metavar="DURATION", help="Only this long before the newest candle, or --until: 12h, 7d."
)
@click.option("--since", metavar="DATE|TIME|AGE", help="Only candles that begin at this time or later.")
@click.option(
    "--until",
    metavar="DATE|TIME|AGE|now",
    help="Only candles of this day and earlier ones, or before this time.",
)
@with_picture
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII characters only.")
@cache_options
@lake_option
def command(**options: Any) -> None:
    """Draw the candles of a series, with its volume and its gaps.

    SERIES is MARKET:SYMBOL:INTERVAL. If the lake has only shorter candles of the
    symbol, they are joined. If there is no room for all candles, they are drawn in
    longer bars, which the title names. Without --last and --since, the newest
    candles that fit are drawn. Times are UTC.

    Missing candles are shaded, and the legend has the reasons. With --until, a
    subscribed series is expected to last until then.

    \b
    lakewriter chart spot:BTCUSDT:1h --last 7d
    lakewriter chart spot:BTCUSDT:1m --since 2024-06-30T12:00 --until now
    lakewriter chart usdt_futures:ETHUSDT:1d -o eth.png --dark
    lakewriter chart spot:BTCUSDT:4h --last 90d -o btc.svg --size 1600x900
    """
    run_command("chart", options)
