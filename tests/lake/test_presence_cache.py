"""The cache of presence gives the answers of a fresh read, whatever happens to the lake or to the cache."""

import json
import logging
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle, to_table
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake import presence_cache
from lakewriter.lake.compact import compact_partitions
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.forget import Selection, forget_partition, partitions_to_forget
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_change, open_to_read
from lakewriter.lake.parquet import ROWS_MAX, Footer, encode
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.presence import Presence, presence_of
from lakewriter.lake.presence_cache import CACHE_NAME, PartitionPresence, PresenceCache
from lakewriter.lake.presence_many import presence_of_many
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import LocalStorage, StoredBytes
from lakewriter.lake.unchanged import SETTLED_S, LocalDevices
from lakewriter.partition import day_of, partition_of
from lakewriter.series import Series
from support.candles import DAY_START_MS, stream_candle
from support.lakes import merge_candles, write_parquet
from support.lengths import either, examples
from support.object_store import Store
from support.running import run

BTC, ETH = (Series("spot", symbol, "1m") for symbol in ("BTCUSDT", "ETHUSDT"))
PARTITION = partition_of(stream_candle())
STOP_MS = DAY_START_MS + 3 * DAY_MS

# Later than any change of these tests by so much that its files are settled.
LATER_S = 2 * SETTLED_S


class CountedReads(LocalStorage):
    """A storage that keeps the names of the files that were read."""

    def __init__(self, root: Path, locks: Path) -> None:
        super().__init__(root, locks)
        self.names: list[str] = []

    def read(self, name: str) -> StoredBytes | None:
        self.names.append(name)
        return super().read(name)

    def taken(self) -> list[str]:
        """Return the names since the last call."""
        names, self.names = self.names, []
        return names


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """A lake whose storage counts its reads, with a whole run and a run with a hole."""
    root = tmp_path / "lake"
    LakeStore.create(str(root), "test")
    counted = LakeStore.local(root, CountedReads(root, root / STATE_DIRECTORY / "locks"))
    merge_candles(counted, [stream_candle(minute) for minute in (0, 1, 2, 1440, 1442)])
    merge_candles(counted, [stream_candle(minute, "ETHUSDT") for minute in (5, 6)])
    reads(counted)
    return counted


def reads(store: LakeStore) -> list[str]:
    """Return the names of the files that were read since the last call."""
    assert isinstance(store.storage, CountedReads)
    return store.storage.taken()


def cache(store: LakeStore, *, later_s: float = LATER_S, is_local: bool = True) -> PresenceCache:
    """Return the lake's cache as it is some seconds later, on a local disk or not."""
    store.keep_presence()
    return PresenceCache(store, lambda _device: is_local, lambda: time.time() + later_s)


def answers(presence: Presence) -> tuple[object, ...]:
    """Return everything that presence says about three days."""
    return (
        presence.first_ms,
        presence.last_ms,
        presence.candles,
        presence.missing(DAY_START_MS, STOP_MS),
        presence.ranges(DAY_START_MS, STOP_MS),
        [presence.count(day_of(DAY_START_MS + day * DAY_MS)) for day in range(3)],
        presence.begins(DAY_START_MS, STOP_MS).tolist(),
        [presence.last_before(DAY_START_MS + day * DAY_MS) for day in range(4)],
    )


def fresh(store: LakeStore, *series: Series) -> dict[Series, object]:
    """Return the answers of a read of every file."""
    return {each: answers(presence_of(store, each)) for each in series}


def cached(
    store: LakeStore, *series: Series, with_cache: PresenceCache | None = None
) -> dict[Series, object]:
    """Return the answers of a run with the cache, which it writes."""
    found = presence_of_many(store, ALL, series, {}, with_cache or cache(store))
    every = {each.series: answers(each) for each in found}
    return {each: every[each] for each in series}


def cache_file(store: LakeStore) -> Path:
    return store.state_dir / STATE_DIRECTORY / CACHE_NAME


def is_on_local_disk(store: LakeStore) -> bool:
    return store.root.stat().st_dev in LocalDevices()


def wait_for_next_tick(directory: Path) -> None:
    """Wait until the file system's clock has another time."""
    probe = directory / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        probe.touch()
    probe.unlink()


def test_an_unchanged_file_is_read_once(store: LakeStore) -> None:
    """The second run opens no file of a partition, and its answers are the same."""
    first = cached(store, BTC, ETH)
    assert len(reads(store)) >= 3
    assert cached(store, BTC, ETH) == first == fresh(store, BTC, ETH)
    reads(store)
    cached(store, BTC, ETH)
    assert reads(store) == []


def test_only_a_changed_file_is_read_again(store: LakeStore) -> None:
    """After a merge the merged partition alone is read, and all is right."""
    cached(store, BTC, ETH)
    merge_candles(store, [stream_candle(1441)])
    reads(store)
    found = cached(store, BTC, ETH)
    assert set(reads(store)) == {partition_of(stream_candle(1441)).file}
    assert found == fresh(store, BTC, ETH)


@pytest.mark.long
def test_coverage_leaves_a_cache(store: LakeStore) -> None:
    """`coverage` of a lake that was not changed for some seconds writes the cache."""
    if not is_on_local_disk(store):
        pytest.skip("no local disk")
    changed_s = max(path.stat().st_ctime for path in store.root.rglob("*"))
    while time.time() - changed_s <= SETTLED_S + 1:
        time.sleep(0.5)
    for _ in range(2):
        assert run("coverage", "--lake", str(store.root), cwd=store.root).returncode == 1
        assert len(cache(store)._old.series) == 2


# A step of the property: a number chooses what happens, the others its day and minute.
STEPS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 40)), min_size=1, max_size=either(8, 14)
)


def rewrite(foreign: Path, minute: int) -> None:
    """Write a file in place, with its size and time; sometimes its bytes are no Parquet then."""
    if foreign.exists():
        status = foreign.stat()
        foreign.write_bytes(foreign.read_bytes()[:: -1 if minute % 3 == 0 else 1])
        os.utime(foreign, ns=(status.st_atime_ns, status.st_mtime_ns))


def forget(store: LakeStore, candle: Candle, minutes: int) -> None:
    selection = Selection((BTC,), candle.begin_ms, candle.begin_ms + minutes * MINUTE_MS)
    for item in partitions_to_forget(store, selection):
        forget_partition(store, item, selection)


def link(directory: Path, target: str) -> None:
    if directory.exists() and not (directory / "link.parquet").is_symlink():
        (directory / "link.parquet").symlink_to(target)


def change(store: LakeStore, kind: int, day: int, minute: int) -> None:
    """Change a lake in one of the ways that lakewriter, other programs and users change it."""
    number = day * 1440 + minute
    candle = stream_candle(number)
    partition = partition_of(candle)
    directory = store.root / partition.path
    foreign = directory / f"part-{minute % 2}.parquet"
    changes: list[Callable[[], object]] = [
        lambda: merge_candles(store, [candle]),
        lambda: merge_candles(store, [stream_candle(day * 1440 + each) for each in range(minute)]),
        lambda: merge_candles(store, [stream_candle(number, "ETHUSDT")]),
        lambda: write_parquet(store.root, partition.path, to_table([candle]), foreign.name),
        lambda: rewrite(foreign, minute),
        lambda: foreign.unlink(missing_ok=True),
        lambda: (store.root / partition.file).unlink(missing_ok=True),
        lambda: shutil.rmtree(directory, ignore_errors=True),
        lambda: list(compact_partitions(store, store.partitions(), time.time())),
        lambda: forget(store, candle, minute),
        lambda: directory.exists() and (directory / "readme.txt").write_text(str(minute)),
        lambda: link(directory, foreign.name if foreign.exists() else partition.file.rpartition("/")[2]),
        lambda: [each.unlink() for each in store.root.rglob("link.parquet")],
    ]
    changes[kind]()


@pytest.mark.slow
@examples(40, 400)
@given(STEPS, st.randoms(use_true_random=False))
def test_like_a_fresh_read(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]], chance: random.Random
) -> None:
    """After each of any changes, a run with the cache answers like a read of every file."""
    root = tmp_path_factory.mktemp("lake")
    store = LakeStore.create(str(root / "lake"), "test")
    for kind, day, minute in steps:
        change(store, kind, day, minute)
        wait_for_next_tick(root)
        if chance.random() < 0.3:
            # A run that asks for less leaves other entries.
            for presence in presence_of_many(store, ALL, (), {}, cache(store)):
                presence.count(day_of(DAY_START_MS))
        for _ in range(2):
            assert cached(store, BTC, ETH) == fresh(store, BTC, ETH)


def test_begin_times_of_any_spacing() -> None:
    """Begin times come back as they were; those of too many spacings are not kept."""
    chance = np.random.default_rng(7)
    for size in (0, 1, 2, 3, 50):
        begins = np.unique(chance.integers(0, 100, size)) * 60_000 + DAY_START_MS
        encoded = presence_cache._encode_begins(begins)
        assert encoded is not None
        assert presence_cache._decode_begins(encoded).tolist() == begins.tolist()
    assert presence_cache._encode_begins(np.cumsum(np.arange(200))) is None
    too_many = [0, *[60_000, ROWS_MAX // 2] * 2]
    for numbers in ([0, 60_000], [0, 60_000, -1], [0, 60_000, 1 << 60], too_many):
        with pytest.raises(ValueError):
            presence_cache._decode_begins(np.array(numbers, np.int64).tobytes())
    with pytest.raises(ValueError):
        presence_cache._decode_begins(b"123")


def test_a_file_that_just_changed_is_not_kept(store: LakeStore) -> None:
    """A second change could have the same times and size, so files of the last seconds are read each time."""
    for _ in range(2):
        cached(store, BTC, with_cache=cache(store, later_s=0))
        assert reads(store) != []
    assert not cache_file(store).exists()


def test_a_clock_that_was_set_back_keeps_nothing(store: LakeStore) -> None:
    """A file from the future is read each time."""
    for _ in range(2):
        cached(store, BTC, with_cache=cache(store, later_s=-86_400))
        assert reads(store) != []
    assert not cache_file(store).exists()


def test_a_file_of_the_same_size_and_time(store: LakeStore) -> None:
    """A replaced file and a rewritten one are read again, even with the old size, time and inode."""
    path = store.root / PARTITION.file
    of_size: dict[int, list[bytes]] = {}
    for minute in range(1, 60):
        data = encode(to_table([stream_candle(0), stream_candle(minute)]), PARTITION)
        of_size.setdefault(len(data), []).append(data)
    one, other = max(of_size.values(), key=len)[:2]
    path.write_bytes(one)
    os.utime(path, (1_000_000, 1_000_000))
    before = path.stat()
    cached(store, BTC)
    wait_for_next_tick(store.root.parent)
    path.write_bytes(other)
    os.utime(path, (1_000_000, 1_000_000))
    after = path.stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino, after.st_size, after.st_mtime_ns,
    )  # fmt: skip
    assert cached(store, BTC) == fresh(store, BTC)


def test_a_copy_of_the_lake_does_not_believe_the_cache(store: LakeStore, tmp_path: Path) -> None:
    """A copy with times and cache is read anew: its file may be another one of the same size and time."""
    cached(store, BTC)
    shutil.copytree(store.root, tmp_path / "copy")
    status = (store.root / PARTITION.file).stat()
    other = LakeStore.local(tmp_path / "copy")
    path = other.root / PARTITION.file
    path.write_bytes(path.read_bytes()[:-12] + b"x" * 12)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(Exception, match="not a readable Parquet file"):
        cached(other, BTC)


def test_a_directory_that_changed_places(store: LakeStore) -> None:
    """Files that another series' directory brings are read, though none of them changed."""
    cached(store, BTC, ETH)
    market = store.root / "market=spot"
    for one, other in (
        ("symbol=BTCUSDT", "x"),
        ("symbol=ETHUSDT", "symbol=BTCUSDT"),
        ("x", "symbol=ETHUSDT"),
    ):
        (market / one).rename(market / other)
    assert cached(store, BTC, ETH) == fresh(store, BTC, ETH)


def test_only_local_disks_count(store: LakeStore) -> None:
    """On another file system nothing is kept, and what a local host kept there is not believed."""
    cached(store, BTC, with_cache=cache(store, is_local=False))
    assert not cache_file(store).exists()
    cached(store, BTC)
    reads(store)
    cached(store, BTC, with_cache=cache(store, is_local=False))
    assert reads(store) != []


def test_a_change_during_the_read_is_not_kept(store: LakeStore) -> None:
    """A file that is replaced between the look at its version and its read makes no entry."""
    held = cache(store).of(BTC, ["2024-06-30"])
    version = held.version("2024-06-30", [PARTITION.path], [PARTITION.file], time.time() + LATER_S)
    assert version
    merge_candles(store, [stream_candle(9)])
    found = PartitionPresence(Footer(3, DAY_START_MS, DAY_START_MS + 2 * MINUTE_MS), None, True)
    held.add("2024-06-30", version, [PARTITION.path], [PARTITION.file], found)
    assert held.entries == {}


def test_a_file_that_was_left_out_warns_each_time(store: LakeStore) -> None:
    """A partition with an unreadable foreign file has no entry, so the next run reads and warns again."""
    (store.root / PARTITION.path / "bad.parquet").write_bytes(b"no")
    for _ in range(2):
        assert cached(store, BTC) == fresh(store, BTC)
        assert f"{PARTITION.path}/bad.parquet" in reads(store)


def test_a_pipe_beside_the_file_is_seen_each_time(store: LakeStore) -> None:
    """A partition with a name that is no regular file has no entry."""
    os.mkfifo(store.root / PARTITION.path / "pipe.parquet")
    for _ in range(2):
        assert cached(store, BTC) == fresh(store, BTC)
        assert PARTITION.file in reads(store)


def damage(kind: str) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)

    def replace_words(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b"lakewriter-presence 1 ", b"lakewriter-presence 2 "))

    def sparse(path: Path) -> None:
        os.truncate(path, presence_cache.CACHE_BYTES_MAX + 1)

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to("/dev/zero")

    return {
        "empty": lambda path: path.write_bytes(b""),
        "torn": lambda path: os.truncate(path, path.stat().st_size - 1),
        "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
        "flipped": flip,
        "another format": replace_words,
        "other content": lambda path: path.write_bytes(b'{"partitions": {}}'),
        "too large": sparse,
        "a pipe": pipe,
        "a device": link,
    }[kind]


DAMAGES = ("empty", "torn", "longer", "flipped", "another format", "other content", "too large", "a pipe", "a device")  # fmt: skip


def test_a_name_with_a_nul_is_a_miss(store: LakeStore) -> None:
    """A cache made by hand may claim a file that no disk can have."""
    cache = presence_cache.PresenceCache(store)
    found = cache.of(BTC, ["2024-06-30"])
    entry = presence_cache._Entry(b"version", ("a\0b.parquet",), None, b"")
    found.entries["2024-06-30"] = entry
    assert found.get("2024-06-30", []) is None


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_cache_is_made_anew(store: LakeStore, kind: str) -> None:
    """A file that is not the cache is ignored, and replaced by one."""
    first = cached(store, BTC, ETH)
    whole = cache_file(store).stat().st_size
    damage(kind)(cache_file(store))
    assert cached(store, BTC, ETH) == first
    assert cache_file(store).is_file() and cache_file(store).stat().st_size == whole
    reads(store)
    assert cached(store, BTC, ETH) == first and reads(store) == []


@pytest.mark.parametrize("change_it", ["writer", "lake", "series"])
def test_a_cache_of_another_version_is_ignored(store: LakeStore, change_it: str) -> None:
    """What another version of lakewriter or another lake wrote is not used, nor are entries of another form."""
    first = cached(store, BTC)
    old = cache(store)._old
    changed = {
        "writer": msgspec.structs.replace(old, writer="0.0.1"),
        "lake": msgspec.structs.replace(old, lake="s3://other"),
        "series": msgspec.structs.replace(
            old, series={key: msgspec.Raw(msgspec.msgpack.encode([1, 2])) for key in old.series}
        ),
    }[change_it]
    write_content(store, changed)
    reads(store)
    assert cached(store, BTC) == first
    assert reads(store) != []


def write_content(store: LakeStore, content: object) -> None:
    """Write a cache with a right checksum."""
    encoded = msgspec.msgpack.encode(content)
    head = b"%b%08x %012d\n" % (presence_cache._MAGIC, presence_cache.zlib.crc32(encoded), len(encoded))
    cache_file(store).write_bytes(head + encoded)


def test_a_lake_that_may_not_be_written(store: LakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Where the cache cannot be written, answers are right, and only the debug log has a line."""
    cache_file(store).mkdir()
    with caplog.at_level(logging.DEBUG, "lakewriter.lake.presence_cache"):
        assert cached(store, BTC, ETH) == fresh(store, BTC, ETH)
    [record] = caplog.records
    assert record.levelno == logging.DEBUG and str(cache_file(store)) in record.getMessage()


def test_other_readers_write_nothing(store: LakeStore) -> None:
    """A survey whose caller did not ask to keep it, such as a query, reads the cache and writes none."""
    reader = LakeStore.local(store.root)
    later = PresenceCache(reader, lambda _device: True, lambda: time.time() + LATER_S)
    assert len([answers(each) for each in presence_of_many(reader, ALL, (BTC, ETH), {}, later)]) == 2
    assert not cache_file(store).exists()
    cached(store, BTC, ETH)
    reads(store)
    store.keeps_presence = False
    later = PresenceCache(store, lambda _device: True, lambda: time.time() + LATER_S)
    assert len([answers(each) for each in presence_of_many(store, ALL, (BTC, ETH), {}, later)]) == 2
    assert reads(store) == []


def test_a_reader_creates_no_directory(store: LakeStore) -> None:
    """A lake without `_lakewriter`, such as a copy, stays without it."""
    shutil.rmtree(store.root / STATE_DIRECTORY)
    assert cached(store, BTC, ETH) == fresh(store, BTC, ETH)
    assert not (store.root / STATE_DIRECTORY).exists()


def test_processes_that_write_at_once(store: LakeStore) -> None:
    """Readers meet one writer's file or the other's, whole, and no temporary file stays."""
    cached(store, BTC, ETH)
    whole = len(cache(store)._old.series)
    stop = threading.Event()

    def write_again() -> None:
        while not stop.is_set():
            writer = cache(store)
            writer._old = msgspec.structs.replace(writer._old, entries=0, series={})
            for each in presence_of_many(store, ALL, (), {}, writer):
                answers(each)

    threads = [threading.Thread(target=write_again) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        found = [len(cache(store)._old.series) for _ in range(100)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(found) == {whole}
    assert [path.name for path in cache_file(store).parent.glob(".*")] == []


def test_entries_of_what_is_gone_are_removed(store: LakeStore) -> None:
    """A run over the whole lake removes the entries of series and partitions that are gone, and no others."""
    cached(store, BTC, ETH)
    shutil.rmtree(store.root / "market=spot" / "symbol=ETHUSDT")
    shutil.rmtree(store.root / PARTITION.path)
    only_btc = PartitionFilter(symbols=("BTCUSDT",))
    list(map(answers, presence_of_many(store, only_btc, (), {}, cache(store))))
    assert sorted(cache(store)._old.series) == ["spot/BTCUSDT/1m", "spot/ETHUSDT/1m"]
    assert list(cache(store).of(BTC, ["2024-06-30", "2024-07-01"]).entries) == ["2024-07-01"]
    cached(store)
    assert sorted(cache(store)._old.series) == ["spot/BTCUSDT/1m"]


def test_few_changes_of_a_large_cache_write_nothing(tmp_path: Path) -> None:
    """One changed partition of many is read again, and does not write the whole cache each time."""
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    merge_candles(store, [stream_candle(1440 * day) for day in range(300)])
    list(map(answers, presence_of_many(store, ALL, (), {}, cache(store))))
    days = [presence.candles for presence in presence_of_many(store, ALL, (), {}, cache(store))]
    assert days == [300]
    before = cache_file(store).stat().st_mtime_ns
    for number in range(4):
        assert cache_file(store).stat().st_mtime_ns == before, number
        merge_candles(store, [stream_candle(1440 * number + 1)])
        [presence] = presence_of_many(store, ALL, (), {}, cache(store))
        assert presence.candles == 301 + number
    for presence in presence_of_many(store, ALL, (), {}, cache(store)):
        assert presence.candles == 304
    assert cache_file(store).stat().st_mtime_ns != before


def test_verify_and_single_series_do_not_believe_the_cache(store: LakeStore) -> None:
    """With a false entry, `coverage` repeats it; `verify`, a merge and the read of one series do not."""
    cached(store, BTC, ETH)
    content = cache(store)._old
    entries = msgspec.msgpack.decode(content.series["spot/ETHUSDT/1m"])
    [day] = entries
    entries[day][2] = [1, DAY_START_MS, DAY_START_MS]
    content.series["spot/ETHUSDT/1m"] = msgspec.Raw(msgspec.msgpack.encode(entries))
    write_content(store, content)
    [believed] = presence_of_many(store, PartitionFilter(symbols=("ETHUSDT",)), (), {}, cache(store))
    assert believed.candles == 1
    assert presence_of(store, ETH).candles == 2
    verified = run("verify", "--lake", str(store.root), "--symbol", "ETHUSDT", cwd=store.root)
    assert re.search(r" candle +2 +0$", verified.stdout, re.MULTILINE)
    if is_on_local_disk(store):
        covered = run("coverage", "--lake", str(store.root), "--symbol", "ETHUSDT", "--json", cwd=store.root)
        assert json.loads(covered.stdout.splitlines()[-1])["totals"]["present"] == 1


@pytest.fixture
def server() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.mark.slow
def test_an_object_is_read_once(server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store an unchanged object is not read again, without a cache of objects; a replaced one is."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "state"))
    root = tmp_path / "lake"
    LakeStore.create(str(root), "test")
    merge_candles(LakeStore.local(root), [stream_candle(minute) for minute in (0, 1, 1440, 1442)])
    uri = server.upload(root, "lake")

    def covered() -> list[int]:
        server.requests.clear()
        store = open_to_read(uri, cache_size=0)
        store.keep_presence()
        return [day.present for day in coverage(store)]

    def candle_reads() -> int:
        return sum(each.verb == "GET" and each.key.endswith("candles.parquet") for each in server.requests)

    assert covered() == [2, 2] and candle_reads() >= 2
    assert covered() == [2, 2] and candle_reads() >= 2  # no command has claimed the state directory
    assert not (tmp_path / "state" / STATE_DIRECTORY / CACHE_NAME).exists()
    changing = open_to_change(uri)
    assert covered() == [2, 2] and candle_reads() >= 2
    assert covered() == [2, 2] and candle_reads() == 0
    changing.merge(partition_of(stream_candle(2)), to_table([stream_candle(2)]))
    assert covered() == [3, 2] and candle_reads() == 1
    assert covered() == [3, 2] and candle_reads() == 0
    sink = pa.BufferOutputStream()
    pq.write_table(to_table([stream_candle(7)]), sink)
    server.put(f"lake/{PARTITION.path}/part.parquet", sink.getvalue().to_pybytes())
    assert covered() == [4, 2] and candle_reads() == 1
