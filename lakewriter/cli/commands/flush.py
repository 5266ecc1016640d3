"""`lakewriter flush`, which flushes the journals of dead recorders into the lake."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command


@click.command(name="flush", short_help="Flush the journals of dead recorders into the lake.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lake_option
def command(**options: Any) -> None:
    """Flush the journals of dead recorders into the lake.

    The next `lakewriter record` does the same; this command is for lakes without
    a recorder. Journals of running recorders are not touched.

    \b
    lakewriter flush
    lakewriter flush --lake /srv/candles --json
    """
    run_command("flush", options)
