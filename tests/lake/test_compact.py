"""Compaction folds the files of a partition into one file that has each candle once."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle, deduplicate, to_table
from lakewriter.engines.local import LocalEngine
from lakewriter.interval import DAY_MS
from lakewriter.lake.compact import (
    CHUNK,
    VERIFIED_NAME,
    CompactionResult,
    compact_partition,
    compact_partitions,
    read_verified,
)
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.parquet import encode, leading_padding, written_by_us
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import Partition, partition_of
from support.candles import DAY_START_MS, from_table, possible_candles, settled, stream_candle
from support.compaction import plan_compaction, write_verified
from support.lakes import files_and_bytes, write_foreign
from support.lengths import examples
from support.running import PATIENCE_S

PARTITION = partition_of(stream_candle())
NOW_S = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def compact(
    store: LakeStore, wanted: PartitionFilter = ALL, *, dry_run: bool = False
) -> list[CompactionResult]:
    """Compact like the command, in this process."""
    todo = plan_compaction(store, wanted)
    outcomes = todo.in_order + list(compact_partitions(store, todo.work, NOW_S, dry_run=dry_run))
    if not dry_run:
        write_verified(store, outcomes, everything=wanted == ALL)
    return outcomes


def one(store: LakeStore) -> CompactionResult:
    (outcome,) = compact(store)
    return outcome


def rows_of(store: LakeStore, partition: Partition = PARTITION) -> list[Candle]:
    table = store.read(partition)
    return [] if table is None else from_table(table, partition.market, partition.symbol, partition.interval)


def candle_files(store: LakeStore) -> dict[str, bytes]:
    return {
        name: data
        for name, data in files_and_bytes(store.root).items()
        if not name.startswith(STATE_DIRECTORY)
    }


def assert_in_order(store: LakeStore) -> None:
    """Assert that a second compaction opens nothing and changes nothing."""
    before = candle_files(store)
    todo = plan_compaction(store)
    assert todo.work == []
    assert not any(outcome.rewritten or outcome.error for outcome in todo.in_order)
    assert not any(outcome.rewritten for outcome in compact(store))
    assert candle_files(store) == before


def test_what_we_wrote(store):
    """A partition of our own files stays byte for byte."""
    store.merge(PARTITION, to_table([stream_candle(0), stream_candle(1)]))
    before = candle_files(store)
    outcome = one(store)
    size = len(before[PARTITION.file])
    version = store.storage.version(PARTITION.file)
    assert version is not None
    assert outcome == CompactionResult(
        PARTITION, rows=2, bytes_before=size, bytes_after=size, version=version
    )
    assert candle_files(store) == before
    assert_in_order(store)


def test_foreign_files(store):
    """Foreign files are folded into the own file; of each key the winner is kept."""
    ours = [stream_candle(0, trade_num=5), stream_candle(1, trade_num=5)]
    theirs = [stream_candle(1, trade_num=9), stream_candle(2)]
    archive = [stream_candle(0, trade_num=1, source="archive"), stream_candle(3), stream_candle(3)]
    store.merge(PARTITION, to_table(ours))
    paths = [write_foreign(store, "part-0.parquet", theirs), write_foreign(store, "a.parquet", archive)]
    bytes_before = sum(map(len, candle_files(store).values()))
    outcome = one(store)
    assert outcome.rewritten
    assert outcome.error == ""
    assert (outcome.rows, outcome.duplicates_removed) == (4, 3)
    assert sorted(outcome.files_removed) == sorted(str(path.relative_to(store.root)) for path in paths)
    assert (outcome.bytes_before, outcome.bytes_after) == (
        bytes_before,
        (store.root / PARTITION.file).stat().st_size,
    )
    assert list(candle_files(store)) == [PARTITION.file]
    assert rows_of(store) == [
        stream_candle(0, trade_num=1, source="archive"),
        stream_candle(1, trade_num=9),
        stream_candle(2),
        stream_candle(3),
    ]
    assert_in_order(store)


def test_folding_moves_the_pages(store):
    """After a fold, the old footer does not fit the new file's pages."""
    store.merge(PARTITION, to_table([stream_candle(1)]))
    write_foreign(store, "part-0.parquet", [stream_candle(0)])
    assert one(store).rewritten
    assert leading_padding((store.root / PARTITION.file).read_bytes()) > 0
    assert_in_order(store)


def test_foreign_files_alone(store):
    """Foreign files without an own file become one own file."""
    write_foreign(store, "b.parquet", [stream_candle(1)])
    write_foreign(store, "a.parquet", [stream_candle(0)])
    assert one(store).rewritten
    assert list(candle_files(store)) == [PARTITION.file]
    assert rows_of(store) == [stream_candle(0), stream_candle(1)]
    assert_in_order(store)


@pytest.mark.parametrize("names", [["part-0.parquet"], ["candles.parquet"], ["candles.parquet", "a.parquet"]])
def test_files_without_a_row(store, names):
    """Files without rows are removed, and no own file is made; a dry run reports it."""
    for name in names:
        write_foreign(store, name, [])
    (dry,) = compact(store, dry_run=True)
    outcome = one(store)
    assert dry == outcome
    assert (outcome.rewritten, outcome.rows, outcome.error) == (False, 0, "")
    assert sorted(outcome.files_removed) == sorted(f"{PARTITION.path}/{name}" for name in names)
    assert candle_files(store) == {}
    assert one(store) == CompactionResult(PARTITION)


def test_foreign_columns(store):
    """Foreign files with other columns, types and encodings are folded, too."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    other = to_table([stream_candle(1), stream_candle(2)])
    times = other["candle_begin_time"].cast(pa.timestamp("ns", "UTC"))
    other = other.set_column(0, "candle_begin_time", times).append_column(
        "symbol", pa.array(["btcusdt", "BTC/USDT"])
    )
    other = other.set_column(5, "close", other["close"].cast(pa.float32()))
    other = other.drop_columns(["source", "recv_time", "candle_end_time"])
    write_foreign(store, "part.parquet", other, compression="snappy", version="1.0")
    assert one(store).rows == 3
    table = store.read(PARTITION)
    assert table is not None
    assert table["source"].to_pylist() == ["stream", None, None]
    assert table["close"].to_pylist() == [60_001.125] * 3
    assert_in_order(store)


tables = st.lists(possible_candles(8), min_size=1, max_size=8)


@examples(12, 60)
@given(ours=st.none() | tables, theirs=st.lists(tables, max_size=3))
def test_same_candles(tmp_path_factory, ours, theirs):
    """Any files of a partition become one with the same keys and their winners; a second run changes nothing."""
    store = LakeStore.create(str(tmp_path_factory.mktemp("lake")), "test")
    everything = list(ours or [])
    if ours:
        store.merge(PARTITION, to_table(ours))
    for number, rows in enumerate(theirs):
        # The order of files would decide full ties, and no order is promised.
        rows = [row for row in rows if not any(precedes(row, other) for other in everything)]
        if rows:
            write_foreign(store, f"part-{number}.parquet", rows)
            everything += rows
    compact(store)
    assert rows_of(store) == settled(everything)
    assert set(candle_files(store)) == ({PARTITION.file} if everything else set())
    assert_in_order(store)


def precedes(one: Candle, other: Candle) -> bool:
    return (one.begin_ms, one.source == "archive", one.trade_num, one.recv_us) == (
        other.begin_ms,
        other.source == "archive",
        other.trade_num,
        other.recv_us,
    )


@pytest.mark.parametrize(
    "rows",
    [
        [stream_candle(0), stream_candle(1)],
        [stream_candle(1), stream_candle(0)],
        [stream_candle(0), stream_candle(0, trade_num=1), stream_candle(1)],
    ],
    ids=["sorted", "unsorted", "duplicates"],
)
def test_somebody_elses_file_of_our_name(store, rows):
    """A candles.parquet of another writer is rewritten: sorted, unique, and encoded for storage."""
    write_foreign(store, "candles.parquet", rows)
    outcome = one(store)
    assert outcome.rewritten
    assert outcome.duplicates_removed == len(rows) - 2
    assert outcome.files_removed == ()
    assert rows_of(store) == [stream_candle(0), stream_candle(1)]
    assert written_by_us((store.root / PARTITION.file).read_bytes())
    assert_in_order(store)


@pytest.mark.parametrize(
    "rows",
    [[stream_candle(1), stream_candle(0)], [stream_candle(0), stream_candle(0), stream_candle(1)]],
    ids=["unsorted", "twice"],
)
def test_copied_metadata(store, rows):
    """A file that only claims to be ours is rewritten."""
    metadata = {b"lakewriter.version": b"9", b"lakewriter.rows": str(len(rows)).encode()}
    write_foreign(store, "candles.parquet", to_table(rows).replace_schema_metadata(metadata))
    assert one(store).rewritten
    assert rows_of(store) == [stream_candle(0), stream_candle(1)]
    assert_in_order(store)


def test_skipped_until_a_merge(store):
    """A verified partition is skipped unopened until its file changes."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    other = partition_of(stream_candle(0, symbol="ETHUSDT"))
    store.merge(other, to_table([stream_candle(0)]))
    compact(store)
    assert plan_compaction(store).work == []
    store.merge(PARTITION, to_table([stream_candle(1)]))
    assert [item.partition for item in plan_compaction(store).work] == [PARTITION]
    write_foreign(store, f"{other.path}/part.parquet", [stream_candle(1)])
    assert [item.partition for item in plan_compaction(store).work] == [PARTITION, other]
    compact(store)
    assert_in_order(store)


def test_filtered_runs_remember(store):
    """A run over some partitions keeps the cache entries of the others."""
    for minute in (0, 1440):
        store.merge(partition_of(stream_candle(minute)), to_table([stream_candle(minute)]))
    first, second = (
        PartitionFilter(since=day, until=day) for day in (PARTITION.date, PARTITION.date + timedelta(1))
    )
    assert len(compact(store, first)) == 1
    assert len(compact(store, second)) == 1
    assert plan_compaction(store).work == []
    assert len(read_verified(store)) == 2


def test_forgotten_partitions(store):
    """A run over all partitions drops cache entries of missing ones."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    compact(store)
    (store.root / PARTITION.file).unlink()
    compact(store)
    assert read_verified(store) == {}


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b'{"x":5}', b"\xff", b"[" * 100_000], ids=range(6))
def test_lost_cache(store, data):
    """A lost or damaged cache only costs one more read."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    compact(store)
    (store.root / STATE_DIRECTORY / VERIFIED_NAME).write_bytes(data)
    assert read_verified(store) == {}
    assert not one(store).rewritten
    assert_in_order(store)


def test_lake_without_our_directory(store):
    """A lake without `_lakewriter`, such as a copy, is compacted."""
    write_foreign(store, "part.parquet", [stream_candle(0)])
    for path in sorted((store.root / STATE_DIRECTORY).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (store.root / STATE_DIRECTORY).rmdir()
    reopened = LakeStore.open(str(store.root))
    assert one(reopened).error == ""
    assert rows_of(reopened) == [stream_candle(0)]


def test_rows_of_another_day(store):
    """A file with rows of another day is kept and reported."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    path = write_foreign(
        store, "part.parquet", [stream_candle(1), stream_candle(2, begin_ms=DAY_START_MS + DAY_MS)]
    )
    before = candle_files(store)
    outcome = one(store)
    assert not outcome.rewritten
    assert outcome.error == f"{path}: row 2: day: is a candle of another day than 2024-06-30"
    assert outcome.hint == "it was not changed; repair it, or move it out of the lake, then run again"
    assert candle_files(store) == before
    assert [item.partition for item in plan_compaction(store).work] == [PARTITION]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"torn", b"flipped"])
@pytest.mark.parametrize("name", ["candles.parquet", "part.parquet"])
def test_corrupt_file(store, name, data):
    """An unreadable file is reported and kept; other foreign files are folded if the own file is whole."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    write_foreign(store, "other.parquet", [stream_candle(1)])
    path = store.root / PARTITION.path / name
    if data == b"torn":
        data = encode(to_table([stream_candle(2)]), PARTITION)[:-1]
    if data == b"flipped":
        whole = encode(to_table([stream_candle(2)]), PARTITION)
        data = whole.replace(b"candle_end_time", b"candle_\xe3nd_time")
    path.write_bytes(data)
    before = candle_files(store)
    outcome = one(store)
    assert outcome.error.startswith(f"{path}: not a readable Parquet file of candles: ")
    if name == "candles.parquet":
        assert (outcome.rewritten, outcome.files_removed) == (False, ())
        assert candle_files(store) == before
    else:
        assert (outcome.rewritten, outcome.files_removed) == (True, (f"{PARTITION.path}/other.parquet",))
        assert rows_of(store) == [stream_candle(0), stream_candle(1)]
        assert path.read_bytes() == data


IMPOSSIBLE = {
    "price": {"low": 0.0},
    "volume": {"volume": -1.0},
    "trades": {"trade_num": -1},
    "low": {"low": 60_005.0},
    "high": {"high": 60_000.0},
    "taker": {"taker_buy_base_asset_volume": 13.0},
    "flat": {"trade_num": 0, "volume": 0.0, "quote_volume": 0.0, "taker_buy_base_asset_volume": 0.0,
             "taker_buy_quote_asset_volume": 0.0},
    "quiet": {"trade_num": 0, "open": 60_001.0, "high": 60_001.0, "low": 60_001.0, "close": 60_001.0,
              "quote_volume": 740_748.3456},
    "grid": {"begin_ms": DAY_START_MS + 61_000},
}  # fmt: skip


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_rows_that_cannot_be_candles(store, kind):
    """Each run keeps and reports a foreign file with an impossible row, and folds the others."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    changes = {"volume": 12.3456, **IMPOSSIBLE[kind]}
    path = write_foreign(store, "part-0.parquet", [stream_candle(3), stream_candle(4, **changes)])
    before = path.read_bytes()
    write_foreign(store, "part-1.parquet", [stream_candle(2)])
    (dry,) = compact(store, dry_run=True)
    outcome = one(store)
    assert dry._replace(version="") == outcome
    assert outcome.error.startswith(f"{path}: row 2: {kind}: ")
    assert outcome.files_removed == (f"{PARTITION.path}/part-1.parquet",)
    assert rows_of(store) == [stream_candle(0), stream_candle(2)]
    assert path.read_bytes() == before
    again = one(store)
    assert (again.error, again.rewritten) == (outcome.error, False)
    path.unlink()
    assert one(store).error == ""
    assert_in_order(store)


@pytest.mark.parametrize("changes", [IMPOSSIBLE["price"], IMPOSSIBLE["grid"]], ids=["price", "grid"])
def test_an_impossible_row_in_a_file_of_our_name(store, changes):
    """A foreign candles.parquet with an impossible row leaves its partition unchanged."""
    write_foreign(store, "candles.parquet", [stream_candle(0, **changes)])
    write_foreign(store, "part.parquet", [stream_candle(2)])
    before = candle_files(store)
    outcome = one(store)
    assert outcome.error.startswith(f"{store.root / PARTITION.file}: row 1: ")
    assert candle_files(store) == before


def test_unknown_columns_are_folded(store):
    """Foreign rows with only prices and volume are candles; their end times come from the grid."""
    rows = to_table([stream_candle(0), stream_candle(1)]).select(
        ["candle_begin_time", "open", "high", "low", "close", "volume"]
    )
    write_foreign(store, "part.parquet", rows)
    assert one(store).rewritten
    table = store.read(PARTITION)
    assert table is not None
    assert table["quote_volume"].null_count == table["trade_num"].null_count == 2
    assert table["candle_end_time"].equals(to_table([stream_candle(0), stream_candle(1)])["candle_end_time"])


def test_one_failure_stops_nobody(store):
    """A failed partition is reported; the others are compacted."""
    write_foreign(store, "part.parquet", [stream_candle(1440)])
    other = partition_of(stream_candle(0, symbol="ETHUSDT"))
    write_foreign(store, f"{other.path}/part.parquet", [stream_candle(0)])
    failed, done = compact(store)
    assert (failed.partition, bool(failed.error)) == (PARTITION, True)
    assert (done.partition, done.rewritten, done.error) == (other, True, "")


def test_dry_run(store):
    """A dry run reports its changes, and changes no file, not even the cache."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    write_foreign(store, "part.parquet", [stream_candle(0), stream_candle(1)])
    temporary = write_foreign(store, ".candles.parquet.tmp-1-ab", [stream_candle(5)])
    os.utime(temporary, (0, NOW_S - 7200))
    before = files_and_bytes(store.root)
    (dry,) = compact(store, dry_run=True)
    assert files_and_bytes(store.root) == before
    (wet,) = compact(store)
    assert wet._replace(version="") == dry
    assert dry.rewritten
    assert (dry.rows, dry.duplicates_removed, len(dry.files_removed)) == (2, 1, 2)


def test_temporary_files(store):
    """Old temporary files of crashed writers are removed; new ones may have a writer."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    old = write_foreign(store, ".candles.parquet.tmp-1-ab", [stream_candle(5)])
    young = write_foreign(store, ".candles.parquet.tmp-2-cd", [stream_candle(6)])
    os.utime(old, (0, NOW_S - 3601))
    os.utime(young, (0, NOW_S - 3599))
    outcome = one(store)
    assert outcome.files_removed == (f"{PARTITION.path}/{old.name}",)
    assert not outcome.rewritten
    assert not old.exists()
    assert young.exists()
    assert rows_of(store) == [stream_candle(0)]
    young.unlink()
    compact(store)
    assert_in_order(store)


def test_empty_partition(store):
    """A partition without files gets none."""
    (store.root / PARTITION.path).mkdir(parents=True)
    assert one(store) == CompactionResult(PARTITION)
    assert candle_files(store) == {}


def test_other_peoples_directories(store):
    """Entries outside of partitions are ignored."""
    for name in (
        "notes.parquet",
        "market=spot/x.parquet",
        "market=forex/symbol=A/interval=1m/date=2024-06-30/x.parquet",
    ):
        write_foreign(store, f"./{name}", [stream_candle(0)])
    before = candle_files(store)
    assert compact(store) == []
    assert candle_files(store) == before


def test_percent_encoded(store):
    """A percent-encoded directory is folded into ours; then nothing is left to do."""
    ours = partition_of(stream_candle(0, symbol="龙虾USDT"))
    encoded = ours.path.replace("龙虾", "%E9%BE%99%E8%99%BE")
    write_foreign(store, f"{encoded}/part-0.parquet", [stream_candle(0)])
    store.merge(ours, to_table([stream_candle(1)]))
    assert one(store).rows == 2
    assert rows_of(store, ours) == [stream_candle(0, symbol="龙虾USDT"), stream_candle(1, symbol="龙虾USDT")]
    assert list(candle_files(store)) == [ours.file]
    assert_in_order(store)


def test_percent_encoded_alone(store):
    """A partition with only a percent-encoded directory moves to our path."""
    ours = partition_of(stream_candle(0, symbol="龙虾USDT"))
    write_foreign(
        store, f"{ours.path.replace('龙虾', '%E9%BE%99%E8%99%BE')}/part-0.parquet", [stream_candle(0)]
    )
    assert one(store).rows == 1
    assert list(candle_files(store)) == [ours.file]
    assert rows_of(store, ours) == [stream_candle(0, symbol="龙虾USDT")]


def test_what_spark_leaves(store):
    """Spark's marks and checksums are no candle files, and cause no further compaction."""
    path = write_foreign(store, "part-0.snappy.parquet", [stream_candle(0)])
    marks = ["_SUCCESS", ".part-0.snappy.parquet.crc"]
    for name in marks:
        (path.parent / name).write_bytes(b"")
    assert one(store).rewritten
    assert {name.rpartition("/")[2] for name in candle_files(store)} == {"candles.parquet", *marks}
    assert_in_order(store)


class Dying(LocalStorage):
    """A storage that dies before its first deletion."""

    def delete_unchanged(self, versions: Mapping[str, str]) -> list[str]:
        raise KeyboardInterrupt(versions)


def test_death_before_the_foreign_files_went(store):
    """A death between replacement and removal leaves work for the next run, which changes no candle."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    write_foreign(store, "part.parquet", [stream_candle(0, trade_num=101), stream_candle(1)])
    dying = LakeStore.local(store.root)
    dying.storage = Dying(store.root, store.root / STATE_DIRECTORY / "locks")
    with pytest.raises(KeyboardInterrupt):
        compact(dying)
    assert len(candle_files(store)) == 2
    assert rows_of(store) == [stream_candle(0, trade_num=101), stream_candle(1)]
    assert one(store).duplicates_removed == 2
    assert list(candle_files(store)) == [PARTITION.file]
    assert rows_of(store) == [stream_candle(0, trade_num=101), stream_candle(1)]
    assert_in_order(store)


def test_changed_while_folding(store):
    """A foreign file that vanishes before it is read is no error."""
    path = write_foreign(store, "part.parquet", [stream_candle(0)])
    (item,) = plan_compaction(store).work
    path.unlink()
    assert compact_partition(store, item, NOW_S) == CompactionResult(PARTITION)


def test_directory_gone(store):
    """A partition that vanishes after the plan needs no work."""
    assert compact_partition(store, PartitionDirs(PARTITION, (PARTITION.path,)), NOW_S) == CompactionResult(
        PARTITION
    )


def test_foreign_file_written_again_is_kept(store):
    """A foreign file that changes after it was read is kept for the next run."""

    class Rewriting(LocalStorage):
        """A storage whose foreign file changes right after our file was replaced."""

        def replace(self, name: str, data: bytes, expected: str | None) -> str:
            version = super().replace(name, data, expected)
            write_foreign(store, "part.parquet", [stream_candle(0), stream_candle(7)])
            return version

    write_foreign(store, "part.parquet", [stream_candle(0)])
    store.storage = Rewriting(store.root, store.root / STATE_DIRECTORY / "locks")
    (outcome,) = compact(store)
    assert (outcome.rewritten, outcome.files_removed) == (True, ())
    fresh = LakeStore.local(store.root)
    assert one(fresh).rows == 2
    assert rows_of(fresh) == [stream_candle(0), stream_candle(7)]
    assert_in_order(fresh)


@pytest.mark.parametrize(("interval", "at_once"), [("1m", 3), ("1s", 1)])
def test_partitions_at_once(store, monkeypatch, interval, at_once):
    """A process compacts three small partitions at once, and large ones one by one."""
    partitions = [Partition("spot", "BTCUSDT", interval, date(2024, 1, day)) for day in range(1, 7)]
    work = [PartitionDirs(partition, (partition.path,)) for partition in partitions]
    full = threading.Barrier(at_once)
    threads = set()

    def compacting(_store, item, **_):
        threads.add(threading.get_ident())
        full.wait(PATIENCE_S)
        return item.partition

    monkeypatch.setattr("lakewriter.lake.compact.compact_partition", compacting)
    found = compact_partitions(store, work, NOW_S, engine=LocalEngine("compact", 1))
    assert list(found) == partitions
    assert len(threads) == at_once
    assert (threading.get_ident() in threads) == (at_once == 1)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_several_processes(store, processes):
    """One process or several compact many partitions with the same results, in order."""
    count = 4 * CHUNK + 10
    table = to_table([stream_candle(0), stream_candle(1), stream_candle(1)])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    expected = {}
    for number in range(count):
        partition = partition_of(stream_candle(0, symbol=f"S{number:03d}USDT"))
        path = store.root / partition.path / ("candles.parquet" if number % 2 else "part.parquet")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"torn" if number == 5 else data)
        expected[partition] = number
    outcomes = list(
        compact_partitions(
            store, plan_compaction(store).work, NOW_S, engine=LocalEngine("compact", processes)
        )
    )
    assert [outcome.partition for outcome in outcomes] == list(expected)
    assert len(outcomes) == count
    assert [expected[outcome.partition] for outcome in outcomes if outcome.error] == [5]
    for outcome in outcomes:
        if not outcome.error:
            assert (outcome.rewritten, outcome.rows, outcome.duplicates_removed) == (True, 2, 1)
    write_verified(store, outcomes, everything=True)
    assert [expected[item.partition] for item in plan_compaction(store).work] == [5]
    assert store.read(partition_of(stream_candle(0, symbol="S209USDT"))) == deduplicate(table)


def test_workers_go_with_their_parent(tmp_path):
    """A killed compaction leaves no worker process."""
    code = """
import sys, time
from lakewriter.engines.local import LocalEngine
from lakewriter.lake import compact
from lakewriter.lake.lake import LakeStore
store = LakeStore.open(sys.argv[1])
work = [each for each in compact.planned_compactions(store) if hasattr(each, "directories")] * 1000
if __name__ == "__main__":
    engine = LocalEngine("compact", 2)
    for number, outcome in enumerate(compact.compact_partitions(store, work, time.time(), engine=engine)):
        if number == 50:
            print("working", flush=True)
"""
    program = tmp_path / "program.py"
    program.write_text(code)
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    store.merge(PARTITION, to_table([stream_candle()]))
    with subprocess.Popen(
        [sys.executable, str(program), str(store.root)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout.readline() == "working\n"
        children = [
            int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        ]
        assert len(children) >= 2
        parent.kill()
    deadline = time.monotonic() + PATIENCE_S
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "workers were left behind"
        time.sleep(0.05)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
