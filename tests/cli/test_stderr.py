"""A standard error that no process reads: a full pipe, a stopped terminal, a closed end."""

import asyncio
import contextlib
import os
import pty
import resource
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter import open_lake
from lakewriter.candle import to_table
from lakewriter.cli.stderr import END_S_MAX, FLUSH_S_MAX, Stderr
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.sandbox.server import SandboxOptions, serve
from support.lakes import rest_candle
from support.piped import Piped
from support.running import PATIENCE_S, until, wait_until


@contextlib.contextmanager
def pipe(*, full: bool = False) -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe, empty or full."""
    reading, writing = os.pipe()
    try:
        if full:
            os.set_blocking(writing, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writing, b"x" * 4096)
            os.set_blocking(writing, True)
        yield reading, writing
    finally:
        for fd in (reading, writing):
            with contextlib.suppress(OSError):
                os.close(fd)


def opened(fd: int, chars_max: int = 1 << 20) -> Stderr:
    """Return a Stderr for a descriptor, which the test closes."""
    return Stderr(os.fdopen(fd, "w", encoding="utf-8", closefd=False), chars_max)


def drained(fd: int) -> bytes:
    """Return the text in a pipe."""
    os.set_blocking(fd, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 16):
            found += part
    return found


def test_text_is_written_in_order_by_the_time_flush_returns() -> None:
    """With a reader all text is written in order before flush returns."""
    with pipe() as (reading, writing):
        stream = opened(writing)
        for number in range(1000):
            print(f"line {number} → 币", file=stream)
        stream.flush()
        lines = drained(reading).decode().splitlines()
        assert lines == [f"line {number} → 币" for number in range(1000)]


def test_an_exit_waits_for_a_thread_that_runs_late() -> None:
    """On a busy machine the thread runs late. If the pipe has room, the last line is not lost."""

    class Late(Stderr):
        def _write_all(self) -> None:
            time.sleep(END_S_MAX + FLUSH_S_MAX)
            super()._write_all()

    with pipe() as (reading, writing):
        stream = Late(os.fdopen(writing, "w", encoding="utf-8", closefd=False))
        print("why it failed", file=stream)
        stream.end()
        assert drained(reading) == b"why it failed\n"


def test_no_write_waits_for_a_full_pipe() -> None:
    """Thousands of lines are queued at once; flush waits for the reader once, and briefly."""
    with pipe(full=True) as (reading, writing):
        stream = opened(writing)
        began_s = time.monotonic()
        for number in range(1000):
            print(f"line {number}", file=stream, flush=True)
        stream.end()
        # Had each flush waited, that would be 200 seconds.
        assert time.monotonic() - began_s < 500 * FLUSH_S_MAX
        written = b""
        deadline_s = time.monotonic() + PATIENCE_S
        while not written.endswith(b"line 999\n"):
            assert time.monotonic() < deadline_s
            written += drained(reading)
        assert written.lstrip(b"x") == b"".join(b"line %d\n" % number for number in range(1000))


def test_lines_without_room_are_dropped_and_counted() -> None:
    """When the pipe is read again, a line in place of the dropped ones has their number."""
    with pipe(full=True) as (reading, writing):
        stream = opened(writing, chars_max=2000)
        for number in range(1000):
            stream.write(f"line {number}\n")
        written = b""
        deadline_s = time.monotonic() + PATIENCE_S
        while b"dropped" not in written:
            assert time.monotonic() < deadline_s
            written += drained(reading)
        kept = written.lstrip(b"x").decode().splitlines()
        notice = kept.pop()
        assert kept == [f"line {number}" for number in range(len(kept))] and kept
        assert notice == (
            f"lakewriter: {1000 - len(kept)} lines were dropped here: standard error was not read"
        )
        stream.write("after\n")
        stream.flush()
        assert drained(reading) == b"after\n"


def test_an_event_loop_is_never_held_up() -> None:
    """Inside an event loop flush returns at once."""

    async def main() -> None:
        with pipe(full=True) as (_, writing):
            stream = opened(writing)
            began_s = time.monotonic()
            for _ in range(100):
                print("line", file=stream, flush=True)
            # Had each flush waited, that would be 20 seconds.
            assert time.monotonic() - began_s < 50 * FLUSH_S_MAX

    asyncio.run(main())


def test_a_closed_end_is_no_error() -> None:
    """After the reader has closed the pipe, text is discarded without an error."""
    with pipe() as (reading, writing):
        os.close(reading)
        stream = opened(writing)
        for _ in range(10):
            print("line", file=stream, flush=True)
        stream.end()


def test_lines_that_a_full_disk_refused_are_counted(tmp_path: Path) -> None:
    """When the disk has room again, a line counts the missing ones, and the log continues."""
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        stream = opened(log)
        stream.write("first\n")
        stream.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len("first\n"), before[1]))
        for number in range(3):
            stream.write(f"refused {number}\n")
            stream.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        stream.write("last\n")
        stream.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        os.close(log)
    assert (tmp_path / "log").read_text().splitlines() == [
        "first",
        "lakewriter: 3 lines were dropped here: standard error was not read",
        "last",
    ]


def test_a_pipe_that_another_process_made_non_blocking_is_waited_for() -> None:
    """Text that does not fit at once is written later, complete."""
    with pipe(full=True) as (reading, writing):
        os.set_blocking(writing, False)
        stream = opened(writing)
        stream.write("late\n")
        stream.flush()
        written = drained(reading)
        stream.end()
        assert (written + drained(reading)).lstrip(b"x") == b"late\n"


def stop_output(terminal: int) -> None:
    """Stop a terminal's output like Ctrl-S."""
    termios.tcflow(terminal, termios.TCOOFF)


def recorded(lake: Path) -> int:
    """Return the number of candles in a lake during a recording."""
    [(count,)] = open_lake(lake).query("SELECT count(*) FROM candles").rows()
    return int(count)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_recorder_goes_on_without_a_reader(kind: str, tmp_path: Path) -> None:
    """Candles are recorded and flushed, SIGTERM takes effect, and the exit is clean."""

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            sandbox = await running.enter_async_context(serve(SandboxOptions(speed=120, symbols=20)))
            if kind == "pipe":
                _, stderr = stack.enter_context(pipe(full=True))
            else:
                master, stderr = pty.openpty()
                stack.callback(os.close, master)
                stack.callback(os.close, stderr)
                stop_output(stderr)
            arguments = [
                "record",
                "--log-candles",
                "spot:*USDT:1m",
                "--exchange",
                sandbox.url,
                "--flush-every",
                "500ms",
            ]
            recorder = stack.enter_context(Piped(*arguments, "--lake", str(tmp_path / "lake"), stderr=stderr))
            stack.callback(recorder.kill)
            await until(lambda: any((tmp_path / "lake").glob("market=spot/**/candles.parquet")))
            seen = await asyncio.to_thread(recorded, tmp_path / "lake")
            async with asyncio.timeout(PATIENCE_S):
                while await asyncio.to_thread(recorded, tmp_path / "lake") < seen + 40:
                    await asyncio.sleep(0.1)
            recorder.send_signal(signal.SIGTERM)
            await until(lambda: recorder.poll() is not None)
            assert recorder.returncode == 0

    running = contextlib.AsyncExitStack()

    async def whole() -> None:
        async with running:
            await main()

    asyncio.run(whole())


@pytest.mark.slow
def test_a_bar_waits_for_no_terminal(tmp_path: Path) -> None:
    """A command with a progress bar ends with exit 0 on a stopped terminal."""
    lake = LakeStore.create(str(tmp_path / "lake"), "test")
    lake.merge(partition_of(rest_candle(0)), to_table([rest_candle(0)]))
    master, stderr = pty.openpty()
    stop_output(stderr)
    arguments = ["verify", "--lake", str(lake.root)]
    with Piped(*arguments, stderr=stderr, environment=os.environ | {"TERM": "xterm"}) as verifying:
        wait_until(lambda: verifying.poll() is not None)
    os.close(stderr)
    os.close(master)
    assert verifying.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["query", "--lake", "nowhere", "SELECT 1"], ["record", "nonsense"], ["--help-me"]]
)
def test_an_error_that_cannot_be_said_ends_all_the_same(arguments: list[str], tmp_path: Path) -> None:
    """The process exits with its code, even if its error line cannot be written."""
    with pipe(full=True) as (_, writing):
        with Piped(*arguments, stderr=writing, cwd=tmp_path) as ended:
            wait_until(lambda: ended.poll() is not None)
        assert ended.returncode in (1, 2)
