"""One pool of request weight, shared by all processes of this host.

Rule 1: weight and blocks are in the shared file, if the pool has one. Each decision
is one change of the file. Rule 2: the event loop never waits for the disk. Rule 3: a
file that fails or is damaged stops no request. Until the file works again, this
process continues without sharing, from the last state.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple, TypeVar

from lakewriter.binance.weight_budget import WeightBook, WeightBudget, WeightUse, parse_book, render_book
from lakewriter.clock import Clock
from lakewriter.rate_limit_state import SharedFile

log = logging.getLogger(__name__)

# Waits are split into naps, because the budget may change during a wait.
_NAP_S = 0.5

# A block is logged if it ends this much later than the last logged block.
_LATER_S = 1.0

# Time without sharing after the file failed, until the file is tried again.
ALONE_S = 10.0

_T = TypeVar("_T")


class PoolUse(NamedTuple):
    """The use of a pool.

    Args:
        name: the name of the pool ("REST futures").
        weight_max: the exchange's limit per minute.
        weight: the weight of the last minute, by all processes, as this process last saw it.
        spent: the weight that this process spent since its start.
        blocked_s: seconds until requests are allowed; 0 without a block.
    """

    name: str
    weight_max: int
    weight: int
    spent: int
    blocked_s: float


class WeightPool:
    """A pool of request weight, which is spent when the budget allows it.

    Args:
        name: the name in log lines ("REST futures").
        weight_max: the exchange's limit per minute.
        clock: the machine's clock.
        shared_file: the state of all processes; None without sharing.
        thread: executor with one thread, which changes the file.
        background_max: limit of this process' background work per minute; None for the budget's own limit.
    """

    def __init__(
        self,
        name: str,
        weight_max: int,
        clock: Clock,
        *,
        shared_file: SharedFile | None = None,
        thread: Executor | None = None,
        background_max: int | None = None,
    ) -> None:
        self._name = name
        self._weight_max = weight_max
        self._clock = clock
        self._shared_file = shared_file
        self._thread = thread
        self._background = None if background_max is None else WeightBudget(background_max, share=1.0)
        # The last state of the file, and the requests since then if it failed.
        self._use = WeightUse()
        self._spent = 0
        self._alone_until_s: float | None = None
        self._logged_until_s = -math.inf
        self._warned: set[str] = set()

    async def acquire(self, weight: int, *, background: bool) -> None:
        """Wait until this weight may be spent, and count it."""
        while True:
            wait_s = await self._do(partial(self._spend, weight, background))
            if not wait_s:
                self._spent += weight
                return
            self._log_block()
            await asyncio.sleep(min(wait_s, _NAP_S))

    def use(self) -> PoolUse:
        """Return the use of the pool. It reads no file."""
        use, now_s = self._use, self._clock.monotonic_s()
        blocked_s = max(0.0, use.held_until_s - now_s)
        return PoolUse(self._name, self._weight_max, use.total_at(now_s), self._spent, blocked_s)

    async def note_answer(self, asked_s: float, used: int | None, block_s: float | None = None) -> None:
        """Store the weight and the block in the answer to a request.

        Args:
            asked_s: time at which the request was sent.
            used: the weight that the exchange counted in its minute; None if unknown.
            block_s: seconds in which no process may send a request; None if the
                exchange imposed no block. A block outlasts a crash and a reboot.
        """

        def note(budget: WeightBudget, now_s: float) -> None:
            if used is not None:
                budget.note_used(used, now_s)
            if block_s is None:
                budget.note_answered(asked_s)
            else:
                budget.block(block_s, now_s, self._wall_s())

        await self._do(partial(self._change, note, durable=block_s is not None))

    async def blocked_s(self) -> float:
        """Return the seconds until requests are allowed."""
        return await self._do(partial(self._change, WeightBudget.blocked_s))

    async def _do(self, work: Callable[[], _T]) -> _T:
        if self._shared_file is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _spend(self, weight: int, background: bool) -> float:
        """Spend the weight and return 0, or return the seconds to wait."""
        capped = self._background if background else None
        wait_s = 0.0 if capped is None else capped.wait_s(weight, self._clock.monotonic_s())

        def spend(budget: WeightBudget, now_s: float) -> float:
            wait_s = budget.wait_s(weight, now_s, background=background)
            if not wait_s:
                budget.spend(weight, now_s, background=background)
            return wait_s

        wait_s = wait_s or self._change(spend)
        if not wait_s and capped is not None:
            capped.spend(weight, self._clock.monotonic_s())
        return wait_s

    def _change(self, decide: Callable[[WeightBudget, float], _T], *, durable: bool = False) -> _T:
        """Call `decide` with the budget of the file, or with the last state if the file fails."""
        now_s = self._clock.monotonic_s()
        if self._shared_file is not None and not now_s < (self._alone_until_s or now_s):
            try:
                return self._change_file(self._shared_file, decide, durable=durable)
            except OSError as error:
                self._alone_until_s = now_s + ALONE_S
                self._warn("alone", f"{error.strerror or error}; this process uses its own budget for now")
        return decide(WeightBudget(self._weight_max, self._use), self._clock.monotonic_s())

    def _change_file(
        self, shared_file: SharedFile, decide: Callable[[WeightBudget, float], _T], *, durable: bool
    ) -> _T:
        results: list[_T] = []
        damage: list[str] = []
        use = self._use

        def turn(before: bytes) -> bytes:
            nonlocal use
            # Read the clocks here, because times must only grow.
            now_s, wall_s = self._clock.monotonic_s(), self._wall_s()
            try:
                book = parse_book(before)
            except ValueError as error:
                damage.append(str(error))
                book = WeightBook()
            is_new_boot = shared_file.boot not in book.boots
            use = book.use(shared_file.boot, now_s, wall_s)
            if is_new_boot or self._alone_until_s is not None:
                use.merge(self._use, now_s)
            results.append(decide(WeightBudget(self._weight_max, use), now_s))
            return render_book(book)

        shared_file.change(turn, durable=durable)
        self._use, self._alone_until_s = use, None
        for error in damage:
            self._warn("damage", f"its file is damaged: {error}; the file is replaced")
        return results[0]

    def _log_block(self) -> None:
        """Log each block once, because it may last for days."""
        until_s, now_s = self._use.held_until_s, self._clock.monotonic_s()
        if until_s > max(now_s, self._logged_until_s + _LATER_S):
            self._logged_until_s = until_s
            log.warning("%s: the exchange blocks requests for %.0f s", self._name, until_s - now_s)

    def _warn(self, kind: str, what: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("the request weight of %s: %s", self._name, what)

    def _wall_s(self) -> float:
        return self._clock.wall_us() / 1_000_000
