"""`lakewriter query`, which runs SQL or a saved query on the lake."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options
from lakewriter.cli.completion_values import complete_query
from lakewriter.cli.query_options import queries_option, table_option
from lakewriter.query.output.formats import FORMATS


@click.command()
@click.argument("sql", required=False, shell_complete=complete_query)
@click.option("-f", "--file", "sql_file", metavar="FILE.sql", help="Read the SQL from a file.")
@click.option(
    "-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A value for $NAME; repeatable."
)
@table_option
@queries_option
@click.option(
    "--format", "format_name", type=click.Choice(list(FORMATS)), help="[default: by -o's suffix, or table]"
)
@click.option("-o", "--output", metavar="FILE", help="Write to a file, atomically, or to a pipe.")
@click.option("--force", is_flag=True, help="Overwrite the file of -o if it exists.")
@click.option(
    "--max-rows",
    type=click.IntRange(min=1),
    help="Rows to show, from both ends.  [default: 40 on a terminal, else all]",
)
@click.option(
    "--no-pager", is_flag=True, help="Do not send a table longer than the screen to $PAGER, or less."
)
@click.option("--timeout", metavar="DURATION", help="Give up after this long: 500ms, 30s, 5m.")
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Memory of the engine, which spills to disk: 512MB, 2GB.  [default: 80%]",
)
@click.option(
    "--list", "list_saved", is_flag=True, help="Show the saved queries, and the SQL functions for candles."
)
@cache_options
@lake_option
def command(**options: Any) -> None:
    """Query the lake in SQL, including candles that are not flushed yet.

    SQL is a statement, the name of a saved query, or - for standard input.
    Tables: candles, gaps, coverage, instruments, subscriptions, forgotten,
    partitions. Times are UTC. The lake is read-only.

    \b
    lakewriter query "SELECT symbol, max(high) FROM candles WHERE interval = '1m' GROUP BY symbol"
    lakewriter query "DESCRIBE candles"
    lakewriter query --list
    lakewriter query vwap -p symbol=ETHUSDT -p since=7d
    lakewriter query "FROM latest()" --format line
    lakewriter query "FROM trades JOIN candles USING (symbol)" --table trades=trades.csv
    lakewriter query "FROM resample('spot', '*USDT', '1m', '1d', since := '30d')" -o days.xlsx
    lakewriter query "FROM candles WHERE symbol = \\$s" -p s=BTCUSDT -o btc.parquet
    echo "SELECT count(*) FROM candles" | lakewriter query - --format csv
    """
    run_command("query", options)
