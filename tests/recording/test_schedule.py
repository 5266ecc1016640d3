"""The heal schedule returns each task when it is due, by its earliest plan, and loses none."""

import asyncio

from lakewriter.recording.healing.schedule import HealSchedule
from lakewriter.series import Series
from support.virtual_time import VirtualClock, run

BTC, ETH, BNB = (Series("spot", f"{coin}USDT", "1m") for coin in ("BTC", "ETH", "BNB"))


def test_tasks_come_when_they_are_due() -> None:
    """The task that is due first is returned first. An earlier task wakes a waiting worker."""

    async def scenario() -> None:
        schedule = HealSchedule(VirtualClock())
        for series, delay_s in ((BTC, 0.2), (ETH, 3600.0)):
            schedule.plan("spot", series, schedule.task(series, background=False), delay_s)
        waiting = asyncio.create_task(schedule.next(schedule.queues["spot"], background=False))
        await asyncio.sleep(0)
        schedule.plan("spot", BNB, schedule.task(BNB, background=False), 0.0)
        assert (await waiting)[0] == BNB
        assert (await schedule.next(schedule.queues["spot"], background=False))[0] == BTC

    run(scenario())


def test_the_earliest_plan_counts() -> None:
    """A later plan does not delay a planned task. A busy task is planned by its worker alone."""

    async def scenario() -> None:
        schedule = HealSchedule(VirtualClock())
        task = schedule.task(BTC, background=False)
        schedule.plan("spot", BTC, task, 3600.0)
        schedule.plan("spot", BTC, task, 0.0)
        schedule.plan("spot", BTC, task, 3600.0)
        queue = schedule.queues["spot"]
        assert await schedule.next(queue, background=False) == (BTC, task)
        assert task.busy
        schedule.plan("spot", BTC, task, 0.0)
        assert task.planned_s == -1.0
        task.busy = False
        schedule.plan("spot", BTC, task, 0.0)
        assert await schedule.next(queue, background=False) == (BTC, task), "what was planned before is void"

    run(scenario())


def test_the_urgent_and_the_others_wait_apart() -> None:
    """A series has at most one urgent and one background task; each worker gets only its own kind."""

    async def scenario() -> None:
        schedule = HealSchedule(VirtualClock())
        for background in (True, False):
            task = schedule.task(BTC, background=background)
            task.ranges = [(0, 60_000)]
            schedule.plan("spot", BTC, task, 0.0)
        assert [task.background for task in schedule.tasks_of(BTC)] == [False, True]
        assert (schedule.pending, list(schedule.tasks_of(ETH))) == (1, [])
        for background in (True, False):
            series, task = await schedule.next(schedule.queues["spot"], background=background)
            assert task.background == background
            schedule.close(series, task)
        assert (schedule.pending, list(schedule.tasks_of(BTC))) == (0, [])

    run(scenario())


def test_a_host_that_fails_is_left_alone() -> None:
    """While its host fails, no task of a queue is due; tasks of other queues are."""

    async def scenario() -> None:
        schedule = HealSchedule(VirtualClock())
        schedule.plan("spot", BTC, schedule.task(BTC, background=False), 0.0)
        assert schedule.new_queue.is_set()
        schedule.plan("futures", ETH, schedule.task(ETH, background=False), 0.0)
        began_s = VirtualClock().monotonic_s()
        schedule.queues["spot"].failing_until_s = began_s + 0.2
        assert (await schedule.next(schedule.queues["futures"], background=False))[0] == ETH
        assert (await schedule.next(schedule.queues["spot"], background=False))[0] == BTC
        assert VirtualClock().monotonic_s() == began_s + 0.2

    run(scenario())
