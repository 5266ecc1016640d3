"""The cost of whole reads, beside DuckDB, Polars and pyarrow with the list of files.

    year        one series of a year of 1m candles: `Lake.candles_arrow` beside Polars, and
                `Lake.candles` beside pyarrow to pandas
    wide        `close` of 200 symbols in 30 days: beside DuckDB on a kept connection, with
                exactly the paths of the answer and no WHERE
    names       which symbols there are, and the last day: beside DuckDB on all files
    process     one statement in a new process, beside a process that only uses DuckDB

All ways of a line run in turns, and have to agree on the number of rows. A line shows
milliseconds of wall time and of CPU, each of the fastest round, and the ratio of both to
the peer's. The page cache is warm. With `--hot` a living journal has that many further
candles, of the day after the last one.

    python benchmarks/read.py [--rounds 5] [--hot 0 45000] [--directory /tmp] [--parts year wide names process]
        [--quick]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
from made_candles import hot_candles

import lakewriter
from lakewriter.lake.unchanged import SETTLED_S
from lakewriter.partition import Partition
from query import HIVE, make_lake

FIRST_DAY = date(2024, 1, 1)
WIDE_SYMBOLS, WIDE_DAYS = 200, 30
SERIES = ("spot", "S0001USDT", "1m")


class Lake(NamedTuple):
    """A lake, its root, its symbols and its days."""

    lake: lakewriter.Lake
    root: Path
    symbols: list[str]
    days: list[date]

    def paths(self, symbols: list[str], days: list[date]) -> list[str]:
        """Return the files of the symbols and days."""
        return [str(self.root / Partition("spot", name, "1m", day).file) for name in symbols for day in days]


class Taken(NamedTuple):
    """The milliseconds of a way's fastest round: of wall time, and of CPU."""

    wall_ms: float
    cpu_ms: float


# Name → a way, which returns the number of its rows.
Ways = dict[str, Callable[[], int]]


def cpu_s() -> float:
    """Return the CPU time of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(ways: Ways, rounds: int) -> dict[str, Taken]:
    """Return the fastest round of each way; they must agree on the number of rows."""
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    counts = set()
    for _ in range(rounds):
        for name, way in ways.items():
            cpu, start = cpu_s(), time.perf_counter()
            counts.add(way())
            walls[name].append(time.perf_counter() - start)
            cpus[name].append(cpu_s() - cpu)
    assert len(counts) == 1, f"the ways disagree: {counts}"
    return {name: Taken(min(walls[name]) * 1000, min(cpus[name]) * 1000) for name in ways}


def show(what: str, ways: Ways, rounds: int) -> None:
    """Measure two ways, ours last, and print a line."""
    taken = measure(ways, rounds)
    (peer, theirs), (_, ours) = taken.items()
    print(
        f"{what:34} {peer:24} wall {theirs.wall_ms:8.1f}  ours {ours.wall_ms:8.1f}  × {ours.wall_ms / theirs.wall_ms:.2f}"
        f"   CPU {theirs.cpu_ms:8.1f}  ours {ours.cpu_ms:8.1f}  × {ours.cpu_ms / theirs.cpu_ms:.2f}",
        flush=True,
    )


def made(root: Path, partitions: int, days: int) -> Lake:
    """Make a lake of hard links, and wait until its directories have settled."""
    symbols, all_days = make_lake(root, partitions, days)
    time.sleep(SETTLED_S)
    return Lake(lakewriter.open_lake(root), root, symbols, all_days)


def year(lake: Lake, rounds: int) -> None:
    stop = lake.days[-1] + timedelta(days=1)
    paths = lake.paths([SERIES[1]], lake.days)

    def by_pyarrow() -> Any:
        return pa.concat_tables([pq.ParquetFile(path).read(use_threads=False) for path in paths]).to_pandas()

    show(
        "candles_arrow, a year of 1m",
        {
            "polars scan_parquet": lambda: len(polars.scan_parquet(paths).collect()),
            "ours": lambda: len(lake.lake.candles_arrow(*SERIES, stop=stop)),
        },
        rounds,
    )
    show(
        "candles, a year of 1m",
        {
            "pyarrow to pandas": lambda: len(by_pyarrow()),
            "ours": lambda: len(lake.lake.candles(*SERIES, stop=stop)),
        },
        rounds,
    )


def wide(lake: Lake, rounds: int) -> None:
    symbols, days = lake.symbols[:WIDE_SYMBOLS], lake.days[5 : 5 + WIDE_DAYS]
    engine = duckdb.connect()
    plain = f"SELECT close FROM read_parquet({lake.paths(symbols, days)}, {HIVE})"
    names = f"market = 'spot' AND \"interval\" = '1m' AND symbol IN {tuple(symbols)}"
    wheres = {
        "by date": f"{names} AND \"date\" BETWEEN '{days[0]}' AND '{days[-1]}'",
        "by time": f"{names} AND candle_begin_time >= '{days[0]}' AND candle_begin_time < '{days[-1] + timedelta(days=1)}'",
    }
    for how, where in wheres.items():
        show(
            f"close of {len(symbols)} × {len(days)} days, {how}",
            {
                "duckdb kept, no WHERE": lambda: len(engine.sql(plain).to_arrow_table()),
                "ours": lambda where=where: len(
                    lake.lake.query(f"SELECT close FROM candles WHERE {where}").arrow()
                ),
            },
            rounds,
        )


def names(lake: Lake, rounds: int) -> None:
    engine = duckdb.connect()
    files = f"read_parquet({lake.paths(lake.symbols, lake.days)}, {HIVE})"
    for sql in ("SELECT DISTINCT symbol FROM {}", 'SELECT max("date") FROM {}'):
        show(
            sql.format("candles"),
            {
                "duckdb kept, all files": lambda sql=sql: len(engine.sql(sql.format(files)).fetchall()),
                "ours": lambda sql=sql: len(lake.lake.query(sql.format("candles"))),
            },
            rounds,
        )


def process(lake: Lake, rounds: int) -> None:
    day = lake.days[3]
    sql = "SELECT count(*) AS n, max(high) AS high FROM {} WHERE symbol = 'S0001USDT' AND candle_begin_time >= '{}' AND candle_begin_time < '{}'"
    times = day, day + timedelta(days=3)
    files = f"read_parquet({lake.paths([SERIES[1]], lake.days[3:6])}, {HIVE})"
    program = f"import duckdb, pyarrow; print(duckdb.sql({sql.format(files, *times)!r}).to_arrow_table().to_pylist())"
    ours = [
        str(Path(sys.executable).with_name("lakewriter")),
        "query",
        sql.format("candles", *times),
        "--lake",
        str(lake.root),
    ]

    def run(command: list[str]) -> int:
        return subprocess.run(command, check=True, stdout=subprocess.DEVNULL).returncode

    show(
        "one series, three days, process",
        {"python, duckdb, pyarrow": lambda: run([sys.executable, "-c", program]), "ours": lambda: run(ours)},
        rounds,
    )


# Part → its partitions, its days, and the function that measures it.
PARTS: dict[str, tuple[int, int, Callable[[Lake, int], None]]] = {
    "year": (3_650, 365, year),
    "wide": (8_000, 40, wide),
    "names": (10_000, 365, names),
    "process": (3_650, 365, process),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hot", type=int, nargs="+", default=[0, 45_000])
    parser.add_argument("--directory", help="on the disk to measure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="few partitions, one round: whether it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.hot = 1, [100]
    for part in options.parts:
        partitions, days, measured = PARTS[part]
        partitions, days = (100, 10) if options.quick else (partitions, days)
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            lake = made(Path(scratch) / "lake", partitions, days)
            # Other tools do not see the journal's symbols.
            for hot in [0] if part == "names" else options.hot:
                print(
                    f"\n{part}: {partitions:,} partitions, {hot:,} hot candles, load {os.getloadavg()[0]:.1f}"
                )
                with hot_candles(lake.root, lake.days[-1] + timedelta(days=1), hot):
                    measured(lake, options.rounds)


if __name__ == "__main__":
    main()
