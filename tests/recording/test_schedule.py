"""The agenda: who waits is looked at when due, the earliest plan counts, and nobody is lost."""

import asyncio

from lakewriter.recording.healing.schedule import HealSchedule
from lakewriter.series import Series
from support.virtual_time import VirtualClock, run

BTC, ETH, BNB = (Series("spot", f"{coin}USDT", "1m") for coin in ("BTC", "ETH", "BNB"))


def test_cases_come_when_they_are_due() -> None:
    """The one that is due first comes first; whoever waits is woken by one that is due before."""

    async def scenario() -> None:
        agenda = HealSchedule(VirtualClock())
        for series, delay_s in ((BTC, 0.2), (ETH, 3600.0)):
            agenda.plan("spot", series, agenda.case(series, background=False), delay_s)
        waiting = asyncio.create_task(agenda.next(agenda.pools["spot"], background=False))
        await asyncio.sleep(0)
        agenda.plan("spot", BNB, agenda.case(BNB, background=False), 0.0)
        assert (await waiting)[0] == BNB
        assert (await agenda.next(agenda.pools["spot"], background=False))[0] == BTC

    run(scenario())


def test_the_earliest_plan_counts() -> None:
    """A case that is planned is not put off; one that is being looked at is planned by whoever looks."""

    async def scenario() -> None:
        agenda = HealSchedule(VirtualClock())
        case = agenda.case(BTC, background=False)
        agenda.plan("spot", BTC, case, 3600.0)
        agenda.plan("spot", BTC, case, 0.0)
        agenda.plan("spot", BTC, case, 3600.0)
        pool = agenda.pools["spot"]
        assert await agenda.next(pool, background=False) == (BTC, case)
        assert case.busy
        agenda.plan("spot", BTC, case, 0.0)
        assert case.planned_s == -1.0
        case.busy = False
        agenda.plan("spot", BTC, case, 0.0)
        assert await agenda.next(pool, background=False) == (BTC, case), "what was planned before is void"

    run(scenario())


def test_the_urgent_and_the_others_wait_apart() -> None:
    """A series may have a case of either kind, of which each worker sees its own; a closed one is gone."""

    async def scenario() -> None:
        agenda = HealSchedule(VirtualClock())
        for background in (True, False):
            case = agenda.case(BTC, background=background)
            case.ranges = [(0, 60_000)]
            agenda.plan("spot", BTC, case, 0.0)
        assert [case.background for case in agenda.of(BTC)] == [False, True]
        assert (agenda.pending, list(agenda.of(ETH))) == (1, [])
        for background in (True, False):
            series, case = await agenda.next(agenda.pools["spot"], background=background)
            assert case.background == background
            agenda.close(series, case)
        assert (agenda.pending, list(agenda.of(BTC))) == (0, [])

    run(scenario())


def test_a_host_that_fails_is_left_alone() -> None:
    """Until then nobody of its pool is due, however long he waits; those of other pools are."""

    async def scenario() -> None:
        agenda = HealSchedule(VirtualClock())
        agenda.plan("spot", BTC, agenda.case(BTC, background=False), 0.0)
        assert agenda.new_pool.is_set()
        agenda.plan("futures", ETH, agenda.case(ETH, background=False), 0.0)
        began_s = VirtualClock().monotonic_s()
        agenda.pools["spot"].failing_until_s = began_s + 0.2
        assert (await agenda.next(agenda.pools["futures"], background=False))[0] == ETH
        assert (await agenda.next(agenda.pools["spot"], background=False))[0] == BTC
        assert VirtualClock().monotonic_s() == began_s + 0.2

    run(scenario())
