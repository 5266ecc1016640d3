"""Compaction of a lake on an object store whose writers go on."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lakewriter.candle import int_column, to_table
from lakewriter.lake.compact import CompactionResult, compact_partition, planned_compactions
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.open import open_to_change
from lakewriter.lake.partition_filter import PartitionFilter
from support.lakes import add_foreign, make_lake, rest_candle
from support.object_store import Request, Store

pytestmark = pytest.mark.slow

FOREIGN = "part-0000.parquet"


@pytest.fixture
def server() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.fixture
def store(server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeStore:
    """A lake with the own file of one partition, and a foreign file with one more candle."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "state"))
    make_lake(tmp_path / "a", [rest_candle(6)])
    foreign = add_foreign(tmp_path / "a", [rest_candle(7)])
    assert foreign.name == FOREIGN
    return open_to_change(server.upload(tmp_path / "a", "lake"))


def compact_under_a_merge(
    store: LakeStore, server: Store, meanwhile: Callable[[str], object]
) -> CompactionResult:
    """Compact while a recorder merges a candle between the read and the replacement.

    Args:
        meanwhile: is called then, too, with the key of the foreign file.
    """
    [item] = planned_compactions(store, PartitionFilter())
    assert isinstance(item, PartitionDirs)

    def write() -> None:
        store.merge(item.partition, to_table([rest_candle(8)]))
        meanwhile(f"lake/{item.partition.path}/{FOREIGN}")

    with server.before(Request("PUT", f"lake/{item.partition.file}"), write) as waiting:
        result = compact_partition(store, item, time.time())
    assert not waiting and result.error == ""
    return result


def minutes(store: LakeStore) -> list[int]:
    """Return the minutes of the candles in the lake's one file."""
    [found] = store.files()
    assert len(found.names) == 1
    rows = store.read(found.partition)
    assert rows is not None
    begins = int_column(rows, "candle_begin_time")
    return [minute for minute in range(20) if rest_candle(minute).begin_ms in begins]


def test_a_retry_reads_no_foreign_file_again(store: LakeStore, server: Store) -> None:
    """After a conflict a look shows that the foreign file is the same; it is not read again."""
    keys: list[str] = []
    result = compact_under_a_merge(store, server, keys.append)
    assert result.rows == 3 and minutes(store) == [6, 7, 8]
    verbs = Counter(request.verb for request in server.requests if request.key in keys)
    assert verbs == {"GET": 1, "HEAD": 2}  # the second look is before the deletion


def test_a_foreign_file_that_changes_before_a_retry(store: LakeStore, server: Store, tmp_path: Path) -> None:
    """The retry folds in what the file has then."""
    data = add_foreign(tmp_path / "b", [rest_candle(9)]).read_bytes()
    result = compact_under_a_merge(store, server, lambda key: server.put(key, data))
    assert result.rows == 3 and minutes(store) == [6, 8, 9]


def test_a_foreign_file_that_goes_before_a_retry(store: LakeStore, server: Store) -> None:
    """Candles that `forget` has removed meanwhile do not come back."""
    result = compact_under_a_merge(store, server, server.delete)
    assert result.rows == 2 and minutes(store) == [6, 8]


def test_own_file_that_is_newer_than_the_listing(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction that has listed a foreign file alone folds in the own file that was written since."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "state"))
    make_lake(tmp_path / "a")
    add_foreign(tmp_path / "a", [rest_candle(7)])
    store = open_to_change(server.upload(tmp_path / "a", "lake"))
    [item] = planned_compactions(store, PartitionFilter())
    assert isinstance(item, PartitionDirs) and item.versions
    store.merge(item.partition, to_table([rest_candle(8)]))
    result = compact_partition(store, item, time.time())
    assert (result.error, result.rows) == ("", 2)
    assert minutes(store) == [7, 8]
