"""The cost of choosing files for a query, beside DuckDB with the list of files.

The lakes have hard links to the files of one series, so they are quick to make.
Four ways run in turns. All but `kept` open a connection for each statement:

    glob    read_parquet('LAKE/**/*.parquet')
    paths   read_parquet([…]) with exactly the paths of the answer
    kept    the same on a connection that stays open
    ours    lakewriter.open_lake(LAKE).query(…), from the SQL to the table

Each is measured twice: back to back (the statements of a way without a pause)
and with pauses (in turns, with a pause before each). The result is the time of
`ours` beside the faster of `paths` and `kept`. The limit is 5 ms more for selective
queries, and 1.05 times for full scans. The page cache is warm.

    python benchmarks/query.py [--partitions 1000 10000 100000] [--rounds 5] [--directory /tmp]
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
from made_candles import candle

import lakewriter
from lakewriter.candle import to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import Partition

FIRST_DAY = date(2024, 1, 1)
DAYS_MAX = 365
ROWS = 1440
LIMIT_MS = 5.0
PAUSE_S = 0.05
LIMIT_RATIO = 1.05

# A slower way is measured once.
SLOW_S = 2.0

HIVE = (
    "hive_partitioning=true, hive_types_autocast=false, "
    "hive_types={'market': 'VARCHAR', 'symbol': 'VARCHAR', 'interval': 'VARCHAR', 'date': 'DATE'}"
)


class Query(NamedTuple):
    """A query, and the files of its answer.

    Args:
        where: its predicate.
        symbols, days: of the files; None is all.
    """

    name: str
    where: str
    symbols: tuple[str, ...] | None
    days: tuple[date, ...] | None

    @property
    def is_full(self) -> bool:
        return self.symbols is None and self.days is None


DAY = FIRST_DAY + timedelta(days=3)
THREE = tuple(DAY + timedelta(days=number) for number in range(3))
TIMES = f"candle_begin_time >= '{THREE[0]}' AND candle_begin_time < '{THREE[-1] + timedelta(days=1)}'"
NAMES = ("S0001USDT", "S0004USDT", "S0008USDT")

QUERIES = [
    Query(
        "one series, three days",
        f"market = 'spot' AND symbol = '{NAMES[0]}' AND \"interval\" = '1m' AND {TIMES}",
        NAMES[:1],
        THREE,
    ),
    Query("one symbol", f"symbol = '{NAMES[0]}'", NAMES[:1], None),
    Query("three symbols", f"symbol IN {NAMES}", NAMES, None),
    Query("one day, all symbols", f"\"date\" = '{DAY}'", None, (DAY,)),
    Query("three days by time alone", TIMES, None, THREE),
    Query("everything", "high > 0", None, None),
]


def make_lake(root: Path, partitions: int) -> tuple[list[str], list[date]]:
    """Make a lake of 1m candles; return its symbols and days."""
    days = [FIRST_DAY + timedelta(days=number) for number in range(min(DAYS_MAX, partitions // 10))]
    symbols = [f"S{number:04d}USDT" for number in range(partitions // len(days))]
    store = LakeStore.create(str(root), "benchmark")
    for day in days:
        first = Partition("spot", symbols[0], "1m", day)
        store.merge(first, to_table(candle(first, minute) for minute in range(ROWS)))
        for symbol in symbols[1:]:
            other = Partition("spot", symbol, "1m", day)
            (root / other.path).mkdir(parents=True)
            os.link(root / first.file, root / other.file)
    return symbols, days


def statement(query: Query, table: str) -> str:
    return f"SELECT symbol, count(*), max(high), sum(volume) FROM {table} WHERE {query.where} GROUP BY symbol"


def plain(sql: str) -> pa.Table:
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone='UTC'")
        return connection.sql(sql).to_arrow_table()
    finally:
        connection.close()


def kept(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


Ways = dict[str, Callable[[], pa.Table]]


def timed(ways: Ways, rounds: int, *, back_to_back: bool) -> dict[str, float]:
    """Return the median seconds of each way; they must agree on the answer."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    turns = [name for name in ways for _ in range(rounds)] if back_to_back else [*ways] * rounds
    answers = set()
    for name in turns:
        if taken[name] and taken[name][0] > SLOW_S:
            continue
        if not back_to_back:
            gc.collect()
            time.sleep(PAUSE_S)
        start = time.perf_counter()
        table = ways[name]()
        taken[name].append(time.perf_counter() - start)
        answers.add(str(sorted(map(str, table.select([0, 1, 2]).to_pylist()))))
    assert len(answers) <= 1, "the ways disagree"
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def verdict(query: Query, seconds: dict[str, float]) -> str:
    least_s = min(seconds["paths"], seconds["kept"])
    if query.is_full:
        return f"× {seconds['ours'] / least_s:.2f} (limit {LIMIT_RATIO})"
    return f"{(seconds['ours'] - least_s) * 1000:+.1f} ms (limit {LIMIT_MS:.0f})"


def measure(root: Path, partitions: int, rounds: int) -> None:
    symbols, days = make_lake(root, partitions)
    lake = lakewriter.open_lake(root)
    print(f"\n{len(symbols) * len(days):,} partitions of {ROWS:,} rows")
    print(f"{'':39}{'glob':>10}{'paths':>10}{'kept':>10}{'ours':>10}   ms")
    engine = duckdb.connect()
    engine.execute("SET TimeZone='UTC'")
    for query in QUERIES:
        paths = [
            str(root / Partition("spot", symbol, "1m", day).file)
            for symbol in query.symbols or symbols
            for day in query.days or days
        ]
        ways: Ways = {
            "glob": lambda query=query: plain(
                statement(query, f"read_parquet('{root}/**/*.parquet', {HIVE})")
            ),
            "paths": lambda query=query, paths=paths: plain(
                statement(query, f"read_parquet({paths}, {HIVE})")
            ),
            "kept": lambda query=query, paths=paths: kept(
                engine, statement(query, f"read_parquet({paths}, {HIVE})")
            ),
            "ours": lambda query=query: lake.query(statement(query, "candles")).arrow(),
        }
        for back_to_back in (True, False):
            seconds = timed(ways, rounds, back_to_back=back_to_back)
            cells = "".join(f"{seconds[name] * 1000:10.1f}" for name in ways)
            how = "back to back" if back_to_back else "with pauses"
            print(f"{query.name:26}{how:13}{cells}   {verdict(query, seconds)}", flush=True)
            if seconds["glob"] > SLOW_S:
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="on the disk to measure")
    options = parser.parse_args()
    for partitions in options.partitions:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            measure(Path(scratch) / "lake", partitions, options.rounds)


if __name__ == "__main__":
    main()
