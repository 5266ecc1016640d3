"""One pool of request weight, shared in one process, and between two processes that request from a sandbox."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.weight_budget import BACKGROUND_SHARE, PROBE_S, SHARE, WeightBudget
from lakewriter.binance.weight_pool import ALONE_S, WeightPool
from lakewriter.clock import Clock
from lakewriter.errors import UsageError
from lakewriter.lake.exchange_limits import WeightFile
from lakewriter.market import MARKETS
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from support import virtual_time
from support.running import PATIENCE_S, TESTS, until
from support.sandboxes import get

WEIGHT_MAX = MARKETS["usdt_futures"].weight_max
URGENT_MAX = int(WEIGHT_MAX * SHARE)
BACKGROUND_MAX = int(URGENT_MAX * BACKGROUND_SHARE)


# So long a child may take to start, on a busy machine.
START_S = 2.5


class ToldClock(Clock):
    """Clocks whose times the test sets."""

    now_s = 100.0

    def wall_us(self) -> int:
        return 1_800_000_000_000_000 + int(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


class Paper:
    """A shared file in memory, which a test can damage."""

    boot = "this one"

    def __init__(self) -> None:
        self.data = b""
        self.error: OSError | None = None
        self.synced = 0

    def change(self, turn: Callable[[bytes], bytes], *, durable: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.data = turn(self.data)
        self.synced += durable


class AtOnce(Executor):
    """An executor that runs each job at once."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(work(*args, **kwargs))
        return done


class Two:
    """The pools of two processes with one shared file, and the weight that each could spend."""

    def __init__(self, background_max: int | None = None) -> None:
        self.clock, self.paper = ToldClock(), Paper()
        self.pools = [
            WeightPool(
                "REST futures",
                100,
                self.clock,
                shared_file=self.paper,
                thread=AtOnce(),
                background_max=background_max,
            )
            for _ in range(2)
        ]

    async def may(self, which: int, weight: int, background: bool = False) -> bool:
        """Try to spend this weight; return whether it was spent at once."""
        taking = asyncio.create_task(self.pools[which].acquire(weight, background=background))
        done, _ = await asyncio.wait({taking}, timeout=1.0)  # of virtual time
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        return bool(done)


def test_what_one_spends_the_other_cannot() -> None:
    """Both processes share one budget; background work of one leaves half of it to urgent work of the other."""

    async def main() -> None:
        two = Two()
        assert await two.may(0, 37, background=True)
        assert not await two.may(1, 1, background=True)
        assert await two.may(1, 38)
        assert not await two.may(0, 1)
        # Each knows what it spent itself, and the total as it last saw it.
        assert two.pools[0].use() == ("REST futures", 100, 75, 37, 0.0)
        assert two.pools[1].use() == ("REST futures", 100, 75, 38, 0.0)
        two.clock.now_s += 61
        assert two.pools[0].use().weight == 0
        assert await two.may(0, 37, background=True)

    virtual_time.run(main())


def test_when_one_is_told_to_wait_the_other_waits() -> None:
    """A block holds both processes; then one request is sent, and the others follow its answer."""

    async def main() -> None:
        two = Two()
        await two.pools[0].note_answer(two.clock.now_s, None, 30)
        assert two.paper.synced == 1
        assert not await two.may(1, 1)
        two.clock.now_s += 30
        assert await two.may(1, 1)
        assert not await two.may(0, 1)
        two.clock.now_s += PROBE_S
        assert await two.may(0, 1), "without an answer another follows"
        assert not await two.may(1, 1)
        await two.pools[0].note_answer(two.clock.now_s, None)
        assert await two.may(1, 1)

    virtual_time.run(main())


def test_a_wait_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each process logs a block once, and a longer block again."""

    async def main() -> None:
        two = Two()
        await two.pools[0].note_answer(two.clock.now_s, None, 86_400)
        for pool in (0, 1, 1):
            assert not await two.may(pool, 1)
        two.clock.now_s += 10
        await two.pools[0].note_answer(two.clock.now_s, None, 200_000)
        assert not await two.may(1, 1)

    virtual_time.run(main())
    said = "REST futures: the exchange blocks requests for %d s"
    assert [record.getMessage() for record in caplog.records] == [
        said % 86_400,
        said % 86_400,
        said % 200_000,
    ]


def test_a_file_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Without the file, each process continues from the last state with one warning; its use counts later."""

    async def main() -> None:
        two = Two()
        await two.pools[0].acquire(40, background=False)
        two.paper.error = OSError(28, "No space left on device")
        assert await two.may(0, 30)
        assert not await two.may(0, 10)
        assert await two.may(1, 60), "what it never saw it cannot know"
        two.paper.error = OSError(5, "Input/output error")
        two.clock.now_s += ALONE_S
        assert not await two.may(0, 10)
        two.paper.error = None
        assert not await two.may(0, 10), "not tried so soon"
        two.clock.now_s += ALONE_S
        assert await two.may(0, 1)
        assert not await two.may(1, 10)

    virtual_time.run(main())
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert (
        said
        == [
            "the request weight of REST futures: No space left on device; this process uses its own budget for now"
        ]
        * 2
    ), "once for each process"


def test_a_directory_in_place_of_the_file_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a real file that cannot be opened, requests continue, and one warning has the reason."""

    async def main() -> None:
        shared_file = WeightFile(tmp_path, "REST futures")
        shared_file.path.mkdir(parents=True)
        clock = ToldClock()
        with ThreadPoolExecutor(1) as thread:
            pool = WeightPool("REST futures", 100, clock, shared_file=shared_file, thread=thread)
            for _ in range(3):
                await pool.acquire(10, background=False)
                await pool.note_answer(clock.now_s, 10)
                clock.now_s += ALONE_S

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "the request weight of REST futures: Is a directory; this process uses its own budget for now"
    ]


@pytest.mark.parametrize("data", [b"", b"{", b"\0" * 4096, b'{"boots":{"this one":{"spent":{"100":-40}}}}'])
def test_damage_is_repaired(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A missing or damaged file is replaced by the known state, including a block."""

    async def main() -> None:
        two = Two()
        await two.pools[0].acquire(40, background=False)
        two.paper.data = data
        assert not await two.may(0, 40)
        assert not await two.may(1, 40)
        await two.pools[0].note_answer(100.0, None, 30)
        two.paper.data = data
        assert await two.pools[0].blocked_s() == 30
        assert await two.pools[1].blocked_s() == 30

    virtual_time.run(main())
    assert len(caplog.records) == (1 if data else 0)


def test_a_ceiling_is_for_background_work_of_one_process() -> None:
    """The limit on background work holds neither its own urgent work nor the other process."""

    async def main() -> None:
        two = Two(background_max=10)
        assert await two.may(0, 8, background=True)
        assert not await two.may(0, 3, background=True)
        assert await two.may(0, 2, background=True)
        assert not await two.may(0, 1, background=True)
        assert await two.may(0, 20)
        assert await two.may(1, 5, background=True)
        two.clock.now_s += 61
        assert await two.may(0, 10, background=True)

    virtual_time.run(main())


def test_a_ceiling_that_cannot_be_is_refused() -> None:
    """A maximum above the exchange's limit, or below one page, is a usage error."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for max_weight in (2401, 1, 0, -5):
                clients = MarketClients(MARKETS.__getitem__, session, Clock(), max_weight=max_weight)
                with pytest.raises(UsageError, match=rf"^max-weight: {max_weight} a minute is not between 2"):
                    clients["usdt_futures"]
            assert MarketClients(MARKETS.__getitem__, session, Clock(), max_weight=6000)["spot"]

    asyncio.run(main())


class Asking:
    """A child that requests as fast as allowed, until it is stopped."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def begun(self) -> None:
        """Wait for the child's first answer."""
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S) == b"begun\n"

    async def stopped(self) -> dict[str, list[float]]:
        """Stop the child; return its counts."""
        output, _ = await self.process.communicate(b"")
        said: dict[str, list[float]] = json.loads(output.splitlines()[-1])
        return said


@contextlib.asynccontextmanager
async def asking(lake: Path, sandbox: Sandbox, *arguments: str) -> AsyncIterator[Asking]:
    """Start a child that sends requests; kill it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.ask_rest", str(lake), sandbox.url, *arguments,
        cwd=TESTS, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Asking(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@contextlib.asynccontextmanager
async def both(lake: Path, sandbox: Sandbox, *arguments: str) -> AsyncIterator[list[Asking]]:
    """Start two children that request at the same time, after a block by another process."""
    shared_file = WeightFile(lake, "REST futures")
    pool = WeightPool("REST futures", WEIGHT_MAX, Clock(), shared_file=shared_file)
    await pool.note_answer(0.0, None, START_S)
    async with asking(lake, sandbox, *arguments) as one, asking(lake, sandbox, *arguments) as other:
        yield [one, other]


async def used(sandbox: Sandbox) -> int:
    """Return the weight that the sandbox counted, without this request's."""
    _, _, headers = await get(sandbox, "/usdt_futures/fapi/v1/time")
    return int(headers["x-mbx-used-weight-1m"]) - 1


@pytest.mark.slow
def test_two_processes_together_keep_to_the_share_and_the_urgent_do_not_starve(tmp_path: Path) -> None:
    """Two backfills at full speed stop at their part, and urgent requests beside them do not wait.

    All of this happens within one minute of the sandbox. Each page weighs ten.
    """

    async def main() -> bool:
        async with (
            serve(SandboxOptions(push_every_ms=0)) as sandbox,
            both(tmp_path, sandbox, "--background") as backfills,
        ):
            await until(lambda: sandbox.requests["klines"] >= BACKGROUND_MAX // 10)
            await asyncio.sleep(1)
            assert sandbox.requests["klines"] == BACKGROUND_MAX // 10
            async with asking(tmp_path, sandbox, "--at-once", "4") as urgent:
                await urgent.begun()
                await until(lambda: sandbox.requests["klines"] >= URGENT_MAX // 10)
                await asyncio.sleep(1)
                healed = await urgent.stopped()
            backfilled = [await each.stopped() for each in backfills]
            assert not sandbox.violations
            if sandbox.clock.real_s() > 55:
                return False
            assert await used(sandbox) == URGENT_MAX
            assert sum(len(each["waits_s"]) for each in backfilled) == BACKGROUND_MAX // 10
            assert max(healed["waits_s"]) < 20, "it waited for the minute to pass"
            return True

    # On a busy machine the minute may be over before all have asked.
    assert any(asyncio.run(main()) for _ in range(3))


@pytest.mark.slow
def test_what_one_process_is_told_holds_the_other(tmp_path: Path) -> None:
    """After a 429 to one of two processes none requests; then one does, and the others follow."""

    async def main() -> None:
        async with (
            serve(SandboxOptions(push_every_ms=0)) as sandbox,
            both(tmp_path, sandbox, "--candles", "1") as asked,
        ):
            await asyncio.gather(*(each.begun() for each in asked))
            fault = sandbox.add_fault(Fault("rest_status", value=429, retry_after_s=1))
            await asyncio.sleep(0.7)  # those that were under way have come
            before, began_s = sandbox.requests["klines"], sandbox.clock.real_s()
            await until(lambda: sandbox.requests["klines"] >= before + 4)
            # One for each wait of a second, of whichever process; the first wait began before.
            assert sandbox.clock.real_s() - began_s > 2.2
            sandbox.remove_fault(fault)
            after = sandbox.requests["klines"]
            await until(lambda: sandbox.requests["klines"] > after + 50)
            refused = [len((await each.stopped())["refused"]) for each in asked]
            assert sum(refused) > 2
            assert not sandbox.violations

    asyncio.run(main())


@pytest.mark.slow
def test_a_ban_outlives_a_kill(tmp_path: Path) -> None:
    """A block of a killed process also holds the next process."""

    async def main() -> None:
        async with serve(SandboxOptions(push_every_ms=0)) as sandbox:
            async with asking(tmp_path, sandbox, "--candles", "1", "--at-once", "1") as first:
                await first.begun()
                fault = sandbox.add_fault(Fault("rest_status", value=418, retry_after_s=4))
                pool = WeightPool(
                    "REST futures", WEIGHT_MAX, Clock(), shared_file=WeightFile(tmp_path, "REST futures")
                )
                await until(lambda: pool._change(WeightBudget.blocked_s) > 0)
                free_s = sandbox.clock.real_s() + pool._change(WeightBudget.blocked_s)
                first.process.kill()
                await first.process.wait()
            sandbox.remove_fault(fault)
            async with asking(tmp_path, sandbox, "--candles", "1") as second:
                await second.begun()
                assert sandbox.clock.real_s() > free_s - 0.5
                await second.stopped()
            assert not sandbox.violations

    asyncio.run(main())
