"""Compaction by the two engines: processes of this host, and Spark on this host.

Each partition has three foreign files. The engines run in turn, each on a fresh copy. The
memory is the greatest sum of resident memory of a command and its children, and that of the
command's own process, which must not grow with the number of partitions.

    python benchmarks/engines.py [--partitions N] [--rounds N] [--engines local-1 local-2 spark-1 spark-2]
        [--quick]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lakewriter.candle import to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from support.candles import stream_candle

SYMBOLS = 100
ENGINES = {
    "local-1": ("local, 1 process", ["--jobs", "1"]),
    "local-2": ("local, 2 processes", ["--jobs", "2"]),
    "spark-1": ("Spark, 1 executor", ["--engine", "spark", "--master", "local-cluster[1,1,1024]"]),
    "spark-2": ("Spark, 2 executors", ["--engine", "spark", "--master", "local-cluster[2,1,1024]"]),
}
DAY_MINUTES = 1440


def make_lake(root: Path, partitions: int) -> None:
    """Make a lake of partitions with three foreign files of 20 candles, 40 of them different."""
    LakeStore.create(str(root), "benchmark")
    for day in range(-(-partitions // SYMBOLS)):
        parts = [
            to_table([stream_candle(DAY_MINUTES * day + minute) for minute in range(first, first + 20)])
            for first in (0, 10, 20)
        ]
        for number in range(min(SYMBOLS, partitions - day * SYMBOLS)):
            symbol = f"S{number:03d}USDT"
            directory = root / partition_of(stream_candle(DAY_MINUTES * day, symbol=symbol)).path
            directory.mkdir(parents=True)
            for part, rows in enumerate(parts):
                pq.write_table(rows, directory / f"part-{part}.parquet")


def measure(lake: Path, arguments: list[str]) -> tuple[float, float, float]:
    """Compact a lake; return seconds, and the greatest memory of all processes and of the command's own, in MB."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "lakewriter", "compact", "--json", "--lake", str(lake), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        peaks = [0.0, 0.0]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                of_tree = sum(map(resident_mb, tree(process.pid)))
                peaks[:] = max(peaks[0], of_tree), max(peaks[1], resident_mb(process.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        output, _ = process.communicate()
        over.set()
        watching.join()
    assert process.returncode == 0
    report = json.loads(output)
    assert report["failed"] == 0
    assert report["rewritten"] == report["partitions"]
    return time.monotonic() - started, *peaks


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument(
        "--quick", action="store_true", help="few partitions, one round, no Spark: whether it works"
    )
    options = parser.parse_args()
    if options.quick:
        options.partitions, options.rounds, options.engines = 20, 1, ["local-1", "local-2"]
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in options.engines}
    with tempfile.TemporaryDirectory(prefix="lakewriter-engines-") as name:
        source, copy = Path(name) / "source", Path(name) / "copy"
        make_lake(source, options.partitions)
        for _ in range(options.rounds):
            for engine in options.engines:
                shutil.copytree(source, copy)
                runs[engine].append(measure(copy, ENGINES[engine][1]))
                shutil.rmtree(copy)
    print(f"{options.partitions:,} partitions, {options.rounds} rounds in turn, {os.cpu_count()} cores\n")
    print("| engine | seconds | partitions/s | speed-up | memory, all | memory, command |")
    print("|---|---|---|---|---|---|")
    first = None
    for engine, measured in runs.items():
        seconds, of_all, own = (statistics.median(column) for column in zip(*measured, strict=True))
        first = first or seconds
        print(
            f"| {ENGINES[engine][0]} | {seconds:.1f} | {options.partitions / seconds:,.0f} "
            f"| {first / seconds:.2f} | {of_all:,.0f} MB | {own:,.0f} MB |"
        )


if __name__ == "__main__":
    main()
