"""`lakewriter import`, which imports files of candles into the lake."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from lakewriter import __version__
from lakewriter.candle import Source
from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.engine_options import EngineOptions
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.terminal import finished_report, print_errors
from lakewriter.clock import present_ms
from lakewriter.engines.engine import Engine
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.import_files import (
    FileResult,
    ImportJob,
    ImportPlace,
    check_files,
    find_files,
    import_files,
    import_in_worker,
)
from lakewriter.interval import parse_interval
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import create_lake
from lakewriter.market import parse_market, parse_symbol


class LeftOutCounts(msgspec.Struct):
    """The counts of files and rows that were not imported, in `--json`."""

    files_of_other_series: int = 0
    rows_of_other_series: int = 0
    rows_not_closed: int = 0
    rows_twice: int = 0
    rows_contradicted: int = 0
    rows_disputed: int = 0
    rows_without_values: int = 0
    rows_bad: int = 0


class ImportSummary(msgspec.Struct):
    """The output of `lakewriter import --json`.

    Args:
        at_least: the names of the fields that are lower bounds, because a worker was lost. The
            lake and the other fields are right.
    """

    files: int = 0
    failed: int = 0
    rows: int = 0
    added: int = 0
    replaced: int = 0
    corrections: int = 0
    left_out: LeftOutCounts = msgspec.field(default_factory=LeftOutCounts)
    seconds: float = 0.0
    dry_run: bool = False
    at_least: list[str] = []


# Counts of what workers changed. The other fields follow from the files.
_DONE_BY_WORKERS = ("added", "replaced", "corrections", "rows_disputed")

# Files that are worth a way to a worker.
CHUNK = 16

_LEFT_OUT = {
    "files_of_other_series": ("file of other series", "files of other series"),
    "rows_of_other_series": ("row of another series", "rows of other series"),
    "rows_not_closed": ("candle that was not closed", "candles that were not closed"),
    "rows_twice": ("duplicate row", "duplicate rows"),
    "rows_contradicted": ("row that a later row of its candle contradicts",
                          "rows that later rows of their candles contradict"),
    "rows_disputed": ("row that differs from a better one in the lake",
                      "rows that differ from better ones in the lake"),
    "rows_without_values": ("row without values", "rows without values"),
    "rows_bad": ("row that cannot be a candle", "rows that cannot be candles"),
}  # fmt: skip


def run(
    paths: tuple[str, ...],
    market: str | None,
    symbol: str | None,
    interval: str | None,
    source: Source | None,
    relabel: bool,
    sparse: bool,
    skip_bad_rows: bool,
    dry_run: bool,
    as_json: bool,
    engine_options: EngineOptions,
    lake: str | None,
) -> None:
    """Import the files, and print the summary."""
    options = ImportOptions(
        market=parse_market(market).name if market else None,
        symbol=parse_symbol(symbol) if symbol else None,
        interval=parse_interval(interval).name if interval else None,
        source=source,
        relabel=relabel,
        sparse=sparse,
        skip_bad_rows=skip_bad_rows,
    )
    if relabel and not (market or symbol or interval):
        raise UsageError("--relabel: no new name is given", "--relabel --symbol BTCUSDT")
    named = tuple(map(Path, paths))
    job = ImportJob(options, now_ms=present_ms(), named=frozenset(named))
    files = list(find_files(named))
    if not files:
        raise UsageError(
            f"import: no file of candles in {named[0]}", "lakewriter import --help lists the formats"
        )
    engine = engine_options.open_workers("import")
    started_s = time.monotonic()
    store = None if dry_run else create_lake(lake or DEFAULT_LAKE, __version__)
    summary, failures, notes = ImportSummary(dry_run=dry_run), [], []
    with progress_bar("importing") as progress, engine or contextlib.nullcontext():
        advance = partial(progress.advance, progress.add_task("importing", total=len(files)))
        for imported in _results(store, files, job, engine, advance):
            _count(summary, imported)
            notes += [f"{imported.path}: {note}" for note in imported.notes]
            if imported.error:
                failures.append(imported)
    if engine is not None and engine.repeated and not dry_run:
        summary.at_least = list(_DONE_BY_WORKERS)
    print_errors(notes)
    summary.seconds = round(time.monotonic() - started_s, 3)
    with finished_report():
        print(msgspec.json.encode(summary).decode() if as_json else _sentence(summary))
    _report_failures(failures)
    if summary.left_out.files_of_other_series == summary.files:
        raise UsageError(
            f"import: none of {summary.files:,} files is of the selected series",
            "lakewriter import --dry-run FILE... without --market, --symbol and --interval",
        )


def _results(
    store: LakeStore | None,
    files: list[Path],
    job: ImportJob,
    engine: Engine | None,
    advance: Callable[[int], None],
) -> Iterator[FileResult]:
    """Import files, or only check them without a store; yield their results in order."""
    if engine is not None:
        place = ImportPlace(None if store is None else store.uri, str(Path.cwd()))
        yield from engine.map(partial(import_in_worker, place, job), files, chunk=CHUNK, advance=advance)
        return
    for imported in check_files(files, job) if store is None else import_files(store, files, job):
        advance(1)
        yield imported


def _count(summary: ImportSummary, imported: FileResult) -> None:
    summary.files += 1
    summary.failed += bool(imported.error)
    summary.rows += imported.rows
    summary.added += imported.added
    summary.replaced += imported.replaced
    summary.corrections += imported.corrections
    left_out = summary.left_out
    left_out.files_of_other_series += imported.other_series
    left_out.rows_of_other_series += imported.left_out.other_series
    left_out.rows_not_closed += imported.left_out.open
    left_out.rows_twice += imported.left_out.equal
    left_out.rows_contradicted += imported.left_out.contradictions
    left_out.rows_disputed += imported.disputed
    left_out.rows_without_values += imported.left_out.empty
    left_out.rows_bad += imported.left_out.bad


def _sentence(summary: ImportSummary) -> str:
    files = summary.files - summary.failed - summary.left_out.files_of_other_series
    least = "at least " if summary.at_least else ""
    what = f"{files:,} {'file' if files == 1 else 'files'}, {summary.rows:,} candles"
    if summary.dry_run:
        done = f"{what} can be imported, checked in {summary.seconds:.1f} s"
    else:
        done = (
            f"{what}: {least}{summary.added:,} added, {summary.replaced:,} replaced, "
            f"{summary.corrections:,} of them corrected in {summary.seconds:.1f} s"
        )
    left_out = msgspec.structs.asdict(summary.left_out)
    parts = [
        f"{left_out[name]:,} {words[left_out[name] > 1]}"
        for name, words in _LEFT_OUT.items()
        if left_out[name]
    ]
    return f"{done}\nleft out: {'; '.join(parts)}" if parts else done


def _report_failures(failures: list[FileResult]) -> None:
    if not failures:
        return
    print_errors([imported.error for imported in failures])
    many = len(failures) > 1
    left = f"{len(failures)} files were not imported" if many else "1 file was not imported"
    raise LakewriterError(f"import: {left}", failures[0].hint)
