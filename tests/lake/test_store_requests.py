"""The number of requests that a flush, a compaction and a publication send to an object store.

Stores charge for each request, so each number is exact.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from lakewriter.candle import to_table
from lakewriter.lake.lake import LakeStore, Merged
from lakewriter.lake.open import create_lake
from lakewriter.lake.prefetch import PENDING_MAX
from lakewriter.partition import Partition
from support.lakes import rest_candle
from support.object_store import Request, Store

DAY = date(2024, 6, 30)
PARTITIONS = 12


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
    """Candles that are in the lake take a GET for each partition, as of a second recorder."""
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
