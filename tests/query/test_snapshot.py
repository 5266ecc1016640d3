"""The files that answer a query. Other query tests use the small lakes of this module."""

import os
import tempfile
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from lakewriter.candle import to_table
from lakewriter.partition import partition_of
from lakewriter.query.scan.snapshot import (
    ForeignFile,
    any_modified_since,
    partitions_table,
    take_snapshot,
    unmerged_tables,
)
from support.lakes import add_foreign, make_lake, rest_candle, write_parquet


def test_own_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    """Our own file is own; any other name, also in a percent-encoded directory, is foreign."""
    symbol = "币USDT"
    store = make_lake(
        tmp_path, [rest_candle(0, symbol=symbol), rest_candle(1440, symbol=symbol)], hot=[rest_candle(3)]
    )
    add_foreign(tmp_path, [rest_candle(0, symbol=symbol)])
    encoded = "market=spot/symbol=%E5%B8%81USDT/interval=1m/date=2024-06-30"
    write_parquet(tmp_path, encoded, to_table([rest_candle(1)]), "candles.parquet")
    snapshot = take_snapshot(store)
    assert [name.split("/", 2)[2] for name in snapshot.own] == [
        "interval=1m/date=2024-06-30/candles.parquet",
        "interval=1m/date=2024-07-01/candles.parquet",
    ]
    partition = partition_of(rest_candle(0, symbol=symbol))
    assert snapshot.foreign == (
        ForeignFile(f"{encoded}/candles.parquet", partition),
        ForeignFile(f"{partition.path}/part-0000.parquet", partition),
    )
    assert snapshot.journal == [rest_candle(3)]


def test_doubted_file_is_foreign(tmp_path: Path) -> None:
    """An own file in `read_as_foreign` counts as foreign."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(1440)])
    name = partition_of(rest_candle(0)).file
    snapshot = take_snapshot(store, read_as_foreign=frozenset([name]))
    assert snapshot.foreign == (ForeignFile(name, partition_of(rest_candle(0))),)
    assert snapshot.own == (partition_of(rest_candle(1440)).file,)


def test_loose_rows_have_the_columns_of_the_path(tmp_path: Path) -> None:
    """Rows of the journal and of foreign files have the same columns, the path's included."""
    store = make_lake(tmp_path, hot=[rest_candle(0)])
    add_foreign(tmp_path, [rest_candle(1, symbol="ETHUSDT")])
    rows = pa.concat_tables(unmerged_tables(store, take_snapshot(store)))
    assert rows.select(["market", "symbol", "interval", "date", "open"]).to_pylist() == [
        {"market": "spot", "symbol": "BTCUSDT", "interval": "1m", "date": date(2024, 6, 30), "open": 100.0},
        {"market": "spot", "symbol": "ETHUSDT", "interval": "1m", "date": date(2024, 6, 30), "open": 101.0},
    ]


def test_partitions_are_measured(tmp_path: Path) -> None:
    """Each partition has the number and the bytes of its files."""
    store = make_lake(tmp_path, [rest_candle(0)])
    foreign = add_foreign(tmp_path, [rest_candle(1)])
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
    """A file without permission to stat it counts as unchanged, so the statement does not run again."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_lake(root, [rest_candle(0)])
        root.chmod(0o755)
        path = root / partition_of(rest_candle()).file
        assert any_modified_since(root, [partition_of(rest_candle()).file], 0)
        path.parent.chmod(0o644)
        child = os.fork()
        if child == 0:
            moved = True
            try:
                if os.geteuid() == 0:
                    os.setuid(65_534)
                moved = any_modified_since(root, [partition_of(rest_candle()).file], 0)
            finally:
                os._exit(int(moved))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        path.parent.chmod(0o755)
    assert code == 0
