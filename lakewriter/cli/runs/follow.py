"""`lakewriter follow`, which prints the candles of a lake as they become durable."""

import contextlib
import logging
import os
import select
import time
from pathlib import Path
from typing import NamedTuple

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.line_output import (
    LineOutput,
    Stopped,
    StopSignals,
    appended_lines,
    lines_after,
    standard_lines,
)
from lakewriter.cli.terminal import ignore_broken_pipe, log_to_stderr
from lakewriter.config import parse_duration
from lakewriter.errors import UsageError
from lakewriter.follow.feed import Feed
from lakewriter.follow.followed_candle import FollowedCandle, encode_line, key_of_line
from lakewriter.follow.position import Position
from lakewriter.follow.position_file import PositionFile
from lakewriter.follow.wanted_series import WantedSeries
from lakewriter.lake.lake import LakeStore
from lakewriter.subscription import parse_subscription
from lakewriter.written_time import parse_time

log = logging.getLogger(__name__)


def run(
    subscriptions: tuple[str, ...],
    since: str | None,
    until: str | None,
    duration: str | None,
    corrections: bool,
    resume: str | None,
    output: str | None,
    quiet: bool,
    lake: str | None,
) -> None:
    """Print candles until a signal or the end of the duration."""
    wanted = WantedSeries([parse_subscription(text) for text in subscriptions])
    now_ms = int(time.time() * 1000)
    since_ms = None if since is None else parse_time(since, "--since", now_ms).ceil_ms
    until_ms = None if until is None else parse_time(until, "--until", now_ms).stop_ms
    duration_s = None if duration is None else parse_duration(duration) / 1000
    uri = lake or DEFAULT_LAKE
    if "://" in uri:
        raise UsageError(f"follow: {uri} is on an object store", "follow the lake of a recorder here")
    store = LakeStore.open_or_empty(uri)
    file = None if resume is None else PositionFile(Path(resume))
    log_to_stderr(quiet=quiet)
    stop = StopSignals()
    with contextlib.ExitStack() as held:
        path = None if output is None else Path(output)
        out = standard_lines(stop) if path is None else held.enter_context(appended_lines(path, stop))
        resumed = _resumed(file, None if path is None else out)
        feed = Feed(
            store.root, wanted, resumed.copy(), since_ms=since_ms, until_ms=until_ms, corrections=corrections
        )
        held.callback(feed.close)
        printer = _Printer(feed.start(), out, file, counts_bytes=path is not None)
        held.enter_context(ignore_broken_pipe())
        try:
            _print_all(feed, printer, stop, duration_s)
        except Stopped:
            pass
        finally:
            printer.save()
            log.info("%s", printer.counts)


def _resumed(file: PositionFile | None, out: LineOutput | None) -> Position:
    """Return the position to go on from.

    Args:
        out: the output file, whose last lines may be newer than the position file.
    """
    saved = None if file is None else file.read()
    if saved is None:
        return Position()
    if out is not None:
        for line in lines_after(out.fd, saved.output_bytes):
            key = key_of_line(line)
            if key is None:
                raise UsageError(
                    f"output: {line[:40].decode(errors='replace')!r} is no line of lakewriter follow",
                    "give another file with -o",
                )
            if not saved.position.has(*key):
                saved.position.add(*key)
    return saved.position


class _Counts(NamedTuple):
    candles: int = 0
    late: int = 0
    corrections: int = 0

    def __str__(self) -> str:
        return f"{self.candles} candles followed, {self.late} of them late; {self.corrections} corrections"


class _Printer:
    """The lines that are written, and the position after them."""

    def __init__(
        self, position: Position, out: LineOutput, file: PositionFile | None, *, counts_bytes: bool
    ) -> None:
        self.counts = _Counts()
        self.out = out
        self._position = position
        self._file = file
        self._counts_bytes = counts_bytes
        self._is_saved = False
        self._can_save = True
        self.save()

    def print(self, batch: list[FollowedCandle]) -> None:
        """Write the lines of a batch.

        Raises:
            Stopped: if a signal came; the lines before it are counted.
        """
        done = 0

        def written(count: int) -> None:
            nonlocal done
            self._count(batch[done:count])
            done = count

        try:
            self.out.write([encode_line(candle) for candle in batch], written)
        except OSError:
            self._give_up_file()
            raise
        if self.save_in_s() == 0:
            self.save()

    def save_in_s(self) -> float | None:
        """Return the seconds until the position is to be saved; None if it is."""
        if self._file is None or self._is_saved or not self._can_save:
            return None
        return self._file.due_in_s(time.monotonic())

    def save(self) -> None:
        """Save the position, if it has changed. The lines before it are on the disk first."""
        if self._file is not None and not self._is_saved and self._can_save:
            size = 0
            if self._counts_bytes:
                try:
                    os.fdatasync(self.out.fd)
                except OSError:
                    self._give_up_file()
                    raise
                size = os.fstat(self.out.fd).st_size
            self._file.save(self._position, time.monotonic(), size)
        self._is_saved = True

    def _give_up_file(self) -> None:
        """Save no more, if lines go into a file: after an error it may have uncounted lines, the last one cut.

        The next run reads the lines after the size that was saved last.
        """
        self._can_save = not self._counts_bytes

    def _count(self, candles: list[FollowedCandle]) -> None:
        self._is_saved = False
        corrections = [candle for candle in candles if candle.correction]
        for candle in candles:
            if not candle.correction:
                self._position.add((candle.market, candle.symbol, candle.interval), candle.begin_ms)
        self.counts = _Counts(
            self.counts.candles + len(candles) - len(corrections),
            self.counts.late + sum(candle.late for candle in candles),
            self.counts.corrections + len(corrections),
        )


def _print_all(feed: Feed, printer: _Printer, stop: StopSignals, duration_s: float | None) -> None:
    """Print until a signal, the end of the reader, the last candle, or the end of the time."""
    deadline_s = None if duration_s is None else time.monotonic() + duration_s
    for batch in feed.batches():
        left_s = None if deadline_s is None else deadline_s - time.monotonic()
        if stop.is_set or (left_s is not None and left_s <= 0):
            return
        if batch:
            printer.print(batch)
            continue
        save_in_s = printer.save_in_s()
        if save_in_s == 0:
            printer.save()
            save_in_s = None
        if printer.out.is_broken():
            return
        pause_s = min((each for each in (left_s, save_in_s) if each is not None), default=None)
        feed.wait(pause_s, {stop.fd: select.POLLIN, printer.out.fd: 0})
