"""The requests and the time of a query of a lake on an object store.

The lake has 124 partitions on moto's S3 server, in another process on loopback.
It is measured with and without 30 ms added to each request:

    dataset  plain DuckDB over a pyarrow.dataset of the prefix, made for each query
    ours     an open lake, from the SQL to the table

Needs the extra `dev`.

    python benchmarks/remote.py [--rounds 5] [--delay-ms 0 30]
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs

import lakewriter
from lakewriter.candle import Candle, to_table
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import Partition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

FIRST_DAY = date(2024, 1, 1)
DAYS = 31
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
ROWS = 1440

QUERIES = {
    "one series, three days": (
        "SELECT count(*), sum(close), max(high) FROM candles WHERE market = 'spot' AND symbol = 'BTCUSDT' "
        "AND \"interval\" = '1m' AND \"date\" BETWEEN '2024-01-10' AND '2024-01-12'"
    ),
    "everything": "SELECT count(*), sum(close), max(high) FROM candles",
}

HIVE = ds.partitioning(
    pa.schema([("market", "string"), ("symbol", "string"), ("interval", "string"), ("date", "date32")]),
    flavor="hive",
)


def make_lake(root: Path) -> None:
    store = LakeStore.create(str(root), "benchmark")
    for symbol in SYMBOLS:
        for number in range(DAYS):
            partition = Partition("spot", symbol, "1m", FIRST_DAY + timedelta(days=number))
            rows = [_candle(partition, minute) for minute in range(ROWS)]
            store.merge(partition, to_table(rows))


def _candle(partition: Partition, minute: int) -> Candle:
    begin_ms = partition.start_ms + minute * MINUTE_MS
    price = 100 + (begin_ms // MINUTE_MS * 7919 % 10_007) / 100
    volume = begin_ms // MINUTE_MS * 104_729 % 1_000_003 / 1e5
    return Candle(
        partition.market, partition.symbol, partition.interval, begin_ms, begin_ms + MINUTE_MS, price, price + 1.25,
        price - 1.5, price + 0.5, volume, volume * price, minute % 977, volume / 3, volume * price / 3, None,
        begin_ms * 1000, "archive",
    )  # fmt: skip


def serve(root: Path, delay_s: float, counts: Connection) -> None:
    """Serve a lake until the connection closes; send the counts of requests on demand."""
    from support.object_store import Store

    store = Store()
    uri = store.upload(root, "lake")
    store.delay_s = delay_s
    counts.send((uri, store.url))
    try:
        while True:
            counts.recv()
            counts.send(store.counted())
            store.requests.clear()
    except EOFError:
        store.close()


def by_dataset(url: str, sql: str) -> pa.Table:
    files = fs.S3FileSystem(access_key="test", secret_key="test", endpoint_override=url, region="us-east-1")
    found = ds.dataset("bucket/lake", filesystem=files, format="parquet", partitioning=HIVE)
    with duckdb.connect() as connection:
        connection.register("candles", found)
        return connection.sql(sql).to_arrow_table()


def measure(ask: Callable[[], pa.Table], counts: Connection, rounds: int) -> tuple[float, Counter[str]]:
    """Return the median in milliseconds, and the requests of one round."""
    times = []
    for _ in range(rounds):
        counts.send(None)
        counts.recv()
        began_s = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began_s) * 1000)
    counts.send(None)
    return statistics.median(times), counts.recv()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, nargs="*", default=[0, 30])
    options = parser.parse_args()
    print("| statement | added to a request | way | requests | ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "lake")
        make_lake(root)
        for delay_ms in options.delay_ms:
            our_end, their_end = multiprocessing.Pipe()
            server = multiprocessing.get_context("spawn").Process(
                target=serve, args=(root, delay_ms / 1000, their_end), daemon=True
            )
            server.start()
            their_end.close()
            uri, url = our_end.recv()
            lake = lakewriter.open_lake(uri)
            for name, sql in QUERIES.items():
                ways: dict[str, Callable[[], pa.Table]] = {
                    "dataset": lambda sql=sql, url=url: by_dataset(url, sql),  # type: ignore[misc]
                    "ours": lambda sql=sql, lake=lake: lake.query(sql).arrow(),  # type: ignore[misc]
                }
                for way, ask in ways.items():
                    took_ms, requests = measure(ask, our_end, options.rounds)
                    counted = ", ".join(f"{count} {verb}" for verb, count in sorted(requests.items()))
                    print(f"| {name} | {delay_ms:g} ms | {way} | {counted} | {took_ms:,.0f} |", flush=True)
            our_end.close()
            server.join()


if __name__ == "__main__":
    main()
