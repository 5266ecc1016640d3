"""`lakewriter compact`, which folds every partition into its one file."""

import time
from functools import partial

import click
import msgspec

from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.engine_options import EngineOptions, with_engine
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.series_options import SeriesOptions, with_series_and_since
from lakewriter.cli.terminal import finished_report, print_errors
from lakewriter.clock import present_ms
from lakewriter.errors import LakewriterError
from lakewriter.lake.compact import (
    CompactionResult,
    compact_partitions,
    plan_compaction,
    sweep_state,
    write_verified,
)
from lakewriter.lake.compaction_record import CompactionRecord, write_compaction_record
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_change
from lakewriter.lake.partition_filter import PartitionFilter


class CompactSummary(msgspec.Struct):
    """The output of `lakewriter compact --json`.

    Args:
        at_least: the names of the fields that are lower bounds. A worker was lost, and nobody
            knows what it had done. The lake and the other fields are right.
    """

    partitions: int = 0
    rewritten: int = 0
    rows: int = 0
    duplicates_removed: int = 0
    rows_disputed: int = 0
    rows_not_closed: int = 0
    files_removed: int = 0
    directories_removed: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    failed: int = 0
    dry_run: bool = False
    at_least: list[str] = []


# Sums of what workers did. The other fields follow from the plan and the lake.
_DONE_BY_WORKERS = (
    "rewritten", "duplicates_removed", "rows_disputed", "rows_not_closed", "files_removed",
    "directories_removed", "bytes_before",
)  # fmt: skip


@click.command(name="compact", short_help="Fold, deduplicate and re-encode partitions.")
@with_series_and_since
@click.option("--until", metavar="DATE|AGE", help="Only this day and earlier ones.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_engine
@lake_option
def command(
    series_options: SeriesOptions,
    until: str | None,
    dry_run: bool,
    as_json: bool,
    engine_options: EngineOptions,
    lake: str | None,
) -> None:
    """Fold foreign files into each partition's one file, without duplicates.

    Safe at any time, also while recorders write and other processes read. Partitions that
    need no compaction are skipped unopened.

    \b
    lakewriter compact
    lakewriter compact --market spot --since 2024-06-01 --dry-run
    lakewriter compact --json
    lakewriter compact --engine spark --master spark://host:7077 --lake s3://bucket/candles
    """
    partition_filter = series_options.partition_filter(until)
    store = open_to_change(lake or DEFAULT_LAKE)
    started_s = time.monotonic()
    if not dry_run:
        sweep_state(store, time.time())
    todo = plan_compaction(store, partition_filter)
    outcomes = list(todo.in_order)
    with progress_bar("compacting") as progress, engine_options.open("compact") as engine:
        advance = partial(progress.advance, progress.add_task("compacting", total=len(todo.work)))
        outcomes += compact_partitions(
            store, todo.work, time.time(), dry_run=dry_run, engine=engine, advance=advance
        )
        at_least = list(_DONE_BY_WORKERS) if engine.repeated and not dry_run else []
    if not dry_run:
        _remember(store, outcomes, everything=partition_filter == PartitionFilter())
    summary = _summary(outcomes, time.monotonic() - started_s, dry_run)
    summary.at_least = at_least
    if not dry_run:
        _record(store, summary, whole_lake=partition_filter == PartitionFilter())
    with finished_report():
        print(msgspec.json.encode(summary).decode() if as_json else _sentence(summary))
    _report_failures([outcome for outcome in outcomes if outcome.error])


def _remember(store: LakeStore, outcomes: list[CompactionResult], *, everything: bool) -> None:
    try:
        write_verified(store, outcomes, everything=everything)
    except OSError as error:
        # Without the list the next run is only slower.
        click.echo(f"lakewriter: cannot save the list of compacted partitions: {error.strerror}", err=True)


def _record(store: LakeStore, summary: CompactSummary, *, whole_lake: bool) -> None:
    """Write the record that `lakewriter status` shows."""
    names = set(CompactionRecord.__struct_fields__) & set(summary.__struct_fields__)
    record = CompactionRecord(
        ended_at_ms=present_ms(),
        whole_lake=whole_lake,
        **{name: getattr(summary, name) for name in names},
    )
    try:
        write_compaction_record(store, record)
    except OSError as error:
        click.echo(f"lakewriter: cannot save the record of this compaction: {error.strerror}", err=True)


def _summary(outcomes: list[CompactionResult], seconds: float, dry_run: bool) -> CompactSummary:
    return CompactSummary(
        partitions=len(outcomes),
        rewritten=sum(outcome.rewritten for outcome in outcomes),
        rows=sum(outcome.rows for outcome in outcomes),
        duplicates_removed=sum(outcome.duplicates_removed for outcome in outcomes),
        rows_disputed=sum(outcome.disputed for outcome in outcomes),
        rows_not_closed=sum(outcome.not_closed for outcome in outcomes),
        files_removed=sum(len(outcome.files_removed) for outcome in outcomes),
        directories_removed=sum(outcome.directories_removed for outcome in outcomes),
        bytes_before=sum(outcome.bytes_before for outcome in outcomes),
        bytes_after=sum(outcome.bytes_after for outcome in outcomes),
        seconds=round(seconds, 3),
        failed=sum(bool(outcome.error) for outcome in outcomes),
        dry_run=dry_run,
    )


def _sentence(summary: CompactSummary) -> str:
    would = "would be " if summary.dry_run else ""
    least = "at least " if summary.at_least else ""
    return (
        f"{summary.partitions:,} partitions, {summary.rows:,} candles: "
        f"{least}{summary.rewritten:,} {would}rewritten, "
        f"{summary.duplicates_removed:,} duplicates and {summary.files_removed:,} files {would}removed, "
        f"{least}{_mb(summary.bytes_before)} → {_mb(summary.bytes_after)} in {summary.seconds:.1f} s"
        f"{_folded_directories(summary)}{_left_out(summary)}"
    )


def _folded_directories(summary: CompactSummary) -> str:
    """Return a line on directories that were folded into their periods' directories; "" for none."""
    if not summary.directories_removed:
        return ""
    would = "would be " if summary.dry_run else ""
    return f"\n{summary.directories_removed:,} directories {would}folded into those of their months and years"


def _left_out(summary: CompactSummary) -> str:
    """Return a line on omitted rows that are no duplicates; "" for none."""
    parts = [
        f"{rows:,} {words[rows > 1]}"
        for rows, words in (
            (summary.rows_not_closed, ("candle that was not closed", "candles that were not closed")),
            (
                summary.rows_disputed,
                (
                    "row that differs from a better row of its candle",
                    "rows that differ from better rows of their candles",
                ),
            ),
        )
        if rows
    ]
    return f"\nleft out: {'; '.join(parts)}" if parts else ""


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:,.1f} kB"


def _report_failures(failures: list[CompactionResult]) -> None:
    if not failures:
        return
    print_errors([outcome.error for outcome in failures])
    partitions = "1 partition" if len(failures) == 1 else f"{len(failures)} partitions"
    raise LakewriterError(f"compact: files of {partitions} are unchanged", failures[0].hint)
