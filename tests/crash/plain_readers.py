"""Plain readers of the torture test: processes that glob the lake repeatedly, and print their findings.

    PYTHONPATH=tests python -m crash.plain_readers duckdb LAKE

A lake in a bucket is read by pyarrow's own file system, and by DuckDB over pyarrow. A read of
pyarrow's is torn if an object is replaced between its requests: it then fails, which is no
error of the lake's writers. The findings count these reads apart, as "torn".

Foreign files are only put into symbols that begin with a letter of FOREIGN. Plain globs may
see their candles twice until they are folded, so plain readers leave these symbols out.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

# The first letters of the symbols that get foreign files.
FOREIGN = "DX"

# A reader that failed because a file was replaced under it may ask so often again.
ASK_AGAIN_MAX = 20

_KEY = ["market", "symbol", "interval", "candle_begin_time"]


def plain_files(lake: Path) -> list[Path]:
    """Return the files that plain readers read."""
    return list(lake.glob(f"market=*/symbol=[!{FOREIGN}]*/interval=*/date=*/*.parquet"))


def _read_with_duckdb(lake: Path) -> tuple[int, int]:
    glob = f"{lake}/market=*/symbol=[!{FOREIGN}]*/interval=*/date=*/*.parquet"
    with duckdb.connect() as connection:
        [counts] = connection.execute(
            f"""SELECT count(*), count(DISTINCT ({", ".join(f'"{name}"' for name in _KEY)}))
                FROM read_parquet('{glob}', hive_partitioning = true,
                hive_types = {{market: VARCHAR, symbol: VARCHAR, interval: VARCHAR, date: DATE}})"""
        ).fetchall()
    return counts


def _read_with_pyarrow(lake: Path) -> tuple[int, int]:
    ignored = [".", "_", *(f"symbol={letter}" for letter in FOREIGN)]
    dataset = ds.dataset(lake, format="parquet", partitioning="hive", ignore_prefixes=ignored)
    table = dataset.to_table(columns=_KEY)
    return table.num_rows, table.group_by(_KEY).aggregate([]).num_rows


def _remote_dataset(lake: str) -> ds.Dataset:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem  # takes long, and a disk needs none

    files = S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"],
        region="us-east-1",
        connect_timeout=3,
        request_timeout=5,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),
    )
    ignored = [".", "_", *(f"symbol={letter}" for letter in FOREIGN)]
    place = lake.removeprefix("s3://")
    return ds.dataset(place, filesystem=files, format="parquet", partitioning="hive", ignore_prefixes=ignored)


def _read_remote_with_pyarrow(lake: str) -> tuple[int, int]:
    table = _remote_dataset(lake).to_table(columns=_KEY)
    return table.num_rows, table.group_by(_KEY).aggregate([]).num_rows


def _read_remote_with_duckdb(lake: str) -> tuple[int, int]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("candles", _remote_dataset(lake))
        keys = ", ".join(f'"{name}"' for name in _KEY)
        [counts] = connection.execute(f"SELECT count(*), count(DISTINCT ({keys})) FROM candles").fetchall()
    return counts


REMOTE_READERS: dict[str, Callable[[str], tuple[int, int]]] = {
    "duckdb": _read_remote_with_duckdb,
    "pyarrow": _read_remote_with_pyarrow,
}

READERS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "duckdb": _read_with_duckdb,
    "pyarrow": _read_with_pyarrow,
}


def read_for_ever(engine: str, lake: str) -> None:
    """Read repeatedly, with one line per read, while the parent lives."""
    is_remote = "://" in lake
    os.nice(10)  # two greedy readers would leave the others no processor
    parent = os.getppid()
    most = again = 0
    while os.getppid() == parent:
        if not again:
            time.sleep(0.1)
        try:
            rows, keys = REMOTE_READERS[engine](lake) if is_remote else READERS[engine](Path(lake))
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if is_remote:
                # A refused connection, or an answer of a server that is just starting.
                print("away" if "AWS Error" in str(error) else "torn", *str(error).split(), flush=True)
                continue
            # DuckDB opens a file twice, and fails if it was replaced in between: asked
            # again, it answers (docs/explanation/consistency.md, "Two windows"). A file never vanishes.
            replaced = isinstance(error, duckdb.Error) and "No " not in str(error)
            again = again + 1 if replaced else 0
            print("again" if 0 < again <= ASK_AGAIN_MAX else "error", *str(error).split(), flush=True)
            continue
        again = 0
        print(f"read {rows}", flush=True)
        if rows != keys:
            print(f"{rows - keys} duplicates", flush=True)
        if keys < most:
            print(f"{most - keys} candles vanished", flush=True)
        most = max(most, keys)


if __name__ == "__main__":
    read_for_ever(sys.argv[1], sys.argv[2])
