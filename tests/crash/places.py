"""Where a long test has its lake: a directory, or a bucket of SeaweedFS behind a proxy with faults."""

import asyncio
import contextlib
import math
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from crash.plain_readers import plain_files
from support.fault_proxy import FAULTS, FaultProxy
from support.seaweed import REASON, Seaweed, find_program

PREFIX = "lake"

# One in so many PUT requests is disturbed. A stall takes five seconds, so it is rarer.
FAULT_EVERY = 12
STALL_EVERY = 150

# A command may find the store away for so long after its return: each request has a timeout.
LATE_S = 20.0


# Attempts to start the server.
STARTS_MAX = 20


class OnDisk:
    """A lake in a directory."""

    is_remote = False

    def __init__(self, directory: Path) -> None:
        self.root = directory / "lake"
        self.name = str(self.root)
        self.plain_name = self.name
        self.state = self.root
        self.environment: dict[str, str] = {}

    def has_plain_files(self) -> bool:
        """Return whether there is a file that plain readers read."""
        return bool(plain_files(self.root))

    def was_away(self, since_s: float) -> bool:
        """Return whether the lake was away at a moment since a monotonic time."""
        return False

    def audited(self) -> Path:
        """Return the directory for the auditor."""
        return self.root

    def close(self) -> None:
        pass


class OnStore:
    """A lake in a bucket. Our commands reach it through the proxy, and plain readers directly.

    Args:
        directory: the directory of the server's files, and of the state of this host.
        chance: draws the faults.

    Attributes:
        outages: number of times that the server was killed.
    """

    is_remote = True

    def __init__(self, directory: Path, chance: random.Random) -> None:
        program = find_program()
        if program is None:
            sys.exit(REASON)
        (directory / "seaweed").mkdir()
        self._directory = directory
        self._seaweed = _started(directory / "seaweed", program)
        self._bucket = self._seaweed.bucket()
        self.proxy = FaultProxy(self._bucket.url)
        quick = [fault for fault in FAULTS if fault != "stall"]

        def choose() -> str | None:
            if chance.randrange(STALL_EVERY) == 0:
                return "stall"
            return chance.choice(quick) if chance.randrange(FAULT_EVERY) == 0 else None

        self.proxy.choose = choose
        self.name = self._bucket.uri(PREFIX, self.proxy.url)
        self.plain_name = f"s3://{self._bucket.name}/{PREFIX}"
        self.state = directory / "state"
        self.environment = self._bucket.variables | {"LAKEWRITER_STATE_DIR": str(self.state)}
        # The proxy is in the URI; plain readers take the address from the environment.
        self._away: list[tuple[float, float]] = []

    @property
    def outages(self) -> int:
        return len(self._away)

    async def kill_and_restart(self, away_s: float) -> None:
        """Kill the server, and start it again after some seconds."""
        began_s = time.monotonic()
        self._away.append((began_s, math.inf))
        await asyncio.to_thread(self._seaweed.stop, signal.SIGKILL)
        await asyncio.sleep(away_s)
        await self._start()
        self._away[-1] = (began_s, time.monotonic())

    async def _start(self) -> None:
        for _ in range(STARTS_MAX):
            try:
                await asyncio.to_thread(self._seaweed.start)
            except RuntimeError:
                # A connection of another program may have one of its ports.
                await asyncio.sleep(1)
            else:
                return
        raise RuntimeError("the object store does not start again")

    def has_plain_files(self) -> bool:
        """Return whether there is an object that plain readers read."""
        return any(key.endswith(".parquet") for key in self._bucket.keys(PREFIX))

    def was_away(self, since_s: float) -> bool:
        """Return whether the lake was away at a moment since a monotonic time."""
        return any(stop_s + LATE_S >= since_s for _, stop_s in self._away)

    def put_new(self, name: str, data: bytes) -> bool:
        """Put an object under a new name, as another tool would; return whether it is surely there."""
        from obstore.exceptions import BaseError  # of an extra; a disk needs none

        try:
            self._bucket.store.put(f"{PREFIX}/{name}", data, mode="create")
        except (BaseError, OSError):
            return False
        return True

    def audited(self) -> Path:
        """Copy the lake's objects and this host's journals into a directory, and return it."""
        copy = self._directory / "copy"
        copy.mkdir()
        self._bucket.download(PREFIX, copy)
        journal = self.state / "_lakewriter/journal"
        shutil.copytree(journal, copy / "_lakewriter/journal", dirs_exist_ok=True)
        return copy

    def close(self) -> None:
        """Stop the server and the proxy."""
        self.proxy.close()
        self._seaweed.stop()


Place = OnDisk | OnStore


def _started(directory: Path, program: str) -> Seaweed:
    """Start a server on ports that no other program took meanwhile."""
    for _ in range(STARTS_MAX):
        with contextlib.suppress(RuntimeError):
            return Seaweed(directory, program)
    raise RuntimeError("the object store does not start")
