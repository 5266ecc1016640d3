"""A backfill completes the history of subscriptions, from a date to the present without a gap.

It plans from the lake, the archive's list and the exchange. It imports files, fetches the
rest by REST, and explains candles that no source has. Its only state is the lake. A stopped
backfill plans again and continues.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from lakewriter.backfill.archive_import import FileImport
from lakewriter.backfill.plan import PlannedFile, SeriesPlan
from lakewriter.backfill.planner import BackfillOptions, BackfillPlan, Planner
from lakewriter.backfill.progress import Progress
from lakewriter.backfill.rest_fill import RestFill
from lakewriter.backfill.spread_import import SpreadImport, Workers
from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.errors import LakeError
from lakewriter.first_error import first_error
from lakewriter.lake.gaps.ledger import Ledger, save
from lakewriter.lake.lake import LakeStore
from lakewriter.subscription import Subscription

# The number of series of each market that REST finishes concurrently.
FINISHERS = 2

_SAVE_EVERY_S = 1.0


class Backfill:
    """Plans and runs one backfill of a lake.

    Args:
        store: the lake.
        clients: the clients of the markets.
        options: the user's options.
        clock: the machine's clock.
        workers: import the archive's files; None to import them in this process.

    Attributes:
        progress: the counters of `run`.
    """

    def __init__(
        self,
        store: LakeStore,
        clients: MarketClients,
        *,
        options: BackfillOptions,
        clock: Clock,
        workers: Workers | None = None,
    ) -> None:
        self.progress = Progress()
        self._workers = workers
        self._store = store
        self._clients = clients
        self._options = options
        self._clock = clock
        self._planner = Planner(store, clients, options=options, clock=clock, progress=self.progress)

    async def plan(self, subscriptions: Iterable[Subscription]) -> BackfillPlan:
        """Return the plan for these subscriptions.

        Raises:
            RestError: if the exchange does not answer.
            LakeError: if the ledgers cannot be read.
        """
        return await self._planner.plan(subscriptions)

    def estimated_s(self, plan: BackfillPlan) -> float:
        """Return the estimated seconds of a plan from the exchange's limits and the archive's speed."""
        return self._planner.estimated_s(plan)

    async def run(self, plan: BackfillPlan, ledger: Ledger, own_journal: str) -> None:
        """Run the plan; return when each candle is in the lake or explained.

        Args:
            ledger: the ledger for reasons.
            own_journal: the name of this backfill's journal; "" if a recorder runs in this
                process. Then the recorder saves the ledger.

        Raises:
            LakeError: if the ledger cannot be written.
            OSError: if the disk is full or fails.
        """
        files_left = {each.series: each.file_count for each in plan.series}
        by_series = {each.series: each for each in plan.series}
        planned_by_market: dict[str, asyncio.Queue[SeriesPlan]] = {
            name: asyncio.Queue() for name in self._planner.market_infos
        }

        async def file_done(planned: PlannedFile) -> None:
            series = planned.file.series
            files_left[series] -= 1
            if not files_left[series]:
                planned_by_market[series.market].put_nowait(by_series[series])

        for each in plan.series:
            if not each.file_count:
                planned_by_market[each.series.market].put_nowait(each)
        file_import = self._file_import(file_done)
        rest_fill = RestFill(
            self._store, ledger, self._planner.settled, file_import.given_up, self.progress, own_journal
        )
        files = (planned for each in plan.series for planned in each.files)
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._finish(queue, rest_fill))
                    for queue in planned_by_market.values()
                    for _ in range(FINISHERS)
                ]
                if own_journal:
                    helpers.append(tasks.create_task(_save_regularly(ledger)))
                await file_import.run(files)
                for queue in planned_by_market.values():
                    await queue.join()
                for task in helpers:
                    task.cancel()

    def _file_import(self, file_done: Callable[[PlannedFile], Awaitable[None]]) -> FileImport | SpreadImport:
        if self._workers is not None:
            return SpreadImport(*self._workers, self.progress, file_done)
        return FileImport(
            self._store,
            lambda name: self._clients[name].archive,
            self.progress,
            file_done,
            self._clock,
            self._options.downloads,
        )

    async def _finish(self, planned: "asyncio.Queue[SeriesPlan]", rest_fill: RestFill) -> None:
        while True:
            plan = await planned.get()
            try:
                await rest_fill.finish(plan, self._planner.market_infos[plan.series.market])
            except LakeError as error:
                self.progress.add_unreadable(plan.series, error)
            finally:
                planned.task_done()


async def _save_regularly(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(_SAVE_EVERY_S)
        await save(ledger)
