"""`lakewriter verify`, which checks that the stored candles are right."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.engine_options import with_engine
from lakewriter.cli.option_values import DEVIATIONS, FINDINGS_SHOWN, LOCAL_CHECKS
from lakewriter.cli.series_options import with_series_and_since
from lakewriter.cli.subscription_options import exchange_option


@click.command(name="verify", short_help="Check that the stored candles are right.")
@with_series_and_since
@click.option("--until", metavar="DATE|AGE", help="Only this day and earlier ones.")
@click.option(
    "--check",
    "checks",
    multiple=True,
    type=click.Choice(LOCAL_CHECKS),
    metavar="CHECK",
    help=f"Only this check: {', '.join(LOCAL_CHECKS)}; repeatable.",
)
@click.option(
    "--against",
    type=click.Choice(("archive", "rest")),
    help="Compare with the candles that the exchange publishes there.",
)
@click.option("--config", "config_path", metavar="FILE", help="The config with the exchange's endpoints.")
@exchange_option
@click.option(
    "--repair", is_flag=True, help="With --against: merge published candles that are missing or win."
)
@click.option(
    "--jumps",
    type=click.FloatRange(min=0),
    metavar="K",
    default=DEVIATIONS,
    show_default=True,
    help="Report price jumps of this many deviations; 0 for none.",
)
@click.option(
    "--max-findings",
    type=click.IntRange(min=0),
    metavar="N",
    default=FINDINGS_SHOWN,
    show_default=True,
    help="Findings of each check to print; the rest is counted.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object for each finding, and one with totals."
)
@with_engine
@lake_option
def command(**options: Any) -> None:
    """Check that the stored candles are right; lakewriter coverage checks for missing ones.

    \b
    partition  the file is whole; its rows are sorted, unique, on the grid and of
               its day; its metadata is right
    candle     low ≤ open, close ≤ high; prices above 0, volumes not below; takers
               bought no more than all; without trades: flat, and no volume;
               quote volume ÷ volume is a price between low and high; it began
               before now, by this host's clock
    intervals  a longer candle is the sum of its shorter ones, if all of them are
               present and selected
    jumps      a candle opens near the close before it; reported, never changed
    against    with --against: each candle equals the one that the exchange publishes

    With --repair, published candles are merged if ours are missing or differ. The
    archive always wins; REST wins if our candle has no more trades. Nothing is
    ever deleted. The other checks see the repaired lake.

    Candles in a journal are not checked; with --against, neither are those that
    closed in the last ten minutes.

    With --engine spark or --jobs, each symbol is checked as a whole by one process;
    --against stays with this host.

    Exit 0 without a finding, else 1, repaired or not. Exit 1 also for an empty
    lake without a running recorder, and 2 if a filter matches no series in the
    lake. With --json the last line is an object whose only key is "totals".

    \b
    lakewriter verify
    lakewriter verify --symbol BTCUSDT --since 2024-06-01 --check partition --check candle
    lakewriter verify --market spot --interval 1m --against archive --repair
    lakewriter verify --json --lake /srv/candles
    lakewriter verify --engine spark --master spark://host:7077 --lake s3://bucket/candles
    """
    run_command("verify", options)
