"""The cost of importing the archive's files: lakewriter, pandas and DuckDB on the same zips, in turns.

Days of the archive are copied under several symbols, so that there are enough
files, one per partition. Each way reads the same zips and writes a Hive tree of
Parquet:

    ours      unzip, parse, check, sort, merge: locked, synced, renamed, synced
    pandas    read_csv from the zip, clean, to_parquet for each day
    DuckDB    COPY (SELECT … FROM read_csv(…)) TO … (PARTITION_BY …); it cannot read
              zips, so its time includes unzipping them into a directory

Neither pandas nor DuckDB checks, locks, syncs or replaces atomically. "ours, unsynced"
is ours without its syncs. The results are the ratios, on one core:

    taskset -c 0 python benchmarks/history.py [ZIPS] [--files 600] [--directory .] [--quick]

An older clone can be measured beside this one, in turns, each import in its own process:

    taskset -c 0 python benchmarks/history.py --beside PATH/TO/OLD/CLONE [--without-deflate]

ZIPS is a directory of the archive's daily spot zips from before 2025. Without it,
captured zips are taken if there are any; otherwise the sandbox makes some. `--quick` takes few files, and
judges no time.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd

from lakewriter.binance.archive_csv import CSV_BYTES_MAX, parse_csv, unzip
from lakewriter.candle import VALUE_COLUMNS
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.import_files import ImportJob, find_files, import_files
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import Partition
from lakewriter.sandbox import Truth
from lakewriter.series import Series

REPOSITORY = Path(__file__).resolve().parent.parent
CAPTURES = Path(os.environ.get("LAKEWRITER_CAPTURES", REPOSITORY.parent / "shared" / "captures"))
COLUMNS = ("candle_begin_time", *VALUE_COLUMNS[:5], "close_time", *VALUE_COLUMNS[5:], "ignore")
WHOLE = ("candle_begin_time", "close_time", "trade_num")
MINUTE_US = 60_000_000
PANDAS_TIMES_MIN, DUCKDB_TIMES_MIN = 5.0, 0.5


class Spent(NamedTuple):
    """Seconds of the wall and of the processor."""

    wall_s: float
    cpu_s: float


class Unsynced(LocalStorage):
    """Storage that does not sync."""

    @contextlib.contextmanager
    def _parallel_sync(self, count: int) -> Iterator[Callable[..., None]]:  # noqa: ARG002
        yield lambda _sync, _things: None


def made_zips(directory: Path) -> list[Path]:
    """Make three days of the sandbox as the archive would have them."""
    start_ms = 1_719_705_600_000
    for first_ms in range(start_ms, start_ms + 3 * DAY_MS, DAY_MS):
        rows = [
            [each.begin_ms, *each[2:7], each.end_ms - 1, *each[7:11], 0]
            for each in Truth().candles("spot", "BTCUSDT", "1m", first_ms, first_ms + DAY_MS)
        ]
        name = f"BTCUSDT-1m-{datetime.fromtimestamp(first_ms / 1000, UTC):%Y-%m-%d}"
        with zipfile.ZipFile(directory / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.csv", "".join(",".join(map(str, row)) + "\n" for row in rows))
    return sorted(directory.glob("*.zip"))


def copied(zips: list[Path], count: int, directory: Path) -> list[Path]:
    """Copy the zips and the CSVs in them under several symbols until there are `count` files."""
    files = []
    for number in range(count):
        path = zips[number % len(zips)]
        _, interval, day = path.stem.split("-", 2)
        name = f"S{number // len(zips):03d}USDT-{interval}-{day}"
        files.append(directory / f"{name}.zip")
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(files[-1], "w", zipfile.ZIP_DEFLATED) as copy:
            copy.writestr(f"{name}.csv", source.read(source.namelist()[0]))
    return files


def ours(zips: Path, lake: Path) -> None:
    store = LakeStore.create(str(lake), "benchmark")
    done = list(
        import_files(
            store, find_files([zips]), ImportJob(ImportOptions(market="spot"), time.time_ns() // 10**6)
        )
    )
    assert not [each.error for each in done if each.error]


def ours_unsynced(zips: Path, lake: Path) -> None:
    store = LakeStore.create(str(lake), "benchmark")
    store.storage = Unsynced(store.root, lake / "_lakewriter/locks")
    assert not [
        each.error
        for each in import_files(
            store, find_files([zips]), ImportJob(ImportOptions(market="spot"), time.time_ns() // 10**6)
        )
        if each.error
    ]


def by_pandas(zips: Path, lake: Path) -> None:
    for path in sorted(zips.iterdir()):
        symbol, interval, _ = path.stem.split("-", 2)
        rows = pd.read_csv(path, header=None, names=COLUMNS)
        rows = rows.drop(columns=["close_time", "ignore"])
        rows["candle_begin_time"] = pd.to_datetime(rows["candle_begin_time"], unit="ms", utc=True)
        rows.insert(1, "candle_end_time", rows["candle_begin_time"] + pd.Timedelta(minutes=1))
        rows["source"] = "archive"
        rows = rows.drop_duplicates("candle_begin_time").sort_values("candle_begin_time")
        for day, of_day in rows.groupby(rows["candle_begin_time"].dt.date):
            partition = lake / f"market=spot/symbol={symbol}/interval={interval}/date={day}"
            partition.mkdir(parents=True)
            of_day.to_parquet(partition / "candles.parquet", compression="zstd", index=False)


def by_duckdb(zips: Path, lake: Path) -> None:
    csvs = lake.with_suffix(".csv")
    csvs.mkdir()
    for path in zips.iterdir():
        (csvs / f"{path.stem}.csv").write_bytes(unzip(path.read_bytes(), path.name, CSV_BYTES_MAX).text)
    columns = ", ".join(f"'{name}': '{'BIGINT' if name in WHOLE else 'DOUBLE'}'" for name in COLUMNS)
    connection = duckdb.connect(config={"threads": len(os.sched_getaffinity(0))})
    connection.execute(
        f"""COPY (
            SELECT 'spot' AS market,
                   split_part(parse_filename(filename), '-', 1) AS symbol,
                   split_part(parse_filename(filename), '-', 2) AS "interval",
                   make_timestamp(candle_begin_time * 1000)::DATE AS date,
                   make_timestamptz(candle_begin_time * 1000) AS candle_begin_time,
                   make_timestamptz(candle_begin_time * 1000 + {MINUTE_US}) AS candle_end_time,
                   {", ".join(VALUE_COLUMNS)}, 'archive' AS source
            FROM read_csv('{csvs}/*.csv', header = false, columns = {{{columns}}}, filename = true)
        ) TO '{lake}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (market, symbol, "interval", date))"""
    )
    connection.close()


WAYS = {"ours": ours, "ours, unsynced": ours_unsynced, "pandas": by_pandas, "DuckDB": by_duckdb}


def timed(work: Callable[[], None]) -> Spent:
    before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_SELF)
    return Spent(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def looked_at(lake: Path) -> tuple[int, int, int]:
    """Return the numbers of files, rows and bytes that a way wrote."""
    files = list(lake.rglob("*.parquet"))
    ((rows,),) = duckdb.sql(f"SELECT count(*) FROM read_parquet('{lake}/**/*.parquet')").fetchall()
    return len(files), rows, sum(path.stat().st_size for path in files)


def print_parts(files: list[Path]) -> None:
    """Print the time of each part of ours alone, in memory."""
    series = Series("spot", "BTCUSDT", "1m")
    zipped = [path.read_bytes() for path in files[:100]]
    texts = [unzip(data, "zip", CSV_BYTES_MAX).text for data in zipped]
    tables = [parse_csv(text, series, 0, "csv") for text in texts]
    partition = Partition(*series, datetime.now(UTC).date())
    parts: dict[str, Callable[[], None]] = {
        "unzip": lambda: [unzip(data, "zip", CSV_BYTES_MAX) for data in zipped] and None,
        "parse": lambda: [parse_csv(text, series, 0, "csv") for text in texts] and None,
        "encode": lambda: [encode(table, partition) for table in tables] and None,
    }
    for name, work in parts.items():
        spent = min(timed(work) for _ in range(3))
        print(f"    {name:18}{'':>12} {spent.wall_s * 1000 / len(zipped):10.2f}")


def import_once(clone: Path, zips: Path, lake: Path, *, without_deflate: bool) -> tuple[Spent, int, int]:
    """Import the zips by a clone in a process of its own; return the time, and the numbers of rows and bytes."""
    script = Path(__file__).with_name("import_once.py")
    command = [sys.executable, str(script), str(zips), str(lake), *["--without-deflate"] * without_deflate]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(clone)}, check=True, stdout=subprocess.PIPE
    )
    wall_s, cpu_s, rows, written = json.loads(done.stdout)
    shutil.rmtree(lake)
    return Spent(wall_s, cpu_s), rows, written


def print_beside(other: Path, zips: Path, options: argparse.Namespace) -> None:
    """Print the medians of imports by another clone and by this one, and their ratio."""
    clones = {"theirs": other.resolve(), "ours": REPOSITORY}
    spent: dict[str, list[Spent]] = {name: [] for name in clones}
    left = {}
    for number in range(options.rounds):
        for name, clone in clones.items():
            lake = zips.parent / f"{name}-{number}"
            once, *left[name] = import_once(clone, zips, lake, without_deflate=options.without_deflate)
            spent[name].append(once)
    files = len(list(zips.iterdir()))
    print(f"{files} zips, {options.rounds} rounds, {len(os.sched_getaffinity(0))} cores")
    print(f"{'':8} {'ms/file':>9} {'CPU ms':>9} {'B/row':>8}")
    medians = {name: Spent(*map(statistics.median, zip(*each, strict=True))) for name, each in spent.items()}
    for name, (wall_s, cpu_s) in medians.items():
        rows, written = left[name]
        print(f"{name:8} {wall_s * 1000 / files:9.2f} {cpu_s * 1000 / files:9.2f} {written / rows:8.2f}")
    wall, cpu = (our / their for our, their in zip(medians["ours"], medians["theirs"], strict=True))
    print(f"ours takes {wall:.2f} of their time, {cpu:.2f} of their CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zips", nargs="?", type=Path)
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--beside", type=Path, help="an older clone to measure instead of pandas and DuckDB")
    parser.add_argument("--without-deflate", action="store_true", help="inflate by zlib, with --beside")
    parser.add_argument("--quick", action="store_true", help="20 files, 1 round")
    options = parser.parse_args()
    if options.quick:
        options.files, options.rounds = 20, 1
    spent: dict[str, list[Spent]] = {name: [] for name in WAYS}
    left = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        scratch = Path(name)
        for directory in ("made", "zips"):
            (scratch / directory).mkdir()
        given = sorted((options.zips or CAPTURES / "archive/spot").glob("*-1m-*.zip"))
        files = copied(given or made_zips(scratch / "made"), options.files, scratch / "zips")
        if options.beside:
            print_beside(options.beside, scratch / "zips", options)
            return
        for number in range(options.rounds):
            for way, work in WAYS.items():
                lake = scratch / f"{len(spent[way])}-{way.replace(', ', '-')}"
                spent[way].append(timed(lambda work=work, lake=lake: work(scratch / "zips", lake)))
                left[way] = looked_at(lake)
            print(f"round {number + 1} of {options.rounds}", flush=True)
        kind = "captured" if given else "made"
        print(f"{len(files)} {kind} zips, {len(os.sched_getaffinity(0))} cores\n")
        print(f"{'':22} {'rows/s':>12} {'ms/file':>10} {'CPU ms':>10} {'B/row':>8} {'files':>7}")
        medians = {
            way: Spent(*map(statistics.median, zip(*each, strict=True))) for way, each in spent.items()
        }
        for way, (wall_s, cpu_s) in medians.items():
            count, rows, size = left[way]
            assert rows == left["ours"][1], f"{way} left {rows} rows"
            print(
                f"{way:22} {rows / wall_s:12,.0f} {wall_s * 1000 / len(files):10.2f} "
                f"{cpu_s * 1000 / len(files):10.2f} {size / rows:8.1f} {count:7}"
            )
        print("of ours, alone and in memory:")
        print_parts(files)
    print()
    for way, times in (("pandas", PANDAS_TIMES_MIN), ("DuckDB", DUCKDB_TIMES_MIN)):
        wall, cpu = (theirs / our for theirs, our in zip(medians[way], medians["ours"], strict=True))
        print(f"{way} takes {wall:.1f} times as long as ours, {cpu:.1f} times its CPU (wanted: {times:g})")


if __name__ == "__main__":
    main()
