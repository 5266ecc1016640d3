"""The output of the answer to one statement, with its destination, format and limits.

`lakewriter query` and `lakewriter shell` share this module.
"""

import codecs
import contextlib
import io
import os
import re
import resource
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from lakewriter.cli.query_bar import QueryBar
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output, stderr_is_terminal
from lakewriter.errors import LakewriterError, UsageError, printable
from lakewriter.lake.lake import LakeStore
from lakewriter.query.execution import RowStream
from lakewriter.query.limits import QueryLimits
from lakewriter.query.output.destination import open_destination
from lakewriter.query.output.formats import FORMATS, format_of
from lakewriter.query.output.text import DisplayLimits
from lakewriter.query.output.writers import write_answer
from lakewriter.query.scan.held_files import HELD_FILES_MAX, can_hold
from lakewriter.query.session import stream

# Maximum number of rows on a terminal, as in DuckDB's shell.
TERMINAL_ROWS_MAX = 40

# Time from the timeout until the process is killed, if the engine ignores interrupts.
# The engine checks for interrupts between vectors, but one value may be a list with a
# billion items.
KILL_GRACE_S = 3.0

# Memory that the engine's own limit does not count. Arrow reserves a gigabyte of
# addresses, and each thread has a stack. A value may be a list with a billion items.
_UNCOUNTED_BYTES = 1_600_000_000
_THREAD_BYTES = 16_000_000

# Maximum number of open files, half of them for held files.
_FILES_OPEN_MAX = 2 * HELD_FILES_MAX

_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class Target:
    """The destination of an answer, and its format there.

    Args:
        path: the output file; None is standard output.
        format_name: the format's name. None is the format of the path's suffix, or a table.
        max_rows: the maximum number of rows in a table. None is TERMINAL_ROWS_MAX on a
            terminal, and no limit elsewhere.
        paged: whether an answer longer than the screen goes to a pager.
        overwrite: whether to replace an existing output file.
        all_columns_hint: a hint on how to see all columns of a table that is too wide.

    Raises:
        UsageError: if a terminal cannot show the format, or the path's suffix is unknown.
    """

    def __init__(
        self,
        path: Path | None,
        format_name: str | None,
        max_rows: int | None,
        *,
        paged: bool = True,
        overwrite: bool = False,
        all_columns_hint: str = "--format line shows all",
    ) -> None:
        self.on_terminal = path is None and sys.stdout is not None and sys.stdout.isatty()
        self.path = path
        self.overwrite = overwrite
        name = format_name or (_format_of(path) if path else "table")
        self.format_name = name
        self.for_people = FORMATS[name].for_people
        self.paged = paged and self.on_terminal and self.for_people
        max_rows = None if max_rows is None else min(max_rows, sys.maxsize)
        self.limits = DisplayLimits(max_rows)
        if self.on_terminal:
            columns, self.lines = shutil.get_terminal_size()
            # The last line belongs to the prompt.
            lines = self.lines - 1 if self.paged else None
            self.limits = DisplayLimits(max_rows or TERMINAL_ROWS_MAX, columns, lines, all_columns_hint)
        if self.on_terminal and FORMATS[name].binary:
            raise UsageError(f"output: {name} cannot be shown on a terminal", f"-o FILE.{name}, or pipe it")

    def write(self, answer: RowStream, out: BinaryIO, bar: QueryBar) -> None:
        """Write the answer, and remove the bar before the first line is on the terminal."""
        if not self.paged:
            shown = _TerminalOutput(out, bar) if self.on_terminal else out
            write_answer(self.format_name, answer, cast("BinaryIO", shown), self.limits)
            return
        from lakewriter.cli.pager import page

        lines = io.BytesIO()
        write_answer(self.format_name, answer, lines, self.limits)
        bar.hide()
        text = lines.getvalue()
        if text.count(b"\n") < self.lines or not page(text):
            out.write(text)


def _format_of(path: Path) -> str:
    known = format_of(path.suffix)
    if known is None and path.suffix:
        # Otherwise the file would hold a text table under another format's suffix.
        suffixes = ", ".join(each.suffixes[0] for each in FORMATS.values() if each.suffixes)
        raise UsageError(
            f"output: {path.name}: {path.suffix} is not a known format", f"--format csv, or one of {suffixes}"
        )
    return known or "table"


class _TerminalOutput(io.RawIOBase):
    """A stream to a terminal. It hides the progress bar and escapes control characters."""

    def __init__(self, out: BinaryIO, bar: QueryBar) -> None:
        super().__init__()
        self._out = out
        self._bar = bar
        # A character may be split between two writes.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._bar.hide()
        text = self._decoder.decode(data)
        self._out.write("\n".join(map(printable, text.split("\n"))).encode())
        return len(data)


def print_answer(
    store: LakeStore,
    sql: str,
    values: Mapping[str, Any],
    target: Target,
    limits: QueryLimits | None = None,
    tables: Mapping[str, Any] | None = None,
) -> None:
    """Run a statement and write its answer to the target.

    Args:
        tables: the tables of the user's files, by name.

    Raises:
        LakewriterError: if a batch of rows does not fit into memory.
        the errors of `session.stream` and `destination.open_destination`.
    """
    limits = limits or QueryLimits()
    if can_hold():
        _raise_open_files_limit()
    # Open the destination first, so that an unwritable path costs no query.
    place = standard_output()
    if target.path:
        place = open_destination(target.path, store.state_dir, overwrite=target.overwrite)
    with (
        ignore_broken_pipe(),
        place as out,
        QueryBar(limits) as bar,
        stream(store, sql, values, limits, tables) as answer,
    ):
        try:
            target.write(answer, out, bar)
        except MemoryError:
            raise LakewriterError(
                "output: there is too little memory for a batch of these rows",
                "fewer values in one row, or a larger --memory-limit",
            ) from None
        out.flush()
        # Explain an empty answer to people, not to programs.
        reason = answer.explain_empty() if target.for_people or stderr_is_terminal() else ""
        if reason and sys.stderr is not None:
            bar.hide()
            print(reason, file=sys.stderr)


def _raise_open_files_limit() -> None:
    """Raise the limit of open files, because a query holds files that a flush may replace."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES_OPEN_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_OPEN_MAX)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


@contextlib.contextmanager
def kill_after(seconds: float | None) -> Iterator[None]:
    """Kill the process if the block takes KILL_GRACE_S longer than the timeout.

    A partly written file stays as a hidden temporary file.

    Args:
        seconds: the timeout; None is no timeout.
    """
    if seconds is None:
        yield
        return

    def kill() -> None:
        message = f"lakewriter: sql: not done after {seconds:g} s, and the engine ignores interrupts"
        with contextlib.suppress(OSError):
            click.echo("\r\033[K" * stderr_is_terminal() + message, err=True)
        os._exit(1)

    timer = threading.Timer(seconds + KILL_GRACE_S, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def limit_memory(memory: str) -> None:
    """Set the kernel's limit for the process's memory, which also counts Arrow and threads.

    Args:
        memory: the engine's limit, as in `QueryLimits`.
    """
    size = re.fullmatch(r"([\d.]+)\s?([KMGT]i?)B", memory.strip(), re.IGNORECASE)
    if size is None:
        return
    counted = int(float(size[1]) * _UNITS[size[2].upper()])
    limit = counted + _UNCOUNTED_BYTES + _THREAD_BYTES * (os.cpu_count() or 1)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit <= sys.maxsize and (hard == resource.RLIM_INFINITY or limit < hard):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
