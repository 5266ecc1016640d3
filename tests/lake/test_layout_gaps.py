"""The same gaps in files of periods and in directories of days: each reader of gaps finds what was planted."""

import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakewriter.candle import IntArray, to_table
from lakewriter.gap import Reason
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.lake.presence import presence_of
from lakewriter.partition import day_of, split_by_partition
from lakewriter.series import Series
from support.day_layout import further_directories, to_day_layout, write_days
from support.lakes import rest_candle
from support.lengths import LONG
from support.living_recorder import LivingRecorder
from support.running import run

pytestmark = pytest.mark.slow

NOW_MS = 1_750_000_000_000
UNEXPLAINED = "unexplained"
EXPLAINING = ("exchange_halt", "not_listed", "delisted", "unhealable")


def ms(day: str) -> int:
    return int(pd.Timestamp(day, tz="UTC").timestamp() * 1000)


# A year, a month, a week and a day begin here. An earlier period of each length is missing as a whole.
NEW_YEAR_MS = ms("2024-01-01")
MISSING_PERIODS = {
    "day": (ms("2023-12-30"), ms("2023-12-31")),
    "month": (ms("2023-11-01"), ms("2023-12-01")),
    "year": (ms("2022-01-01"), ms("2023-01-01")),
}

# The step of each interval's grid as pandas names it, and a time on it.
GRIDS = {
    **{name: (step, "2023-12-15") for name, step in zip(
        ("1s", "1m", "3m", "5m"), ("1s", "1min", "3min", "5min"), strict=True)},
    **{name: (step, "2020-01-01") for name, step in zip(
        ("15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1mo"),
        ("15min", "30min", "1h", "2h", "4h", "6h", "8h", "12h", "1D", "MS"), strict=True)},
    "3d": ("3D", "2019-12-31"),
    "1w": ("W-MON", "2019-12-30"),
}  # fmt: skip

# How many candles there are at each edge: three days, unless those are very many or few.
AT_EDGES = {"15m": 288, "30m": 144, "1h": 72, "2h": 36, "4h": 18, "6h": 12, "8h": 9}


class Plan(NamedTuple):
    """What is planted for one series.

    Args:
        begins: the grid, ascending, from the first candle or gap to the last one.
        reasons: why each candle of the grid is absent; "" for those that are there.
        marks: ranges in the ledger of a recorder that died, with their reasons.
    """

    begins: IntArray
    reasons: "np.ndarray[tuple[int], np.dtype[np.object_]]"
    marks: list[tuple[int, int, Reason]]

    @property
    def present(self) -> IntArray:
        """The begin times of the candles that are there."""
        return self.begins[self.reasons == ""]


def planned(
    grid: IntArray, present: IntArray, absent: list[int], marks: list[tuple[int, int, Reason]]
) -> Plan:
    """Return the plan of these candles without some, and of marks from one candle to another, included."""
    there = np.setdiff1d(present, absent)
    first = min([there[0], *(mark[0] for mark in marks)])
    last = max([there[-1], *(mark[1] for mark in marks)])
    begins = grid[(grid >= first) & (grid <= last)]
    reasons = np.full(len(begins), UNEXPLAINED, object)
    for start_ms, last_ms, reason in marks:
        reasons[(begins >= start_ms) & (begins <= last_ms)] = reason
    reasons[np.isin(begins, there)] = ""
    return Plan(
        begins, reasons, [(int(start), following(grid, last), reason) for start, last, reason in marks]
    )


def following(grid: IntArray, begin_ms: int) -> int:
    return int(grid[np.searchsorted(grid, begin_ms) + 1])


def plans(interval: str) -> dict[str, Plan]:
    """Return the plans of an interval, by symbol: gaps in the middle, at edges, and of whole periods."""
    step, origin = GRIDS[interval]
    grid = pd.date_range(origin, "2025-01-01", freq=step, tz="UTC").as_unit("ms").asi8
    gone_ms, back_ms = MISSING_PERIODS[INTERVALS[interval].file_period]
    count = AT_EDGES.get(interval, 6 if INTERVALS[interval].file_period == "year" else 40)
    far = grid[grid < gone_ms][-count:]
    near = grid[(grid >= back_ms) & (grid < NEW_YEAR_MS)][-count:]
    after = grid[grid >= NEW_YEAR_MS][:count]
    present = np.concatenate([far, near, after])
    midnight = next((at for at in range(2, count - 1) if near[at] % DAY_MS == 0), 2)
    before = grid[grid < far[0]][-2:]
    later = grid[grid > after[-1]][:3]
    gone = grid[(grid >= gone_ms) & (grid < back_ms)]
    return {
        "BTCUSDT": planned(
            grid, present, [*near[1:4], *after[1:3]],
            [(near[2], near[3], "unhealable"), (after[1], after[1], "exchange_halt"), (after[2], after[2], "pending")],
        ),
        "ETHUSDT": planned(
            grid, present, [far[-1], *near[midnight - 1 : midnight + 1], near[-1], after[0]],
            [(near[-1], after[0], "exchange_halt"), (near[midnight], near[midnight], "unhealable")],
        ),
        "BNBUSDT": planned(
            grid, present, [],
            [
                (before[0], before[-1], "not_listed"),
                (gone[len(gone) // 2], gone[-1], "exchange_halt"),
                (later[0], later[-1], "delisted"),
            ],
        ),
    }  # fmt: skip


# One or two of each period, and those whose grids are irregular; all in the long form.
CHOSEN = tuple(INTERVALS) if LONG else ("1m", "1h", "1d", "3d", "1mo")

PLANS = {
    Series("spot", symbol, interval): plan for interval in CHOSEN for symbol, plan in plans(interval).items()
}


@pytest.fixture(scope="module")
def periods(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Everything that is planned, in files of periods."""
    root = tmp_path_factory.mktemp("periods")
    store = LakeStore.create(str(root), "test")
    template = rest_candle()
    items = []
    for series, plan in PLANS.items():
        candles = [
            msgspec.structs.replace(
                template,
                symbol=series.symbol,
                interval=series.interval,
                begin_ms=begin,
                end_ms=series.grid.end(begin),
            )
            for begin in plan.present.tolist()
        ]
        items += split_by_partition(series, to_table(candles))
    assert not [each for each in store.merge_many(items) if isinstance(each, Exception)]
    recorder = LivingRecorder(root)
    for series, plan in PLANS.items():
        for start_ms, stop_ms, reason in plan.marks:
            recorder.ledger.mark(series, start_ms, stop_ms, reason, NOW_MS)
    recorder.write()
    recorder.die()
    return store


def to_mixed_layout(root: Path) -> None:
    """Leave every second row of a period in its file; write the others as files of days."""
    store = LakeStore.local(root)
    for partition, *_ in list(store.files()):
        rows = store.read(partition)
        assert rows is not None
        begins = rows["candle_begin_time"].cast(pa.int64()).to_numpy()
        moved = (np.arange(len(begins)) % 2 == 1) & (begins >= partition.start_ms + DAY_MS)
        if partition.period != "day" and moved.any():
            write_days(root, partition, rows.filter(pa.array(moved)))
            (root / partition.file).write_bytes(encode(rows.filter(pa.array(~moved)), partition))


@pytest.fixture(scope="module", params=["periods", "days", "mixed", "days, compacted"])
def store(
    request: pytest.FixtureRequest, periods: LakeStore, tmp_path_factory: pytest.TempPathFactory
) -> LakeStore:
    """The same candles in each layout."""
    root = Path(shutil.copytree(periods.root, tmp_path_factory.mktemp("lake") / "lake"))
    if request.param.startswith("days"):
        to_day_layout(root)
    elif request.param == "mixed":
        to_mixed_layout(root)
    if request.param != "periods":
        assert len(further_directories(LakeStore.local(root))) > 20
    if request.param.endswith("compacted"):
        done = run("compact", "--lake", str(root))
        assert done.returncode == 0, done.stderr
        assert further_directories(LakeStore.local(root)) == []
    return LakeStore.local(root)


def test_presence_is_what_was_planted(store: LakeStore) -> None:
    """First, last, runs, absent ranges and counts follow from the candles, wherever they lie."""
    for series, plan in PLANS.items():
        presence, present = presence_of(store, series), plan.present
        start_ms, stop_ms = int(plan.begins[0]), series.grid.end(int(plan.begins[-1]))
        assert (presence.first_ms, presence.last_ms) == (present[0], present[-1]), series
        assert np.array_equal(presence.begins(start_ms, stop_ms), present), series
        absent = [(run[0], run[1]) for run in runs(series, plan, lambda reason: reason != "")]
        assert presence.missing(start_ms, stop_ms) == absent, series
        for moment_ms in (NEW_YEAR_MS, int(present[0]), int(present[-1]) + 1):
            assert presence.last_before(moment_ms) == max(present[present < moment_ms], default=None), series
        for day, begins in groupby(present.tolist(), day_of):
            assert presence.count(day) == len(list(begins)), (series, day)


def test_gaps_are_what_was_planted(store: LakeStore) -> None:
    """Each absent candle is found with its reason; none else is."""
    found: dict[Series, list[tuple[int, int, int, str]]] = {series: [] for series in PLANS}
    for each in absent_candles(store):
        listed = found[each.series]
        assert each.has_reason == (each.reason in EXPLAINING and each.reason != "unhealable")
        if listed and listed[-1][1] == each.start_ms and listed[-1][3] == each.reason:
            start_ms, _, candles, _ = listed.pop()
            listed.append((start_ms, each.stop_ms, candles + each.candles, each.reason))
        else:
            listed.append((each.start_ms, each.stop_ms, each.candles, each.reason))
    for series, plan in PLANS.items():
        assert found[series] == runs(series, plan, lambda reason: reason), series


def runs(series: Series, plan: Plan, key: Callable[[str], object]) -> list[tuple[int, int, int, str]]:
    """Return the runs of absent candles with the same key."""
    listed = []
    for _, pairs in groupby(zip(plan.begins.tolist(), plan.reasons, strict=True), lambda pair: key(pair[1])):
        run_of = list(pairs)
        if run_of[0][1]:
            listed.append((run_of[0][0], series.grid.end(run_of[-1][0]), len(run_of), run_of[0][1]))
    return listed


def test_coverage_is_what_was_planted(store: LakeStore) -> None:
    """Each day has as many expected, present, missing, explained and unhealable candles as planted."""
    found = {(day.series, day.date): day[2:] for day in coverage(store)}
    planted = {}
    for series, plan in PLANS.items():
        days = plan.begins // DAY_MS
        for number in np.unique(days).tolist():
            of_day = plan.reasons[days == number]
            present = int(np.sum(of_day == ""))
            planted[series, day_of(number * DAY_MS)] = (
                len(of_day),
                present,
                len(of_day) - present,
                int(np.sum(np.isin(of_day, EXPLAINING))),
                int(np.sum(of_day == "unhealable")),
            )
    assert found == planted
