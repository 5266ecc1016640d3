"""The real command line in child processes, and reads of the lake by plain DuckDB."""

import asyncio
import contextlib
import functools
import io
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import duckdb

from lakewriter.cli import cli
from lakewriter.errors import LakewriterError
from support import warm_processes

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = REPOSITORY / "tests"
CAPTURES = Path(os.environ.get("LAKEWRITER_CAPTURES", REPOSITORY.parent / "shared" / "captures"))

# The one limit of every wait: generous, for a condition that comes true sooner is met sooner,
# and within pytest's limit for a test, so that the error names the condition.
PATIENCE_S = 240.0


def run(
    *arguments: str,
    cwd: Path | None = None,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end, in a forked process or a new one."""
    done = warm_processes.run(
        arguments,
        stdin=(stdin or "").encode(),
        cwd=cwd,
        environment=environment,
        timeout_s=PATIENCE_S,
        fresh=fresh,
    )
    printed = (text.decode().replace("\r\n", "\n") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(arguments, done.returncode, *printed)


def run_here(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in this process, and print its error like the command line."""
    logger = logging.getLogger("lakewriter")
    before = logger.handlers[:], logger.level, logger.propagate
    code, stdout, stderr = 0, io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            cli.main(list(arguments), standalone_mode=False)
        except LakewriterError as error:
            code = error.exit_code
            print(f"lakewriter: {error.what}\n  {error.hint}".rstrip(), file=stderr)
        finally:
            logger.handlers[:], logger.level, logger.propagate = before
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


class Child:
    """A running `lakewriter`, with its stderr in a file."""

    def __init__(
        self,
        log: Path,
        *arguments: str,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as stderr, Path(os.devnull).open("r+b") as null:
            self.process = warm_processes.start(
                arguments,
                stdin=null.fileno(),
                stdout=null.fileno(),
                stderr=stderr.fileno(),
                cwd=cwd,
                environment=environment,
            )

    def logged(self) -> str:
        """Return the log so far, without an unfinished last line."""
        text = self.log.read_text()
        return text[: text.rfind("\n") + 1]

    def wait_for(self, pattern: str, after: int = 0) -> None:
        """Wait until the log has a text."""
        with contextlib.suppress(WaitedInVainError):
            wait_until(
                lambda: (
                    re.search(pattern, self.logged()[after:]) is not None or self.process.poll() is not None
                )
            )
        assert re.search(pattern, self.logged()[after:]), f"no {pattern!r} in:\n{self.logged()[-3000:]}"

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process to stop, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def child(
    log: Path,
    *arguments: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Start a process; kill it at the end of the block."""
    started = Child(log, *arguments, cwd=cwd, environment=environment)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()


class WaitedInVainError(AssertionError):
    """A condition that did not come true."""


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise WaitedInVainError("waited in vain")
        time.sleep(0.02)


async def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds, without blocking the event loop."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise WaitedInVainError("waited in vain")
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(coroutine: "asyncio.Task[None]") -> AsyncIterator[None]:
    """Cancel a task at the end of the block, and raise its error."""
    try:
        yield
    finally:
        coroutine.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await coroutine


# Each try fails if a writer replaces a file while DuckDB reads it.
PLAIN_TRIES_MAX = 10


def plain_rows(
    lake: Path, columns: str = 'market, symbol, "interval", epoch_ms(candle_begin_time)'
) -> list[tuple[object, ...]]:
    """Read the whole lake with a plain glob, ordered by key; retry if a file was replaced."""
    for tries_left in reversed(range(PLAIN_TRIES_MAX)):
        try:
            return _plain_rows(lake, columns)
        except duckdb.Error:
            if not tries_left:
                raise
    raise AssertionError


@functools.cache
def _plain_duckdb() -> duckdb.DuckDBPyConnection:
    """Return plain DuckDB, which remembers no file; a new one would take longer than most reads."""
    return duckdb.connect(config={"enable_external_file_cache": False})


def _plain_rows(lake: Path, columns: str) -> list[tuple[object, ...]]:
    with _plain_duckdb().cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        rows: list[tuple[object, ...]] = cursor.execute(
            f"""SELECT {columns} FROM read_parquet('{lake}/**/*.parquet', hive_partitioning = true,
                hive_types = {{market: VARCHAR, symbol: VARCHAR, interval: VARCHAR, date: DATE}})
                ORDER BY market, symbol, "interval", candle_begin_time"""
        ).fetchall()
    return rows


KEY_AND_VALUES = (
    'market, symbol, "interval", epoch_ms(candle_begin_time), epoch_ms(candle_end_time), open, high, low, '
    "close, volume, quote_volume, trade_num, taker_buy_base_asset_volume, taker_buy_quote_asset_volume"
)


@contextlib.contextmanager
def python_child(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """Run a Python process during the block; kill it at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
