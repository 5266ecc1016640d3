"""The number of requests that a flush, a compaction and a publication send to an object store.

Stores charge for each request, so each number is exact.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lakewriter.candle import to_table
from lakewriter.cli import cli
from lakewriter.cli.runs import compact as compact_run
from lakewriter.cli.runs.compact import AWAY_MAX
from lakewriter.errors import LakewriterError
from lakewriter.lake.compact import STORE_COMPACTIONS_MAX, CompactionResult, compact_partitions
from lakewriter.lake.lake import LakeStore, Merged
from lakewriter.lake.open import create_lake, open_to_read
from lakewriter.lake.prefetch import PENDING_MAX
from lakewriter.lake.published import publish
from lakewriter.market import MARKETS
from lakewriter.partition import Partition
from support.compaction import plan_compaction, write_verified
from support.lakes import rest_candle
from support.object_store import Request, Store, refusal

DAY = date(2024, 6, 30)
PARTITIONS = 12
NOW_S = 2_000_000_000.0


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.fixture
def lake(
    server: Store, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LakeStore:
    """A lake of a recorder that has merged one candle."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path))
    store = create_lake(server.uri(request.node.name), "test")
    store.merge(Partition("spot", "FIRSTUSDT", "1m", DAY), to_table([rest_candle(0)]))
    server.requests.clear()
    return store


def items(*minutes: int, partitions: int = PARTITIONS) -> list[tuple[Partition, pa.Table]]:
    rows = to_table([rest_candle(minute) for minute in minutes])
    return [(Partition("spot", f"S{number}USDT", "1m", DAY), rows) for number in range(partitions)]


def merge(lake: LakeStore, *minutes: int, partitions: int = PARTITIONS) -> None:
    for result in lake.merge_many(items(*minutes, partitions=partitions)):
        assert isinstance(result, Merged), result


def counted(server: Store) -> Counter[str]:
    """Return the requests since the last call."""
    found = server.counted()
    server.requests.clear()
    return found


def test_flush_of_a_new_day(lake: LakeStore, server: Store) -> None:
    """The first candles of a day take one PUT for each partition."""
    merge(lake, 0, 1)
    assert counted(server) == {"PUT": PARTITIONS}


def test_flush_within_a_day(lake: LakeStore, server: Store) -> None:
    """Later candles take a GET and a PUT for each partition, whatever is there."""
    merge(lake, 5)
    assert counted(server) == {"GET": PARTITIONS, "PUT": PARTITIONS}
    merge(lake, 6, 7)
    assert counted(server) == {"GET": PARTITIONS, "PUT": PARTITIONS}


def test_flush_of_known_candles(lake: LakeStore, server: Store) -> None:
    """Candles that are in the lake take a GET for each partition, and no PUT."""
    merge(lake, 5, 6)
    counted(server)
    merge(lake, 6)
    assert counted(server) == {"GET": PARTITIONS}


def test_new_day_that_another_recorder_began(lake: LakeStore, server: Store) -> None:
    """A day that is not new costs one PUT in vain and a look; no candle of the other is lost."""
    merge(lake, 0, 1, 2)
    counted(server)
    merge(lake, 0, 3)
    assert counted(server) == {"PUT": 2 * PARTITIONS, "GET": 2 * PARTITIONS}
    for partition, _ in items():
        assert lake.read(partition) == to_table([rest_candle(minute) for minute in range(4)])


def test_several_parts_of_a_partition(lake: LakeStore, server: Store) -> None:
    """Rows of one partition in several parts take one GET and one PUT, and have a result each."""
    parts = [*items(3, partitions=1), *items(3, 4, partitions=1), *items(4, partitions=1)]
    results = lake.merge_many(parts)
    assert [each.added for each in results if isinstance(each, Merged)] == [1, 1, 0]
    assert counted(server) == {"GET": 1, "PUT": 1}


def test_error_of_one_part(lake: LakeStore) -> None:
    """A part with rows of another day fails alone."""
    wrong = to_table([rest_candle(5000)])
    good = items(3, 4, partitions=2)
    first, *others = lake.merge_many([(good[0][0], wrong), *good])
    assert isinstance(first, Exception) and "another day" in str(first)
    assert [each.added for each in others if isinstance(each, Merged)] == [2, 2]


def test_requests_at_once(lake: LakeStore, server: Store) -> None:
    """Several threads together have no more requests pending than the limit, and reach it."""
    pending: list[int] = [0]
    most: list[int] = [0]
    lock, full = threading.Lock(), threading.Event()

    def wait(request: Request) -> None:
        if request.verb != "GET":
            return
        with lock:
            pending[0] += 1
            most[0] = max(most[0], pending[0])
            if pending[0] == PENDING_MAX:
                full.set()
        full.wait(10)
        with lock:
            pending[0] -= 1

    names = [f"none-{number}" for number in range(2 * PENDING_MAX)]
    with server.misbehaving(wait):
        threads = [
            threading.Thread(target=lambda: list(lake.storage.in_parallel(lake.storage.read, names)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert full.is_set() and most[0] == PENDING_MAX


def compact(lake: LakeStore) -> list[CompactionResult]:
    """Compact the lake as the command does."""
    todo = plan_compaction(lake)
    done = [*todo.in_order, *compact_partitions(lake, todo.work, NOW_S)]
    write_verified(lake, done, everything=True)
    assert not [each.error for each in done if each.error]
    return done


def test_odd_key_beside_the_intervals(lake: LakeStore, server: Store) -> None:
    """A key that is no path hides no series, if it is below none."""
    merge(lake, 5)
    before = list(lake.partitions())
    partition = before[0].partition
    server.put(
        f"test_odd_key_beside_the_intervals/market={partition.market}/symbol={partition.symbol}/raw//x", b""
    )
    assert list(lake.partitions()) == before


def test_compaction_while_the_store_is_away(
    lake: LakeStore, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that finds the store away for many partitions in a row stops, with one line."""
    merge(lake, 5, partitions=AWAY_MAX + STORE_COMPACTIONS_MAX + 20)
    counted(server)
    away = refusal("503 Service Unavailable", "ServiceUnavailable", "Come back.")
    with server.misbehaving(lambda request: away if request.key.endswith(".parquet") else None):
        uri = server.uri("test_compaction_while_the_store_is_away")
        # It may be back in a moment: the others are tried for a while.
        brief = CliRunner().invoke(cli, ["compact", "--lake", uri])
        assert str(brief.exception).startswith("compact: files of ")
        monkeypatch.setattr(compact_run, "AWAY_S", 0.0)
        server.requests.clear()
        done = CliRunner().invoke(cli, ["compact", "--lake", uri])
    assert isinstance(done.exception, LakewriterError)
    what = done.exception.what
    assert what.startswith(f"compact: {AWAY_MAX} partitions in a row failed: lake: s3://bucket/")
    assert what.endswith("/candles.parquet: Come back")
    assert (done.exception.exit_code, done.stdout, done.exception.hint) == (1, "", "run it again")
    asked = {request.key for request in server.requests if request.verb == "GET"}
    assert len([key for key in asked if key.endswith(".parquet")]) < AWAY_MAX + 2 * STORE_COMPACTIONS_MAX + 1
    assert len(compact(lake)) == AWAY_MAX + STORE_COMPACTIONS_MAX + 20 + 1


# A listing of each market, and of each symbol of the one that has some.
LISTINGS = len(MARKETS) + PARTITIONS + 1


def test_compaction(lake: LakeStore, server: Store) -> None:
    """The first compaction reads each partition once; a later one reads only what changed."""
    merge(lake, 5)
    counted(server)
    assert len(compact(lake)) == PARTITIONS + 1
    assert counted(server) == {"LIST": LISTINGS, "GET": PARTITIONS + 1}
    assert len(compact(lake)) == PARTITIONS + 1
    assert counted(server) == {"LIST": LISTINGS}
    merge(lake, 6, partitions=3)
    counted(server)
    assert len(compact(lake)) == PARTITIONS + 1
    assert counted(server) == {"LIST": LISTINGS, "GET": 3}


def test_compaction_sees_foreign_files(lake: LakeStore, server: Store) -> None:
    """A file that another program adds to a verified partition is read, folded and deleted."""
    merge(lake, 5, partitions=1)
    compact(lake)
    (partition, rows), *_ = items(6, partitions=1)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    foreign = f"{partition.path}/of-spark.parquet"
    server.put(f"test_compaction_sees_foreign_files/{foreign}", sink.getvalue().to_pybytes())
    counted(server)
    assert [each.files_removed for each in compact(lake) if each.rewritten] == [(foreign,)]
    # The own and the foreign file are read. The foreign one is looked at before its deletion, a POST.
    found = counted(server)
    assert found.pop("LIST") == len(MARKETS) + 2
    assert found == {"GET": 2, "PUT": 1, "HEAD": 1, "POST": 1}
    assert lake.read(partition) == to_table([rest_candle(5), rest_candle(6)])


def test_publication(lake: LakeStore, server: Store) -> None:
    """A publication asks the store only if a ledger changed: one look and one PUT for each."""
    publish(lake)
    server.requests.clear()
    assert publish(lake) == 0
    assert counted(server) == {}
    ledger = lake.state_dir / "_lakewriter/gaps/a.ndjson"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    for line in ("one\n", "two\n"):
        with ledger.open("a") as file:
            file.write(line)
        assert publish(lake) == 1
        assert counted(server) == {"HEAD": 1, "PUT": 1}
        assert publish(lake) == 0
        assert counted(server) == {}


def test_opening(lake: LakeStore, server: Store) -> None:
    """A recorder's start takes a listing, two reads of lake.json, and a probe with its first merge."""
    uri = server.uri("test_opening")
    again = create_lake(uri, "test")
    assert counted(server) == {"LIST": 1, "GET": 2}
    again.merge_many(items(0, partitions=1))
    # Three reads are of the format and of the probe's key after each write that must fail.
    assert counted(server) == {"PUT": 4 + 1, "GET": 2 + 1, "POST": 1}
    open_to_read(uri)
    assert counted(server) == {"LIST": 1, "GET": 1}


def test_coverage(lake: LakeStore, server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage lists the ledgers and the lake, and reads each file once: later it is in the cache."""
    monkeypatch.setenv("LAKEWRITER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LAKEWRITER_CACHE_SIZE", "1GB")
    merge(lake, 5)
    counted(server)
    for files in (PARTITIONS + 1, 0):
        CliRunner().invoke(cli, ["coverage", "--lake", server.uri("test_coverage")])
        # The lake is opened by one LIST and one GET. Five more directories have records of recorders.
        assert counted(server) == {"LIST": 1 + 5 + LISTINGS, "GET": 1 + files}
