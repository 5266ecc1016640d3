"""The schedule of the healer: the missing ranges of each series, and the time of the next request.

It only plans; requests are the healer's. Waiting is by the monotonic clock.
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
    """The missing candles of one series that are urgent, or those in the background.

    Args:
        background: whether it can wait: a long gap.
        ranges: requested until the candles came or are explained.
        late: the part that a stream should have delivered.
        provisional: begin → trades, of candles that are requested once more.
        tries: answers without the missing candles.
        unreadable: unreadable answers in a row.
        planned_s: when it is due; earlier plans are void.
        extended: whether a range was added since the last request.
        busy: whether a request is on its way.
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
    """The planned tasks of one pool of weight, by due time; urgent ones apart from the others.

    `failures` counts the requests in a row that its host did not answer.
    """

    def __init__(self) -> None:
        self.waiting: dict[bool, list[tuple[float, Series]]] = {False: [], True: []}
        self.changed = asyncio.Event()
        self.failures = 0
        self.failing_until_s = 0.0


class HealSchedule:
    """The tasks of all series, up to two of each: an urgent one and one in the background.

    Args:
        clock: for waiting.

    Attributes:
        queues: by the name of the pool.
        new_queue: set when a queue was added.
    """

    def __init__(self, clock: Clock) -> None:
        self.queues: dict[str, HealQueue] = {}
        self.new_queue = asyncio.Event()
        self._clock = clock
        self._tasks: dict[tuple[Series, bool], HealTask] = {}

    @property
    def pending(self) -> int:
        """How many series have missing candles."""
        return len({series for (series, _), task in self._tasks.items() if task.ranges})

    def tasks_of(self, series: Series) -> Iterator[HealTask]:
        """Yield the tasks of a series."""
        for background in (False, True):
            task = self._tasks.get((series, background))
            if task is not None:
                yield task

    def task(self, series: Series, *, background: bool) -> HealTask:
        """Return a task of the series, made if there is none."""
        return self._tasks.setdefault((series, background), HealTask(background))

    def plan(self, pool_name: str, series: Series, task: HealTask, delay_s: float) -> None:
        """Make a task due after `delay_s`, unless it is already due earlier."""
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
        """Wait until a task is due; it is busy until it is planned again or closed."""
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
        """Remove a task without missing candles."""
        del self._tasks[series, task.background]
