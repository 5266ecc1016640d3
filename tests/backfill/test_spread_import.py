"""A backfill whose archive files are imported by workers: the lake, the counts and the limits."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pytest

from lakewriter.backfill.plan import PlannedFile
from lakewriter.backfill.planner import BackfillOptions
from lakewriter.backfill.worker_import import groups_of
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.engines.engine import S, T, Task, ignore
from lakewriter.engines.local import LocalEngine
from lakewriter.errors import LakewriterError
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox
from lakewriter.series import Series
from support.backfilling import START_MS, Filled, against_sandbox, run_backfill
from support.recording import account

TODAY_MS = START_MS // DAY_MS * DAY_MS
OPTIONS = BackfillOptions(since_ms=TODAY_MS - 8 * DAY_MS, files="daily")
WANTED = ("spot:BTCUSDT:5m,1d", "usdt_futures:ETHUSDT:15m")


class TwiceAtOnce:
    """An engine that runs each task twice at the same time, as speculative execution does."""

    is_distributed = True
    repeated = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def map(
        self, task: Task[S, T], items: Iterable[S], *, chunk: int, advance: Callable[[int], None] = ignore
    ) -> Iterator[T]:
        both = threading.Barrier(2)

        def run(item: S) -> T:
            both.wait()
            (result,) = task([item])
            return result

        with ThreadPoolExecutor(2) as threads:
            for item in items:
                first, second = threads.map(run, [item, item])
                advance(chunk)
                yield second or first


def rows_of(store: LakeStore) -> dict[str, pa.Table]:
    """Return the rows of each partition, without the times of their receipt."""
    return {
        found.partition.file: store.read(found.partition).drop_columns(["recv_time"])
        for found in store.files()
    }


async def fill(sandbox: Sandbox, lake: Path, engine: LocalEngine | TwiceAtOnce | None) -> Filled:
    return await run_backfill(sandbox, lake, *WANTED, options=OPTIONS, engine=engine)


@pytest.mark.parametrize("engine", [LocalEngine("backfill", 1), TwiceAtOnce()], ids=["once", "twice"])
def test_workers_leave_the_same_lake(engine: LocalEngine | TwiceAtOnce, tmp_path: Path) -> None:
    """Workers leave the rows and the counts of a backfill in one process, also if each works twice at once."""

    async def scenario(sandbox: Sandbox) -> None:
        alone = await fill(sandbox, tmp_path / "alone", None)
        spread = await fill(sandbox, tmp_path / "spread", engine)
        assert rows_of(spread.store) == rows_of(alone.store)
        for name in ("series", "files", "file_bytes", "from_archive", "from_rest", "pages", "explained"):
            assert getattr(spread.done, name) == getattr(alone.done, name), name
        assert spread.done.files > 12 and spread.done.from_rest
        again = await fill(sandbox, tmp_path / "spread", engine)
        assert (again.done.files, again.done.from_rest) == (0, 0)

    against_sandbox(scenario)


def test_files_that_workers_cannot_use_come_from_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """REST serves the candles of unusable files, and the command logs what its workers found."""

    async def scenario(sandbox: Sandbox) -> None:
        options = BackfillOptions(since_ms=TODAY_MS - DAY_MS)
        filled = await run_backfill(
            sandbox, tmp_path, "spot:BTCUSDT:15m", options=options, engine=LocalEngine("backfill", 1)
        )
        assert dict(filled.done.refused) == {"checksum": 1}
        assert (filled.done.from_archive, filled.done.files) == (0, 1)
        assert "its candles are fetched from REST" in caplog.text
        series = Series("spot", "BTCUSDT", "15m")
        stop_ms = series.grid.floor(START_MS - 30_000)
        found = account(filled.store, sandbox, series, TODAY_MS - DAY_MS, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})

    against_sandbox(scenario, Fault("archive_wrong_checksum"))


def test_a_worker_without_the_lake_ends_the_backfill(tmp_path: Path) -> None:
    """A worker that does not see the lake ends the backfill with one line that names the lake."""

    class WithoutLake(LocalEngine):
        """Runs the tasks where the lake is not: after it was moved away."""

        def map(
            self, task: Task[S, T], items: Iterable[S], *, chunk: int, advance: Callable[[int], None] = ignore
        ) -> Iterator[T]:
            (tmp_path / "lake").rename(tmp_path / "elsewhere")
            try:
                yield from super().map(task, items, chunk=chunk, advance=advance)
            finally:
                (tmp_path / "elsewhere").rename(tmp_path / "lake")

    async def scenario(sandbox: Sandbox) -> None:
        with pytest.raises(LakewriterError, match=r"lake: .*lake does not exist"):
            await run_backfill(
                sandbox, tmp_path / "lake", WANTED[0], options=OPTIONS, engine=WithoutLake("backfill", 1)
            )

    against_sandbox(scenario)


def planned(interval: str, count: int) -> list[PlannedFile]:
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(count)]
    files = [ArchiveFile(Series("spot", "BTCUSDT", interval), "daily", day) for day in days]
    return [PlannedFile(file, 1, file.start_ms, file.stop_ms) for file in files]


def test_files_of_one_partition_are_one_group() -> None:
    """Files that are merged together are imported by one worker; each file is in one group."""
    months = list(groups_of(planned("15m", 366)))
    assert [len(group) for group in months] == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    days = planned("1m", 50)
    assert list(groups_of(days)) == [(day,) for day in days]
