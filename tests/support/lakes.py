"""Small lakes for tests, files of other tools in them, and their rows."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import Candle, to_table
from lakewriter.interval import INTERVALS
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import (
    LakeStore,
)
from lakewriter.partition import by_partition, partition_of
from lakewriter.query.python.result import Result
from lakewriter.query.session import run
from support.candles import from_table, stream_candle
from support.lengths import LONG

BEGIN_MS = 1_719_705_600_000  # 2024-06-30T00:00:00Z
STEPS_MS = {name: grid.length_ms for name, grid in INTERVALS.items() if grid.length_ms}


def rest_candle(number: int = 0, *, interval: str = "1m", **fields: object) -> Candle:
    """Return a REST candle of spot BTCUSDT, `number` candles after 2024-06-30."""
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
    """Create a lake with candles in partitions, and `hot` ones in a journal."""
    with unsynced():
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


@contextlib.contextmanager
def unsynced() -> Iterator[None]:
    """Sync nothing to disk during the block, in a short run: what a test prepares survives without.

    Most of the time that a small lake takes is spent waiting for the disk.
    """
    if LONG:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, os.fstat)  # which refuses a wrong descriptor too
        yield


def add_foreign(root: Path, candles: list[Candle], name: str = "part-0000.parquet") -> Path:
    """Write a file of another tool into the partition of the first candle."""
    return write_parquet(root, partition_of(candles[0]).path, to_table(candles), name)


def write_parquet(root: Path, directory: str, table: pa.Table, name: str = "part-0000.parquet") -> Path:
    path = root / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_foreign(store: LakeStore, name: str, rows: Iterable[Candle] | pa.Table, **options: Any) -> Path:
    """Write a file of another tool, into BTCUSDT's partition unless the name has a directory."""
    path = store.root / (name if "/" in name else f"{partition_of(stream_candle()).path}/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows if isinstance(rows, pa.Table) else to_table(rows), path, **options)
    return path


def merge_candles(store: LakeStore, rows: Iterable[Candle]) -> None:
    """Merge the candles into their partitions."""
    for partition, some in by_partition(rows).items():
        store.merge(partition, to_table(some))


def rows_by_plain_files(store: LakeStore) -> list[Candle]:
    """Read all rows of the lake's files without lakewriter."""
    found = []
    for partition, names, _ in store.files():
        for name in names:
            table = pq.read_table(store.root / name, partitioning=None)
            found += from_table(table, partition.market, partition.symbol, partition.interval)
    return found


def files_and_bytes(root: Path) -> dict[str, bytes]:
    """Return all files below the root by name, without lock files."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "locks"
    }


def rows_of_sql(store: LakeStore, sql: str) -> list[tuple[object, ...]]:
    """Return the rows of a statement's answer."""
    return Result(run(store, sql)).rows()
