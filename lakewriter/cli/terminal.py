"""The shared access to standard streams, user-named files and the log."""

import contextlib
import logging
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from lakewriter.errors import LakewriterError, UsageError, printable, without_passwords
from lakewriter.regular_file import read_user_text

# Maximum size of a file of SQL. Handwritten SQL is shorter.
TEXT_BYTES_MAX = 16 * 1024 * 1024

# Maximum number of printed errors. Further errors are only counted.
ERRORS_SHOWN_MAX = 20

# Minimum width of wrapped text, in characters.
WRAPPED_WIDTH_MIN = 20


class _Formatter(logging.Formatter):
    default_msec_format = "%s.%03d"

    def converter(self, seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        if record.name == "lakewriter.recorded":
            # The record has one line for each candle of a commit, with the candle's time.
            return "\n".join(map(printable, record.getMessage().split("\n")))
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))  # also in tracebacks


def log_to_stderr(
    *, quiet: bool = False, handler: logging.Handler | None = None, as_json: bool = False
) -> None:
    """Send the log of lakewriter to stderr, one line for each record.

    Args:
        quiet: whether only warnings and errors are logged.
        handler: the log handler; None writes to stderr.
        as_json: whether each line is a JSON object.
    """
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    if as_json:
        from lakewriter.cli.json_log import JsonFormatter

        handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("lakewriter")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def escape_stray_logs() -> None:
    """Escape control characters in the warnings of commands without a log."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter("%(message)s"))


def print_errors(errors: Sequence[str]) -> None:
    """Print errors on stderr, one per line."""
    for error in errors[:ERRORS_SHOWN_MAX]:
        click.echo(f"lakewriter: {printable(error)}", err=True)
    if len(errors) > ERRORS_SHOWN_MAX:
        click.echo(f"lakewriter: … and {len(errors) - ERRORS_SHOWN_MAX} more", err=True)


def standard_input(command: str, hint: str) -> BinaryIO:
    """Return standard input.

    Args:
        command: the command's name, for the error.
        hint: the hint of the error.

    Raises:
        UsageError: if standard input is closed.
    """
    if sys.stdin is None:
        raise UsageError(f"{command}: standard input is closed", hint)
    return sys.stdin.buffer


def read_text(command: str, name: str, hint: str = "") -> str:
    """Return the text of a file.

    Args:
        command: the command's name, for the error.
        name: the file's name, as the user typed it.
        hint: the hint of the error.

    Raises:
        UsageError: if the file cannot be read, or is not UTF-8 text.
    """
    try:
        return read_user_text(Path(name).expanduser(), TEXT_BYTES_MAX)
    except UnicodeDecodeError:
        raise UsageError(f"{command}: {name}: is not UTF-8 text", hint) from None
    except OSError as error:
        raise UsageError(f"{command}: {name}: {error.strerror}", hint) from None
    except (RuntimeError, ValueError) as error:  # for an unknown ~user, or a null byte
        raise UsageError(f"{command}: {name}: {error}", hint) from None


@contextlib.contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Yield standard output.

    Raises:
        UsageError: if standard output is closed.
        BrokenPipeError: if the reader of a pipe has stopped.
        LakewriterError: if a write fails for another reason.
    """
    if sys.stdout is None:
        raise UsageError("output: standard output is closed", "-o FILE.csv")
    try:
        sys.stdout.flush()  # keep the order of output that was printed before
        yield sys.stdout.buffer
        sys.stdout.flush()
    except OSError as error:
        # Discard output that is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise LakewriterError(f"output: standard output: {error.strerror or error}") from None


@contextlib.contextmanager
def finished_report() -> Iterator[None]:
    """Ignore a broken pipe while the block prints a report of finished work.

    Raises:
        LakewriterError: if a write fails for another reason, such as a full disk.
    """
    if sys.stdout is None:
        yield  # print does nothing then
        return
    with ignore_broken_pipe(), standard_output():
        yield


def terminal_width() -> int | None:
    """Return the width in characters of the terminal on standard output; None if it is no terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def wrapped(text: str, indent: int = 0, hanging: int = 0) -> str:
    """Return a text for standard output, in lines that fit its terminal; else in one line.

    Args:
        indent: the number of spaces before the first line.
        hanging: the number of spaces before the other lines.
    """
    width = terminal_width()
    if width is None:
        return " " * indent + text
    # Half of the width stays for the text.
    # A parameter stays with its default. textwrap breaks no line at a no-break space.
    return textwrap.fill(
        text.replace(" := ", "\xa0:=\xa0"),
        max(width, WRAPPED_WIDTH_MIN),
        initial_indent=" " * min(indent, width // 2),
        subsequent_indent=" " * min(hanging, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\xa0", " ")


def stderr_is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Ignore a broken pipe, because a reader such as `| head` may stop early. Click would exit with 1."""
    with contextlib.suppress(BrokenPipeError):
        yield
