"""`lakewriter backfill`, which fetches history from the first candle up to the recording."""

from functools import partial
from typing import Any

import click

from lakewriter.cli import lake_uri_option, run_command
from lakewriter.cli.engine_options import with_engine
from lakewriter.cli.option_values import DOWNLOADS, DOWNLOADS_MAX, FILE_NAME, WORKER_DOWNLOADS
from lakewriter.cli.state_dir import state_dir_option
from lakewriter.cli.subscription_options import exchange_option, subscriptions_argument


@click.command(name="backfill", short_help="Fetch history from the archive and REST.")
@subscriptions_argument()
@click.option(
    "--since",
    metavar="DATE|AGE",
    help="From this day on: 2024-06-30, or 30d.  [default: the first candle there is]",
)
@click.option("--until", metavar="DATE|AGE", help="Up to this day, included.  [default: up to now]")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help=f"The config with the subscriptions; a relative lake in it starts at its directory.  [default: {FILE_NAME}, if present]",
)
@exchange_option
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--files",
    type=click.Choice(["auto", "daily", "monthly", "none"]),
    default="auto",
    show_default=True,
    help="Files of the archive to use; auto: daily files for intervals below 1h, else monthly ones, or REST if that takes far fewer requests.",
)
@click.option(
    "--downloads",
    type=click.IntRange(1, DOWNLOADS_MAX),
    help=f"Files fetched at once; with workers, by each one.  [default: {DOWNLOADS}; {WORKER_DOWNLOADS} by each worker]",
)
@click.option(
    "--all-symbols-ever", is_flag=True, help="Globs also match delisted symbols, which only the archive has."
)
@click.option(
    "--from-dir",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="First import zips and CSVs of the archive from this directory.",
)
@click.option(
    "--max-weight",
    type=click.IntRange(1),
    metavar="N",
    help="Request weight for REST in a minute.  [default: three eighths of the exchange's limit]",
)
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@partial(with_engine, jobs_default="1")
@lake_uri_option
@state_dir_option
def command(**options: Any) -> None:
    """Fetch missing candles from the exchange's archive and by REST.

    Only missing candles are fetched, so the same command resumes after a stop. A
    recorder may run meanwhile. Candles that the exchange lacks are entered into the
    gap ledger with their reason (lakewriter gaps).

    \b
    lakewriter backfill spot:BTCUSDT:1m --since 2017-08-17
    lakewriter backfill 'usdt_futures:*USDT:1m,1h' --since 2024-01-01 --dry-run
    lakewriter backfill 'spot:*:1d' --all-symbols-ever
    lakewriter backfill 'spot:*USDT:1m' --engine spark --master spark://host:7077
    """
    run_command("backfill", options)
