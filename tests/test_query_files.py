"""Which files answer a query; and the small lakes that the other query tests use."""

import os
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import Candle, to_table
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import by_partition, partition_of
from lakewriter.query.scan.snapshot import (
    ForeignFile,
    any_modified_since,
    partitions_table,
    take_snapshot,
    unmerged_tables,
)

DAY_MS = 86_400_000
BEGIN_MS = 1_719_705_600_000  # 2024-06-30T00:00:00Z
STEPS_MS = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000, "1d": DAY_MS}


def candle(number: int = 0, *, interval: str = "1m", **fields: object) -> Candle:
    """A candle of spot BTCUSDT, `number` candles after 2024-06-30."""
    begin_ms = BEGIN_MS + number * STEPS_MS[interval]
    values: dict[str, object] = {
        "market": "spot",
        "symbol": "BTCUSDT",
        "interval": interval,
        "begin_ms": begin_ms,
        "end_ms": begin_ms + STEPS_MS[interval],
        "open": 100.0 + number,
        "high": 102.0 + number,
        "low": 99.0 + number,
        "close": 101.0 + number,
        "volume": 2.0,
        "quote_volume": 201.0 + 2 * number,
        "trade_num": 10,
        "taker_buy_base_asset_volume": 1.0,
        "taker_buy_quote_asset_volume": 100.5 + number,
        "event_ms": None,
        "recv_us": begin_ms * 1000 + 123,
        "source": "rest",
    }
    return Candle(**(values | fields))  # type: ignore[arg-type]


def make_lake(root: Path, candles: Iterable[Candle] = (), hot: Iterable[Candle] = ()) -> LakeStore:
    """A lake with the candles in partitions, and the hot ones in a journal."""
    store = LakeStore.create(str(root), "test")
    for partition, rows in by_partition(candles).items():
        store.merge(partition, to_table(rows))
    waiting = list(hot)
    if waiting:
        journal = create_journal(root, "test")
        journal.commit(waiting)
        journal.roll()
        journal.close()
    return store


def add_foreign(root: Path, candles: list[Candle], name: str = "part-0000.parquet") -> Path:
    """A file that another tool put into the partition of the first candle."""
    return put(root, partition_of(candles[0]).path, to_table(candles), name)


def put(root: Path, directory: str, table: pa.Table, name: str = "part-0000.parquet") -> Path:
    path = root / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_own_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    """The file that we write is the engine's; any other name, also in a percent-encoded directory, is not."""
    symbol = "币USDT"
    store = make_lake(tmp_path, [candle(0, symbol=symbol), candle(1440, symbol=symbol)], hot=[candle(3)])
    add_foreign(tmp_path, [candle(0, symbol=symbol)])
    encoded = "market=spot/symbol=%E5%B8%81USDT/interval=1m/date=2024-06-30"
    put(tmp_path, encoded, to_table([candle(1)]), "candles.parquet")
    snapshot = take_snapshot(store)
    assert [name.split("/", 2)[2] for name in snapshot.own] == [
        "interval=1m/date=2024-06-30/candles.parquet",
        "interval=1m/date=2024-07-01/candles.parquet",
    ]
    partition = partition_of(candle(0, symbol=symbol))
    assert snapshot.foreign == (
        ForeignFile(f"{encoded}/candles.parquet", partition),
        ForeignFile(f"{partition.path}/part-0000.parquet", partition),
    )
    assert snapshot.journal == [candle(3)]


def test_doubted_file_is_foreign(tmp_path: Path) -> None:
    """An own file that the engine cannot read is left to us."""
    store = make_lake(tmp_path, [candle(0), candle(1440)])
    name = partition_of(candle(0)).file
    snapshot = take_snapshot(store, read_as_foreign=frozenset([name]))
    assert snapshot.foreign == (ForeignFile(name, partition_of(candle(0))),)
    assert snapshot.own == (partition_of(candle(1440)).file,)


def test_loose_rows_have_the_columns_of_the_path(tmp_path: Path) -> None:
    """Rows of the journal and of foreign files look alike."""
    store = make_lake(tmp_path, hot=[candle(0)])
    add_foreign(tmp_path, [candle(1, symbol="ETHUSDT")])
    rows = pa.concat_tables(unmerged_tables(store, take_snapshot(store)))
    assert rows.select(["market", "symbol", "interval", "date", "open"]).to_pylist() == [
        {"market": "spot", "symbol": "BTCUSDT", "interval": "1m", "date": date(2024, 6, 30), "open": 100.0},
        {"market": "spot", "symbol": "ETHUSDT", "interval": "1m", "date": date(2024, 6, 30), "open": 101.0},
    ]


def test_partitions_are_measured(tmp_path: Path) -> None:
    """Each partition has its number of files and their bytes."""
    store = make_lake(tmp_path, [candle(0)])
    foreign = add_foreign(tmp_path, [candle(1)])
    own = foreign.with_name("candles.parquet")
    assert partitions_table(store).to_pylist() == [
        {
            "market": "spot",
            "symbol": "BTCUSDT",
            "interval": "1m",
            "date": date(2024, 6, 30),
            "files": 2,
            "bytes": foreign.stat().st_size + own.stat().st_size,
        }
    ]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_may_not_be_looked_at_has_not_moved() -> None:
    """Who may list a directory, but not look into it, is told so, and not to try again."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_lake(root, [candle(0)])
        root.chmod(0o755)
        path = root / partition_of(candle()).file
        assert any_modified_since(root, [partition_of(candle()).file], 0)
        path.parent.chmod(0o644)
        child = os.fork()
        if child == 0:
            moved = True
            try:
                if os.geteuid() == 0:
                    os.setuid(65_534)
                moved = any_modified_since(root, [partition_of(candle()).file], 0)
            finally:
                os._exit(int(moved))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        path.parent.chmod(0o755)
    assert code == 0
