"""The cost of a merge beside a plain rewrite: 5 candles into a partition of 1,440 rows.

Both run in turns: `LakeStore.merge` with all its promises, and the plainest
rewrite of a file: read_table, concat, write_table, fsync. The result is the
ratio of the medians.

    python benchmarks/merge.py [--rounds 400] [--directory .] [--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from made_candles import candle

from lakewriter.candle import to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import Partition

PARTITION = Partition("spot", "BTCUSDT", "1m", date(2023, 11, 15))
LIMIT = 1.5


def plain(path: Path, rows: pa.Table) -> None:
    """Rewrite the file in the plainest way: no lock, no join, no order, no atomicity."""
    table = pa.concat_tables([pq.read_table(path), rows]).slice(0, 1440)
    pq.write_table(table, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works")
    options = parser.parse_args()
    rounds = 5 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        store = LakeStore.create(f"{scratch}/lake", "benchmark")
        day = to_table(candle(PARTITION, minute, 0) for minute in range(1440))
        store.merge(PARTITION, day)
        plain_path = Path(scratch) / "plain.parquet"
        pq.write_table(day, plain_path)
        merge_s, plain_s = [], []
        for number in range(rounds):
            # These candles are in the partition, with an earlier receive time. So 5 rows are
            # replaced, and the partition keeps its 1,440 rows.
            first = number * 5 % 1440
            minutes = range(first, min(first + 5, 1440))
            rows = to_table(candle(PARTITION, minute, number + 1) for minute in minutes)
            start = time.perf_counter()
            store.merge(PARTITION, rows)
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
