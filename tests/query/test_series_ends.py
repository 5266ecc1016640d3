"""Statements on names and days read the first and the last file of each series."""

from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.candle import SCHEMA, Candle
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.query.session import run
from support.lakes import BEGIN_MS, STEPS_MS, add_foreign, make_lake, rest_candle, write_parquet
from support.lengths import examples
from support.statements import in_any_order
from support.watched_lake import WatchedLake, watched

__all__ = ["watched"]  # the fixture

# Each has the same answer over the ends of each series.
STATEMENTS = [
    "SELECT DISTINCT symbol FROM candles",
    "SELECT DISTINCT market, symbol, \"interval\" FROM candles ORDER BY ALL",
    "SELECT max(\"date\"), min(\"date\") FROM candles",
    "SELECT max(\"date\") - min(\"date\") AS days FROM candles WHERE symbol LIKE 'A%'",
    "SELECT symbol, min(\"date\") AS first, max(\"date\") AS last FROM candles GROUP BY symbol ORDER BY last DESC, symbol",
    "SELECT upper(symbol) AS name, count(DISTINCT \"interval\") FROM candles GROUP BY ALL",
    "SELECT count(DISTINCT symbol) FROM candles WHERE \"date\" >= '2024-07-02'",
    "SELECT \"interval\", max(\"date\") FROM candles WHERE \"date\" BETWEEN '2024-07-02' AND '2024-07-05' GROUP BY \"interval\"",
    "SELECT DISTINCT symbol FROM candles WHERE \"date\" = '2024-07-03' AND market = 'spot'",
    "SELECT market, max(symbol) FROM candles GROUP BY market HAVING max(\"date\") > '2024-07-02'",
    "SELECT symbol FROM candles GROUP BY GROUPING SETS ((symbol), ()) HAVING min(\"date\") < '2024-07-04'",
]  # fmt: skip

# Each needs more than the ends: rows count, days inside of a series, or other columns.
OTHERS = [
    "SELECT DISTINCT \"date\" FROM candles",
    "SELECT symbol FROM candles",
    "SELECT symbol, count(*) FROM candles GROUP BY symbol",
    "SELECT count(symbol), max(\"date\") FROM candles",
    "SELECT DISTINCT symbol, close FROM candles",
    "SELECT DISTINCT * FROM candles",
    "SELECT max(\"date\") FROM candles WHERE candle_begin_time < '2024-07-02 12:00'",
    "SELECT max(\"date\") FROM candles WHERE close > 103",
    "SELECT min(\"date\") FILTER (WHERE \"date\" > '2024-07-01') FROM candles",
    "SELECT max(day(\"date\")) FROM candles",
    "SELECT max(\"date\", 2) FROM candles",
    "SELECT DISTINCT symbol, row_number() OVER (ORDER BY symbol) FROM candles",
    "SELECT list(symbol ORDER BY symbol) FROM candles",
    "SELECT \"date\", max(symbol) FROM candles GROUP BY \"date\"",
]  # fmt: skip


def expect_all_rows_answer(store: LakeStore, rows: list[Candle]) -> None:
    """Check each statement against plain DuckDB over the rows themselves."""
    plain = duckdb.connect()
    values = ", ".join(
        f"('{row.market}', '{row.symbol}', '{row.interval}', make_timestamp({row.begin_ms * 1000})::DATE,"
        f" make_timestamp({row.begin_ms * 1000}), {row.close}::DOUBLE)"
        for row in {(*row.series, row.begin_ms): row for row in rows}.values()
    )
    empty = "SELECT 'x', 'x', 'x', DATE '2024-01-01', TIMESTAMP '2024-01-01', 1.0::DOUBLE WHERE false"
    plain.execute(
        "CREATE TABLE candles AS SELECT * FROM ("
        + (f"VALUES {values}" if values else empty)
        + ') t(market, symbol, "interval", "date", candle_begin_time, close)'
    )
    for sql in (*STATEMENTS, *(sql for sql in OTHERS if "*" not in sql and "close" not in sql)):
        assert in_any_order(run(store, sql)) == in_any_order(plain.sql(sql).to_arrow_table()), sql


def a_candle(symbol: str, interval: str, day: int) -> Candle:
    begin_ms = BEGIN_MS + day * DAY_MS
    return rest_candle(
        0, symbol=symbol, interval=interval, begin_ms=begin_ms, end_ms=begin_ms + STEPS_MS[interval]
    )


PLACES = st.sampled_from(["file", "journal", "foreign", "empty", "empty foreign"])
SERIES = st.tuples(st.sampled_from(["AUSDT", "BUSDT", "币USDT"]), st.sampled_from(["1m", "1h"]))


@examples(4, 200, suppress_health_check=list(HealthCheck))
@given(placed=st.dictionaries(st.tuples(SERIES, st.integers(0, 8)), PLACES, max_size=10))
def test_answers_are_those_of_all_rows(
    tmp_path_factory: pytest.TempPathFactory, placed: dict[tuple[tuple[str, str], int], str]
) -> None:
    """Files without rows, files of other tools and hot rows at the ends change nothing."""
    candles: dict[str, list[Candle]] = {
        place: [] for place in ("file", "journal", "foreign", "empty", "empty foreign")
    }
    for (series, day), place in placed.items():
        candles[place].append(a_candle(*series, day))
    root = tmp_path_factory.mktemp("lake")
    store = make_lake(root, candles["file"], candles["journal"])
    for one in candles["foreign"]:
        add_foreign(root, [one], f"part-{one.begin_ms}.parquet")
    for place, name in (("empty", "candles.parquet"), ("empty foreign", "none.parquet")):
        for one in candles[place]:
            directory = root / partition_path(one)
            if not (directory / name).exists():
                write_parquet(root, partition_path(one), SCHEMA.empty_table(), name)
    expect_all_rows_answer(store, [*candles["file"], *candles["journal"], *candles["foreign"]])


def partition_path(candle: Candle) -> str:
    return partition_of(candle).path


@pytest.mark.parametrize("sql", STATEMENTS[:3])
def test_only_the_ends_are_opened(watched: WatchedLake, sql: str) -> None:
    """Of three days of twelve series, the first and the last are read."""
    run(watched, sql)
    assert len(set(watched.listed)) == 24


@pytest.mark.parametrize("sql", OTHERS)
def test_others_open_all_files(watched: WatchedLake, sql: str) -> None:
    """A statement that counts rows, or needs other columns or days, reads them all."""
    run(watched, sql)
    assert len(set(watched.listed)) >= 24
    assert {partition.date.day for partition in watched.listed} == {30, 1, 2}


def test_a_file_without_rows_is_no_end(tmp_path: Path) -> None:
    """The next file inwards is read, until one has rows."""
    store = make_lake(tmp_path, [a_candle("AUSDT", "1m", day) for day in (3, 4, 5)])
    for day in (1, 2, 7):
        write_parquet(
            tmp_path, partition_path(a_candle("AUSDT", "1m", day)), SCHEMA.empty_table(), "candles.parquet"
        )
    [row] = run(
        store, 'SELECT min("date")::VARCHAR AS low, max("date")::VARCHAR AS high FROM candles'
    ).to_pylist()
    assert row == {"low": "2024-07-03", "high": "2024-07-05"}
