"""The flush of many partitions on a local disk beside plain writes of the same files.

A flush merges 5 candles into each of many partitions that have 700. It runs as in a
recorder: from buffered candles to the last sync, in two threads. Beside it, in turns:

    write           write_table + fsync of each result, into new files, with pyarrow's defaults
    write, threads  the same in two threads
    write, encoded  the same in one thread with our encodings, which are smaller and faster
    rewrite         read_table + concat + write_table + fsync of each file, with the defaults

None of them locks, joins by key, replaces atomically or syncs a directory. The results are
the ratios of the medians.

    python benchmarks/flush.py [--partitions 3000] [--rounds 5] [--directory .] [--quick]
    python benchmarks/flush.py --beside PATH/TO/OLD/CLONE

With `--beside`, the flush of an older clone runs in turns with this one, each in its own
process. `--quick` takes 200 partitions and 2 rounds, and judges no time.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from made_candles import candle

from lakewriter.candle import SCHEMA, to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.partition import Partition
from lakewriter.recording.flushing.buffer import Batch
from lakewriter.recording.flushing.merger import MERGE_THREADS, Merger
from lakewriter.without_pandas import without_pandas

REPOSITORY = Path(__file__).resolve().parent.parent
CPU_LIMIT, WALL_LIMIT = 1.0, 1.3
DAY = date(2024, 1, 1)
OLD_ROWS, NEW_ROWS = 700, 5
OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["source"],
    "column_encoding": {
        field.name: "PLAIN" if pa.types.is_floating(field.type) else "DELTA_BINARY_PACKED"
        for field in SCHEMA
        if field.name != "source"
    },
    "write_page_checksum": True,
    "store_schema": False,
}


DEFAULTS: dict[str, Any] = {}
WAYS = ("write", "write, threads", "write, encoded", "rewrite")


class Cost(NamedTuple):
    """Seconds of wall time, and of CPU of this process."""

    wall_s: float
    cpu_s: float


def measured(work: Callable[[], object]) -> Cost:
    os.sync()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def made_partitions(count: int) -> list[Partition]:
    return [Partition("spot", f"S{number:04d}USDT", "1m", DAY) for number in range(count)]


def new_candles(partitions: Sequence[Partition]) -> Batch:
    return {each: [candle(each, OLD_ROWS + row) for row in range(NEW_ROWS)] for each in partitions}


def flush(store: LakeStore, batch: Batch) -> None:
    """Merge a batch as a recorder does."""
    merger = Merger(store)
    try:
        result = asyncio.run(merger.merge(batch))
    finally:
        merger.close()
    assert not result.unmerged
    assert result.flushed == sum(map(len, batch.values()))


def put_old(root: Path, partitions: Sequence[Partition], old: pa.Table) -> None:
    """Write the partitions' files of 700 rows, without syncs."""
    for each in partitions:
        path = root / each.file
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(old, each))


def write(table: pa.Table, path: str, options: dict[str, Any] = DEFAULTS) -> None:
    pq.write_table(table, path, **options)
    sync(path)


def rewrite(new: pa.Table, path: str) -> None:
    write(pa.concat_tables([pq.read_table(path, schema=SCHEMA), new]), path)


def sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def in_threads(work: Callable[[str], None], paths: list[str]) -> None:
    shares = [paths[number::MERGE_THREADS] for number in range(MERGE_THREADS)]
    with ThreadPoolExecutor(MERGE_THREADS) as threads:
        list(threads.map(lambda share: [work(path) for path in share], shares))


def one_round(scratch: Path, partitions: list[Partition]) -> dict[str, Cost]:
    """Return the cost of each way into a new directory."""
    old = to_table(candle(partitions[0], row) for row in range(OLD_ROWS))
    new = to_table(candle(partitions[0], OLD_ROWS + row) for row in range(NEW_ROWS))
    whole = pa.concat_tables([old, new]).combine_chunks()
    store = LakeStore.create(str(scratch / "lake"), "benchmark")
    put_old(store.root, partitions, old)
    for name in WAYS:
        (scratch / name).mkdir()
    paths = {
        name: [str(scratch / name / f"{number}.parquet") for number in range(len(partitions))]
        for name in WAYS
    }
    for path in paths["rewrite"]:
        pq.write_table(old, path)
    batch = new_candles(partitions)
    costs = {
        "flush": measured(lambda: flush(store, batch)),
        "write": measured(lambda: [write(whole, path) for path in paths["write"]]),
        "write, threads": measured(
            lambda: in_threads(lambda path: write(whole, path), paths["write, threads"])
        ),
        "write, encoded": measured(lambda: [write(whole, path, OPTIONS) for path in paths["write, encoded"]]),
        "rewrite": measured(lambda: [rewrite(new, path) for path in paths["rewrite"]]),
    }
    assert store.read(partitions[-1]) is not None
    for path in scratch.iterdir():
        shutil.rmtree(path)
    return costs


def flush_once(clone: Path, scratch: Path, count: int) -> Cost:
    """Return the cost of the flush of a clone, in a process of its own."""
    command = [sys.executable, __file__, "--child", "--directory", str(scratch), "--partitions", str(count)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(clone)}, check=True, stdout=subprocess.PIPE
    )
    return Cost(*json.loads(done.stdout))


def child(scratch: Path, partitions: list[Partition]) -> Cost:
    store = LakeStore.create(str(scratch / "lake"), "benchmark")
    put_old(store.root, partitions, to_table(candle(partitions[0], row) for row in range(OLD_ROWS)))
    # The first one imports modules and starts threads.
    flush(store, new_candles([Partition("spot", "FIRSTUSDT", "1m", DAY)]))
    batch = new_candles(partitions)
    cost = measured(lambda: flush(store, batch))
    shutil.rmtree(scratch / "lake")
    return cost


def medians(costs: list[Cost]) -> Cost:
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def print_table(costs: dict[str, list[Cost]], count: int, ours: str) -> dict[str, Cost]:
    middle = {name: medians(each) for name, each in costs.items()}
    print(f"| {'way':14} | CPU ms a file | wall ms a file | CPU, {ours} ÷ it | wall, {ours} ÷ it |")
    print("|---|---|---|---|---|")
    for name, cost in middle.items():
        ratios = f"{middle[ours].cpu_s / cost.cpu_s:.2f} | {middle[ours].wall_s / cost.wall_s:.2f}"
        print(
            f"| {name:14} | {cost.cpu_s * 1000 / count:.3f} | {cost.wall_s * 1000 / count:.3f} | {ratios} |"
        )
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--beside", type=Path, help="an older clone, to measure beside this one")
    parser.add_argument("--quick", action="store_true", help="200 partitions, 2 rounds")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    count, rounds = (200, 2) if options.quick else (options.partitions, options.rounds)
    with without_pandas():
        if options.child:
            print(json.dumps(child(Path(options.directory), made_partitions(count))))
            return
        costs: dict[str, list[Cost]] = {}
        with tempfile.TemporaryDirectory(dir=options.directory) as name:
            for _ in range(rounds):
                if options.beside:
                    clones = {"theirs": options.beside.resolve(), "ours": REPOSITORY}
                    once = {each: flush_once(clone, Path(name), count) for each, clone in clones.items()}
                else:
                    once = one_round(Path(name), made_partitions(count))
                for way, cost in once.items():
                    costs.setdefault(way, []).append(cost)
    print(f"{count} partitions, {rounds} rounds, {len(os.sched_getaffinity(0))} cores")
    if options.beside:
        print_table(costs, count, "ours")
        return
    middle = print_table(costs, count, "flush")
    cpu = middle["flush"].cpu_s / middle["write"].cpu_s
    wall = middle["flush"].wall_s / middle["write, threads"].wall_s
    print(
        f"CPU {cpu:.2f} of write (limit {CPU_LIMIT}), wall {wall:.2f} of write in threads (limit {WALL_LIMIT})"
    )


if __name__ == "__main__":
    main()
