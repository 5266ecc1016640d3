"""`lakewriter compact`, which folds every partition into its one file."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.engine_options import with_engine
from lakewriter.cli.series_options import with_series_and_since


@click.command(name="compact", short_help="Fold, deduplicate and re-encode partitions.")
@with_series_and_since
@click.option("--until", metavar="DATE|AGE", help="Only this day and earlier ones.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_engine
@lake_option
def command(**options: Any) -> None:
    """Fold foreign files into each partition's one file, without duplicates.

    Safe at any time, also while recorders write and other processes read. Partitions that
    need no compaction are skipped unopened.

    \b
    lakewriter compact
    lakewriter compact --market spot --since 2024-06-01 --dry-run
    lakewriter compact --json
    lakewriter compact --engine spark --master spark://host:7077 --lake s3://bucket/candles
    """
    run_command("compact", options)
