"""`lakewriter compact`, which folds every partition into its one file."""

import time
from collections.abc import Iterator
from functools import partial

import click
import msgspec

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.engine_options import EngineOptions
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.cli.terminal import finished_report, print_errors
from lakewriter.clock import present_ms
from lakewriter.errors import LakewriterError
from lakewriter.lake.compact import (
    CompactionResult,
    VerifiedList,
    compact_partitions,
    planned_compactions,
    sweep_state,
)
from lakewriter.lake.compaction_record import (
    CompactionRecord,
    read_compaction_record,
    write_compaction_record,
)
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.open import open_to_change
from lakewriter.lake.partition_filter import PartitionFilter


class CompactSummary(msgspec.Struct):
    """The output of `lakewriter compact --json`.

    Args:
        at_least: the names of the fields that are lower bounds. A worker was lost, and no
            result has what it had done. The lake and the other fields are right.
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


# A store that is away for so many partitions in a row, and for so long, is taken to be away
# for all.
AWAY_MAX = 20
AWAY_S = 30.0

# Sums of what workers did. The other fields follow from the plan and the lake.
_DONE_BY_WORKERS = (
    "rewritten", "duplicates_removed", "rows_disputed", "rows_not_closed", "files_removed",
    "directories_removed", "bytes_before",
)  # fmt: skip


def run(
    series_options: SeriesOptions,
    until: str | None,
    dry_run: bool,
    as_json: bool,
    engine_options: EngineOptions,
    lake: str | None,
) -> None:
    """Compact the partitions, and print the summary."""
    partition_filter = filter_of(series_options, until)
    store = open_to_change(lake or DEFAULT_LAKE)
    started_s = time.monotonic()
    if not dry_run:
        sweep_state(store, time.time())
    whole_lake = partition_filter == PartitionFilter()
    tally = _Tally(VerifiedList(store, everything=whole_lake), CompactSummary(dry_run=dry_run))
    in_a_row, away_since_s = 0, time.monotonic()
    with progress_bar("compacting") as progress, engine_options.chosen("compact") as engine:
        is_counted = not progress.disable and not store.is_remote
        total = _expected(store, partition_filter, whole_lake=whole_lake) if is_counted else None
        bar = progress.add_task("compacting", total=total)
        advance = partial(progress.advance, bar)

        def work() -> Iterator[PartitionDirs]:
            listed = 0
            for planned in planned_compactions(store, partition_filter):
                listed += 1
                if isinstance(planned, CompactionResult):
                    tally.add(planned)
                    advance(1)
                else:
                    yield planned
            progress.update(bar, total=listed)

        for outcome in compact_partitions(
            store, work(), time.time(), dry_run=dry_run, engine=engine, advance=advance
        ):
            tally.add(outcome)
            if not outcome.is_away:
                in_a_row, away_since_s = 0, time.monotonic()
                continue
            in_a_row += 1
            if in_a_row >= AWAY_MAX and time.monotonic() - away_since_s > AWAY_S:
                raise LakewriterError(
                    f"compact: {in_a_row} partitions in a row failed: {outcome.error}",
                    "run it again",
                )
        if engine.repeated and not dry_run:
            tally.summary.at_least = list(_DONE_BY_WORKERS)
    if not dry_run:
        _remember(tally.verified)
    summary = tally.summary
    summary.seconds = round(time.monotonic() - started_s, 3)
    if not dry_run:
        _record(store, summary, whole_lake=whole_lake)
    with finished_report():
        print(msgspec.json.encode(summary).decode() if as_json else _sentence(summary))
    _report_failures(tally.errors, tally.hint)


class _Tally:
    """The sums over the partitions, one by one: a lake may have more than fit into memory.

    Args:
        verified: gets the partitions that need no compaction afterwards.
        summary: gets the sums.

    Attributes:
        errors: why partitions were left as they are.
        hint: the remedy of the first error.
    """

    def __init__(self, verified: VerifiedList, summary: CompactSummary) -> None:
        self.verified = verified
        self.summary = summary
        self.errors: list[str] = []
        self.hint = ""

    def add(self, outcome: CompactionResult) -> None:
        """Add the outcome of one partition."""
        self.verified.add(outcome)
        sums = self.summary
        sums.partitions += 1
        sums.rewritten += outcome.rewritten
        sums.rows += outcome.rows
        sums.duplicates_removed += outcome.duplicates_removed
        sums.rows_disputed += outcome.disputed
        sums.rows_not_closed += outcome.not_closed
        sums.files_removed += len(outcome.files_removed)
        sums.directories_removed += outcome.directories_removed
        sums.bytes_before += outcome.bytes_before
        sums.bytes_after += outcome.bytes_after
        if outcome.error:
            sums.failed += 1
            self.hint = self.hint or outcome.hint
            self.errors.append(outcome.error)


def _expected(store: LakeStore, partition_filter: PartitionFilter, *, whole_lake: bool) -> int:
    """Return about the number of partitions, for the progress bar, and list a lake only once.

    It is the number of the last compaction of the whole lake. Without one they are counted.
    """
    last = read_compaction_record(store) if whole_lake else None
    if last is not None and last.whole_lake:
        return last.partitions
    return sum(1 for _ in store.partitions(partition_filter))


def _remember(verified: VerifiedList) -> None:
    try:
        verified.write()
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


def _report_failures(errors: list[str], hint: str) -> None:
    if not errors:
        return
    print_errors(errors)
    partitions = "1 partition" if len(errors) == 1 else f"{len(errors)} partitions"
    raise LakewriterError(f"compact: files of {partitions} are unchanged", hint)
