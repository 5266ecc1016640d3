"""Forgetting and compaction on an object store lose no candle that another host merges meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.candle import SCHEMA, Candle, to_table
from lakewriter.lake.compact import compact_partitions
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.forget import ForgetResult, Selection, forget_partition, partitions_to_forget
from lakewriter.lake.listing import EMPTY_BYTES_MAX
from lakewriter.lake.open import open_to_read
from lakewriter.lake.parquet import encode_next
from lakewriter.partition import partition_of
from lakewriter.query.session import run
from lakewriter.series import Series
from support.compaction import plan_compaction
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.object_store import Request, Store

pytestmark = pytest.mark.slow

BTC = Series("spot", "BTCUSDT", "1m")
PARTITION = partition_of(rest_candle(0))
STREAMED = rest_candle(3, source="stream", event_ms=BEGIN_MS)
REST = Selection((BTC,), sources=("rest",))


@pytest.fixture
def server() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.fixture
def uri(server: Store, tmp_path: Path) -> str:
    """A lake of three fetched minutes."""
    make_lake(tmp_path / "lake", [rest_candle(number) for number in range(3)])
    return server.upload(tmp_path / "lake", "lake")


def forget(uri: str, selection: Selection) -> list[ForgetResult]:
    store = open_to_read(uri)
    return [forget_partition(store, item, selection) for item in partitions_to_forget(store, selection)]


def compact(uri: str) -> list[str]:
    store = open_to_read(uri)
    work = plan_compaction(store).work
    return [outcome.error for outcome in compact_partitions(store, work, BEGIN_MS / 1000)]


class OtherHost:
    """A recorder on another host, which merges a candle after the partition is read, right before it is changed."""

    def __init__(self, uri: str) -> None:
        self._lake = open_to_read(uri)
        self._is_read = self.has_merged = False

    def __call__(self, request: Request) -> None:
        key = f"lake/{PARTITION.file}"
        self._is_read |= request == Request("GET", key)
        # The client deletes by a POST, which names the keys in its body.
        changes = request == Request("PUT", key) or request.verb == "POST"
        if self._is_read and changes and not self.has_merged:
            self.has_merged = True
            assert self._lake.merge(PARTITION, to_table([STREAMED])).added == 1


def begins(uri: str) -> list[int]:
    table = open_to_read(uri).read(PARTITION)
    return [] if table is None else table["candle_begin_time"].cast("int64").to_pylist()


def test_a_candle_merged_meanwhile_stays(server: Store, uri: str) -> None:
    """All rows are selected when the file is read; a row that is not selected comes before it is replaced."""
    other_host = OtherHost(uri)
    with server.misbehaving(other_host):
        (outcome,) = forget(uri, REST)
    assert other_host.has_merged
    assert (outcome.candles, outcome.error) == (3, "")
    assert begins(uri) == [STREAMED.begin_ms]


def test_compaction_keeps_what_is_merged_meanwhile(server: Store, uri: str) -> None:
    """A compaction does not delete the file without rows that a candle is merged into."""
    writer = open_to_read(uri)
    found = writer.storage.read(PARTITION.file)
    assert found is not None
    empty = encode_next(SCHEMA.empty_table(), PARTITION, found.data)
    writer.storage.replace(PARTITION.file, empty, found.version)
    other_host = OtherHost(uri)
    with server.misbehaving(other_host):
        assert compact(uri) == [""]
    assert begins(uri) == ([STREAMED.begin_ms] if other_host.has_merged else [])


def test_a_file_without_rows_is_as_none(server: Store, uri: str) -> None:
    """After forgetting all rows of the newest day, answers are as if it was not there; compaction changes nothing."""
    writer = open_to_read(uri)
    later = [rest_candle(1440), rest_candle(1441)]
    writer.merge(partition_of(later[0]), to_table(later))
    (outcome,) = forget(uri, Selection((BTC,), later[0].begin_ms, later[1].end_ms))
    assert (outcome.candles, outcome.removed) == (2, False)
    for _ in range(2):
        assert run(open_to_read(uri), "SELECT close FROM latest()").to_pylist() == [{"close": 103.0}]
        assert run(open_to_read(uri), 'SELECT max("date")::VARCHAR AS day FROM candles').to_pylist() == [
            {"day": PARTITION.date.isoformat()}
        ]
        assert [(day.date, day.present) for day in coverage(open_to_read(uri))] == [(PARTITION.date, 3)]
        assert compact(uri) == ["", ""]
    assert forget(uri, Selection((BTC,)))[1].removed
    assert list(open_to_read(uri).files()) == []


def test_a_copy_on_a_disk_looks_behind_it(tmp_path: Path) -> None:
    """A lake that was copied from a store has files without rows, too; they hide no series."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(1440)])
    later = partition_of(rest_candle(1440))
    (tmp_path / later.file).write_bytes(encode_next(SCHEMA.empty_table(), later, None))
    assert run(store, "SELECT close FROM latest()").to_pylist() == [{"close": 101.0}]


@pytest.mark.parametrize("symbol", ["A", "1000000MOGUSDT_260626", "币安人生USDT"])
def test_sizes_tell_files_without_rows(symbol: str) -> None:
    """A file without rows is smaller than the limit, and one with a row is larger."""

    def size(*rows: Candle) -> int:
        table = to_table(rows) if rows else SCHEMA.empty_table()
        return len(encode_next(table, partition_of(rest_candle(0, symbol=symbol)), None))

    assert size() < EMPTY_BYTES_MAX * 0.75
    assert size(rest_candle(0, symbol=symbol)) > EMPTY_BYTES_MAX * 1.25
