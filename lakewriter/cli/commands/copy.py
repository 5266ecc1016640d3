"""`lakewriter copy`, which copies a lake into another one, and merges two lakes."""

from collections.abc import Callable
from typing import Any

import click

from lakewriter.cli import run_command
from lakewriter.cli.series_options import with_series_and_since
from lakewriter.cli.state_dir import state_dir_option
from lakewriter.errors import UsageError


def _lake_argument(name: str) -> Callable[..., Any]:
    def parse(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
        if value == "":
            raise UsageError(f"{name.upper()}: is empty", "give a directory, s3://, gs:// or az://")
        from lakewriter.cli.terminal import escape_stray_logs

        escape_stray_logs()
        return value

    return click.argument(name, metavar=name.upper(), callback=parse)


@click.command(name="copy", short_help="Copy a lake into another one, or merge two; prove the copy.")
@_lake_argument("source")
@_lake_argument("target")
@with_series_and_since
@click.option("--until", metavar="DATE|AGE", help="Only this day and earlier ones.")
@click.option("--dry-run", is_flag=True, help="Show what would be copied; change nothing.")
@click.option(
    "--verify-only", is_flag=True, help="Compare all rows again; change nothing. Exit 1 if they differ."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@state_dir_option
def command(**options: Any) -> None:
    """Copy the lake SOURCE into TARGET, and prove it by a comparison.

    Each is a directory, s3://bucket/prefix, gs:// or az://. TARGET is created if it
    does not exist. If it is a lake, both are merged: of two candles of one key the
    better one stays, as in every merge. Nothing in TARGET is removed, and SOURCE is
    not changed.

    Only what differs is copied. Recorders may write into both lakes meanwhile.
    Candles in the journals of SOURCE are copied, too. So are gaps, subscriptions,
    instruments and forgotten ranges. After an interruption, or to fetch what is new,
    run it again.

    Each written partition is read back and compared. Exit 1 if a file of SOURCE is
    damaged, or a candle differs; 2 if SOURCE or TARGET is wrong.

    \b
    lakewriter copy /srv/candles s3://bucket/candles
    lakewriter copy s3://bucket/candles data --market spot --since 2024-06-01
    lakewriter copy /srv/other /srv/candles --dry-run
    lakewriter copy /srv/candles s3://bucket/candles --verify-only
    """
    run_command("copy", options)
