"""`lakewriter verify`, which checks that the stored candles are right."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from rich.progress import Progress

from lakewriter.binance.network import Network, check_proxies
from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.connect import clients_of
from lakewriter.cli.engine_options import EngineOptions
from lakewriter.cli.progress_bar import progress_bar
from lakewriter.cli.runs.verify_report import print_report
from lakewriter.cli.series_check import check_matches, check_not_empty
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.clock import Clock, present_ms
from lakewriter.config import Config, find_config
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.coverage.expectation import AHEAD_MS_MAX
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_change
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.subscriptions import read_periods
from lakewriter.market import MARKETS, Market
from lakewriter.status.wording import counted
from lakewriter.verify.checks import FUTURE
from lakewriter.verify.compare_published import Publisher, compare_published
from lakewriter.verify.findings import LOCAL_CHECKS, Check, VerifyReport
from lakewriter.verify.publishers import ArchivePublisher, RestPublisher
from lakewriter.verify.run import VerifyOptions, symbols_of, verify, verify_by_symbol

# Kinds of findings that compaction repairs.
_FOR_COMPACT = frozenset(("foreign", "writer"))


def run(
    series_options: SeriesOptions,
    until: str | None,
    checks: tuple[Check, ...],
    against: str | None,
    config_path: str | None,
    exchange: str | None,
    repair: bool,
    jumps: float,
    max_findings: int,
    as_json: bool,
    engine_options: EngineOptions,
    lake: str | None,
) -> None:
    """Check the candles, and print the findings."""
    if repair and against is None:
        raise UsageError("--repair: needs --against", "--against archive --repair")
    partition_filter = filter_of(series_options, until)
    store = open_to_change(lake or DEFAULT_LAKE)
    options = VerifyOptions(frozenset(checks or LOCAL_CHECKS), jumps, _latest_ms(store))
    check_matches("verify", store, partition_filter)
    report = VerifyReport(max_findings)
    if against is not None:
        endpoints = partial((find_config(config_path) or Config()).market, exchange=exchange)
        # Check `--exchange` and proxies before the lake is read.
        check_proxies(endpoints(next(iter(MARKETS))))
        opening = publisher_of(against, store, endpoints)
        asyncio.run(compare_with(store, opening, partition_filter, report, repair=repair))
    _verify(store, report, partition_filter, options, engine_options)
    print_report(report, as_json=as_json, repair=repair)
    if next(store.files(partition_filter), None) is None:
        check_not_empty("verify", store, partition_filter)
    if report.total:
        raise LakewriterError(
            f"verify: {counted(report.total, 'finding')}", _next_command(report, against, repair=repair)
        )


def _verify(
    store: LakeStore,
    report: VerifyReport,
    partition_filter: PartitionFilter,
    options: VerifyOptions,
    engine_options: EngineOptions,
) -> None:
    """Check the lake in this process, or symbol by symbol on a chosen engine."""
    with progress_bar("verifying") as progress, engine_options.chosen("verify") as engine:
        if engine.is_distributed or (engine_options.jobs is not None and not store.is_remote):
            symbols = symbols_of(store, partition_filter)
            advance = partial(progress.advance, progress.add_task("verifying", total=len(symbols)))
            verify_by_symbol(store, report, symbols, partition_filter, options, engine, advance)
            return
        working = verify(store, report, partition_filter, options)
        for _ in progress.track(working, total=_total(store, partition_filter, progress)):
            pass


def _latest_ms(store: LakeStore) -> int:
    """Return the latest possible begin time, in milliseconds since the epoch.

    It is the present, or the time in the recorder of a fast sandbox.
    """
    now_ms = present_ms()
    with store.ledgers() as root:
        seen_ms = max((period.seen_ms for period in read_periods(root)), default=0)
    return now_ms if seen_ms <= now_ms else seen_ms + AHEAD_MS_MAX


@asynccontextmanager
async def publisher_of(
    against: str, store: LakeStore, endpoints: Callable[[str], Market]
) -> AsyncIterator[Publisher]:
    """Open the publisher that `--against` names.

    Args:
        against: "archive" or "rest".
        endpoints: returns the market of a name, with its configured endpoints.
    """
    clock = Clock()
    async with Network() as session:
        clients = clients_of(store.state_dir, endpoints, session, clock)
        yield ArchivePublisher(clients, clock) if against == "archive" else RestPublisher(clients, clock)


async def compare_with(
    store: LakeStore,
    opening: AbstractAsyncContextManager[Publisher],
    partition_filter: PartitionFilter,
    report: VerifyReport,
    *,
    repair: bool,
) -> None:
    """Compare the lake with a publisher, and show a progress bar on a terminal.

    Args:
        opening: opens the publisher.
        report: gets the findings.
        repair: whether to merge published candles that are missing or win.
    """
    now_ms = present_ms()
    with progress_bar("comparing") as progress:
        task = progress.add_task("comparing", total=_total(store, partition_filter, progress))
        async with opening as publisher:
            async for window in compare_published(
                store, publisher, partition_filter, report, now_ms=now_ms, repair=repair
            ):
                progress.advance(task, window.partitions)


def _total(store: LakeStore, partition_filter: PartitionFilter, progress: Progress) -> int | None:
    """Return the number of partitions; None if the progress bar is disabled."""
    return None if progress.disable else sum(1 for _ in store.partitions(partition_filter))


def _next_command(report: VerifyReport, against: str | None, *, repair: bool) -> str:
    """Return the command line that repairs the findings, or checks the repair."""
    kinds = {finding.kind for finding in report.findings}
    if kinds and kinds <= _FOR_COMPACT:
        return "lakewriter compact"
    if kinds == {FUTURE}:
        first = min(report.findings, key=lambda finding: finding.begin_ms)
        series = f"{first.market}:{first.symbol}:{first.interval}"
        since = datetime.fromtimestamp(first.begin_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"lakewriter forget {series} --since {since} --dry-run"
    return f"lakewriter verify --against {against or 'archive'}" + ("" if repair else " --repair")
