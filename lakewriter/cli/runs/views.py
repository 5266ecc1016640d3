"""`lakewriter views`, which prints statements that read the lake in DuckDB, Spark, Polars or pandas."""

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output


def run(reader: str, lake: str | None) -> None:
    """Print the statements."""
    from lakewriter.lake.open import open_to_read
    from lakewriter.query.reader_recipes import RECIPES, lake_uri

    store = open_to_read(lake or DEFAULT_LAKE)
    statements = RECIPES[reader](lake_uri(store))
    with ignore_broken_pipe(), standard_output() as out:
        out.write(statements.encode())
