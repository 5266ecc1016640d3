"""What the torture relies on: others' files of every interval become the truth, and the auditor sees what is not."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from crash.audit import audit, key_text, recorded_line
from crash.foreign import ForeignFiles
from crash.scenarios import series_of
from lakewriter.interval import DAY_MS, INTERVALS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_at
from lakewriter.sandbox import Sandbox, SandboxOptions, Truth
from lakewriter.series import Series
from support.lengths import drawn_seed
from support.running import run
from support.truth_lakes import edited, merge_truth, rewrite

# Two hours after a new year, and after a Monday began.
NOW_MS = 1_704_067_200_000 + 120 * MINUTE_MS

DAYS = Series("spot", "DOGEUSDT", "1d")
START_MS, STOP_MS = NOW_MS // DAY_MS * DAY_MS - 4 * DAY_MS, NOW_MS // DAY_MS * DAY_MS + 2 * DAY_MS


@pytest.mark.slow
def test_files_of_others_are_folded_into_the_truth(tmp_path: Path) -> None:
    """Beside each period's file, in directories of days, as of format 1: all of it is found, and then in its place."""
    lake, logs = tmp_path / "lake", tmp_path / "logs"
    logs.mkdir()
    LakeStore.create(str(lake), "test")
    seed = drawn_seed()
    print(f"seed {seed}")
    chance, truth = random.Random(seed), Truth()
    files = ForeignFiles(lake, truth, logs / "foreign.log")
    sandbox = Sandbox(SandboxOptions(symbols=10))
    everything = series_of(sandbox, [f"spot:DOGEUSDT:{','.join(INTERVALS)}"])
    assert len(everything) == len(INTERVALS)
    put = 0
    for number, series in enumerate(3 * everything):
        stop_ms = series.grid.floor(NOW_MS)
        start_ms = stop_ms - max(DAY_MS, 3 * (series.grid.length_ms or 31 * DAY_MS))
        put += files.put(series, start_ms, stop_ms, number, chance)
    assert put > 2 * len(everything)
    before = audit(lake, logs, truth)
    assert len(before.stray) >= put - len(everything)
    done = run("compact", "--lake", str(lake))
    assert done.returncode == 0, done.stderr
    after = audit(lake, logs, truth)
    assert after.clean, after
    assert after.present == after.promised > put


Tamper = Callable[[LakeStore], None]


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Tamper:
    return lambda store: rewrite(store, partition_at(DAYS, NOW_MS - DAY_MS), change)


def add_directory(name: str) -> Tamper:
    return lambda store: (store.root / f"market=spot/symbol=DOGEUSDT/interval=1d/{name}").mkdir()


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (rewritten(lambda rows: rows.slice(1)), "lost"),
        (rewritten(lambda rows: pa.concat_tables([rows, rows.slice(0, 1)])), "duplicated"),
        (rewritten(lambda rows: edited(rows, 0, close=1.0)), "different"),
        (add_directory("date=2023-12-30"), "stray"),
        (
            lambda store: (store.root / partition_at(DAYS, NOW_MS).file).rename(
                store.root / partition_at(DAYS, NOW_MS).path / "part-0.parquet"
            ),
            "stray",
        ),
    ],
    ids=["lost", "duplicated", "different", "directory of a day", "foreign file"],
)
def test_the_auditor_sees_what_is_not_the_truth(tmp_path: Path, tamper: Tamper, kind: str) -> None:
    """A candle that is lost, twice or changed, and a directory that no period has, are findings."""
    store, logs = LakeStore.create(str(tmp_path / "lake"), "test"), tmp_path / "logs"
    logs.mkdir()
    merge_truth(store, DAYS, 6, START_MS)
    promised = (recorded_line(key_text(DAYS, begin_ms)) for begin_ms in range(START_MS, STOP_MS, DAY_MS))
    (logs / "recorder.log").write_text("".join(promised))
    assert audit(store.root, logs, Truth()).clean
    tamper(store)
    found = audit(store.root, logs, Truth())
    assert not found.clean
    assert getattr(found, kind)
