"""`lakewriter copy`, which copies a lake into another one, and merges two lakes."""

import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from lakewriter import __version__
from lakewriter.cli.commands.copy_report import CopyReport
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.series_check import check_matches
from lakewriter.cli.series_options import SeriesOptions, with_series_and_since
from lakewriter.cli.state_dir import check_state_dir, state_dir_option
from lakewriter.cli.terminal import escape_stray_logs, finished_report, print_errors
from lakewriter.clock import present_ms
from lakewriter.copying.pair import Pair, open_pair, open_to_copy
from lakewriter.copying.run import Copy
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.partition_filter import PartitionFilter


def _lake_argument(name: str) -> Callable[..., Any]:
    def parse(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
        if value == "":
            raise UsageError(f"{name.upper()}: is empty", "give a directory, s3://, gs:// or az://")
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
def command(
    source: str,
    target: str,
    series_options: SeriesOptions,
    until: str | None,
    dry_run: bool,
    verify_only: bool,
    as_json: bool,
) -> None:
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
    if dry_run and verify_only:
        raise UsageError("copy: --dry-run and --verify-only exclude each other", "lakewriter copy --help")
    check_state_dir(source, target)
    wanted = series_options.partition_filter(until)
    change = not (dry_run or verify_only)
    started_s = time.monotonic()
    pair = open_pair(source, target)
    check_matches("copy", pair.source, wanted)
    if change:
        pair = open_to_copy(source, target, pair, __version__)
    copy = Copy(pair, wanted, present_ms(), change=change, trust=not verify_only)
    report = CopyReport(pair.source.name, pair.target.name, dry_run=dry_run, verify_only=verify_only)
    with progress_bar("comparing" if verify_only else "copying") as progress:
        total = None if progress.disable else _total(pair, wanted)
        for result in progress.track(copy, total=total):
            report.add(result)
    summary = report.summary(copy.records, round(time.monotonic() - started_s, 3))
    with finished_report():
        print(msgspec.json.encode(summary).decode() if as_json else report.text(summary))
    print_errors(report.errors)
    if report.errors:
        raise LakewriterError(report.failure(summary), report.hint)
    if verify_only and summary.differing:
        raise LakewriterError(
            f"copy: {pair.target.name} lacks candles of {pair.source.name}",
            "run it without --verify-only",
        )


def _total(pair: Pair, wanted: PartitionFilter) -> int:
    return sum(1 for _ in pair.source.files(wanted))
