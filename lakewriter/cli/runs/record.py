"""`lakewriter record`, which listens to the exchange and writes closed candles into the lake."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lakewriter import __version__, event_loop
from lakewriter.backfill.background import BackgroundBackfill
from lakewriter.binance.network import Network, check_proxies
from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.connect import clients_of
from lakewriter.cli.log_options import LogOptions
from lakewriter.cli.moment import parse_day
from lakewriter.cli.recorder_http import bound_http, serving_http
from lakewriter.cli.recorder_line import ProgressLine
from lakewriter.cli.recorder_log import RecorderLog
from lakewriter.cli.recorder_summary import RecorderSummary
from lakewriter.cli.series_filter import begin_ms
from lakewriter.cli.service_manager import ServiceManager, report_to
from lakewriter.cli.signals import finish_unless_stopped, stop_on_signals
from lakewriter.cli.state_dir import check_state_dir
from lakewriter.cli.terminal import stderr_is_terminal
from lakewriter.clock import Clock
from lakewriter.config import (
    EXAMPLE,
    FILE_NAME,
    Config,
    find_config,
    load_config,
    parse_duration,
    parse_journal_limit,
    parse_keep,
)
from lakewriter.errors import UsageError
from lakewriter.fast_packages import used_versions
from lakewriter.lake.gaps.ledgers import open_ledger
from lakewriter.lake.journal import create_journal, journal_name
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import create_lake
from lakewriter.recording.candle_queue import CandleQueue
from lakewriter.recording.recorder import Recorder
from lakewriter.recording.retention import Retention
from lakewriter.recording.status import RecorderStatus
from lakewriter.recording.store_requests import puts_a_month
from lakewriter.recording.subscribed_series import SubscribedSeries
from lakewriter.recording.supervisor import CompletenessSupervisor, SupervisorOptions
from lakewriter.subscribed_period import COMMAND_LINE, RecorderId
from lakewriter.subscription import Subscription, parse_subscription

log = logging.getLogger(__name__)


def run(
    subscriptions: tuple[str, ...],
    config_path: str | None,
    flush_every: str | None,
    journal_limit: str | None,
    heal_limit: str | None,
    grace: str | None,
    since: str | None,
    duration: str | None,
    exchange: str | None,
    http: str | None,
    log_options: LogOptions,
    lake: str | None,
) -> None:
    """Record until a signal or the end of the duration."""
    recorder_log = RecorderLog(log_options)
    with recorder_log.errors():
        config = _config(config_path, subscriptions)
        uri = lake or config.lake or DEFAULT_LAKE
        check_state_dir(uri)
        given = [parse_subscription(text) for text in subscriptions]
        given_options = CommandLineOptions(
            config_path, given, flush_every, journal_limit, heal_limit, grace, since, exchange
        )
        settings = given_options.settings(config)
        duration_s = None if duration is None else parse_duration(duration) / 1000
        for entry in settings.subscriptions:
            # Check `--exchange` and proxies before the lake is created.
            check_proxies(config.market(entry.market, exchange))
        packages = used_versions()
        with bound_http(http, config.http) as listeners:
            store = create_lake(uri, f"lakewriter {__version__}")
            progress = recorder_log.start(config)
            if packages:
                log.info("the extra fast: %s", ", ".join(packages))
            event_loop.run(_record(store, config, given_options, settings, duration_s, progress, listeners))


class Settings(NamedTuple):
    """The subscriptions and settings of a recorder."""

    subscriptions: list[Subscription]
    flush_every_s: float
    journal_bytes_max: int
    options: SupervisorOptions
    since_ms: int | None
    summary_every_s: float
    keep_ms: int | None


class CommandLineOptions(NamedTuple):
    """The options of the command line, which override the config."""

    config_path: str | None
    subscriptions: list[Subscription]
    flush_every: str | None
    journal_limit: str | None
    heal_limit: str | None
    grace: str | None
    since: str | None
    exchange: str | None

    def settings(self, config: Config) -> Settings:
        """Return the settings of these options and a config.

        Raises:
            UsageError: if options and config have no subscriptions, or a value is invalid.
        """
        subscriptions = self.subscriptions or config.parsed_subscriptions()
        if not subscriptions:
            path = self.config_path or FILE_NAME
            raise UsageError(f"{path}: has no subscriptions", f"for example:\n\n{EXAMPLE}")
        options = SupervisorOptions(
            heal_limit_ms=parse_duration(_either(self.heal_limit, config.heal_limit)),
            grace_ms=None if self.grace is None else parse_duration(self.grace),
            rotate_after_ms=parse_duration(config.rotate_after),
            list_every_s=parse_duration(config.universe_every) / 1000,
        )
        heal_limit, since = _either(self.heal_limit, config.heal_limit), self.since or config.since
        return Settings(
            subscriptions,
            parse_duration(_either(self.flush_every, config.flush_every)) / 1000,
            parse_journal_limit(_either(self.journal_limit, config.journal_limit)),
            options,
            begin_ms(parse_day(since, "--since")),
            parse_duration(config.summary_every) / 1000,
            parse_keep(config, heal_limit=heal_limit, since=since),
        )

    def recorder_name(self) -> str:
        """Return the name that identifies this recorder at its next start."""
        return COMMAND_LINE if self.subscriptions else str(Path(self.config_path or FILE_NAME).absolute())


def _either(option: str | None, otherwise: str) -> str:
    return otherwise if option is None else option


def _config(path: str | None, subscriptions: Sequence[str]) -> Config:
    found = find_config(path)
    name = str(Path(path or FILE_NAME).absolute())
    if found is not None and not subscriptions and not _is_utf8(name):
        # The lake's files have the path as text: it names the recorder.
        raise UsageError(f"config: {name!r} is not UTF-8", "give a file whose path is UTF-8")
    if found is None and not subscriptions:
        raise UsageError(
            f"record: nothing to record, and no {FILE_NAME} here",
            f"lakewriter record spot:BTCUSDT,BNBUSDT:1m\n\n  or write {FILE_NAME} (lakewriter init),"
            f" for example:\n\n{EXAMPLE}",
        )
    return found or Config()


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _record(
    store: LakeStore,
    config: Config,
    given_options: CommandLineOptions,
    settings: Settings,
    duration_s: float | None,
    progress: ProgressLine | None,
    listeners: Sequence[socket.socket],
) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    _on_hangup(stop, lambda: log.warning("SIGHUP: still starting; nothing is changed"))
    if duration_s is not None:
        asyncio.get_running_loop().call_later(duration_s, stop.set)
    clock = Clock()
    async with Network() as session:
        clients = clients_of(
            store.state_dir, partial(config.market, exchange=given_options.exchange), session, clock
        )
        subscribed = SubscribedSeries(settings.subscriptions, clients)
        if not await finish_unless_stopped(subscribed.first(), stop):
            return
        queue = CandleQueue()
        journal = create_journal(store.state_dir, journal_name())
        ledger = open_ledger(store.state_dir, journal.directory.name)
        supervisor = CompletenessSupervisor(
            store,
            subscribed,
            clients,
            queue,
            recorder=RecorderId(given_options.recorder_name(), journal.directory.name),
            ledger=ledger,
            options=settings.options,
            clock=clock,
        )
        recorder = Recorder(
            store,
            journal,
            supervisor,
            queue,
            flush_every_s=settings.flush_every_s,
            journal_bytes_max=settings.journal_bytes_max,
            clock=clock,
        )
        listened = subscribed.resolve().listened
        log.info("recording %(series)d series into %(lake)s", {"series": len(listened), "lake": store.name})
        if store.is_remote:
            log.info(
                "flushes take at most %(requests)s PUT requests a month; a longer --flush-every takes fewer",
                {
                    "requests": f"{puts_a_month([each.interval for each in listened], settings.flush_every_s):,}"
                },
            )
        history = None
        if settings.since_ms is not None:
            history = BackgroundBackfill(
                store,
                clients,
                ledger,
                lambda: subscribed.subscriptions,
                since_ms=settings.since_ms,
                keep_ms=settings.keep_ms,
                clock=clock,
            )
        _on_hangup(stop, partial(_reload, given_options, config, supervisor, history))
        background: list[asyncio.Task[Any]] = []
        if history is not None:
            background.append(
                asyncio.create_task(finish_unless_stopped(history.run(), stop), name="history: the backfill")
            )
            background[-1].add_done_callback(_log_bug)
        if settings.keep_ms is not None:
            retention = Retention(store, subscribed, clients, keep_ms=settings.keep_ms, clock=clock)
            background.append(asyncio.create_task(retention.run(), name="retention"))
            background[-1].add_done_callback(_log_bug)
        summary = RecorderSummary(
            recorder, every_s=settings.summary_every_s, directory=store.state_dir, clock=clock
        )
        background.append(asyncio.create_task(summary.run()))
        if progress is not None:
            background.append(asyncio.create_task(progress.follow(recorder)))
        manager = ServiceManager(os.environ)
        if manager.exists:
            background.append(asyncio.create_task(report_to(manager, recorder.status, stop, clock)))
        try:
            async with serving_http(recorder, store, listeners, clock):
                await recorder.run(stop)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            ledger.close()
            with contextlib.suppress(BrokenPipeError):
                _log_summary(recorder.status())


def _log_bug(task: "asyncio.Task[Any]") -> None:
    """Log the error of a background task immediately. Recording continues without the task."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended by a bug in lakewriter", task.get_name(), exc_info=error)


def _on_hangup(stop: asyncio.Event, reload: Callable[[], None]) -> None:
    """Install a handler for SIGHUP that reloads the config, or stops if the terminal is gone."""
    on_terminal = stderr_is_terminal()

    def hung_up() -> None:
        if on_terminal and not stderr_is_terminal():
            stop.set()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def _reload(
    given_options: CommandLineOptions,
    begun: Config,
    supervisor: CompletenessSupervisor,
    history: BackgroundBackfill | None,
) -> None:
    """Read the config again and apply its subscriptions. An invalid config changes nothing.

    Args:
        begun: the config at the start. Its other settings stay in effect.
    """
    if given_options.subscriptions:
        log.warning("SIGHUP: the command line names the subscriptions; there is no config to reload")
        return
    try:
        config = load_config(Path(given_options.config_path or FILE_NAME))
        settings = given_options.settings(config)
    except UsageError as error:
        log.error("SIGHUP: nothing is changed: %s", error)
        return
    if msgspec.structs.replace(config, subscriptions=begun.subscriptions) != begun:
        log.warning("SIGHUP: subscriptions are reloaded; other changes need a restart")
    supervisor.change(settings.subscriptions)
    if history is not None:
        history.subscriptions_changed()
    log.info("SIGHUP: recording %d series now", len(supervisor.subscribed.resolve().listened))


def _log_summary(status: RecorderStatus) -> None:
    commits = status.commit_ms
    log.info(
        "%(commits)d commits: half within %(ms_half)d ms, 99%% within %(ms_99)d ms,"
        " the slowest %(ms_most)d ms; up to %(candles_most)d candles each",
        {
            "commits": commits.count,
            "ms_half": commits.half,
            "ms_99": commits.percent_99,
            "ms_most": commits.most,
            "candles_most": status.commit_candles.most,
        },
    )
    for how, ages in (("streamed", status.streamed_ms), ("healed", status.rest_ms)):
        if ages.count:
            log.info(
                "fresh: %(candles)d candles %(how)s: half durable %(ms_half)d ms after their end,"
                " 99%% within %(ms_99)d ms, the last %(ms_most)d ms",
                {
                    "candles": ages.count,
                    "how": how,
                    "ms_half": ages.half,
                    "ms_99": ages.percent_99,
                    "ms_most": ages.most,
                },
            )
    if status.pages_asked:
        log.info(
            "healing: %(pages)d pages asked for, %(healed)d candles healed,"
            " %(explained)d explained, %(unhealable)d cannot be healed",
            {
                "pages": status.pages_asked,
                "healed": status.healed,
                "explained": status.explained,
                "unhealable": status.unhealable,
            },
        )
    log.info(
        "stopped: %(recorded)d candles recorded, %(flushed)d flushed",
        {"recorded": status.recorded, "flushed": status.flushed},
    )
