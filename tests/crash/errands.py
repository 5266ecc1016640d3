"""Repeated runs of commands that end by themselves; many of the runs are killed."""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from crash.audit import key_text, recorded_line
from crash.scenarios import Past, series_of
from crash.stage import PATIENCE_S, Log, Stage, tail
from lakewriter.partition import day_of
from lakewriter.sandbox import Sandbox
from lakewriter.subscription import parse_subscription

# The minimum age of candles that backfills promise and foreign files contain.
CLOSED_MS = 360_000

_COUNTED = (
    "rewritten", "duplicates_removed", "files_removed", "directories_removed", "candles",
    "candles_from_archive", "candles_from_rest",
)  # fmt: skip


class Errand(NamedTuple):
    """One run of a command that ends by itself.

    Args:
        arguments: the arguments of the command, which prints JSON.
        on_success: called after a complete run.
    """

    arguments: tuple[str, ...]
    on_success: Callable[[], None] = lambda: None


class Errands:
    """Runs commands on the lake of a stage."""

    def __init__(self, stage: Stage, sandbox: Sandbox) -> None:
        self._stage = stage
        self._sandbox = sandbox
        self._promises = stage.open_log("backfill.log").path

    async def repeat(self, name: str, rest_s: float, errand: Callable[[random.Random], Errand]) -> None:
        """Run a command repeatedly; kill many of the runs at a random time.

        Args:
            rest_s: the maximum pause before a run.
            errand: returns the next run.
        """
        chance = self._stage.chance(name)
        log = self._stage.open_log(f"{name}.stderr")
        usual_s = 1.0
        while not self._stage.over.is_set():
            await self._stage.pause(chance.uniform(0, rest_s))
            ended, fraction = chance.random() < 0.6, chance.uniform(0.1, 1.1)
            number = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            arguments, on_success = errand(chance)
            async with self._start(name, arguments, log) as child:
                started_s = time.monotonic()
                reading = asyncio.create_task(child.communicate())
                if ended:
                    await asyncio.wait({reading}, timeout=fraction * usual_s)
                if ended and not reading.done():
                    await self._end(child, name, number)
                    await reading
                    continue
                out = (await reading)[0]
                usual_s += (time.monotonic() - started_s - usual_s) / 4
                if child.returncode and self._stage.was_away(started_s):
                    self._stage.done[f"{name}: failed, the store was away"] += 1
                    continue
                if child.returncode:
                    self._stage.blame(f"{name}: exit {child.returncode}: {tail(log.path)}")
                    continue
                self._count(name, json.loads(out))
                on_success()

    def _start(
        self, name: str, arguments: tuple[str, ...], log: Log
    ) -> contextlib.AbstractAsyncContextManager[Process]:
        """Start a command that ends by itself."""
        command = ("-m", "lakewriter", name, *arguments, "--lake", self._stage.lake_name, "--json")
        return self._stage.start(*command, stdout=PIPE, stderr=log.path)

    async def run_last(self, name: str, errand: Errand) -> None:
        """Run a command once, to its end."""
        log = self._stage.open_log(f"last-{name}.stderr")
        async with self._start(name, errand.arguments, log) as child:
            await asyncio.gather(child.communicate(), self._stage.ended_well(child, log.path))
        if child.returncode == 0:
            errand.on_success()

    async def _end(self, child: Process, name: str, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            await self._stage.kill(child, f"{name}: SIGKILL")
            await self._group_ends(child, name)
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            code = await asyncio.wait_for(child.wait(), PATIENCE_S)
        except TimeoutError:
            self._stage.blame(f"{name}: does not stop by SIGTERM")
        else:
            self._stage.kills[f"{name}: SIGTERM"] += code != 0

    def _count(self, name: str, said: dict[str, int]) -> None:
        self._stage.done[f"{name}: ran to its end"] += 1
        for counted in _COUNTED:
            if counted in said:
                self._stage.done[f"{name}: {counted.replace('_', ' ')}"] += said[counted]

    async def _group_ends(self, child: Process, name: str) -> None:
        """Report a killed child whose own children live on for long."""
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.1)
        self._stage.blame(f"{name}: workers outlive their killed parent")

    def some_backfill(self, pasts: tuple[Past, ...], chance: random.Random) -> Errand:
        """Return the backfill of one subscription, of some of its intervals."""
        since_ms, subscriptions = chance.choice(pasts)
        subscription = parse_subscription(chance.choice(subscriptions))
        names = subscription.intervals
        some = tuple(chance.sample(names, chance.randint(1, len(names))))
        return self.backfill(Past(since_ms, (str(msgspec.structs.replace(subscription, intervals=some)),)))

    def backfill(self, past: Past) -> Errand:
        """Return a backfill. After a complete run it promises each candle that closed before its start."""
        since_ms, subscriptions = past
        stop_ms = self._sandbox.now_ms() - CLOSED_MS
        options = ("--since", f"{day_of(since_ms)}", "--exchange", self._sandbox.url, "--quiet")

        def promise() -> None:
            with self._promises.open("a") as file:
                for series in series_of(self._sandbox, subscriptions):
                    begins = self._sandbox.expected(*series, since_ms, series.grid.floor(stop_ms))
                    keys = (key_text(series, begin_ms) for begin_ms in begins)
                    file.writelines(recorded_line(key) for key in keys if key not in self._stage.promised)

        return Errand((*subscriptions, *options), promise)
