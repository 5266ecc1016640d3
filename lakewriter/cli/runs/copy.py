"""`lakewriter copy`, which copies a lake into another one, and merges two lakes."""

import time

import msgspec

from lakewriter import __version__
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.runs.copy_report import CopyReport
from lakewriter.cli.series_check import check_matches
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.cli.state_dir import check_state_dir
from lakewriter.cli.terminal import finished_report, print_errors
from lakewriter.clock import present_ms
from lakewriter.copying.pair import Pair, open_pair, open_to_copy
from lakewriter.copying.run import Copy
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.partition_filter import PartitionFilter


def run(
    source: str,
    target: str,
    series_options: SeriesOptions,
    until: str | None,
    dry_run: bool,
    verify_only: bool,
    as_json: bool,
) -> None:
    """Copy or compare, and print the summary."""
    if dry_run and verify_only:
        raise UsageError("copy: --dry-run and --verify-only exclude each other", "lakewriter copy --help")
    check_state_dir(source, target)
    wanted = filter_of(series_options, until)
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
