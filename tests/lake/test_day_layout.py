"""A lake of format 1, in which every partition is a day: read as it is, and folded by compaction."""

import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from lakewriter.candle import to_table
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.compact import compact_partition
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.format import FORMAT_NAME, FORMAT_VERSION, LakeFormat
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import by_partition, day_of, partition_at, partition_of
from lakewriter.series import Series
from lakewriter.verify.findings import VerifyReport
from lakewriter.verify.partition_contents import read_contents
from lakewriter.verify.run import verify
from support import lengths
from support.candles import stream_candle
from support.compaction import plan_compaction
from support.day_layout import further_directories, to_day_layout, write_days
from support.lakes import merge_candles, rest_candle, rows_by_plain_files, rows_of_sql
from support.lengths import drawn_seed, either
from support.running import PATIENCE_S, Child, run, wait_until
from support.truth_lakes import MONDAY_MS, truth_lake

SHORT = ("1m", "3m", "5m")
# Intervals with files of months and of years; in a short run some of each.
LONG = ["15m", "2h", "8h", "1d", "3d", "1mo"]
if lengths.LONG:
    LONG = [name for name, grid in INTERVALS.items() if grid.file_period != "day"]

COUNTS = """
SELECT "interval", count(*), count(DISTINCT (market, symbol, candle_begin_time)), sum(trade_num)
FROM candles GROUP BY ALL ORDER BY ALL"""


@pytest.fixture(scope="module")
def periods(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Return the truth of every interval but 1s: days of minutes, and five weeks of longer candles."""
    series = [(Series("spot", "BTCUSDT", name), 2) for name in SHORT]
    series += [(Series("spot", "BTCUSDT", name), 35) for name in LONG]
    return truth_lake(tmp_path_factory.mktemp("periods"), series)


@pytest.fixture(scope="module")
def split(periods: LakeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake of the same candles in directories of days; tests copy it."""
    root = Path(shutil.copytree(periods.root, tmp_path_factory.mktemp("split") / "days"))
    to_day_layout(root)
    return root


@pytest.fixture
def days(split: Path, tmp_path: Path) -> LakeStore:
    """The same candles in directories of days."""
    return LakeStore.local(Path(shutil.copytree(split, tmp_path / "days")))


def format_of(store: LakeStore) -> LakeFormat:
    return msgspec.json.decode((store.root / FORMAT_NAME).read_bytes(), type=LakeFormat)


def compacted(store: LakeStore, *options: str) -> dict[str, object]:
    done = run("compact", "--json", *options, "--lake", str(store.root))
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_reading_changes_nothing(days: LakeStore, periods: LakeStore) -> None:
    """A lake of format 1 is read like any other, and is not changed."""
    assert rows_of_sql(days, COUNTS) == rows_of_sql(periods, COUNTS)
    assert rows_of_sql(days, "FROM latest()") == rows_of_sql(periods, "FROM latest()")
    assert format_of(days).format_version == 1
    assert len(further_directories(days)) > 100


def test_presence_of_days_is_that_of_periods(days: LakeStore, periods: LakeStore) -> None:
    """Present and missing candles of a series are the same in both layouts."""
    for series in periods.series():
        one, other = presence_of(days, series), presence_of(periods, series)
        assert (one.first_ms, one.last_ms, one.grid) == (other.first_ms, other.last_ms, other.grid)
        stop_ms = MONDAY_MS + 40 * DAY_MS
        assert one.missing(MONDAY_MS, stop_ms) == other.missing(MONDAY_MS, stop_ms)
        assert one.last_before(stop_ms) == other.last_before(stop_ms)


def test_coverage_and_verify_find_the_same(days: LakeStore, periods: LakeStore) -> None:
    """Coverage counts each day the same in both layouts, and verify finds nothing in either."""
    assert list(coverage(days)) == list(coverage(periods))
    reports = []
    for store in (days, periods):
        reports.append(report := VerifyReport(10))
        list(verify(store, report))
    assert [report.findings for report in reports] == [[], []]
    checked = [
        {key: counts.checked for key, counts in report.counts.items() if key[1] != "partition"}
        for report in reports
    ]
    assert checked[0] == checked[1]


def test_compaction_folds_days(days: LakeStore, periods: LakeStore) -> None:
    """Each candle moves to its period's file with all its columns, and the directories of days are removed."""
    directories = further_directories(days)
    planned = compacted(days, "--dry-run")
    assert planned["directories_removed"] == len(directories)
    assert further_directories(days) == directories
    done = compacted(days)
    assert done["directories_removed"] == len(directories)
    assert done["duplicates_removed"] == 0
    assert further_directories(days) == []
    assert [found.partition for found in days.files()] == [found.partition for found in periods.files()]
    for found in periods.files():
        assert days.read(found.partition).equals(periods.read(found.partition))
    assert format_of(days) == LakeFormat(FORMAT_VERSION, "lakewriter 0.1")
    again = compacted(days)
    assert (again["rewritten"], again["directories_removed"]) == (0, 0)


def test_an_empty_directory_of_a_day_goes(tmp_path: Path) -> None:
    """An empty directory left by a crash is removed; other tools' files keep one."""
    store = LakeStore.create(str(tmp_path), "test")
    merge_candles(store, [rest_candle(interval="1h")])
    partition = partition_of(rest_candle(interval="1h"))
    empty, marked = (partition.path.replace("-01", f"-{day}") for day in (15, 16))
    (tmp_path / empty).mkdir()
    (tmp_path / marked).mkdir()
    (tmp_path / marked / "_SUCCESS").touch()
    assert compacted(store)["directories_removed"] == 1
    assert further_directories(store) == [marked]
    assert [len(plan_compaction(store).work), len(plan_compaction(store).in_order)] == [0, 1]


@pytest.mark.parametrize("write", ["merge", "merge_many", "create"])
def test_the_first_write_raises_the_format(days: LakeStore, write: str) -> None:
    """After the first write older versions refuse the lake; `created_by` is kept."""
    partition, rows = partition_of(stream_candle()), to_table([stream_candle()])
    if write == "create":
        LakeStore.create(str(days.root), "test")
    elif write == "merge":
        days.merge(partition, rows)
    else:
        days.merge_many([(partition, rows)])
    assert format_of(days) == LakeFormat(FORMAT_VERSION, "lakewriter 0.1")


def test_the_better_row_wins_wherever_it_lies(tmp_path: Path) -> None:
    """A candle in a day's directory and in its period's file is seen once, by the rule of duplicates."""
    worse, better = (rest_candle(interval="1d", trade_num=number) for number in (1, 2))
    for own, other in ((worse, better), (better, worse)):
        store = LakeStore.create(str(tmp_path / str(own.trade_num)), "test")
        merge_candles(store, [own])
        write_days(store.root, partition_of(other), to_table([other]))
        for _ in range(2):
            assert rows_of_sql(store, "SELECT trade_num FROM candles") == [(2,)]
            assert presence_of(store, Series("spot", "BTCUSDT", "1d")).count(day_of(other.begin_ms)) == 1
            compacted(store)
        assert [each.trade_num for each in rows_by_plain_files(store)] == [2]


def test_a_period_whose_directory_is_created_after_a_listing(tmp_path: Path) -> None:
    """A compaction, and readers of candles that it moved meanwhile, find all of them in the new directory."""
    candles = [rest_candle(number, interval="1d") for number in range(6)]
    store, series = LakeStore.create(str(tmp_path), "test"), candles[0].series
    write_days(tmp_path, partition_of(candles[0]), to_table(candles[1:]))
    [listed] = store.partitions()
    assert not (tmp_path / listed.partition.path).exists()
    presence = presence_of(store, series)
    merge_candles(store, candles[:1])
    done = compact_partition(store, listed, time.time())
    assert (done.error, done.rows, done.directories_removed) == ("", 6, 5)
    begins = [candle.begin_ms for candle in candles]
    assert presence.begins(0, begins[-1] + 1).tolist() == begins
    assert read_contents(store, listed).rows.num_rows == 6


class DyingStorage(LocalStorage):
    """A storage whose writer dies after some steps of a compaction."""

    def __init__(self, root: Path, steps: int) -> None:
        super().__init__(root, root / "_lakewriter" / "locks")
        self.left = steps

    def _step(self) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        self._step()
        version = super().replace(name, data, expected)
        self._step()
        return version

    def delete_unchanged(self, versions: Mapping[str, str]) -> list[str]:
        removed = []
        for each in versions.items():
            removed += super().delete_unchanged(dict([each]))
            self._step()
        return removed

    def prune(self, directory: str) -> bool:
        gone = super().prune(directory)
        self._step()
        return gone


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8])
def test_a_compaction_that_dies_is_done_again(tmp_path: Path, steps: int) -> None:
    """After a death at each step a query sees each candle once, and the next run finishes."""
    candles = [rest_candle(number, interval="1d") for number in range(0, 12, 2)]
    store = LakeStore.create(str(tmp_path), "test")
    merge_candles(store, candles[:2])
    write_days(tmp_path, partition_of(candles[0]), to_table(candles[1:]))
    dying = LakeStore.local(tmp_path, DyingStorage(tmp_path, steps))
    with pytest.raises(KeyboardInterrupt):
        for item in plan_compaction(dying).work:
            compact_partition(dying, item, time.time())
    assert rows_of_sql(store, "SELECT count(*), count(DISTINCT candle_begin_time) FROM candles") == [(6, 6)]
    compacted(store)
    assert further_directories(store) == []
    assert rows_by_plain_files(store) == candles


@pytest.mark.slow
def test_readers_and_writers_during_a_compaction_that_is_killed(
    days: LakeStore, periods: LakeStore, tmp_path: Path
) -> None:
    """During kills and other writes each query sees each candle once, and in the end all files are folded."""
    seed, rounds = drawn_seed(), either(2, 12)
    killed_after_s = (0.8, 2.5) if lengths.LONG else (0.05, 0.8)  # the short form forks, and imports nothing
    print(f"seed {seed}")
    chance = random.Random(seed)
    truth = rows_of_sql(periods, COUNTS)
    stop, wrong, asked = threading.Event(), [], [0]

    def read() -> None:
        store = LakeStore.local(days.root)
        while not stop.is_set():
            found = rows_of_sql(store, COUNTS)
            asked[0] += 1
            if found != truth:
                wrong.append(found)

    def write() -> None:
        store = LakeStore.local(days.root)
        while not stop.is_set():
            name = chance.choice(LONG)
            series = Series("spot", "BTCUSDT", name)
            partition = partition_at(series, MONDAY_MS + chance.randrange(35) * DAY_MS)
            rows = periods.read(partition)
            if rows is not None:
                store.merge(partition, rows.slice(chance.randrange(rows.num_rows), 3))

    threads = [threading.Thread(target=each) for each in (read, read, write)]
    for each in threads:
        each.start()
    try:
        for number in range(rounds):
            compacting = Child(tmp_path / "log", "compact", "--lake", str(days.root))
            try:
                compacting.process.wait(
                    PATIENCE_S if number == rounds - 1 else chance.uniform(*killed_after_s)
                )
            except subprocess.TimeoutExpired:
                compacting.kill()
        wait_until(lambda: asked[0] > 3 or bool(wrong))
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert not wrong
    assert asked[0] > 3
    compacted(days)
    assert further_directories(days) == []
    assert rows_of_sql(days, COUNTS) == truth


@pytest.mark.slow
def test_a_query_over_many_files_suggests_a_compaction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A query over many files of days suggests a compaction."""
    store = LakeStore.create(str(tmp_path), "test")
    for partition, rows in by_partition(rest_candle(day, interval="1d") for day in range(1010)).items():
        write_days(tmp_path, partition, to_table(rows))
    assert rows_of_sql(store, "SELECT count(*) FROM candles") == [(1010,)]
    assert caplog.messages == [
        f"lake: {tmp_path} has many files to fold, which slow this query down; lakewriter compact"
    ]


def test_rows_of_another_period_are_refused(tmp_path: Path) -> None:
    """The error for rows of another period names that period."""
    store = LakeStore.create(str(tmp_path), "test")
    candle = rest_candle(interval="1h")
    other = msgspec.structs.replace(partition_of(candle), date=partition_of(candle).date.replace(month=5))
    with pytest.raises(LakeError, match="1 of its rows begin in another month"):
        store.merge(other, to_table([candle]))


def test_many_sources_of_one_partition_are_one_write(tmp_path: Path) -> None:
    """Rows of one partition are merged in order, each with its own result, by one read and one write."""

    class Counted(LocalStorage):
        written = 0

        def replace_all(self, replacements):
            Counted.written += len(replacements)
            return super().replace_all(replacements)

    store = LakeStore.local(tmp_path, Counted(tmp_path, tmp_path / "_lakewriter" / "locks"))
    candles = [rest_candle(number, interval="1h") for number in range(100)]
    partition = partition_of(candles[0])
    hours = [candle for candle in candles if partition_of(candle) == partition]
    better = msgspec.structs.replace(hours[3], trade_num=10**6, close=hours[3].open)
    items = [(partition, to_table([hour])) for hour in (*hours, better, hours[3])]
    results = store.merge_many(items)
    assert Counted.written == 1
    assert [result.added for result in results] == [1] * len(hours) + [0, 0]
    assert [result.corrections for result in results[-2:]] == [1, 0]
    assert [result.rows for result in results[:3]] == [1, 2, 3]
    assert results[-1].disputed == 1
    assert store.read(partition).num_rows == len(hours)
