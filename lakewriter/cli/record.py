"""lakewriter record: listen, and write what closes into the lake."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from lakewriter import __version__
from lakewriter.candle import Candle
from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.progress import ProgressLine
from lakewriter.cli.terminal import log_to_stderr, stop_on_signals
from lakewriter.config import EXAMPLE, FILE_NAME, Config, load_config, parse_duration
from lakewriter.errors import UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.listener import CandleListener
from lakewriter.recording.recorder import QUEUE_CANDLES_MAX, Recorder
from lakewriter.recording.universe import resolve, warn_of_unlisted
from lakewriter.subscription import Subscription, parse_subscription

log = logging.getLogger(__name__)


@click.command(name="record", short_help="Record closed candles until stopped.")
@click.argument("subscriptions", nargs=-1, metavar="[MARKET:SYMBOLS:INTERVALS]...")
@click.option(
    "--config", "config_path", metavar="FILE", help=f"What to record.  [default: {FILE_NAME}, if there]"
)
@click.option("--flush-every", metavar="DURATION", help="How old a buffered candle may grow.  [default: 5m]")
@click.option("--duration", metavar="DURATION", help="Stop by itself after this long.")
@click.option("--exchange", metavar="URL", help="One server that offers all three markets, like our sandbox.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@lake_option
def command(
    subscriptions: tuple[str, ...],
    config_path: str | None,
    flush_every: str | None,
    duration: str | None,
    exchange: str | None,
    quiet: bool,
    lake: str | None,
) -> None:
    """Record closed candles until SIGINT or SIGTERM, then flush and exit.

    A subscription is MARKET:SYMBOLS:INTERVALS, both lists comma-separated;
    symbols may be globs.

    \b
    lakewriter record spot:BTCUSDT,BNBUSDT:1m usdt_futures:BTCUSDT,ETHUSDT:1m
    lakewriter record 'usdt_futures:*USDT:1m,5m' --lake /srv/candles
    lakewriter record --config lakewriter.toml
    """
    config = _config(config_path, subscriptions)
    parsed = [parse_subscription(text) for text in subscriptions] or config.parsed_subscriptions()
    if not parsed:
        raise UsageError(f"{config_path or FILE_NAME}: names no subscriptions", f"for example:\n\n{EXAMPLE}")
    flush_every_s = parse_duration(config.flush_every if flush_every is None else flush_every) / 1000
    duration_s = None if duration is None else parse_duration(duration) / 1000
    for entry in parsed:
        config.market(entry.market, exchange)  # refuse a bad --exchange before the lake is touched
    store = LakeStore.create(lake or config.lake or DEFAULT_LAKE, f"lakewriter {__version__}")
    asyncio.run(_record(store, config, parsed, exchange, flush_every_s, duration_s, quiet))


def _config(path: str | None, subscriptions: Sequence[str]) -> Config:
    if path is not None:
        return load_config(Path(path))
    if Path(FILE_NAME).is_file():
        return load_config(Path(FILE_NAME))
    if not subscriptions:
        raise UsageError(
            f"record: nothing to record, and no {FILE_NAME} here",
            f"lakewriter record spot:BTCUSDT,BNBUSDT:1m\n\n  or write {FILE_NAME}, for example:\n\n{EXAMPLE}",
        )
    return Config()


async def _record(
    store: LakeStore,
    config: Config,
    subscriptions: list[Subscription],
    exchange: str | None,
    flush_every_s: float,
    duration_s: float | None,
    quiet: bool,
) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    if duration_s is not None:
        asyncio.get_running_loop().call_later(duration_s, stop.set)
    progress = ProgressLine() if sys.stderr.isatty() and not quiet else None
    log_to_stderr(quiet=quiet, handler=progress)
    endpoints = partial(config.market, exchange=exchange)
    resolving = asyncio.create_task(resolve(subscriptions, endpoints))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({resolving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not resolving.done():
        resolving.cancel()
        return
    listening = resolving.result()
    queue: asyncio.Queue[Candle] = asyncio.Queue(QUEUE_CANDLES_MAX)
    listeners = [
        CandleListener(endpoints(entry.market), entry.symbols, entry.interval, queue) for entry in listening
    ]
    recorder = Recorder(
        store,
        listeners,
        queue,
        flush_every_s=flush_every_s,
        name=f"{_host()}-{os.getpid()}",
    )
    log.info("recording %d series into %s", sum(len(entry.symbols) for entry in listening), store.root)
    beside = [asyncio.create_task(warn_of_unlisted(listening, endpoints))]
    if progress is not None:
        beside.append(asyncio.create_task(progress.follow(recorder, listeners)))
    try:
        await recorder.run(stop)
    finally:
        for task in (stopping, *beside):
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        with contextlib.suppress(BrokenPipeError):
            stats = recorder.stats
            commits = stats.commit_ms
            log.info(
                "%d commits: half within %d ms, 99%% within %d ms, the slowest %d ms; up to %d candles each",
                commits.count,
                commits.at_most(0.5),
                commits.at_most(0.99),
                commits.most,
                stats.commit_candles.most,
            )
            log.info("stopped: %d candles recorded, %d flushed", stats.recorded, stats.flushed)


def _host() -> str:
    # A directory's name: letters and digits of the host's, for people to tell machines apart.
    return "".join(char for char in socket.gethostname() if char.isalnum() or char == "-")[:32] or "host"
