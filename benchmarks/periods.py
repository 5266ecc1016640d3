"""The cost of long intervals: files of months and years beside files of days, in one run.

Daily and hourly candles of the sandbox are backfilled into a lake. The same rows
are then written as directories of days, as format 1 has them. Both lakes are
measured by plain DuckDB: files, bytes on disk, and a GROUP BY. A flush of a closed
candle is a merge into a whole file, in turns with one into a file of a day.

    python benchmarks/periods.py [--directory .] [--before CHECKOUT] [--quick]

CHECKOUT is a clone of a version with format 1. Its backfill runs beside ours.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from lakewriter.candle import int_column
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.partition import day_of
from lakewriter.query.session import run

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = {
    "5 symbols, 9 years of 1d": ("spot:BTCUSDT,ETHUSDT,BNBUSDT,XRPUSDT,LTCUSDT:1d", "2017-01-01"),
    "20 symbols, a year of 1h": ("usdt_futures:*USDT:1h", "2025-01-01"),
}
QUICK_WORK = {"a symbol, a year of 1d": ("spot:BTCUSDT:1d", "2025-01-01")}
START = "2026-01-05T00:00:00"
ROUNDS = 15


@contextmanager
def sandbox(symbols: int) -> Iterator[str]:
    """Run a sandbox; give its URL."""
    command = [sys.executable, "-m", "lakewriter", "sandbox", "--port", "0", "--start", START]
    child = subprocess.Popen(
        [*command, "--symbols", str(symbols)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.wait()


class Spent(NamedTuple):
    """Seconds of the wall and of the processor."""

    wall_s: float
    cpu_s: float


def backfill(code: Path, lake: Path, url: str, subscription: str, since: str) -> Spent:
    """Backfill with the code of a checkout; return what its process took."""
    started_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lakewriter", "backfill", subscription, "--since", since, "-q"]
    subprocess.run(
        [*command, "--exchange", url, "--lake", str(lake)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def write_days(store: LakeStore, root: Path) -> None:
    """Write the rows of a lake as files of days."""
    for found in store.files():
        rows = store.read(found.partition)
        days = int_column(rows, "candle_begin_time") // DAY_MS
        for day in np.unique(days).tolist():
            place = msgspec.structs.replace(found.partition, date=day_of(day * DAY_MS))
            path = root / place.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(rows.filter(pa.array(days == day)), place))


def files_and_bytes(root: Path) -> tuple[int, int, int]:
    """Return the number of Parquet files, their bytes, and the blocks of them and their directories."""
    files = list(root.glob("market=*/**/*.parquet"))
    blocks = sum(path.lstat().st_blocks * 512 for path in root.glob("market=*/**"))
    blocks += sum(path.lstat().st_blocks * 512 for path in files)
    return len(files), sum(path.stat().st_size for path in files), blocks


def plain_ms(root: Path) -> float:
    """Return the milliseconds of a GROUP BY by plain DuckDB, the fastest of some."""
    sql = f"SELECT symbol, max(high), count(*) FROM read_parquet('{root}/market=*/**/*.parquet') GROUP BY ALL"
    rounds = []
    for _ in range(3):
        started_s = time.perf_counter()
        duckdb.connect().execute(sql).fetchall()
        rounds.append(time.perf_counter() - started_s)
    return min(rounds) * 1000


def query_ms(store: LakeStore) -> float:
    """Return the milliseconds of a GROUP BY by `lakewriter query`, the fastest of some."""
    rounds = []
    for _ in range(5):
        started_s = time.perf_counter()
        run(store, "SELECT symbol, max(high), count(*) FROM candles GROUP BY ALL")
        rounds.append(time.perf_counter() - started_s)
    return min(rounds) * 1000


def flush_ms(store: LakeStore) -> tuple[int, float, float]:
    """Return the rows of the largest file, and the milliseconds of a merge into it and into one row."""
    partition = max(
        (found.partition for found in store.files()),
        key=lambda each: store.read(each).num_rows,
    )
    rows = store.read(partition)
    alone = msgspec.structs.replace(partition, symbol="ALONEUSDT")
    times: dict[str, list[float]] = {"whole": [], "alone": []}
    for number in range(ROUNDS):
        # A candle that wins over the one that is there.
        row = rows.slice(number, 1)
        at = row.schema.get_field_index("trade_num")
        row = row.set_column(at, row.schema.field(at), pa.array([10**9 + number]))
        for name, place in (("whole", partition), ("alone", alone)):
            started_s = time.perf_counter()
            store.merge(place, row)
            times[name].append((time.perf_counter() - started_s) * 1000)
            if name == "alone":
                store.storage.delete(alone.file)
    return rows.num_rows, statistics.median(times["whole"]), statistics.median(times["alone"])


def measure(name: str, scratch: Path, before: Path | None) -> None:
    """Measure one kind of candles, and print it."""
    subscription, since = (WORK | QUICK_WORK)[name]
    with sandbox(20) as url:
        spent = {"now": backfill(REPOSITORY, scratch / "lake", url, subscription, since)}
        if before is not None:
            spent["before"] = backfill(before.resolve(), scratch / "before", url, subscription, since)
    store = LakeStore.local(scratch / "lake")
    write_days(store, scratch / "days")
    candles = sum(store.read(found.partition).num_rows for found in store.files())
    print(f"{name}: {candles:,} candles")
    print(f"{'':10} {'files':>8} {'MB':>8} {'B/candle':>9} {'on disk':>8} {'plain ms':>9}")
    for kind, root in (("periods", scratch / "lake"), ("days", scratch / "days")):
        count, size, blocks = files_and_bytes(root)
        print(
            f"{kind:10} {count:8,} {size / 1e6:8.2f} {size / candles:9.1f} {blocks / candles:8.1f} "
            f"{plain_ms(root):9.1f}"
        )
    print(f"lakewriter query: {query_ms(store):.1f} ms")
    for when, (wall_s, cpu_s) in spent.items():
        print(f"backfill {when}: {wall_s:.1f} s, {cpu_s:.1f} s of CPU")
    rows, whole_ms, alone_ms = flush_ms(store)
    print(
        f"flush of a candle: {whole_ms:.1f} ms into {rows:,} rows, {alone_ms:.1f} ms into none\n", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--before", type=Path, help="a clone of a version with format 1")
    parser.add_argument("--quick", action="store_true", help="one symbol, a year: whether it works")
    options = parser.parse_args()
    for name in QUICK_WORK if options.quick else WORK:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            measure(name, Path(scratch).resolve(), options.before)


if __name__ == "__main__":
    main()
