"""The cost of choosing files for a query, beside DuckDB with the list of files.

The lakes have hard links to the files of one series, so they are quick to make.
Four ways run in turns. All but `kept` open a connection for each statement:

    glob    read_parquet('LAKE/**/*.parquet')
    paths   read_parquet([…]) with exactly the paths of the answer
    kept    the same on a connection that stays open
    ours    lakewriter.open_lake(LAKE).query(…), from the SQL to the table

Each is measured three times:

    back to back    a way's statements without a pause between them
    with pauses     turn about, with a pause before each
    new texts       back to back, and no two statements are alike

The first query is measured again while a living journal has further candles of 3,000
series, as many as `--hot` says, which begin on the day after the last one.

A line shows the fastest rounds, which other programs on the machine disturb least.
Behind them is the difference between ours and the faster of paths and kept: of the
fastest rounds, and of the medians. The limits are 5 ms for repeated selective queries, and 1.05 times for
full scans. The page cache is warm.

    python benchmarks/query.py [--partitions 1000 10000 100000] [--rounds 5] [--hot 45000] [--directory /tmp]
        [--quick]
"""

import argparse
import gc
import itertools
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
from made_candles import candle, hot_candles

import lakewriter
from lakewriter.candle import to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.unchanged import SETTLED_S
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


def make_lake(root: Path, partitions: int, days_max: int = DAYS_MAX) -> tuple[list[str], list[date]]:
    """Make a lake of 1m candles; return its symbols and days."""
    days = [FIRST_DAY + timedelta(days=number) for number in range(min(days_max, partitions // 10))]
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


# A way takes the end of its statement.
Ways = dict[str, Callable[[str], pa.Table]]

_NUMBERS = itertools.count()


WAYS = ("glob", "paths", "kept", "ours")
HOWS = ("back to back", "with pauses", "new texts")


class Taken(NamedTuple):
    """The seconds of a way: of its middle round, and of its fastest."""

    median_s: float
    least_s: float


def timed(ways: Ways, rounds: int, how: str) -> dict[str, Taken]:
    """Return the seconds of each way; they must agree on the answer."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with_pauses = how == "with pauses"
    turns = [*ways] * rounds if with_pauses else [name for name in ways for _ in range(rounds)]
    answers = set()
    for name in turns:
        if taken[name] and taken[name][0] > SLOW_S:
            continue
        if with_pauses:
            gc.collect()
            time.sleep(PAUSE_S)
        comment = f" -- {next(_NUMBERS)}" if how == "new texts" else ""
        start = time.perf_counter()
        table = ways[name](comment)
        taken[name].append(time.perf_counter() - start)
        answers.add(str(sorted(map(str, table.select([0, 1, 2]).to_pylist()))))
    assert len(answers) <= 1, "the ways disagree"
    return {name: Taken(statistics.median(seconds), min(seconds)) for name, seconds in taken.items()}


def verdict(query: Query, taken: dict[str, Taken]) -> str:
    ours = taken["ours"]
    median_s = min(taken["paths"].median_s, taken["kept"].median_s)
    least_s = min(taken["paths"].least_s, taken["kept"].least_s)
    if query.is_full:
        ratio, of_medians = ours.least_s / least_s, ours.median_s / median_s
        return f"× {ratio:.2f} (limit {LIMIT_RATIO}), medians × {of_medians:.2f}"
    more_ms, least_more_ms = (ours.median_s - median_s) * 1000, (ours.least_s - least_s) * 1000
    return f"{least_more_ms:+.1f} ms (limit {LIMIT_MS:.0f}), medians {more_ms:+.1f}"


def measure(root: Path, partitions: int, rounds: int, hot: int) -> None:
    symbols, days = make_lake(root, partitions)
    lake = lakewriter.open_lake(root)
    lake.query("SELECT 1 FROM candles WHERE symbol = 'NONE'")  # imports modules, and creates the engine
    print(f"\n{len(symbols) * len(days):,} partitions of {ROWS:,} rows, load {os.getloadavg()[0]:.1f}")
    time.sleep(SETTLED_S)  # as in any lake that is not only just made
    print(f"{'':39}{''.join(f'{name:>10}' for name in WAYS)}   ms")
    engine = duckdb.connect()
    engine.execute("SET TimeZone='UTC'")
    for query in QUERIES:
        paths = [
            str(root / Partition("spot", symbol, "1m", day).file)
            for symbol in query.symbols or symbols
            for day in query.days or days
        ]
        ways: Ways = {
            "glob": lambda end, query=query: plain(
                statement(query, f"read_parquet('{root}/**/*.parquet', {HIVE})") + end
            ),
            "paths": lambda end, query=query, paths=paths: plain(
                statement(query, f"read_parquet({paths}, {HIVE})") + end
            ),
            "kept": lambda end, query=query, paths=paths: kept(
                engine, statement(query, f"read_parquet({paths}, {HIVE})") + end
            ),
            "ours": lambda end, query=query: lake.query(statement(query, "candles") + end).arrow(),
        }
        measure_ways(query, ways, rounds)
        if hot and query is QUERIES[0]:
            print(f"the same while {hot:,} candles are in the journal:")
            with hot_candles(root, days[-1] + timedelta(days=1), hot):
                measure_ways(query, ways, rounds)


def measure_ways(query: Query, ways: Ways, rounds: int) -> None:
    """Measure the ways in each of HOWS, and print a line for each."""
    ways = dict(ways)
    for how in HOWS:
        # A glob takes far longer than the others, in any way.
        if how != HOWS[0]:
            ways.pop("glob", None)
        taken = timed(ways, rounds, how)
        cells = "".join(f"{taken[name].least_s * 1000:10.1f}" if name in taken else " " * 10 for name in WAYS)
        print(f"{query.name:26}{how:13}{cells}   {verdict(query, taken)}", flush=True)
        if taken["kept"].median_s > SLOW_S:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hot", type=int, default=45_000)
    parser.add_argument("--directory", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="few partitions, one round: whether it works")
    options = parser.parse_args()
    if options.quick:
        options.partitions, options.rounds, options.hot = [100], 1, 100
    for partitions in options.partitions:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            measure(Path(scratch) / "lake", partitions, options.rounds, options.hot)


if __name__ == "__main__":
    main()
