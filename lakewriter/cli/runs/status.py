"""`lakewriter status`, which shows what an operator needs, and what needs the operator."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import click
import msgspec

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.terminal import finished_report, terminal_width
from lakewriter.errors import LakewriterError, UsageError, printable
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read

if TYPE_CHECKING:
    from lakewriter.status.facts import Attention, LakeStatus
    from lakewriter.status.size import LakeSize

# Pause between two refreshes of `--watch`, and between two measurements of the size.
REFRESH_S = 2.0
SIZE_EVERY_S = 60.0

# The width of the report in a pipe or a file.
_PIPE_WIDTH = 80


def run(as_json: bool, watch: bool, lake: str | None) -> None:
    """Print the status, and raise what needs a person."""
    store = open_to_read(lake or DEFAULT_LAKE, keep_listings=watch, may_be_away=True)
    if watch and not as_json and terminal_width() is None:
        raise UsageError("status: --watch needs a terminal", "--watch --json prints one object a refresh")
    if watch:
        status = _watch_as_json(store, lake) if as_json else _watch(store, lake)
    else:
        status = _Statuses(store, lake).next()
        with finished_report():
            _print(status, as_json=as_json)
    if status.attention and not (watch and not as_json):
        _raise(status.attention)
    if status.attention:
        sys.exit(1)


class _Statuses:
    """The statuses of a lake. The size is measured once in SIZE_EVERY_S."""

    def __init__(self, store: LakeStore, lake: str | None) -> None:
        self._store = store
        self._lake = lake
        self._size: LakeSize | None = None
        self._measured_s = 0.0

    def next(self) -> "LakeStatus":
        """Return the present status."""
        from lakewriter.status.lake_status import lake_status

        if time.monotonic() - self._measured_s > SIZE_EVERY_S:
            self._size = None
        status = lake_status(self._store, time.time_ns() // 10**6, lake=self._lake, size=self._size)
        if self._size is None and not status.store_away:
            self._size, self._measured_s = status.size, time.monotonic()
        return status


def _print(status: "LakeStatus", *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(status).decode(), flush=True)
        return
    from rich.console import Console

    from lakewriter.cli.runs.status_report import WIDTH_MAX, attention_text, status_text

    console = Console(highlight=False, width=min(terminal_width() or _PIPE_WIDTH, WIDTH_MAX))
    with console.capture() as captured:
        console.print(status_text(status))
        if not status.attention:
            console.print(attention_text(()))
    for line in captured.get().splitlines():
        print(line.rstrip())


def _watch(store: LakeStore, lake: str | None) -> "LakeStatus":
    """Show the status in place until Ctrl-C, and return the last one."""
    from rich.console import Console
    from rich.live import Live

    from lakewriter.cli.runs.status_report import watched_text

    statuses = _Statuses(store, lake)
    console = Console(highlight=False)
    last = statuses.next()
    with _until_stopped(), Live(watched_text(last), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            last = statuses.next()
            live.update(watched_text(last), refresh=True)
    return last


def _watch_as_json(store: LakeStore, lake: str | None) -> "LakeStatus":
    """Print a line for each refresh until Ctrl-C or the reader stops, and return the last status."""
    statuses = _Statuses(store, lake)
    last = statuses.next()
    with _until_stopped(), finished_report():
        while True:
            _print(last, as_json=True)
            time.sleep(REFRESH_S)
            last = statuses.next()
    return last


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """End the block at SIGINT or SIGTERM."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(attention: "tuple[Attention, ...]") -> NoReturn:
    """Print all findings but the last one, and raise an error for that one."""
    for each in attention[:-1]:
        click.echo(f"lakewriter: {printable(each.sentence)}\n  {printable(each.command)}", err=True)
    raise LakewriterError(attention[-1].sentence, attention[-1].command)
