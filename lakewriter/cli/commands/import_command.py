"""`lakewriter import`, which imports files of candles into the lake."""

from functools import partial
from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.engine_options import with_engine
from lakewriter.cli.option_values import MARKETS, SOURCES


@click.command(name="import", short_help="Import files of candles into the lake.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--market", metavar="MARKET", help=f"Only this market: {', '.join(MARKETS)}.")
@click.option("--symbol", metavar="SYMBOL", help="Only this symbol.")
@click.option("--interval", metavar="INTERVAL", help="Only this interval.")
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    help="The source of the rows.  [default: archive for finished files of the archive, else rest]",
)
@click.option("--relabel", is_flag=True, help="Rename: market, symbol and interval overrule the files.")
@click.option("--sparse", is_flag=True, help="Rows may be farther apart than their interval.")
@click.option("--skip-bad-rows", is_flag=True, help="Skip rows that cannot be candles, and count them.")
@click.option("--dry-run", is_flag=True, help="Read and check the files; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@partial(with_engine, jobs_default="1")
@lake_option
def command(**options: Any) -> None:
    """Import files of candles into the lake: zips and CSVs of the public archive,
    the .pqt files of older recorders, any CSV, Parquet, Feather or JSON with
    well-known column names, and directories of these.

    A file's name, directories and columns determine its market, symbol and
    interval. The options select among files, and supply what a file lacks. A file
    is refused as a whole, and the others are imported, if these contradict, if its
    rows are of another interval, or if a row cannot be a candle (--skip-bad-rows
    skips such rows). Candles that are not closed are left out. Importing a file
    again changes nothing. Better rows in the lake stay: those of the archive, then
    those with more trades.

    \b
    lakewriter import usdt_futures_BTCUSDT_1m.pqt
    lakewriter import --market spot BTCUSDT-1m-2024-06-30.zip BTCUSDT-1m-2024-05.zip
    lakewriter import archive/data/ --symbol BTCUSDT --dry-run
    lakewriter import /shared/archive --engine spark --master spark://host:7077
    """
    run_command("import_command", options)
