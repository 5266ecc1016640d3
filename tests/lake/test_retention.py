"""Retention removes whole partitions that are old, and no candle of a younger one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import SCHEMA
from lakewriter.interval import DAY_MS
from lakewriter.lake.forgotten import FORGOTTEN_FILE, ForgetPurpose, read_forgotten
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.retention import forget_old, old_partitions
from lakewriter.lake.root import LOCKS_DIRECTORY, STATE_DIRECTORY
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import partition_of
from lakewriter.series import Series
from support.candles import BTC, ETH, begin_of_minute, stream_candle
from support.lakes import files_and_bytes, merge_candles, rest_candle, rows_by_plain_files, write_foreign
from support.lengths import examples

PURPOSE = ForgetPurpose("me@here", "keep = 9d", (), 1_000)
DAY_0 = begin_of_minute(0) // DAY_MS * DAY_MS


def forget(store: LakeStore, before_ms: int, *series: Series) -> int:
    """Forget the old partitions of series, in batches of two; return the number of removed candles."""
    items = list(old_partitions(store, series, before_ms))
    removed = 0
    for at in range(0, len(items), 2):
        result = forget_old(store, items[at : at + 2], PURPOSE, 2_000)
        assert result.errors == ()
        removed += result.candles
    return removed


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


@examples(20, 300)
@given(
    days=st.sets(st.integers(0, 40), min_size=1, max_size=8),
    before=st.integers(-1, 42),
    into_ms=st.integers(0, DAY_MS - 1),
)
def test_exactly_the_whole_old_partitions_go(
    tmp_path_factory: pytest.TempPathFactory, days: set[int], before: int, into_ms: int
) -> None:
    """A partition goes if and only if it ends by the limit: days of 1m, months of 1h; other series stay."""
    store = LakeStore.create(str(tmp_path_factory.mktemp("lake")), "test")
    hour = Series("spot", "BTCUSDT", "1h")
    rows = [stream_candle(day * 1440 + number) for day in days for number in (0, 1439)]
    rows += [stream_candle(day * 1440, "ETHUSDT") for day in days]
    rows += [rest_candle(day * 24, interval="1h") for day in days]
    merge_candles(store, rows)
    present = rows_by_plain_files(store)
    before_ms = DAY_0 + before * DAY_MS + into_ms
    kept = [each for each in present if each.series == ETH or partition_of(each).stop_ms > before_ms]
    removed = forget(store, before_ms, BTC, hour)
    assert removed == len(present) - len(kept)
    assert rows_by_plain_files(store) == kept
    assert forget(store, before_ms, BTC, hour) == 0
    forgotten = {line.series: line for line in read_forgotten(store.root)}
    assert sum(line.candles for line in forgotten.values()) == removed
    assert all(line.finished_ms == 2_000 and line.reason == "keep = 9d" for line in forgotten.values())


def test_foreign_and_unreadable_files_go_with_their_partition(store: LakeStore) -> None:
    """A partition of other files is removed too, with its directory."""
    merge_candles(store, [stream_candle(0)])
    path = write_foreign(store, "part-0.parquet", [stream_candle(5)])
    (path.parent / "broken.parquet").write_bytes(b"PAR1")
    assert forget(store, DAY_0 + DAY_MS, BTC) == 2
    assert [path.name for path in store.root.iterdir()] == [STATE_DIRECTORY]


class Dying(LocalStorage):
    """A storage whose process is killed at its n-th deletion."""

    deletions_left = 0

    def delete(self, name: str) -> None:
        if not self.deletions_left:
            raise KeyboardInterrupt
        self.deletions_left -= 1
        super().delete(name)


@pytest.mark.parametrize("deletions", [0, 1, 2])
def test_a_kill_leaves_whole_partitions_and_a_record(store: LakeStore, deletions: int) -> None:
    """At each step every partition is whole or gone, the record has all of them, and the next run ends the work."""
    merge_candles(store, [stream_candle(day * 1440 + number) for day in range(4) for number in range(3)])
    storage = Dying(store.root, store.root / LOCKS_DIRECTORY)
    storage.deletions_left = deletions
    dying = LakeStore.local(store.root, storage)
    items = list(old_partitions(dying, [BTC], DAY_0 + 3 * DAY_MS))
    assert len(items) == 3
    with pytest.raises(KeyboardInterrupt):
        forget_old(dying, items, PURPOSE, 2_000)
    assert len(rows_by_plain_files(store)) == 12 - 3 * deletions
    assert forget(store, DAY_0 + 3 * DAY_MS, BTC) == 9 - 3 * deletions
    assert [row.begin_ms for row in rows_by_plain_files(store)] == [
        begin_of_minute(3 * 1440 + number) for number in range(3)
    ]
    ranges = [each for line in read_forgotten(store.root) for each in line.ranges]
    assert min(start for start, _ in ranges) == DAY_0 and len(ranges) == 3


class Failing(LocalStorage):
    """A storage in which a deletion fails, before or after the file is gone."""

    is_late = True

    def delete(self, name: str) -> None:
        if self.is_late:
            super().delete(name)
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("is_late", [False, True])
def test_an_error_is_recorded_if_candles_are_gone(store: LakeStore, is_late: bool) -> None:
    """A deletion that fails after the file is gone is on record; one that removed nothing is not."""
    merge_candles(store, [stream_candle(0), stream_candle(1)])
    storage = Failing(store.root, store.root / LOCKS_DIRECTORY)
    storage.is_late = is_late
    failing = LakeStore.local(store.root, storage)
    items = list(old_partitions(failing, [BTC], DAY_0 + DAY_MS))
    assert forget_old(failing, items, PURPOSE, 2_000).errors
    recorded = [(line.ranges, line.candles, line.finished_ms) for line in read_forgotten(store.root)]
    there = ((begin_of_minute(0), begin_of_minute(2)),)
    assert recorded == ([(there, 2, 2_000)] if is_late else [])
    assert len(rows_by_plain_files(store)) == (0 if is_late else 2)


class Interrupted(LocalStorage):
    """A storage whose process gets Ctrl-C right after its first deletion."""

    def delete(self, name: str) -> None:
        super().delete(name)
        raise KeyboardInterrupt


def test_an_interruption_is_recorded(store: LakeStore) -> None:
    """The record has the partition that was in work, and no later one."""
    merge_candles(store, [stream_candle(day * 1440) for day in range(2)])
    interrupted = LakeStore.local(store.root, Interrupted(store.root, store.root / LOCKS_DIRECTORY))
    items = list(old_partitions(interrupted, [BTC], DAY_0 + 2 * DAY_MS))
    with pytest.raises(KeyboardInterrupt):
        forget_old(interrupted, items, PURPOSE, 2_000)
    (line,) = read_forgotten(store.root)
    assert (line.ranges, line.candles) == (((begin_of_minute(0), begin_of_minute(1)),), 1)
    assert [row.begin_ms for row in rows_by_plain_files(store)] == [begin_of_minute(1440)]


def test_an_unreadable_partition_is_recorded(store: LakeStore) -> None:
    """Its candles are unknown, so the record has its whole period."""
    merge_candles(store, [stream_candle(0)])
    path = store.root / partition_of(stream_candle(0)).file
    path.write_bytes(b"rubbish")
    assert forget(store, DAY_0 + DAY_MS, BTC) == 0
    assert not path.exists()
    (line,) = read_forgotten(store.root)
    assert (line.ranges, line.candles, line.finished_ms) == (((DAY_0, DAY_0 + DAY_MS),), 0, 2_000)


def test_a_partition_without_rows_is_no_line(store: LakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was removed, so the record has no line of it, and no line that cannot be read."""
    write_foreign(store, "part-0.parquet", SCHEMA.empty_table())
    assert forget(store, DAY_0 + DAY_MS, BTC) == 0
    assert read_forgotten(store.root) == []
    assert caplog.text == ""


def test_without_a_record_nothing_goes(store: LakeStore) -> None:
    """If the record cannot be written, no candle is removed."""
    merge_candles(store, [stream_candle(0)])
    (store.root / FORGOTTEN_FILE).mkdir(parents=True)
    before = files_and_bytes(store.root)
    with pytest.raises((OSError, Exception), match=r"forget|directory"):
        forget(store, DAY_0 + DAY_MS, BTC)
    assert files_and_bytes(store.root) == before
