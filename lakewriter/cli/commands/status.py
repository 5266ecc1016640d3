"""`lakewriter status`, which shows what an operator needs, and what needs the operator."""

from typing import Any

import click

from lakewriter.cli import lake_option, run_command
from lakewriter.cli.cache_options import cache_options


@click.command(name="status", short_help="Show the recorders, lag, gaps, size and disk.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch, one a refresh.")
@click.option("-w", "--watch", is_flag=True, help="Refresh in place every two seconds, until Ctrl-C.")
@cache_options
@lake_option
def command(**options: Any) -> None:
    """Show the recorders, lag, queues, gaps, the last compaction, the size and the disk.

    Exit 1 if something needs a person. Standard error then has a sentence and the
    command to run, for each finding. A lake without a recorder is no finding; a
    recorder that died is one.

    A recorder reports every two seconds. The rows of a large lake are estimated from
    some of its files. The disk's growth is measured by a recorder after an hour;
    before, it is the growth of the recorded series.

    \b
    lakewriter status
    lakewriter status --watch --lake /srv/candles
    lakewriter status --json | jq '.attention'
    """
    run_command("status", options)
