"""The schedule of the healer: the missing ranges of each series, and the time of the next request.

It only plans; the healer sends the requests. Waiting uses the monotonic clock.
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
    """The urgent missing candles of one series, or its missing candles in the background.

    Args:
        background: whether the task can wait, because its gap is long.
        ranges: missing ranges; requested until the candles arrive or are explained.
        late: ranges that a stream should have delivered.
        provisional: number of trades by begin time, of candles that are requested once more.
        tries: number of answers without the missing candles.
        unreadable: number of consecutive unreadable answers.
        planned_s: monotonic time at which the task is due, -1 without a plan; other plans are void.
        extended: whether a range was added since the last request.
        busy: whether a request is in progress.
    """

    background: bool

    ranges: list[Range] = []
    late: list[Range] = []
    provisional: dict[int, int] = {}
    tries: int = 0
    unreadable: int = 0
    planned_s: float = -1.0
    extended: bool = False
    busy: bool = False


class HealQueue:
    """The planned tasks of one weight pool, by due time. Urgent tasks have their own heap.

    `failures` counts the consecutive requests that the pool's host did not answer.
    """

    def __init__(self) -> None:
        self.waiting: dict[bool, list[tuple[float, Series]]] = {False: [], True: []}
        self.changed = asyncio.Event()
        self.failures = 0
        self.failing_until_s = 0.0


class HealSchedule:
    """The tasks of all series: at most one urgent task and one background task of each.

    Args:
        clock: measures waits.

    Attributes:
        queues: the queues, by pool name.
        new_queue: event that is set when a queue was added.
    """

    def __init__(self, clock: Clock) -> None:
        self.queues: dict[str, HealQueue] = {}
        self.new_queue = asyncio.Event()
        self._clock = clock
        self._tasks: dict[tuple[Series, bool], HealTask] = {}

    @property
    def pending(self) -> int:
        """The number of series with missing candles."""
        return len({series for (series, _), task in self._tasks.items() if task.ranges})

    def tasks_of(self, series: Series) -> Iterator[HealTask]:
        """Yield the tasks of a series."""
        for background in (False, True):
            task = self._tasks.get((series, background))
            if task is not None:
                yield task

    def task(self, series: Series, *, background: bool) -> HealTask:
        """Return a task of the series; create it if necessary."""
        return self._tasks.setdefault((series, background), HealTask(background))

    def plan(self, pool_name: str, series: Series, task: HealTask, delay_s: float) -> None:
        """Add a plan: the task is due after `delay_s`, unless it is due earlier already."""
        due_s = self._clock.monotonic_s() + delay_s
        if task.busy or 0 <= task.planned_s <= due_s:
            return
        task.planned_s = due_s
        if pool_name not in self.queues:
            self.queues[pool_name] = HealQueue()
            self.new_queue.set()
        queue = self.queues[pool_name]
        heapq.heappush(queue.waiting[task.background], (due_s, series))
        queue.changed.set()

    async def next(self, queue: HealQueue, *, background: bool) -> tuple[Series, HealTask]:
        """Wait until a task is due, and return it. It is busy until it is planned again or closed."""
        waiting = queue.waiting[background]
        while True:
            queue.changed.clear()
            now_s = max(self._clock.monotonic_s(), 0.0)
            due_s = max(waiting[0][0], queue.failing_until_s) if waiting else now_s + 3600
            if due_s > now_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due_s - now_s):
                        await queue.changed.wait()
                continue
            planned_s, series = heapq.heappop(waiting)
            task = self._tasks.get((series, background))
            if task is None or task.busy or task.planned_s != planned_s:
                continue
            task.busy, task.extended, task.planned_s = True, False, -1.0
            return series, task

    def close(self, series: Series, task: HealTask) -> None:
        """Remove a task that has no missing candles."""
        del self._tasks[series, task.background]
