"""The agenda of the healer: what is missing of each series, and when it is asked for next.

It knows who waits for what and for how long; asking is the healer's.
Waiting is by the monotonic clock.
"""

import asyncio
import contextlib
import heapq
from collections.abc import Iterator

import msgspec

from lakewriter.clock import Clock
from lakewriter.ranges import Range
from lakewriter.series import Series


class HealTask(msgspec.Struct):
    """What is missing of one series, be it urgent or not.

    Args:
        background: whether it can wait: a long gap.
        ranges: asked for until it is there or explained.
        late: the part that a stream should have delivered meanwhile.
        young: begin → trades, of candles to be looked at once more.
        tries: answers without what was asked for.
        unreadable: answers in a row that could not be read.
        planned_s: when it is looked at next; what was planned before is void.
        fresh: whether something was added since it was asked for.
        busy: whether it is being asked for.
    """

    background: bool

    ranges: list[Range] = []
    late: list[Range] = []
    young: dict[int, int] = {}
    tries: int = 0
    unreadable: int = 0
    planned_s: float = -1.0
    fresh: bool = False
    busy: bool = False


class HealQueue:
    """What waits for one budget of weight, urgent and not, by due time.

    `failures` counts the requests in a row that its host did not answer.
    """

    def __init__(self) -> None:
        self.waiting: dict[bool, list[tuple[float, Series]]] = {False: [], True: []}
        self.changed = asyncio.Event()
        self.failures = 0
        self.failing_until_s = 0.0


class HealSchedule:
    """The cases of all series, an urgent one and one in the background for each.

    Args:
        clock: for waiting.
    """

    def __init__(self, clock: Clock) -> None:
        self.pools: dict[str, HealQueue] = {}
        self.new_pool = asyncio.Event()
        self._clock = clock
        self._cases: dict[tuple[Series, bool], HealTask] = {}

    @property
    def pending(self) -> int:
        """How many series wait for something."""
        return len({series for (series, _), case in self._cases.items() if case.ranges})

    def of(self, series: Series) -> Iterator[HealTask]:
        """Yield what a series waits for."""
        for background in (False, True):
            case = self._cases.get((series, background))
            if case is not None:
                yield case

    def case(self, series: Series, *, background: bool) -> HealTask:
        """Return the series' case, made if there is none."""
        return self._cases.setdefault((series, background), HealTask(background))

    def plan(self, pool_name: str, series: Series, case: HealTask, delay_s: float) -> None:
        """Look at a case after so long, or before if that is planned already."""
        due_s = self._clock.monotonic_s() + delay_s
        if case.busy or 0 <= case.planned_s <= due_s:
            return
        case.planned_s = due_s
        if pool_name not in self.pools:
            self.pools[pool_name] = HealQueue()
            self.new_pool.set()
        pool = self.pools[pool_name]
        heapq.heappush(pool.waiting[case.background], (due_s, series))
        pool.changed.set()

    async def next(self, pool: HealQueue, *, background: bool) -> tuple[Series, HealTask]:
        """Wait until a case of a pool is due; it is busy then, until it is put back or closed."""
        waiting = pool.waiting[background]
        while True:
            pool.changed.clear()
            now_s = max(self._clock.monotonic_s(), 0.0)
            due_s = max(waiting[0][0], pool.failing_until_s) if waiting else now_s + 3600
            if due_s > now_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due_s - now_s):
                        await pool.changed.wait()
                continue
            planned_s, series = heapq.heappop(waiting)
            case = self._cases.get((series, background))
            if case is None or case.busy or case.planned_s != planned_s:
                continue
            case.busy, case.fresh, case.planned_s = True, False, -1.0
            return series, case

    def close(self, series: Series, case: HealTask) -> None:
        """Forget a case of which nothing is missing any more."""
        del self._cases[series, case.background]
