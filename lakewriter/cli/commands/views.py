"""`lakewriter views`, which prints statements that read the lake in DuckDB, Spark, Polars or pandas."""

import click

from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output

_READERS = ("duckdb", "spark", "polars", "pandas")


@click.command()
@click.option(
    "--for", "reader", type=click.Choice(_READERS), required=True, help="The tool that reads the lake."
)
@lake_option
def command(reader: str, lake: str | None) -> None:
    """Print statements for other tools that read the lake, with all types.

    They see flushed candles, each once, but none that are still in the journal.
    DuckDB gets a view `candles`, and macros that read only the directories of one
    symbol, or of some days.

    \b
    lakewriter views --for duckdb > candles.sql && duckdb -init candles.sql
    lakewriter views --for polars >> notebook.py
    lakewriter views --for pandas --lake s3://bucket/candles
    """
    from lakewriter.lake.open import open_to_read
    from lakewriter.query.reader_recipes import RECIPES, lake_uri

    store = open_to_read(lake or DEFAULT_LAKE)
    statements = RECIPES[reader](lake_uri(store))
    with ignore_broken_pipe(), standard_output() as out:
        out.write(statements.encode())
