"""`lakewriter views`, which prints statements that read the lake in DuckDB, Spark, Polars or pandas."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command

_READERS = ("duckdb", "spark", "polars", "pandas")


@click.command()
@click.option(
    "--for", "reader", type=click.Choice(_READERS), required=True, help="The tool that reads the lake."
)
@lake_option
def command(**options: Any) -> None:
    """Print statements for other tools that read the lake, with all types.

    They see flushed candles, each once, but none that are still in the journal.
    DuckDB gets a view `candles`, and macros that read only the directories of one
    symbol, or of some days.

    \b
    lakewriter views --for duckdb > candles.sql && duckdb -init candles.sql
    lakewriter views --for polars >> notebook.py
    lakewriter views --for pandas --lake s3://bucket/candles
    """
    run_command("views", options)
