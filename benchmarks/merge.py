"""What a merge costs beside its limit: 5 candles into a partition of 1,440 rows.

Side by side in one run, turn about: `LakeStore.merge` with all it promises,
and the plainest way to rewrite a file: read_table, concat, write_table,
fsync. The number that counts is the ratio of the medians.

    python benchmarks/merge.py [--rounds 400] [--directory .]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lakewriter.candle import Candle, to_table
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of

DAY_START_MS = 1_700_006_400_000
LIMIT = 1.5


def candle(minute: int, recv_us: int) -> Candle:
    """Return a candle with numbers that do not compress to nothing."""
    begin_ms = DAY_START_MS + minute * MINUTE_MS
    wave = (minute * 7919) % 10_007 / 100
    return Candle(
        market="spot",
        symbol="BTCUSDT",
        interval="1m",
        begin_ms=begin_ms,
        end_ms=begin_ms + MINUTE_MS,
        open=60_000 + wave,
        high=60_020 + wave,
        low=59_980 + wave,
        close=60_001 + wave,
        volume=wave * 1.00321,
        quote_volume=wave * 60_193.27,
        trade_num=minute * 31 % 2000,
        taker_buy_base_asset_volume=wave * 0.50117,
        taker_buy_quote_asset_volume=wave * 30_096.13,
        event_ms=begin_ms + MINUTE_MS + 4,
        recv_us=recv_us,
        source="stream",
    )


def plain(path: Path, rows: pa.Table) -> None:
    """Rewrite the file as anybody would: no lock, no join, no order, no atomicity."""
    table = pa.concat_tables([pq.read_table(path), rows]).slice(0, 1440)
    pq.write_table(table, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        store = LakeStore.create(f"{scratch}/lake", "benchmark")
        partition = partition_of(candle(0, 0))
        day = to_table(candle(minute, 0) for minute in range(1440))
        store.merge(partition, day)
        plain_path = Path(scratch) / "plain.parquet"
        pq.write_table(day, plain_path)
        merge_s, plain_s = [], []
        for number in range(options.rounds):
            # The candles are there already and received later: 5 rows are replaced,
            # so that the partition keeps its 1,440 rows.
            first = number * 5 % 1440
            rows = to_table(candle(minute, number + 1) for minute in range(first, min(first + 5, 1440)))
            start = time.perf_counter()
            store.merge(partition, rows)
            merge_s.append(time.perf_counter() - start)
            start = time.perf_counter()
            plain(plain_path, rows)
            plain_s.append(time.perf_counter() - start)
    merge_ms, plain_ms = statistics.median(merge_s) * 1000, statistics.median(plain_s) * 1000
    print(f"merge                                {merge_ms:6.2f} ms")
    print(f"read_table + write_table + fsync     {plain_ms:6.2f} ms")
    print(f"ratio {merge_ms / plain_ms:.2f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
