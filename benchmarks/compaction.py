"""Compaction of many small files beside scripts of Polars and DuckDB, in one run.

Each partition has 24 files of pyarrow, one for each hour. Each file also has the last
five candles of the hour before, as a job that looks back has them. Four ways make
one sorted file without duplicates of each partition, and remove the 24 files:

    compact         lakewriter compact --jobs 1
    compact, jobs   lakewriter compact, with its default: one process on each core
    polars          a script: read 24 files, unique, sort, write a file
    duckdb          the same with one COPY for each partition

Each run is a whole process on a fresh copy. The ways take turns. Only lakewriter
checks each row, chooses the better of two rows, reads the new file again before it replaces
anything, syncs, and replaces atomically. The results have the same candles, which is
checked. CPU is user + system of all processes; memory is that of the largest process.
Needs the extra `dev`.

    python benchmarks/compaction.py [--quick] [--partitions 400] [--rounds 5] [--directory DIR]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakewriter.candle import SCHEMA
from lakewriter.interval import MINUTE_MS
from lakewriter.partition import Partition

CPU_LIMIT, WALL_LIMIT = 1.2, 1.3
FIRST_DAY = date(2024, 1, 1)
DAYS = 20
ROWS, FILE_ROWS, OVERLAP_ROWS = 1440, 60, 5

EACH_PARTITION = """
import glob, os, sys
for directory in sorted(glob.glob(sys.argv[1] + "/market=*/symbol=*/interval=*/date=*")):
    files = sorted(glob.glob(directory + "/*.parquet"))
    {replace}
    for file in files:
        os.unlink(file)
"""
POLARS = "import polars as pl" + EACH_PARTITION.format(
    replace="""rows = pl.read_parquet(files, hive_partitioning=False)
    rows = rows.unique("candle_begin_time", keep="last").sort("candle_begin_time")
    rows.write_parquet(directory + "/candles.parquet", compression="zstd")"""
)
DUCKDB = "import duckdb" + EACH_PARTITION.format(
    replace="""duckdb.execute(f'''COPY (
        SELECT DISTINCT ON (candle_begin_time) * FROM read_parquet({files}, hive_partitioning = false)
        ORDER BY candle_begin_time
    ) TO '{directory}/candles.parquet' (COMPRESSION zstd)''')"""
)
# A process keeps the memory peak of the one that started it, so a small one starts each run.
LAUNCH = """
import os, subprocess, sys, time
started_s = time.perf_counter()
child = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(used.ru_utime + used.ru_stime, time.perf_counter() - started_s, used.ru_maxrss / 1000)
sys.exit(os.waitstatus_to_exitcode(status))
"""
WAYS = {
    "compact": ["-m", "lakewriter", "compact", "--jobs", "1", "--lake"],
    "compact, jobs": ["-m", "lakewriter", "compact", "--lake"],
    "polars": ["-c", POLARS],
    "duckdb": ["-c", DUCKDB],
}


class Cost(NamedTuple):
    """The cost of a run, and the size of the lake afterwards."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    left_mb: float


def day_rows(partition: Partition, seed: int) -> pa.Table:
    """Return a day of candles as the exchange's own: prices of two decimals, volumes of five."""
    random = np.random.default_rng(seed)
    begins = partition.start_ms + np.arange(ROWS) * MINUTE_MS
    price = 60_000 + np.cumsum(random.normal(0, 15, ROWS + 1))
    opens, closes = np.round(price[:-1], 2), np.round(price[1:], 2)
    highs = np.round(np.maximum(opens, closes) + random.exponential(8, ROWS), 2)
    lows = np.round(np.minimum(opens, closes) - random.exponential(8, ROWS), 2)
    volumes = np.round(random.lognormal(2, 1, ROWS), 5)
    taken = np.round(volumes * random.uniform(0.2, 0.8, ROWS), 5)
    mean = (highs + lows) / 2
    columns = [
        begins, begins + MINUTE_MS, opens, highs, lows, closes, volumes, np.round(volumes * mean, 7),
        random.integers(100, 4000, ROWS), taken, np.round(taken * mean, 7),
        begins + MINUTE_MS + 4, (begins + MINUTE_MS + 90) * 1000, np.full(ROWS, "stream"),
    ]  # fmt: skip
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def build(lake: Path, count: int) -> None:
    """Write a lake of so many partitions."""
    for number in range(count):
        symbol, day = f"S{number // DAYS:03d}USDT", FIRST_DAY + timedelta(number % DAYS)
        partition = Partition("spot", symbol, "1m", day)
        directory = lake / partition.path
        directory.mkdir(parents=True)
        rows = day_rows(partition, number)
        for hour in range(ROWS // FILE_ROWS):
            first = max(0, hour * FILE_ROWS - OVERLAP_ROWS)
            pq.write_table(
                rows.slice(first, (hour + 1) * FILE_ROWS - first), directory / f"part-{hour:02d}.parquet"
            )


def measured(lake: Path, way: str) -> Cost:
    """Run one way as a whole process, and check the files that it leaves."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    run = subprocess.run(
        [sys.executable, "-c", LAUNCH, *WAYS[way], str(lake)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cpu_s, wall_s, peak_mb = map(float, run.stdout.split())
    left = sum(file.stat().st_size for file in parquet_files(lake))
    return Cost(cpu_s, wall_s, peak_mb, left / 1e6)


def parquet_files(lake: Path) -> Iterator[Path]:
    return lake.glob("market=*/symbol=*/interval=*/date=*/*.parquet")


def content(lake: Path) -> tuple[object, ...]:
    """Return the numbers of files, rows and candles, and sums of their columns."""
    files = [str(file) for file in parquet_files(lake)]
    with duckdb.connect() as engine:
        found = engine.execute(
            "SELECT count(*), count(DISTINCT (filename, candle_begin_time)), sum(close::DECIMAL(18, 2)),"
            " sum(quote_volume::DECIMAL(30, 7)), sum(trade_num) FROM read_parquet(?, filename = true)",
            [files],
        ).fetchone()
    assert found is not None
    return (len(files), *found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default=None, help="on the disk to measure")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="only these")
    parser.add_argument("--quick", action="store_true", help="20 partitions, one round")
    options = parser.parse_args()
    count, rounds = (20, 1) if options.quick else (options.partitions, options.rounds)
    costs: dict[str, list[Cost]] = {way: [] for way in options.ways}
    expected: tuple[object, ...] = ()
    with tempfile.TemporaryDirectory(prefix="lakewriter-", dir=options.directory) as scratch:
        made, lake = Path(scratch, "made"), Path(scratch, "lake")
        build(made, count)
        before_mb = sum(file.stat().st_size for file in parquet_files(made)) / 1e6
        for number in range(rounds):
            for way in options.ways:
                # No way writes into a file in its place, so links are as good as copies.
                shutil.copytree(made, lake, copy_function=os.link)
                os.sync()
                costs[way].append(measured(lake, way))
                if not number:
                    found = content(lake)
                    assert found[:3] == (count, count * ROWS, count * ROWS), f"{way}: {found}"
                    expected = expected or found
                    assert found == expected, f"{way}: {found}, not {expected}"
                shutil.rmtree(lake)
    print(f"{count} partitions of {ROWS // FILE_ROWS} files, {before_mb:.1f} MB; medians of {rounds} rounds; "
          f"{os.cpu_count()} cores")  # fmt: skip
    print("| way | CPU | wall | largest process | left | CPU / polars | wall / polars |")
    print("|---|---|---|---|---|---|---|")
    medians = {way: Cost(*map(statistics.median, zip(*runs, strict=True))) for way, runs in costs.items()}
    peer = medians.get("polars")
    for way, cost in medians.items():
        beside = (
            "| |" if peer is None else f"{cost.cpu_s / peer.cpu_s:.2f} | {cost.wall_s / peer.wall_s:.2f} |"
        )
        print(
            f"| {way} | {cost.cpu_s:.2f} s | {cost.wall_s:.2f} s | {cost.peak_mb:.0f} MB"
            f" | {cost.left_mb:.1f} MB | {beside}"
        )
    print(f"limits: CPU {CPU_LIMIT} and wall {WALL_LIMIT} times that of polars")


if __name__ == "__main__":
    main()
