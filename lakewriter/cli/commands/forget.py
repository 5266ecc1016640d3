"""`lakewriter forget`, which removes candles from the lake on purpose and records the removal."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.completion_values import complete_subscription
from lakewriter.cli.option_values import SOURCES
from lakewriter.cli.series_options import with_series


@click.command(name="forget", short_help="Remove candles on purpose, and record it.")
@click.argument("subscriptions", nargs=-1, metavar="[SUBSCRIPTION]...", shell_complete=complete_subscription)
@with_series
@click.option("--since", metavar="DATE|TIME|AGE", help="Only candles that begin at this time or later.")
@click.option(
    "--until", metavar="DATE|TIME|AGE", help="Only candles of this day and earlier ones, or before this time."
)
@click.option(
    "--older-than", metavar="DURATION", help="Only candles that began at least this long ago: 365d, 12h."
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(SOURCES),
    metavar="SOURCE",
    help=f"Only candles of this source: {', '.join(SOURCES)}; repeatable.",
)
@click.option("--reason", default="", metavar="TEXT", help="The reason, for the record.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lake_option
def command(**options: Any) -> None:
    """Remove candles of the named series from the lake, and free their space.

    Nothing else removes candles. Each named series loses the candles selected by
    --since, --until, --older-than and --source, or all without them. Symbols may
    be globs. --older-than alone is about every series of the lake. On a terminal
    the command asks first; cron needs --yes.

    The table `forgotten` records the removed ranges, the time, the user and the
    reason. Coverage and gaps count removed candles as missing, for the reason
    `forgotten`. They come back by a backfill of that range, or when a recorder
    starts that heals up to its --heal-limit. Candles in a journal stay, and are
    flushed as usual.

    Safe at any time, also while recorders write and other processes read. If it
    is killed, some partitions are removed; running it again removes the rest.

    Exit 0 also if nothing matches a glob; 2 if a series named in full is not in
    the lake; 1 if a partition failed.

    \b
    lakewriter forget spot:BTCUSDT:1m --since 2024-06-01 --until 2024-06-07 --dry-run
    lakewriter forget spot:BTCUSDT:1m --since 2024-06-01 --source rest --reason "wrong import"
    lakewriter forget --interval 1s --older-than 365d --yes
    lakewriter forget --older-than 400d --dry-run
    """
    run_command("forget", options)
