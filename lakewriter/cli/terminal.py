"""What commands share on a terminal: standard streams, files that are named there, log format."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from lakewriter.errors import LakewriterError, UsageError, printable, without_passwords
from lakewriter.regular_file import read_user_text

# A file of SQL that a person wrote is never so long.
TEXT_BYTES_MAX = 16 * 1024 * 1024

# More errors than a person reads at once are counted only.
ERRORS_SHOWN_MAX = 20


class _Formatter(logging.Formatter):
    default_msec_format = "%s.%03d"

    def converter(self, seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        if record.name == "lakewriter.recorded":
            # A line for each candle of a commit, with its own time.
            return "\n".join(map(printable, record.getMessage().split("\n")))
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))  # in tracebacks, too


def log_to_stderr(*, quiet: bool = False, handler: logging.Handler | None = None) -> None:
    """Send our log to stderr, a line each; warnings and worse only if `quiet`."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lakewriter")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def escape_stray_logs() -> None:
    """Print warnings of commands that have no log without the control characters in them."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter("%(message)s"))


def print_errors(errors: Sequence[str]) -> None:
    """Say on stderr what went wrong, a line each."""
    for error in errors[:ERRORS_SHOWN_MAX]:
        click.echo(f"lakewriter: {printable(error)}", err=True)
    if len(errors) > ERRORS_SHOWN_MAX:
        click.echo(f"lakewriter: … and {len(errors) - ERRORS_SHOWN_MAX} more", err=True)


def standard_input(who: str, hint: str) -> BinaryIO:
    """Return standard input.

    Args:
        who: asks for it.
        hint: what to type instead.

    Raises:
        UsageError: if it is closed.
    """
    if sys.stdin is None:
        raise UsageError(f"{who}: standard input is closed", hint)
    return sys.stdin.buffer


def read_text(who: str, name: str, hint: str = "") -> str:
    """Return the text of a file.

    Args:
        who: asks for it.
        name: of the file, as somebody typed it.
        hint: what to type instead.

    Raises:
        UsageError: if it cannot be read, or is no text.
    """
    try:
        return read_user_text(Path(name).expanduser(), TEXT_BYTES_MAX)
    except UnicodeDecodeError:
        raise UsageError(f"{who}: {name}: is not UTF-8 text", hint) from None
    except OSError as error:
        raise UsageError(f"{who}: {name}: {error.strerror}", hint) from None
    except (RuntimeError, ValueError) as error:  # of nobody's home, and of a null byte
        raise UsageError(f"{who}: {name}: {error}", hint) from None


@contextlib.contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Give standard output; what could not be written to it is one clean error."""
    if sys.stdout is None:
        raise UsageError("output: standard output is closed", "-o FILE.csv")
    try:
        sys.stdout.flush()  # what was printed before comes before
        yield sys.stdout.buffer
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered goes nowhere, quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise LakewriterError(f"output: standard output: {error.strerror or error}") from None


@contextlib.contextmanager
def finished_report() -> Iterator[None]:
    """Let what is printed here be read or not: what it tells of is done either way; a full disk is one line."""
    if sys.stdout is None:
        yield  # print says nothing then
        return
    with ignore_broken_pipe(), standard_output():
        yield


def stderr_is_terminal() -> bool:
    """Tell whether somebody sees standard error on a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Let a reader go away: `| head` has seen enough, which is no failure (click would exit 1)."""
    with contextlib.suppress(BrokenPipeError):
        yield


class _NoPandas:
    """Says that pandas cannot be imported."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Keep Arrow from importing pandas, which takes longer than most answers.

    It does so with the first array that it makes, to know a Series when it sees
    one. This command makes none. A process that has pandas already keeps it.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
