"""Forgetting removes the selected candles and no others, also beside writers and readers."""

from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import SOURCES, Candle, to_table
from lakewriter.interval import DAY_MS
from lakewriter.lake import compact
from lakewriter.lake.forget import (
    ForgetResult,
    Selection,
    forget_partition,
    partitions_to_forget,
    removed_by_series,
)
from lakewriter.lake.forgotten import RANGES_MAX, limited_ranges
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.parquet import leading_padding, written_by_us
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import partition_of
from lakewriter.series import Series
from support.candles import BTC, ETH, begin_of_minute, stream_candle
from support.compaction import plan_compaction, write_verified
from support.lakes import files_and_bytes, merge_candles, rows_by_plain_files, write_foreign
from support.lengths import either, examples

PARTITION = partition_of(stream_candle())


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def forget(store: LakeStore, selection: Selection, *, dry_run: bool = False) -> list[ForgetResult]:
    """Forget candles like the command, without a record."""
    return [
        forget_partition(store, item, selection, dry_run=dry_run)
        for item in partitions_to_forget(store, selection)
    ]


def directories(store: LakeStore) -> list[str]:
    below = (path.relative_to(store.root) for path in store.root.rglob("*") if path.is_dir())
    return sorted(str(path) for path in below if path.parts[0] != STATE_DIRECTORY)


rows = st.lists(
    st.builds(
        stream_candle,
        st.integers(-3, 3).map(lambda number: number * 480) | st.integers(0, 30),
        source=st.sampled_from(SOURCES),
        symbol=st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda each: (each.symbol, each.begin_ms),
)
moments = st.none() | st.integers(-1500, 1500).map(begin_of_minute)
selections = st.builds(
    Selection,
    st.sampled_from([(BTC,), (BTC, ETH), ()]),
    moments,
    moments,
    st.sets(st.sampled_from(SOURCES)).map(lambda names: tuple(sorted(names))),
)


@examples(20, 120)
@given(rows, selections)
def test_what_remains(tmp_path_factory, all_rows, selection):
    """The remaining rows are those before minus the selected; a dry run reports the same and changes nothing."""
    store = LakeStore.create(str(tmp_path_factory.mktemp("lake")), "test")
    merge_candles(store, all_rows)
    before = files_and_bytes(store.root)
    told = forget(store, selection, dry_run=True)
    assert files_and_bytes(store.root) == before
    done = forget(store, selection)
    assert [each for each in done if each.has_effect] == [each for each in told if each.has_effect]
    gone = [row for row in all_rows if selection.selects(row)]
    kept = [row for row in all_rows if not selection.selects(row)]
    assert sorted(rows_by_plain_files(store), key=str) == sorted(kept, key=str)
    assert sum(each.candles for each in done) == len(gone)
    for row in gone:
        went = removed_by_series(done)[row.series]
        assert any(start <= row.begin_ms < stop for start, stop in went.ranges)
    for row in kept:
        ranges = removed_by_series(done).get(row.series)
        assert ranges is None or not any(start <= row.begin_ms < stop for start, stop in ranges.ranges)
    assert not any(each.has_effect for each in forget(store, selection))


def test_a_whole_day_frees_its_space(store):
    """A partition without remaining rows loses its files and its directory."""
    merge_candles(
        store, [stream_candle(0), stream_candle(1440), stream_candle(0, symbol="ETHUSDT", interval="1m")]
    )
    (path := store.root / PARTITION.path / ".candles.parquet.tmp-1-ab").write_bytes(b"torn")
    (outcome,) = forget(store, Selection((BTC,), begin_of_minute(0), begin_of_minute(1440)))
    assert (outcome.removed, outcome.candles, outcome.bytes_after) == (True, 1, 0)
    assert outcome.bytes_before > 0
    assert not path.exists()
    assert directories(store) == [
        "market=spot",
        "market=spot/symbol=BTCUSDT",
        "market=spot/symbol=BTCUSDT/interval=1m",
        "market=spot/symbol=BTCUSDT/interval=1m/date=2024-07-01",
        "market=spot/symbol=ETHUSDT",
        "market=spot/symbol=ETHUSDT/interval=1m",
        "market=spot/symbol=ETHUSDT/interval=1m/date=2024-06-30",
    ]
    forget(store, Selection((BTC, ETH)))
    assert directories(store) == []
    assert store.root.is_dir()
    merge_candles(store, [stream_candle(0)])
    assert rows_by_plain_files(store) == [stream_candle(0)]


def test_a_directory_with_something_else_in_it_stays(store):
    """Another tool's marker file in a partition is not removed."""
    merge_candles(store, [stream_candle(0)])
    mark = store.root / PARTITION.path / "_SUCCESS"
    mark.touch()
    forget(store, Selection((BTC,)))
    assert mark.exists()
    assert rows_by_plain_files(store) == []


def test_a_part_of_a_day_is_one_of_our_files(store):
    """The remaining rows are a file like that of a merge, whose pages begin elsewhere."""
    merge_candles(store, [stream_candle(number) for number in range(5)])
    old = (store.root / PARTITION.file).read_bytes()
    (outcome,) = forget(store, Selection((BTC,), begin_of_minute(1), begin_of_minute(3)))
    new = (store.root / PARTITION.file).read_bytes()
    assert (outcome.candles, outcome.ranges, outcome.removed) == (
        2,
        ((begin_of_minute(1), begin_of_minute(3)),),
        False,
    )
    assert (outcome.bytes_before, outcome.bytes_after) == (len(old), len(new))
    assert written_by_us(new)
    assert leading_padding(new) != leading_padding(old)
    assert rows_by_plain_files(store) == [stream_candle(0), stream_candle(3), stream_candle(4)]


def test_ranges_are_exactly_what_went(store):
    """The ranges exclude candles that were absent before, and those of another source."""
    sources = ["rest", "rest", "stream", "rest", "archive", "rest"]
    merge_candles(store, [stream_candle(number, source=source) for number, source in enumerate(sources)])
    merge_candles(store, [stream_candle(9, source="rest")])
    (outcome,) = forget(store, Selection((BTC,), sources=("rest", "archive")))
    assert outcome.ranges == (
        (begin_of_minute(0), begin_of_minute(2)),
        (begin_of_minute(3), begin_of_minute(6)),
        (begin_of_minute(9), begin_of_minute(10)),
    )
    assert rows_by_plain_files(store) == [stream_candle(2)]


def test_a_candle_of_the_future_can_go(store):
    """A candle with any begin time can be removed."""
    absurd = stream_candle(0, begin_ms=4_000_000_000_000 // DAY_MS * DAY_MS)
    merge_candles(store, [stream_candle(0), absurd])
    (outcome,) = forget(store, Selection((BTC,), begin_of_minute(1440)))
    assert outcome.candles == 1
    assert rows_by_plain_files(store) == [stream_candle(0)]


def test_foreign_files_of_a_whole_day_go_too(store):
    """Forgetting a whole day removes its foreign files, readable or not; other days stay."""
    merge_candles(store, [stream_candle(0)])
    write_foreign(store, "part-0.parquet", [stream_candle(0), stream_candle(1)])
    (store.root / PARTITION.path / "part-1.parquet").write_bytes(b"torn")
    (outcome,) = forget(store, Selection((BTC,)))
    assert (outcome.candles, outcome.removed, outcome.unreadable, outcome.error) == (2, True, 1, "")
    assert removed_by_series([outcome])[BTC].ranges == [(begin_of_minute(0), begin_of_minute(1440))]
    assert directories(store) == []


@pytest.mark.parametrize(
    "selection", [Selection((BTC,), begin_of_minute(1)), Selection((BTC,), sources=("rest",))]
)
def test_no_single_candle_goes_from_a_file_of_others(store, selection):
    """With foreign files only a whole day can be forgotten; the hint names the remedy."""
    merge_candles(store, [stream_candle(0)])
    write_foreign(store, "part-0.parquet", [stream_candle(1)])
    before = files_and_bytes(store.root)
    (outcome,) = forget(store, selection)
    assert "part-0.parquet is a foreign file" in outcome.error
    assert outcome.hint.startswith("lakewriter compact")
    assert {name: data for name, data in files_and_bytes(store.root).items() if name in before} == before


def test_a_damaged_file_goes_whole_or_not_at_all(store):
    """An unreadable file refuses the removal of a part of its day; the whole day can be removed."""
    merge_candles(store, [stream_candle(0), stream_candle(1)])
    path = store.root / PARTITION.file
    path.write_bytes(path.read_bytes()[:-9])
    (part,) = forget(store, Selection((BTC,), begin_of_minute(1)))
    assert "not a readable Parquet file" in part.error
    assert path.exists()
    (whole,) = forget(store, Selection((BTC,), begin_of_minute(0), begin_of_minute(1440)))
    assert (whole.removed, whole.unreadable, whole.candles) == (True, 1, 0)
    assert not path.exists()


def test_the_partition_of_a_percent_encoding_tool(store):
    """A partition in two directories is removed from both."""
    name = "币安人生USDT"
    row = stream_candle(0, market="usdt_futures", symbol=name)
    partition = partition_of(row)
    merge_candles(store, [row])
    encoded = partition.path.replace(name, "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT")
    write_foreign(store, f"{encoded}/part-0.parquet", [stream_candle(1, market="usdt_futures", symbol=name)])
    (outcome,) = forget(store, Selection((Series(partition.market, name, "1m"),)))
    assert outcome.candles == 2
    assert directories(store) == []


class Interrupted(LocalStorage):
    """A storage in which a writer without locks writes once, right before a replacement."""

    def __init__(self, store: LakeStore, rows: Iterable[Candle]) -> None:
        super().__init__(store.root, store.root / STATE_DIRECTORY / "locks")
        self._plain = LakeStore.local(store.root)
        self._rows: list[Candle] | None = list(rows)

    def version(self, name: str) -> str | None:
        """Let another writer write, then return the version."""
        if self._rows is not None:
            table, self._rows = to_table(self._rows), None
            found = self._plain.storage.read(PARTITION.file)
            change = self._plain._change(PARTITION, [table], found)
            assert change.replacement is not None
            self._plain.storage.replace(*change.replacement)
        return super().version(name)


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection((BTC,), begin_of_minute(1)), [stream_candle(0)]),
        (Selection((BTC,)), []),
        (Selection((BTC,), stop_ms=begin_of_minute(1)), [stream_candle(1), stream_candle(2)]),
    ],
)
def test_who_knows_no_locks_is_noticed(store, selection, kept):
    """Rows written between read and replacement by a writer without locks are neither lost nor spared."""
    merge_candles(store, [stream_candle(0), stream_candle(1)])
    store.storage = Interrupted(store, [stream_candle(2)])
    (outcome,) = forget(store, selection)
    assert outcome.error == ""
    assert outcome.candles == 3 - len(kept)
    assert rows_by_plain_files(store) == kept


def test_a_reader_that_holds_the_file_keeps_its_answer(store):
    """Rows of an open file are read to the end, even if they are forgotten meanwhile."""
    merge_candles(store, [stream_candle(0), stream_candle(1)])
    with (store.root / PARTITION.file).open("rb") as held:
        forget(store, Selection((BTC,)))
        assert pq.read_table(held).num_rows == 2
    glob = f"{store.root}/market=*/symbol=*/interval=*/date=*/*.parquet"
    with pytest.raises(duckdb.IOException, match="No files found"):
        duckdb.sql(f"SELECT * FROM '{glob}'").fetchall()


def test_compactions_notes_stay_right(store):
    """After forgetting, a compaction reads only the changed partitions."""
    merge_candles(store, [stream_candle(0), stream_candle(1), stream_candle(1440), stream_candle(2880)])
    write_verified(
        store,
        list(compact.compact_partitions(store, plan_compaction(store).work, 0.0)),
        everything=True,
    )
    assert plan_compaction(store).work == []
    forget(store, Selection((BTC,), begin_of_minute(1), begin_of_minute(2880)))
    todo = plan_compaction(store)
    assert [item.partition for item in todo.work] == [PARTITION]
    (outcome,) = compact.compact_partitions(store, todo.work, 0.0)
    assert (outcome.rows, outcome.rewritten, outcome.error) == (1, False, "")
    assert [each.rows for each in todo.in_order] == [1]


@pytest.mark.slow
def test_a_writer_makes_again_what_is_pruned(tmp_path):
    """A writer succeeds however often its empty directory is removed."""
    import threading

    store = LakeStore.create(str(tmp_path), "test")
    other = partition_of(stream_candle(1440))
    stop = threading.Event()

    def prune() -> None:
        while not stop.is_set():
            store.storage.prune("market=spot/symbol=BTCUSDT/interval=1m")

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        for number in range(either(60, 200)):
            merge_candles(store, [stream_candle(1440 + number % 10)])
            forget_partition(store, PartitionDirs(other, (other.path,)), Selection((BTC,)))
        items = [
            (partition_of(stream_candle(day * 1440)), to_table([stream_candle(day * 1440)])) for day in (1, 2)
        ]
        assert not [each for each in store.merge_many(items) if isinstance(each, Exception)]
    finally:
        stop.set()
        thread.join()
    assert len(rows_by_plain_files(store)) == 2


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), max_size=30))
def test_ranges_are_joined(pairs):
    """Touching ranges are joined, and none is lost."""
    ranges = [(start, start + length) for start, length in pairs]
    joined = limited_ranges(ranges)
    covered = {moment for start, stop in ranges for moment in range(start, stop)}
    assert {moment for start, stop in joined for moment in range(start, stop)} == covered


def test_too_many_ranges_are_joined_where_they_are_near():
    """Beyond the limit, the nearest ranges are joined."""
    starts = np.arange(RANGES_MAX + 1) * 10
    ranges = [(int(start), int(start) + 5) for start in starts]
    ranges[7] = (70, 79)  # 1 before the next
    joined = limited_ranges(ranges)
    assert len(joined) == RANGES_MAX
    assert joined[7] == (70, 85)


def test_an_empty_selection_forgets_nothing(store):
    """Without a series no candle is removed."""
    merge_candles(store, [stream_candle(0)])
    assert forget(store, Selection(())) == []
    assert rows_by_plain_files(store) == [stream_candle(0)]
    assert isinstance(to_table([]), pa.Table)
