"""One pool of request weight, shared by all that ask the exchange from this host.

Rule 1: what is spent and who has to wait is on the slate, if there is one, and
each look at it is one change of it. Rule 2: the event loop waits for no disk.
Rule 3: a slate that fails or is damaged stops nobody; we go on from what we
know, alone, until it can be had again.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from lakewriter.binance.weight_budget import WeightBook, WeightBudget, WeightUse, parse_book, render_book
from lakewriter.clock import Clock
from lakewriter.rate_limit_state import SharedFile

log = logging.getLogger(__name__)

# Waiting is broken into naps: somebody may have been told more meanwhile.
_NAP_S = 0.5

# A wait that ends so much later than the one that was said is another one.
_LATER_S = 1.0

# So long we go alone when a slate failed; then it is tried again.
ALONE_S = 10.0

_T = TypeVar("_T")


class WeightPool:
    """Waits until weight may be spent, and learns from the answers.

    Args:
        name: for the log ("REST futures").
        weight_max: what the exchange allows in a minute.
        clock: the machine's.
        slate: shared with other processes; None for our own.
        thread: one thread, where the slate is changed.
        background_max: what our background work may spend in a minute; None for its share.
    """

    def __init__(
        self,
        name: str,
        weight_max: int,
        clock: Clock,
        *,
        slate: SharedFile | None = None,
        thread: Executor | None = None,
        background_max: int | None = None,
    ) -> None:
        self._name = name
        self._weight_max = weight_max
        self._clock = clock
        self._slate = slate
        self._thread = thread
        self._background = None if background_max is None else WeightBudget(background_max, share=1.0)
        # What was last seen on the slate, and what we did when it was not to be had.
        self._tally = WeightUse()
        self._alone_until_s: float | None = None
        self._said_until_s = -math.inf
        self._warned: set[str] = set()

    async def take(self, weight: int, *, background: bool) -> None:
        """Wait until so much may be spent, and count it."""
        while True:
            wait_s = await self._do(partial(self._spend, weight, background))
            if not wait_s:
                return
            self._say_held()
            await asyncio.sleep(min(wait_s, _NAP_S))

    async def learn(self, asked_s: float, used: int | None, hold_s: float | None = None) -> None:
        """Learn from an answer to what was asked then.

        Args:
            used: what the exchange has counted in its minute; None if it did not say.
            hold_s: how long nobody may ask, in any process, beyond a crash and a
                reboot; None if it did not ask for that.
        """

        def learn(budget: WeightBudget, now_s: float) -> None:
            if used is not None:
                budget.told(used, now_s)
            if hold_s is None:
                budget.answered(asked_s)
            else:
                budget.hold(hold_s, now_s, self._wall_s())

        await self._do(partial(self._change, learn, durable=hold_s is not None))

    async def held_s(self) -> float:
        """Return for how long nothing may be spent."""
        return await self._do(partial(self._change, WeightBudget.held_s))

    async def _do(self, work: Callable[[], _T]) -> _T:
        if self._slate is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _spend(self, weight: int, background: bool) -> float:
        """Spend so much, or tell how long to wait."""
        capped = self._background if background else None
        wait_s = 0.0 if capped is None else capped.wait_s(weight, self._clock.monotonic_s())

        def spend(budget: WeightBudget, now_s: float) -> float:
            wait_s = budget.wait_s(weight, now_s, background=background)
            if not wait_s:
                budget.spend(weight, now_s)
            return wait_s

        wait_s = wait_s or self._change(spend)
        if not wait_s and capped is not None:
            capped.spend(weight, self._clock.monotonic_s())
        return wait_s

    def _change(self, use: Callable[[WeightBudget, float], _T], *, durable: bool = False) -> _T:
        """Let `use` look at the budget and change it: the one on the slate, if that can be had."""
        now_s = self._clock.monotonic_s()
        if self._slate is not None and not now_s < (self._alone_until_s or now_s):
            try:
                return self._change_slate(self._slate, use, durable=durable)
            except OSError as error:
                self._alone_until_s = now_s + ALONE_S
                self._warn("alone", f"{error.strerror or error}; this process keeps to a budget of its own")
        return use(WeightBudget(self._weight_max, self._tally), self._clock.monotonic_s())

    def _change_slate(
        self, slate: SharedFile, use: Callable[[WeightBudget, float], _T], *, durable: bool
    ) -> _T:
        results: list[_T] = []
        damage: list[str] = []
        tally = self._tally

        def turn(before: bytes) -> bytes:
            nonlocal tally
            now_s, wall_s = self._clock.monotonic_s(), self._wall_s()  # here, so that times only grow
            try:
                book = parse_book(before)
            except ValueError as error:
                damage.append(str(error))
                book = WeightBook()
            forgotten = slate.boot not in book.boots
            tally = book.tally(slate.boot, now_s, wall_s)
            if forgotten or self._alone_until_s is not None:
                tally.take_over(self._tally, now_s)
            results.append(use(WeightBudget(self._weight_max, tally), now_s))
            return render_book(book)

        slate.change(turn, durable=durable)
        self._tally, self._alone_until_s = tally, None
        for each in damage:
            self._warn("damage", f"what was kept of it is damaged: {each}; it begins anew")
        return results[0]

    def _say_held(self) -> None:
        """Say once of each wait that was imposed how long it is: it may be days."""
        until_s, now_s = self._tally.held_until_s, self._clock.monotonic_s()
        if until_s > max(now_s, self._said_until_s + _LATER_S):
            self._said_until_s = until_s
            log.warning("%s: the exchange wants to be left alone for %.0f s", self._name, until_s - now_s)

    def _warn(self, kind: str, what: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("the request weight of %s: %s", self._name, what)

    def _wall_s(self) -> float:
        return self._clock.wall_us() / 1_000_000
