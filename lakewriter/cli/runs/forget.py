"""`lakewriter forget`, which removes candles from the lake on purpose and records the removal."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import click
import msgspec

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.moment import parse_age, parse_start, parse_stop
from lakewriter.cli.printed_table import print_table
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.series_check import check_matches
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.cli.terminal import finished_report, print_errors
from lakewriter.cli.user import user_and_host
from lakewriter.clock import present_ms
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.forget import (
    ForgetResult,
    Selection,
    forget_partition,
    outcomes_to_record,
    partitions_to_forget,
    removed_by_series,
)
from lakewriter.lake.forgotten import ForgetPurpose, record_finish, record_start
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.open import open_to_change
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.published import publish
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.series import Series
from lakewriter.status.wording import counted
from lakewriter.subscription import Subscription, is_glob, parse_subscription

_DRY_RUN_HINT = "try first: lakewriter forget … --dry-run"


class ForgetSummary(msgspec.Struct):
    """The output of `lakewriter forget --json`.

    Args:
        partitions: the number of partitions that lost candles.
        removed: the number of these partitions that were removed as a whole.
        bytes_freed: the freed space in bytes.
        unflushed: the number of selected candles in journals. These candles stay.
    """

    series: int = 0
    partitions: int = 0
    removed: int = 0
    candles: int = 0
    bytes_freed: int = 0
    unflushed: int = 0
    failed: int = 0
    seconds: float = 0.0
    dry_run: bool = False


def run(
    series_options: SeriesOptions,
    subscriptions: tuple[str, ...],
    since: str | None,
    until: str | None,
    older_than: str | None,
    sources: tuple[str, ...],
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    lake: str | None,
) -> None:
    """Remove the candles, and print the summary."""
    parsed = [parse_subscription(text) for text in subscriptions]
    named = filter_of(series_options, None)
    if not parsed and named == PartitionFilter() and older_than is None:
        raise UsageError("forget: no series is named", "lakewriter forget spot:BTCUSDT:1m --dry-run")
    now_ms = present_ms()
    start_ms, stop_ms = parse_start(since, "--since"), parse_stop(until, "--until")
    if older_than is not None:
        before_ms = now_ms - parse_age(older_than)
        stop_ms = before_ms if stop_ms is None else min(stop_ms, before_ms)
    if start_ms is not None and stop_ms is not None and start_ms >= stop_ms:
        raise UsageError("forget: --since is not before --until", _DRY_RUN_HINT)
    store = open_to_change(lake or DEFAULT_LAKE)
    selection = Selection(_chosen(store, parsed, named), start_ms, stop_ms, sources)
    if not (dry_run or yes or _can_ask()):
        raise UsageError(
            "forget: cannot ask without a terminal", f"--yes removes without asking; {_DRY_RUN_HINT}"
        )
    started_s = time.monotonic()
    looked = _dry_run(store, selection)
    met = [(item, outcome) for item, outcome in looked if outcome.has_effect]
    todo = [(item, outcome) for item, outcome in met if not outcome.error]
    failures = [outcome for _, outcome in met if outcome.error]
    outcomes = [outcome for _, outcome in todo]
    if not as_json and todo and (dry_run or not yes):
        print_table(_table(outcomes), as_json=False)
    if todo and not dry_run:
        if not yes:
            click.confirm(f"Remove {_removal_text(outcomes)}?", abort=True, err=True)
        purpose = ForgetPurpose(user_and_host(), reason, tuple(sources), now_ms)
        outcomes = _forget(store, [(item, selection) for item, _ in todo], outcomes, purpose)
        failures += [outcome for outcome in outcomes if outcome.error]
    summary = _summary(outcomes, dry_run=dry_run)
    summary.failed = len(failures)
    summary.unflushed = sum(map(selection.selects, read_unflushed(store.state_dir)))
    summary.seconds = round(time.monotonic() - started_s, 3)
    with finished_report():
        print(msgspec.json.encode(summary).decode() if as_json else _sentence(summary, outcomes))
    if summary.unflushed:
        click.echo(
            f"lakewriter: {counted(summary.unflushed, 'selected candle')} in a journal come with the next flush; "
            "run this again after it",
            err=True,
        )
    _report_failures(failures)


def _chosen(store: LakeStore, parsed: list[Subscription], named: PartitionFilter) -> tuple[Series, ...]:
    """Return the named series in the lake.

    Raises:
        UsageError: if a series that is named without a glob is not in the lake.
    """
    in_lake = [series for series in store.series() if named.covers(series)]
    check_matches("forget", store, named, in_lake)
    for subscription in parsed:
        for symbol in subscription.symbols:
            if not is_glob(symbol):
                narrow = PartitionFilter((subscription.market,), (symbol,), subscription.intervals)
                check_matches("forget", store, narrow, in_lake)
    return tuple(
        series
        for series in in_lake
        if not parsed or any(subscription.covers(*series) for subscription in parsed)
    )


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _dry_run(store: LakeStore, selection: Selection) -> list[tuple[PartitionDirs, ForgetResult]]:
    with progress_bar("looking") as progress:
        items = list(partitions_to_forget(store, selection))
        return [
            (item, forget_partition(store, item, selection, dry_run=True))
            for item in progress.track(items, total=len(items))
        ]


def _forget(
    store: LakeStore,
    todo: list[tuple[PartitionDirs, Selection]],
    planned: list[ForgetResult],
    purpose: ForgetPurpose,
) -> list[ForgetResult]:
    """Remove the candles that a dry run found.

    The removal is recorded before it begins and after it ends, also on errors.

    Args:
        todo: the partitions to change, and the selected candles.
        planned: their dry runs.
        purpose: the user, the reason and the time, for the record.
    """
    outcomes: list[ForgetResult] = []
    with _recorded(store, todo, planned, outcomes, purpose), progress_bar("forgetting") as progress:
        for item, selection in progress.track(todo, total=len(todo)):
            outcomes.append(forget_partition(store, item, selection))
    return outcomes


@contextmanager
def _recorded(
    store: LakeStore,
    todo: list[tuple[PartitionDirs, Selection]],
    planned: list[ForgetResult],
    outcomes: list[ForgetResult],
    purpose: ForgetPurpose,
) -> Iterator[None]:
    command = record_start(store, removed_by_series(planned), purpose)
    publish(store)
    try:
        yield
    finally:
        went = removed_by_series(outcomes_to_record(store, todo, planned, outcomes))
        record_finish(store, command, went, purpose, present_ms())
        publish(store)


def _table(outcomes: Iterable[ForgetResult]) -> Any:
    import pyarrow as pa

    rows = []
    for series, group in groupby(outcomes, key=_series_of):
        of_series = list(group)
        ranges = [time_range for outcome in of_series for time_range in outcome.ranges]
        rows.append(
            (
                *series,
                ranges[0][0] if ranges else None,
                ranges[-1][1] if ranges else None,
                len(of_series),
                sum(outcome.candles for outcome in of_series),
                sum(outcome.bytes_before - outcome.bytes_after for outcome in of_series),
            )
        )
    moment = pa.timestamp("ms", tz="UTC")
    schema = pa.schema(
        [(name, pa.string()) for name in ("market", "symbol", "interval")]
        + [("start", moment), ("stop", moment)]
        + [(name, pa.int64()) for name in ("partitions", "candles", "bytes")]
    )
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _series_of(outcome: ForgetResult) -> Series:
    return outcome.partition.series


def _summary(outcomes: list[ForgetResult], *, dry_run: bool) -> ForgetSummary:
    done = [outcome for outcome in outcomes if not outcome.error]
    return ForgetSummary(
        series=len({_series_of(outcome) for outcome in done}),
        partitions=len(done),
        removed=sum(outcome.removed for outcome in done),
        candles=sum(outcome.candles for outcome in done),
        bytes_freed=sum(outcome.bytes_before - outcome.bytes_after for outcome in done),
        dry_run=dry_run,
    )


def _sentence(summary: ForgetSummary, outcomes: list[ForgetResult]) -> str:
    if not summary.partitions:
        return "nothing to forget: the lake has no such candles"
    verb = "would remove" if summary.dry_run else "removed"
    return f"{verb} {_removal_text([outcome for outcome in outcomes if not outcome.error])} in {summary.seconds:.1f} s"


def _removal_text(outcomes: list[ForgetResult]) -> str:
    summary = _summary(outcomes, dry_run=False)
    days, series = counted(summary.partitions, "partition"), f"{summary.series:,} series"
    unread = sum(outcome.unreadable for outcome in outcomes)
    more = f", and {counted(unread, 'file')} that cannot be read" if unread else ""
    return f"{counted(summary.candles, 'candle')} in {days} of {series} ({_mb(max(0, summary.bytes_freed))}){more}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:,.1f} kB"


def _report_failures(failures: list[ForgetResult]) -> None:
    if not failures:
        return
    print_errors([outcome.error for outcome in failures])
    raise LakewriterError(f"forget: {counted(len(failures), 'partition')} failed", failures[0].hint)
