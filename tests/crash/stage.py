"""The processes of the torture test, their logs and the counts."""

import asyncio
import contextlib
import math
import os
import random
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from crash.audit import RECORDED
from support.running import TESTS

# Longer than anything may take on a busy machine.
PATIENCE_S = 240.0

_COMPLAINT = re.compile(r"^.*( ERROR |Traceback|corrected).*$", re.MULTILINE)


class Log:
    """A recorder's growing log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""
        self._read_bytes = 0
        path.touch()

    def news(self) -> str:
        """Return the complete lines since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        news = whole.decode()
        self.text += news
        return news


class Stage:
    """Starts and ends processes, reads their logs, and counts.

    Args:
        directory: the directory of the lake and the logs.
        seed: the seed of all random choices.

    Attributes:
        over: whether the time is up.
        promised: the candles that logs report as recorded, in the order of the logs.
        open_logs: the logs that are read.
        lake_name: the lake for `--lake`.
        environment: further environment variables of children.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.lake = directory / "lake"
        self.logs = directory / "logs"
        self.lake_name = str(self.lake)
        self.environment: dict[str, str] = {}
        self.seed = seed
        self.started_s = time.monotonic()
        self.over = asyncio.Event()
        self.kills: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.promised: dict[str, None] = {}
        self.open_logs: list[Log] = []
        self.logs.mkdir(parents=True)

    def chance(self, who: str) -> random.Random:
        """Return the random generator of one participant."""
        return random.Random(f"{self.seed}/{who}")

    def blame(self, what: str) -> None:
        """Count an error, and print it at once."""
        self.errors.append(what)
        print(f"ERROR at {self.elapsed_s():.1f} s: {what}", file=sys.stderr, flush=True)

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started_s

    async def pause(self, seconds: float) -> None:
        """Wait, at most until the end of the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)

    @contextlib.asynccontextmanager
    async def start(self, *command: str, stdout: int = DEVNULL, stderr: Path) -> AsyncIterator[Process]:
        """Start a child in its own process group; kill the group at the end of the block."""
        with stderr.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command,
                stdin=DEVNULL, stdout=stdout, stderr=file, process_group=0, cwd=self.logs,
                env=os.environ | {"PYTHONPATH": str(TESTS)} | self.environment,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            with contextlib.suppress(ProcessLookupError):  # workers of a compaction that was killed
                os.killpg(process.pid, signal.SIGKILL)

    async def kill(self, process: Process, kind: str) -> bool:
        """Send SIGKILL; count it if it ended the process."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        killed = await process.wait() == -signal.SIGKILL
        self.kills[kind] += killed
        return killed

    def read_logs(self) -> None:
        """Read new promises and errors from the recorders' logs."""
        for log in self.open_logs:
            news = log.news()
            self.promised |= dict.fromkeys(" ".join(found.groups()) for found in RECORDED.finditer(news))
            for found in _COMPLAINT.finditer(news):
                if not self.excuses(found[0]):
                    self.blame(f"{log.path.name}: {found[0]}")

    def excuses(self, line: str) -> bool:
        """Return whether a line of a log is no error, because the lake was away."""
        return False

    def was_away(self, since_s: float) -> bool:
        """Return whether the lake was away at a moment since a monotonic time."""
        return False

    def open_log(self, name: str) -> Log:
        """Create a log that `read_logs` reads."""
        log = Log(self.logs / name)
        self.open_logs.append(log)
        return log

    async def ended_well(
        self, child: Process, log: Path, *, may_be_killed: bool = False, since_s: float = math.inf
    ) -> None:
        """Wait for a child that was asked to stop, and check its exit.

        Args:
            since_s: its start. If the lake was away since then, it may fail.
        """
        try:
            code = await asyncio.wait_for(child.wait(), PATIENCE_S)
        except TimeoutError:
            self.blame(f"{log.name}: does not stop: {tail(log)}")
            return
        if code and not (may_be_killed and code == -signal.SIGKILL) and not self.was_away(since_s):
            self.blame(f"{log.name}: exit {code}: {tail(log)}")

    async def until(self, child: Process, log: Log, pattern: re.Pattern[str], patience_s: float) -> None:
        """Wait until the log has a text, with a timeout, while the process lives."""
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s and child.returncode is None:
            self.read_logs()
            if pattern.search(log.text):
                return
            await asyncio.sleep(0.05)


def tail(log: Path) -> str:
    """Return the last lines of a log, in one line."""
    return " | ".join(log.read_text().splitlines()[-4:])
