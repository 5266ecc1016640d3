"""A recorder and compactions that run while a test reads, and the duration of such a test."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, Phase, settings

from lakewriter.lake.lake import LakeStore
from lakewriter.query import session
from lakewriter.query.errors import FileReplacedError
from lakewriter.query.scan.held_files import can_hold
from support.lengths import either
from support.piped import Piped
from support.running import Child, child, run
from support.statements import params_of

# What is drawn by chance is drawn again and again for so many seconds.
LONGER_S = float(os.environ.get("LAKEWRITER_EQUALITY_S", either(0, 60)))

# Of one test, whose last round may begin just before LONGER_S is over.
LIMIT_S = 300 + 3 * LONGER_S

BY_CHANCE = settings(
    max_examples=5 + int(LONGER_S / 2), database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

# Where no files are held, one that is replaced after the first rows makes a stream fail; see docs/explanation/consistency.md.
TRIES_MAX = 20


@contextlib.contextmanager
def sandbox(directory: Path, speed: int) -> Iterator[str]:
    """The URL of a local exchange in another process, whose time starts at 2024-06-30."""
    arguments = ["--port", "0", "--speed", str(speed), "--start", "2024-06-30", "--symbols", "4"]
    with (directory / "sandbox.log").open("wb") as log:
        process = Piped("sandbox", *arguments, "--push-every", "0", stderr=log.fileno())
    with process:
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def recording(directory: Path, lake: Path, url: str, *subscriptions: str) -> Iterator[Child]:
    """Run `lakewriter record` with frequent flushes; stop it cleanly."""
    arguments = [
        "record",
        "--log-candles",
        *subscriptions,
        "--exchange",
        url,
        "--lake",
        str(lake),
        "--flush-every",
        "200ms",
    ]
    with child(directory / "record.log", *arguments) as recorder:
        recorder.wait_for("\nrecorded ")
        yield recorder
        assert recorder.stop() == 0, recorder.logged()[-3000:]


class Compactions(threading.Thread):
    """Repeated runs of `lakewriter compact`."""

    def __init__(self, lake: Path) -> None:
        super().__init__()
        self.lake = lake
        self.over = threading.Event()
        self.done: list[subprocess.CompletedProcess[str]] = []

    def run(self) -> None:
        while not self.over.wait(1.5):
            self.done.append(run("compact", "--json", "--lake", str(self.lake)))

    def __enter__(self) -> "Compactions":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.over.set()
        self.join()

    def folded(self) -> int:
        """Return the number of files that they removed; fail if one failed."""
        assert all(each.returncode == 0 for each in self.done), [each.stderr for each in self.done]
        return sum(json.loads(each.stdout)["files_removed"] for each in self.done)


@contextlib.contextmanager
def noted(sql: str) -> Iterator[None]:
    """Add the statement to any error of the block."""
    try:
        yield
    except Exception as error:
        error.add_note(sql)
        raise


def ask(store: LakeStore, sql: str, number: int = 0) -> pa.Table:
    """Return our answer, in one piece or batch by batch."""
    if number % 2:
        return streamed(store, sql)
    return session.run(store, sql, params_of(sql))


def streamed(store: LakeStore, sql: str) -> pa.Table:
    tries_left = 0 if can_hold() else TRIES_MAX
    while True:
        try:
            with session.stream(store, sql, params_of(sql)) as answer:
                return pa.Table.from_batches(answer.batches, answer.schema)
        except FileReplacedError:
            tries_left -= 1
            if tries_left < 0:
                raise


def rounds() -> Iterator[int]:
    """Count rounds: one, or as many as fit into the time."""
    until_s = time.monotonic() + LONGER_S
    number = 0
    while not number or time.monotonic() < until_s:
        yield number
        number += 1
