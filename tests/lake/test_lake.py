"""The lake: one operation merges rows, and each partition is always sorted, unique and whole."""

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import SCHEMA, VALUE_COLUMNS, Candle, to_table
from lakewriter.errors import LakeError, LakewriterError
from lakewriter.lake.format import FORMAT_VERSION
from lakewriter.lake.lake import (
    BATCH_PARTITIONS_MAX,
    BATCH_ROWS_MAX,
    LakeStore,
    Merged,
    _batches,
)
from lakewriter.lake.parquet import encode, leading_padding
from lakewriter.lake.storage import LocalStorage, Replacement
from lakewriter.partition import Partition, parse_partition, partition_of
from support.candles import candles, from_table, settled, stream_candle
from support.lakes import files_and_bytes
from support.lengths import examples
from support.running import PATIENCE_S

PARTITION = partition_of(stream_candle())


def differs(one: Candle, other: Candle) -> bool:
    """Return whether two duplicates differ in a value, which makes a correction."""
    return any(getattr(one, name) != getattr(other, name) for name in VALUE_COLUMNS)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def rows_of(store: LakeStore, partition: Partition = PARTITION) -> list[Candle]:
    table = store.read(partition)
    return [] if table is None else from_table(table, *msgspec.structs.astuple(partition)[:3])


def test_create_and_open(tmp_path):
    """A lake is created once with its format; opening and creating it again change nothing."""
    uri = str(tmp_path / "deep/er/lake")
    LakeStore.create(uri, "lakewriter 1")
    before = files_and_bytes(tmp_path)
    assert list(before) == ["deep/er/lake/_lakewriter/lake.json"]
    said = json.loads(before["deep/er/lake/_lakewriter/lake.json"])
    assert said == {"format_version": FORMAT_VERSION, "created_by": "lakewriter 1"}
    LakeStore.create(uri, "lakewriter 2")
    assert LakeStore.open(uri).root == tmp_path / "deep/er/lake"
    assert files_and_bytes(tmp_path) == before


def test_missing(tmp_path):
    """Opening an absent lake does not create it."""
    uri = str(tmp_path / "absent")
    with pytest.raises(LakeError) as caught:
        LakeStore.open(uri)
    assert caught.value.what == f"lake: {uri} does not exist"
    assert caught.value.hint == "lakewriter record spot:BTCUSDT:1m makes one"
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "opening", [LakeStore.open, lambda uri: LakeStore.create(uri, "x")], ids=["open", "create"]
)
def test_lake_is_a_file(tmp_path, opening):
    """The error for a file in the lake's place names the file."""
    uri = str(tmp_path / "file")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LakeError) as caught:
        opening(uri)
    assert caught.value.what == f"lake: {uri} is a file, not a directory"
    assert caught.value.hint == "give a directory with --lake"


@pytest.mark.parametrize(
    "opening", [LakeStore.open, lambda uri: LakeStore.create(uri, "x")], ids=["open", "create"]
)
@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b'{"format_version":3}', "lake: ROOT has format 3, newer than 2"),
        (b'{"format_version":99,"new":[1]}', "lake: ROOT has format 99, newer than 2"),
        (b"", "lake: ROOT/_lakewriter/lake.json is not valid: Input data was truncated"),
        (b"[]", "lake: ROOT/_lakewriter/lake.json is not valid: Expected `object`, got `array`"),
    ],
)
def test_other_formats(tmp_path, opening, said, what):
    """A lake of a newer format, or with a foreign lake.json, is refused unchanged."""
    state = tmp_path / "_lakewriter"
    state.mkdir()
    (state / "lake.json").write_bytes(said)
    with pytest.raises(LakeError) as caught:
        opening(str(tmp_path))
    assert caught.value.what == what.replace("ROOT", str(tmp_path))
    if "newer" in what:
        assert caught.value.hint == "pip install --upgrade lakewriter"
    assert files_and_bytes(tmp_path) == {"_lakewriter/lake.json": said}


@pytest.mark.parametrize(
    "opening", [LakeStore.open, lambda uri: LakeStore.create(uri, "x")], ids=["open", "create"]
)
@pytest.mark.parametrize(
    "uri", ["~no-such-user/lake", "nul\0", "/tmp/" + "x" * 300, "/dev/null/lake", "/proc/lake"]
)
def test_impossible_places(opening, uri):
    """A place that cannot be a lake is a LakeError."""
    with pytest.raises(LakewriterError, match=r"^lake: "):
        opening(uri)


@pytest.mark.parametrize(
    "opening", [LakeStore.open, lambda uri: LakeStore.create(uri, "x")], ids=["open", "create"]
)
def test_object_store(opening):
    """An object store is refused, and not taken for a directory."""
    with pytest.raises(
        LakewriterError, match=r"^lake: s3://bucket/lake: this command needs a lake on a disk so far(\n|$)"
    ):
        opening("s3://bucket/lake")


def test_merge_and_read(store):
    """Merged rows are read back sorted, and the partition has one file."""
    rows = [stream_candle(minute) for minute in (2, 0, 1)]
    assert store.read(PARTITION) is None
    assert store.merge(PARTITION, to_table(rows)) == Merged(3, 3, 0, 0, written=True)
    assert rows_of(store) == settled(rows)
    assert [path.name for path in (store.root / PARTITION.path).iterdir()] == ["candles.parquet"]


def test_merge_counts(store):
    """A merge counts added, replaced and corrected rows."""

    def merge(*rows: Candle) -> Merged:
        return store.merge(PARTITION, to_table(rows))

    old = stream_candle(0, recv_us=5)
    assert merge(old, old) == Merged(1, 1, 0, 0, written=True)
    assert merge(old) == Merged(1, 0, 0, 0, written=False)
    assert merge(stream_candle(0, recv_us=4, close=1.0)) == Merged(1, 0, 0, 0, written=False, disputed=1)
    assert merge(stream_candle(0, recv_us=6)) == Merged(1, 0, 1, 0, written=True)
    assert merge(stream_candle(0, recv_us=7, close=1.0)) == Merged(1, 0, 1, 1, written=True)
    assert merge(stream_candle(0, trade_num=101), stream_candle(1)) == Merged(2, 1, 1, 1, written=True)
    assert merge(stream_candle(2), stream_candle(0, trade_num=1)) == Merged(
        3, 1, 0, 0, written=True, disputed=1
    )
    assert merge(stream_candle(0, source="archive", trade_num=1)) == Merged(3, 0, 1, 1, written=True)
    assert merge(stream_candle(0, source="stream", trade_num=999)) == Merged(
        3, 0, 0, 0, written=False, disputed=1
    )


def test_merge_that_changes_nothing(store):
    """A merge without new rows leaves the file unchanged."""
    store.merge(PARTITION, to_table([stream_candle(0), stream_candle(1)]))
    version = store.storage.version(PARTITION.file)
    assert not store.merge(PARTITION, to_table([stream_candle(1)])).written
    assert not store.merge(PARTITION, SCHEMA.empty_table()).written
    assert store.storage.version(PARTITION.file) == version


def test_rows_that_follow_the_old_ones(store):
    """Appended rows are counted and kept as any others, also behind duplicates and between old rows."""

    def merge(*rows: Candle) -> Merged:
        return store.merge(PARTITION, to_table(rows))

    first, second, third = (stream_candle(minute) for minute in (0, 1, 2))
    assert merge(first, second) == Merged(2, 2, 0, 0, written=True)
    assert merge(third) == Merged(3, 1, 0, 0, written=True)
    assert merge(stream_candle(4), stream_candle(3)) == Merged(5, 2, 0, 0, written=True)
    assert merge(stream_candle(5), stream_candle(5, trade_num=999)) == Merged(
        6, 1, 0, 0, written=True, disputed=0
    )
    assert merge(stream_candle(4), stream_candle(6)) == Merged(7, 1, 0, 0, written=True)
    assert [row["trade_num"] for row in store.read(PARTITION).to_pylist()][5] == 999
    assert [candle.begin_ms for candle in rows_of(store)] == [stream_candle(at).begin_ms for at in range(7)]
    unsorted = to_table([second, first, first])
    (store.root / PARTITION.file).write_bytes(encode(unsorted, PARTITION))
    assert merge(third) == Merged(3, 1, 0, 0, written=True)
    assert rows_of(store) == settled([first, second, third])


def test_merge_moves_the_pages(store):
    """After a merge, the old footer does not fit the new file's pages."""
    shifts = []
    for minute in reversed(range(20)):
        store.merge_many([(PARTITION, to_table([stream_candle(minute)]))])
        shifts.append(leading_padding((store.root / PARTITION.file).read_bytes()))
    assert shifts[0] == 0
    assert all(one != other for one, other in itertools.pairwise(shifts))


def test_merge_of_nothing(store):
    """A merge of no rows creates no partition."""
    store.merge(PARTITION, SCHEMA.empty_table())
    assert list(store.files()) == []


@examples(12, 60)
@given(merges=st.lists(st.lists(candles(6), min_size=1, max_size=8), max_size=6))
def test_merges_are_a_dict(tmp_path_factory, merges):
    """Any sequence of merges leaves the rows of a dict by begin time, and counts its changes."""
    store = LakeStore.create(str(tmp_path_factory.mktemp("lake")), "test")
    model: dict[int, Candle] = {}
    for rows in merges:
        before = dict(model)
        model = {row.begin_ms: row for row in settled([*model.values(), *rows])}
        merged = store.merge(PARTITION, to_table(rows))
        replaced = [key for key in before if model[key] != before[key]]
        corrected = [key for key in replaced if differs(model[key], before[key])]
        disputed = sum(differs(model[row.begin_ms], row) for row in settled(rows))
        added = len(model) - len(before)
        assert merged == Merged(len(model), added, len(replaced), len(corrected), model != before, disputed)
        assert rows_of(store) == list(model.values())
        assert store.merge(PARTITION, to_table(rows)) == Merged(len(model), 0, 0, 0, False, disputed)


@pytest.mark.parametrize("minute", [-1, 1440, 10**7])
def test_rows_of_another_day(store, minute):
    """A row of another day refuses the whole merge."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    before = files_and_bytes(store.root)
    with pytest.raises(LakeError) as caught:
        store.merge(PARTITION, to_table([stream_candle(1), stream_candle(minute)]))
    assert caught.value.what == "spot BTCUSDT 1m 2024-06-30: 1 of its rows begin on another day"
    assert caught.value.hint == f"nothing was changed; look at {PARTITION.path}"
    assert files_and_bytes(store.root) == before


@pytest.mark.parametrize(
    "wrong",
    [
        Partition("spot", "../../x", "1m", PARTITION.date),
        Partition("..", "BTCUSDT", "1m", PARTITION.date),
        Partition("spot", "BTCUSDT", "../1m", PARTITION.date),
    ],
)
def test_nothing_outside_the_lake(store, wrong):
    """A partition whose path could leave the lake is refused before any write."""
    before = files_and_bytes(store.root.parent)
    with pytest.raises(LakeError, match=r"^partition: "):
        store.merge(wrong, to_table([stream_candle(0)]))
    assert files_and_bytes(store.root.parent) == before


@pytest.mark.parametrize("data", [b"", b"PAR1", b"nonsense" * 100, "torn"])
def test_corrupt_file(store, data):
    """A partition with an unreadable file is unchanged, and named in the error."""
    store.merge(PARTITION, to_table([stream_candle(0)]))
    path = store.root / PARTITION.file
    path.write_bytes(path.read_bytes()[:-5] if data == "torn" else data)
    before = files_and_bytes(store.root)
    for work in (lambda: store.merge(PARTITION, to_table([stream_candle(1)])), lambda: store.read(PARTITION)):
        with pytest.raises(LakeError) as caught:
            work()
        assert caught.value.what.startswith(f"{path}: not a readable Parquet file of candles: ")
        assert files_and_bytes(store.root) == before


def test_merge_into_a_foreign_file(store):
    """The next merge repairs an unsorted foreign candles.parquet with duplicates."""
    rows = [stream_candle(3), stream_candle(1, trade_num=1), stream_candle(1, trade_num=2)]
    path = store.root / PARTITION.file
    path.parent.mkdir(parents=True)
    pq.write_table(to_table(rows).drop_columns(["source", "recv_time"]), path)
    assert store.merge(PARTITION, to_table([stream_candle(2)])) == Merged(3, 1, 0, 0, written=True)
    table = store.read(PARTITION)
    assert table is not None
    assert table["trade_num"].to_pylist() == [2, 100, 100]


class Unlocked(LocalStorage):
    """A storage without locks, like an object store."""

    def exclusive(self, *directories: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Changing(Unlocked):
    """A storage whose files change during each of the first merges."""

    changes = 3

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        if self.changes:
            self.changes -= 1
            other = LakeStore.local(self.root)
            other.storage = Unlocked(self.root, self._locks)
            other.merge(PARTITION, to_table([stream_candle(10 + self.changes)]))
        return super().replace(name, data, expected)


def test_changed_meanwhile(store):
    """A merge retries after a change by a writer without locks, and no row is lost."""
    store.storage = Changing(store.root, store.root / "_lakewriter/locks")
    store.merge(PARTITION, to_table([stream_candle(0)]))
    assert rows_of(store) == [stream_candle(0), stream_candle(10), stream_candle(11), stream_candle(12)]


class Overtaken(Unlocked):
    """A storage in which another writer changes each file of a batch before its rename."""

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:
        other = LakeStore.local(self.root)
        for each in replacements[::2]:
            partition = parse_partition(each.name.rpartition("/")[0])
            other.merge(partition, to_table([stream_candle(77, symbol=partition.symbol)]))
        return super().replace_all(replacements)


def many(*minutes: int, symbols: int = 5) -> list[tuple[Partition, pa.Table]]:
    """Return the same minutes of several symbols."""
    names = [f"S{number}USDT" for number in range(symbols)]
    return [
        (
            partition_of(stream_candle(0, symbol=name)),
            to_table(stream_candle(minute, symbol=name) for minute in minutes),
        )
        for name in names
    ]


def test_merge_many_is_many_merges(store, tmp_path):
    """`merge_many` leaves the same rows and returns the same results as single merges."""
    other = LakeStore.create(str(tmp_path / "other"), "test")
    for minutes in ((3, 1), (1, 2, 3), (2,), ()):
        items = many(*minutes)
        done = store.merge_many(items)
        assert done == [other.merge(partition, rows) for partition, rows in items]
        for partition, _ in items:
            assert (store.root / partition.file).read_bytes() == (other.root / partition.file).read_bytes()


def test_merge_many_in_batches(store):
    """Any number of partitions is merged, in batches."""
    items = many(0, symbols=2 * BATCH_PARTITIONS_MAX + 1)
    assert [each.added for each in store.merge_many(items)] == [1] * len(items)
    assert len(list(store.files())) == len(items)


def test_merge_many_of_many_rows(store):
    """The rows of a batch are limited, but one larger partition is merged, too."""
    partition, rows = many(*range(1440), symbols=1)[0]
    large = pa.concat_tables([rows] * (BATCH_ROWS_MAX // 1440 + 1))
    items = [(partition, large), *many(5, symbols=3)[1:]]
    assert [len(batch) for batch in _batches(items)] == [1, 2]
    assert [len(batch) for batch in _batches([*items[1:], items[0]])] == [2, 1]
    assert [each.rows for each in store.merge_many(items)] == [1440, 1, 1]


def test_merge_many_of_nothing(store):
    """An empty list of merges changes nothing."""
    assert store.merge_many([]) == []


def test_merge_many_overtaken(store):
    """Partitions that writers without locks changed are merged again, and no row is lost."""
    store.storage = Overtaken(store.root, store.root / "_lakewriter/locks")
    done = store.merge_many(many(1, 2))
    assert [each.rows for each in done] == [3, 2, 3, 2, 3]


def test_merge_many_gives_each_partition_its_own_error(store):
    """Rows of another day, an invalid name or a torn file fail alone; the others are merged."""
    *items, torn = many(0)
    path = store.root / torn[0].file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"torn")
    wrong = [
        (Partition("spot", "BTCUSDT", "1m", date(1999, 1, 1)), to_table([stream_candle(0)])),
        (Partition("spot", "../x", "1m", PARTITION.date), to_table([stream_candle(0)])),
        torn,
    ]
    done = store.merge_many([*wrong, *items])
    assert [str(error).partition(":")[0] if isinstance(error, LakeError) else error for error in done[:3]] == [
        "spot BTCUSDT 1m 1999-01-01", "partition", str(path).partition(":")[0],
    ]  # fmt: skip
    assert [each.added for each in done[3:]] == [1] * len(items)
    for partition, rows in items:
        assert store.read(partition).equals(rows)
    assert [partition for partition, *_ in store.files()] == sorted(
        partition for partition, _ in (*items, torn)
    )
    assert path.read_bytes() == b"torn"


def test_merges_from_threads(store):
    """Concurrent merges of several threads into one partition lose no row."""

    def work(first: int) -> None:
        own = LakeStore.local(store.root)
        for minute in range(first, 100, 4):
            own.merge(PARTITION, to_table([stream_candle(minute), stream_candle(minute // 2)]))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, first) for first in range(4)]:
            done.result()
    assert rows_of(store) == [stream_candle(minute) for minute in range(100)]


WRITER = """
import sys
import msgspec
from lakewriter.candle import Candle, to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
store = LakeStore.create(sys.argv[1], "child")
print("ready", flush=True)
for row in msgspec.json.decode(sys.stdin.readline(), type=list[Candle]):
    store.merge(partition_of(row), to_table([row]))
"""


@pytest.mark.slow
def test_merges_from_processes(store):
    """Concurrent merges of several processes into one partition lose no row."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for number, writer in enumerate(writers):
        assert writer.stdin is not None
        rows = [stream_candle(minute) for minute in range(number, 90, 3)]
        print(msgspec.json.encode(rows).decode(), file=writer.stdin, flush=True)
    for writer in writers:
        writer.communicate(timeout=PATIENCE_S)
        assert writer.returncode == 0
    assert rows_of(store) == [stream_candle(minute) for minute in range(90)]
    assert [path.name for path in (store.root / PARTITION.path).iterdir()] == ["candles.parquet"]
