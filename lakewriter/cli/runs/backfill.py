"""`lakewriter backfill`, which fetches history from the first candle up to the recording."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import click

from lakewriter import __version__
from lakewriter.backfill.archive_import import DOWNLOADS
from lakewriter.backfill.planner import BackfillOptions
from lakewriter.backfill.run import Backfill
from lakewriter.backfill.spread_import import Workers
from lakewriter.backfill.worker_import import WORKER_DOWNLOADS, WorkerJob, this_process
from lakewriter.binance.network import Network, check_proxies
from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.connect import clients_of
from lakewriter.cli.engine_options import EngineOptions
from lakewriter.cli.moment import parse_day
from lakewriter.cli.progress_bar import ConsoleHandler
from lakewriter.cli.runs.backfill_report import (
    DONE_BY_WORKERS,
    BackfillReport,
    print_plan,
    print_report,
    report_of,
    show_progress,
    summary_of,
)
from lakewriter.cli.series_filter import begin_ms
from lakewriter.cli.signals import finish_unless_stopped, stop_on_signals
from lakewriter.cli.state_dir import check_state_dir
from lakewriter.cli.terminal import finished_report, log_to_stderr, stderr_is_terminal
from lakewriter.clock import Clock
from lakewriter.config import Config, find_config
from lakewriter.engines.engine import Engine
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.file_candles import series_by_name
from lakewriter.importer.import_files import ImportJob, find_files, import_files
from lakewriter.interval import DAY_MS
from lakewriter.lake.gaps.ledger import save
from lakewriter.lake.gaps.ledgers import open_ledger
from lakewriter.lake.journal import create_journal, journal_name
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import create_lake, open_or_empty
from lakewriter.lake.published import publish
from lakewriter.market import Market
from lakewriter.subscription import Subscription, parse_subscription

log = logging.getLogger(__name__)


def run(
    subscriptions: tuple[str, ...],
    since: str | None,
    until: str | None,
    config_path: str | None,
    exchange: str | None,
    dry_run: bool,
    as_json: bool,
    files: str,
    downloads: int | None,
    all_symbols_ever: bool,
    from_dir: str | None,
    max_weight: int | None,
    quiet: bool,
    engine_options: EngineOptions,
    lake: str | None,
) -> None:
    """Fetch the missing candles, or print the plan."""
    config = find_config(config_path) or Config()
    uri = lake or config.lake or DEFAULT_LAKE
    check_state_dir(uri)
    subscribed = [parse_subscription(text) for text in subscriptions] or config.parsed_subscriptions()
    if not subscribed:
        raise UsageError(
            "backfill: nothing to fetch", "lakewriter backfill spot:BTCUSDT:1m --since 2024-01-01"
        )
    options = BackfillOptions(
        since_ms=begin_ms(parse_day(since, "--since")),
        until_ms=None if until is None else (begin_ms(parse_day(until, "--until")) or 0) + DAY_MS,
        files=files,  # type: ignore[arg-type]
        downloads=downloads or DOWNLOADS,
        delisted=all_symbols_ever,
    )
    if options.since_ms is not None and options.until_ms is not None and options.since_ms >= options.until_ms:
        raise UsageError(f"--until: {until} is before --since {since}")
    for entry in subscribed:
        market = config.market(entry.market, exchange)  # refuses a bad --exchange, too
        check_proxies(market)
        allowed = market.weight_max
        if max_weight is not None and max_weight > allowed:
            raise UsageError(f"--max-weight: {max_weight} is more than the {allowed} of {entry.market}")
    job = _Job(
        uri,
        partial(config.market, exchange=exchange),
        subscribed,
        options,
        from_dir=None if from_dir is None else Path(from_dir),
        max_weight=max_weight,
        quiet=quiet,
        as_json=as_json,
        engine=engine_options.open_workers("backfill"),
        worker_downloads=downloads or WORKER_DOWNLOADS,
    )
    try:
        done = asyncio.run(_run_until_stopped(job.plan_only() if dry_run else job.run()))
    except OSError as error:
        where = error.filename or uri
        raise LakewriterError(
            f"backfill: {where}: {error.strerror or error}", "run the same command again to resume"
        ) from None
    if done.problem:
        raise LakewriterError(f"backfill: {done.problem}", done.hint)


async def _run_until_stopped(work: Coroutine[Any, Any, BackfillReport]) -> BackfillReport:
    """Run the work and return its report.

    Raises:
        click.Abort: if a signal stops the work.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    working = asyncio.create_task(work)
    if not await finish_unless_stopped(working, stop):
        click.echo("run the same command again to resume", err=True)
        raise click.Abort
    return working.result()


class _Job:
    """One run of `lakewriter backfill`."""

    def __init__(
        self,
        uri: str,
        endpoints: Callable[[str], Market],
        subscriptions: list[Subscription],
        options: BackfillOptions,
        *,
        from_dir: Path | None,
        max_weight: int | None,
        quiet: bool,
        as_json: bool,
        engine: Engine | None,
        worker_downloads: int,
    ) -> None:
        self._engine = engine
        self._worker_downloads = worker_downloads
        self._uri = uri
        self._endpoints = endpoints
        self._subscriptions = subscriptions
        self._options = options
        self._from_dir = from_dir
        self._max_weight = max_weight
        self._quiet = quiet
        self._as_json = as_json
        self._clock = Clock()

    async def plan_only(self) -> BackfillReport:
        """Print the plan, and change nothing."""
        log_to_stderr(quiet=self._quiet)
        store = open_or_empty(self._uri)
        async with Network() as session:
            backfill = self._backfill(store, session)
            plan = await backfill.plan(self._subscriptions)
        with finished_report():
            print_plan(plan, backfill.estimated_s(plan), as_json=self._as_json)
        return report_of(plan, backfill.progress)

    async def run(self) -> BackfillReport:
        """Run the plan, and print the report."""
        lines = ConsoleHandler() if stderr_is_terminal() and not self._quiet else None
        log_to_stderr(quiet=self._quiet, handler=lines)
        began_s = self._clock.monotonic_s()
        store = create_lake(self._uri, f"lakewriter {__version__}")
        journal = create_journal(store.state_dir, journal_name("backfill"))
        ledger = open_ledger(store.state_dir, journal.directory.name)
        try:
            async with Network() as session:
                if self._from_dir is not None:
                    await self._import(store, self._from_dir)
                backfill = self._backfill(store, session, self._workers(store))
                plan = await backfill.plan(self._subscriptions)
                log.info("%s", summary_of(plan))
                following = asyncio.create_task(
                    show_progress(plan, backfill.progress, lines.console if lines else None)
                )
                try:
                    with self._engine or contextlib.nullcontext():
                        await backfill.run(plan, ledger, journal.directory.name)
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
        finally:
            await save(ledger)
            ledger.close()
            await asyncio.to_thread(publish, store)
            journal.close()
        done = report_of(plan, backfill.progress, self._clock.monotonic_s() - began_s)
        if self._engine is not None and self._engine.repeated:
            done.at_least = list(DONE_BY_WORKERS)
        with finished_report():
            print_report(done, as_json=self._as_json)
        return done

    async def _import(self, store: LakeStore, directory: Path) -> None:
        """Import the files in a directory whose series are subscribed to."""
        paths = await asyncio.to_thread(lambda: list(find_files([directory])))
        markets = {subscription.market for subscription in self._subscriptions}
        # If all subscriptions are of one market, files without a market's name are of this market.
        otherwise = ImportOptions(market=markets.pop()) if len(markets) == 1 else ImportOptions()
        by_options: dict[ImportOptions, list[Path]] = {ImportOptions(): [], otherwise: []}
        for path in paths:
            options = ImportOptions() if self._is_subscribed(path, ImportOptions()) is not None else otherwise
            if self._is_subscribed(path, options):
                by_options[options].append(path)
        files = rows = 0
        now_ms = self._clock.wall_us() // 1000
        for options, chosen in by_options.items():
            importing = import_files(store, chosen, ImportJob(options, now_ms, doubt_last=True))
            # Import one file at a time, so that a stop takes effect in between.
            while (imported := await asyncio.to_thread(next, importing, None)) is not None:
                files, rows = files + 1, rows + imported.rows
                if imported.error:
                    log.warning("%s; its candles are fetched instead", imported.error)
        log.info("%s: %d of its %d files are of these series, %d candles", directory, files, len(paths), rows)

    def _is_subscribed(self, path: Path, options: ImportOptions) -> bool | None:
        """Return whether a file's series is subscribed to; None if the file's name has no series."""
        try:
            series = series_by_name(path, options)
        except LakewriterError:
            return None
        return any(subscription.covers(*series) for subscription in self._subscriptions)

    def _workers(self, store: LakeStore) -> Workers | None:
        """Return the workers that import the archive's files; None without an engine."""
        if self._engine is None:
            return None
        names = {subscription.market for subscription in self._subscriptions}
        markets = {name: self._endpoints(name) for name in names}
        return Workers(self._engine, WorkerJob(store.uri, markets, self._worker_downloads, this_process()))

    def _backfill(self, store: LakeStore, session: Network, workers: Workers | None = None) -> Backfill:
        clients = clients_of(
            store.state_dir, self._endpoints, session, self._clock, max_weight=self._max_weight
        )
        return Backfill(store, clients, options=self._options, clock=self._clock, workers=workers)
