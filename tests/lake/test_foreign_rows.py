"""Foreign files that contradict their partition: unchanged, left out of answers, named in one line."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import SCHEMA, to_table
from lakewriter.errors import UnreadableError
from lakewriter.lake.compact import compact_partition
from lakewriter.lake.foreign_rows import decode_foreign, foreign_rows
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.partition import partition_of
from lakewriter.query.python.reader import Lake
from lakewriter.series import Series
from support.candles import DAY_START_MS, stream_candle
from support.compaction import plan_compaction
from support.lakes import files_and_bytes

PARTITION = partition_of(stream_candle(0))
NOW_S = 1_800_000_000.0
WRITTEN_S = 1_790_000_000


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    store.merge(PARTITION, to_table([stream_candle(0)]))
    return store


def theirs(*minutes: int, **columns: Any) -> pa.Table:
    """Return rows with the additional columns of another tool."""
    table = to_table([stream_candle(minute, open=1.0) for minute in minutes])
    table = table.drop_columns(["source", "recv_time", "event_time", "candle_end_time"])
    table = table.set_column(1, "open", pa.array([60_000.5] * len(minutes)))
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def encoded(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def put(store: LakeStore, name: str, table: pa.Table, written_s: float = WRITTEN_S) -> Path:
    path = store.root / PARTITION.path / name
    path.write_bytes(encoded(table))
    os.utime(path, (written_s, written_s))
    return path


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"symbol": ["ETHUSDT"] * 2}, "its directory says BTCUSDT, its column symbol says ETHUSDT"),
        ({"Ticker": ["BTCUSDT", "ETHUSDT"]}, "its directory says BTCUSDT, its column Ticker says ETHUSDT"),
        ({"pair": ["ETH/USDT"] * 2}, "its directory says BTCUSDT, its column pair says ETHUSDT"),
        ({"pair": ["BTC/USDT:USDT"] * 2}, "its directory says spot, its column pair says usdt_futures"),
        ({"exchange": ["binanceusdm"] * 2}, "its directory says spot, its column exchange says usdt_futures"),
        ({"exchange": ["kraken"] * 2}, "its column exchange says 'kraken', which is no market of Binance"),
        ({"timeframe": ["1h"] * 2}, "its directory says 1m, its column timeframe says 1h"),
        ({"interval": ["1m", "5m"]}, "its directory says 1m, its column interval says 5m"),
        ({"symbol": ["BTCUSDT", None]}, "its column symbol is empty in some rows"),
    ],
)
def test_columns_that_contradict_the_path(columns: dict[str, Any], why: str) -> None:
    """A file with columns of another series is refused, with both names."""
    with pytest.raises(UnreadableError) as caught:
        decode_foreign(encoded(theirs(0, 1, **columns)), "part.parquet", PARTITION)
    assert caught.value.what == f"part.parquet: {why}"


@pytest.mark.parametrize(
    "columns",
    [
        {"symbol": ["BTCUSDT"] * 2, "interval": ["1m"] * 2, "market": ["spot"] * 2},
        {"symbol": ["btcusdt", "BTC-USDT"], "timeframe": ["1min", "60s"], "exchange": ["Binance"] * 2},
        {"symbol": pa.nulls(2, pa.string())},
        {"comment": ["ETHUSDT"] * 2},
    ],
)
def test_columns_that_agree_with_the_path(columns: dict[str, Any]) -> None:
    """A file whose columns spell the same series differently is read."""
    assert foreign_rows(encoded(theirs(0, 1, **columns)), "part.parquet", PARTITION).num_rows == 2


def test_a_file_of_a_lake_in_another_partition(store: LakeStore) -> None:
    """The metadata of a lake's file refuses it in another partition."""
    other = partition_of(stream_candle(0, symbol="ETHUSDT"))
    store.merge(other, to_table([stream_candle(0, symbol="ETHUSDT")]))
    data = (store.root / other.file).read_bytes()
    with pytest.raises(UnreadableError) as caught:
        decode_foreign(data, "copy.parquet", PARTITION)
    assert caught.value.what == "copy.parquet: its directory says BTCUSDT, its metadata says ETHUSDT"
    own = (store.root / PARTITION.file).read_bytes()
    assert foreign_rows(own, "copy.parquet", PARTITION).equals(to_table([stream_candle(0)]))


def test_rows_of_another_interval() -> None:
    """Rows that are too far apart, or too long, are of another interval."""
    with pytest.raises(UnreadableError, match="these rows are 1h, its directory says 1m"):
        decode_foreign(encoded(theirs(0, 60, 180)), "x.parquet", PARTITION)
    hours = to_table([stream_candle(0, end_ms=DAY_START_MS + 3_600_000)]).select(SCHEMA.names[:7])
    with pytest.raises(UnreadableError, match="these rows end 1h after they begin, its directory says 1m"):
        decode_foreign(encoded(hours), "x.parquet", PARTITION)
    # Their own ends prove that these are of minutes, which are rare.
    sparse = to_table([stream_candle(minute) for minute in (0, 60, 180)]).drop_columns(["source"])
    assert foreign_rows(encoded(sparse), "x.parquet", PARTITION).num_rows == 3


def test_rows_that_contradict_each_other() -> None:
    """A file with many contradicting rows has several series, so no order of rows decides."""
    twice = pa.concat_tables([theirs(*range(10)), theirs(*range(10))])
    moved = twice.set_column(1, "open", pa.array([60_000.5] * 10 + [60_000.75] * 10))
    with pytest.raises(UnreadableError, match="two rows of the candle at 2024-06-30 00:00:00 differ"):
        decode_foreign(encoded(moved), "x.parquet", PARTITION)
    assert foreign_rows(encoded(twice), "x.parquet", PARTITION).num_rows == 20


def test_everybody_leaves_such_a_file_alone(store: LakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Compaction names the file and folds the others; a query and gaps leave it out, with one warning."""
    wrong = put(store, "part-0.parquet", theirs(0, 5, symbol=["ETHUSDT"] * 2))
    put(store, "part-1.parquet", theirs(7))
    series = Series("spot", "BTCUSDT", "1m")
    rows = Lake(str(store.root)).candles_arrow(*series)
    assert [at.minute for at in rows["candle_begin_time"].to_pylist()] == [0, 7]
    assert f"lake: {wrong}: its directory says BTCUSDT, its column symbol says ETHUSDT" in caplog.text
    assert presence_of(store, series).begins(0, 1 << 44).tolist() == [DAY_START_MS, DAY_START_MS + 7 * 60_000]
    (item,) = plan_compaction(store).work
    outcome = compact_partition(store, item, NOW_S)
    assert outcome.error == f"{wrong}: its directory says BTCUSDT, its column symbol says ETHUSDT"
    assert (outcome.rows, outcome.version) == (2, "")
    assert outcome.files_removed == (f"{PARTITION.path}/part-1.parquet",)
    assert wrong.exists()


def test_open_candles_are_not_folded(store: LakeStore) -> None:
    """A row marked open, or that ends after the file was written, is left out and counted."""
    put(store, "part-0.parquet", theirs(1, 2, is_closed=[True, False]))
    put(store, "part-1.parquet", theirs(3, 4), written_s=(DAY_START_MS + 4 * 60_000) / 1000)
    (item,) = plan_compaction(store).work
    outcome = compact_partition(store, item, NOW_S)
    assert (outcome.error, outcome.rows, outcome.not_closed) == ("", 3, 2)


def test_a_file_with_a_wrong_date_stays(store: LakeStore) -> None:
    """No candle begins after its file was written. A zip from another time zone has such dates."""
    path = put(store, "part-0.parquet", theirs(1, 2, 60), written_s=(DAY_START_MS + 30 * 60_000) / 1000)
    (item,) = plan_compaction(store).work
    outcome = compact_partition(store, item, NOW_S)
    assert outcome.error.endswith(
        "it was written at 2024-06-30 00:30:00, and has a candle that begins at 2024-06-30 01:00:00;"
        " touch it if its date is wrong"
    )
    assert (outcome.rows, outcome.not_closed, outcome.files_removed, path.exists()) == (1, 0, (), True)
    os.utime(path)
    assert compact_partition(store, item, NOW_S).rows == 4


@pytest.mark.parametrize("now_s", [0.0, (DAY_START_MS + 7 * 60_000) / 1000])
@pytest.mark.parametrize("name", ["part-2.parquet", "candles.parquet"])
def test_a_clock_that_is_behind_costs_no_candle(tmp_path: Path, now_s: float, name: str) -> None:
    """A file stays until its candles have ended by the clock. What has ended is folded once."""
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    if name == "part-2.parquet":
        store.merge(PARTITION, to_table([stream_candle(0)]))
    else:
        (store.root / PARTITION.path).mkdir(parents=True)
    path = put(store, name, theirs(6, 7))
    before = files_and_bytes(store.root)
    for run in range(3):
        (item,) = plan_compaction(store).work
        outcome = compact_partition(store, item, now_s)
        assert (outcome.error, outcome.files_removed, outcome.version) == ("", (), "")
        assert outcome.not_closed == (2 if now_s == 0.0 else 1)
        assert outcome.rewritten == (run == 0 and now_s > 0 and name == "part-2.parquet")
        assert path.read_bytes() == before[f"{PARTITION.path}/{name}"]
    (item,) = plan_compaction(store).work
    outcome = compact_partition(store, item, NOW_S)
    assert (outcome.error, outcome.rows, outcome.not_closed) == ("", 3 if "part" in name else 2, 0)
    assert outcome.version and plan_compaction(store).work == [item]
    assert [file.name for file in (store.root / PARTITION.path).iterdir()] == ["candles.parquet"]


def test_contradictions_are_counted(store: LakeStore) -> None:
    """A row that loses to another row of its candle, with other prices or volumes, is counted."""
    equal = to_table([stream_candle(0)]).drop_columns(
        ["source", "recv_time", "event_time", "candle_end_time"]
    )
    put(store, "part-0.parquet", equal)
    unknown = equal.drop_columns(["trade_num"]).set_column(4, "close", pa.array([59_999.0]))
    put(store, "part-1.parquet", unknown)
    (item,) = plan_compaction(store).work
    outcome = compact_partition(store, item, NOW_S)
    assert (outcome.duplicates_removed, outcome.disputed) == (2, 1)
    assert store.read(PARTITION) == to_table([stream_candle(0)])
