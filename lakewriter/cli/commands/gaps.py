"""`lakewriter gaps`, which shows the missing candles and the reasons."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.option_values import GAPS_SHOWN, UNTIL_HELP
from lakewriter.cli.series_options import with_series_and_since


@click.command(name="gaps", short_help="Show which candles are missing, and why.")
@with_series_and_since
@click.option("--until", metavar="DATE|TIME|AGE|now", help=UNTIL_HELP)
@click.option("--all", "show_all", is_flag=True, help=f"Print every gap, not only the newest {GAPS_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each gap, all of them.")
@cache_options
@lake_option
def command(**options: Any) -> None:
    """Show which candles are missing, and why; the newest last. Coverage counts the same.

    \b
    pending        a recorder is healing it
    exchange_halt  the exchange has no such candle, though the symbol trades
    not_listed, delisted, delivered   it did not trade yet, or trades no more
    left           no recorder subscribes to it any more, on purpose
    unhealable     it could not be fetched; see the error
    unexplained    no reason is known; the error shows when its recorder was last seen
    forgotten      lakewriter forget removed it; the error shows the user and the reason

    Exit 1 if a gap has no reason: it is unexplained, unhealable, or pending
    without a running recorder. Exit 2 if a filter matches no series in the lake.

    \b
    lakewriter gaps
    lakewriter gaps --until now
    lakewriter gaps --market spot --symbol BTCUSDT --since 2024-06-01
    lakewriter gaps --json --lake /srv/candles
    """
    run_command("gaps", options)
