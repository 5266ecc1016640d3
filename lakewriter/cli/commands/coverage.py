"""`lakewriter coverage`, which checks that every candle is present or explained."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.option_values import HEATMAP_ROWS_SHOWN, UNTIL_HELP
from lakewriter.cli.picture_options import with_picture
from lakewriter.cli.series_options import with_series_and_since


@click.command(name="coverage", short_help="Check that every candle is present or explained.")
@with_series_and_since
@click.option(
    "--until",
    metavar="DATE|TIME|AGE|now",
    help=UNTIL_HELP,
)
@click.option("--by-day", is_flag=True, help="One row for each series and day.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object for each row, and one with totals."
)
@click.option("--heatmap", is_flag=True, help="Draw each series over time; -o does so, too.")
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help=f"Draw every series, not only the {HEATMAP_ROWS_SHOWN} that miss most.",
)
@with_picture
@cache_options
@lake_option
def command(**options: Any) -> None:
    """Check that every candle is present, or missing for a reason in a ledger.

    A series spans from its first candle or gap to its last one. With --until
    now, a subscribed series spans to the last candle that closed at least a
    minute ago, so cron notices a recorder that no longer runs. A series that was
    left on purpose (left_at) is expected up to then. A subscribed series without
    a first candle is expected from its subscription on.

    Exit 0 if no candle is missing without a reason, else 1; unhealable candles
    count as explained, but have no reason. Exit 1 also for an empty lake without
    a running recorder, and 2 if a filter matches no series in the lake. With
    --json the last line is an object whose only key is "totals".

    The heat map has a row for each series. Each cell shows how many candles of a
    span of time are there, and whether one is missing without a reason.

    \b
    lakewriter coverage
    lakewriter coverage --until now --lake /srv/candles
    lakewriter coverage --symbol BTCUSDT --since 2024-06-01 --by-day
    lakewriter coverage --heatmap --since 90d
    lakewriter coverage -o coverage.png
    lakewriter coverage --json
    """
    run_command("coverage", options)
