"""Statements whose filters are found once and cached."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import duckdb
import pytest

from lakewriter.lake.lake import LakeStore
from lakewriter.query.engine import Engine, EngineKey, nodes
from lakewriter.query.errors import QueryError
from lakewriter.query.macros import MACROS, create_macros
from lakewriter.query.saved import saved_queries
from lakewriter.query.scan.kept_filters import StatementFilters, find_filters
from lakewriter.query.session import run
from lakewriter.query.statement.guard import check
from lakewriter.query.statement.repeatable import STABLE_FUNCTIONS, calls_only_stable
from support.lakes import make_lake, rest_candle

# DuckDB calls them stable within a statement only, because they follow the time zone. Ours is fixed.
TIME_ZONE_FUNCTIONS = """
+ - date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayofweek dayofyear hour
minute month quarter range second strftime time_bucket timezone week year
"""
BY_TIME_ZONE = frozenset(TIME_ZONE_FUNCTIONS.split())

# One raises, and returns nothing. The other has no stability, because it returns rows.
RAISES = frozenset(["error", "unnest"])

REPEATABLE = [
    "FROM candles",
    "SELECT count(*), max(high) FROM candles WHERE symbol IN ('A', 'B') AND candle_begin_time >= '2024-06-30'",
    "SELECT upper(symbol) AS s FROM candles WHERE \"date\" > DATE '2024-06-30' - INTERVAL 3 DAY ORDER BY ALL LIMIT 3",
    "SELECT lag(close) OVER (ORDER BY candle_begin_time) FROM candles WHERE symbol LIKE 'B%'",
    "WITH a AS (FROM candles WHERE symbol = $symbol) SELECT count(*) FROM a JOIN candles USING (symbol)",
    "FROM resample('spot', 'BTCUSDT', '1m', '15m')",
    "FROM latest() WHERE market = 'spot'",
    "WITH a AS (FROM candles WHERE symbol = 'A') FROM a UNION ALL FROM candles WHERE symbol = 'B'",
    "EXPLAIN ANALYZE SELECT max(high) FROM candles WHERE symbol = 'BTCUSDT'",
]

NOT_REPEATABLE = [
    "FROM candles WHERE candle_begin_time > now() - INTERVAL 1 DAY",
    "FROM candles WHERE candle_begin_time > CURRENT_TIMESTAMP",
    'FROM candles WHERE "date" = current_date',
    'FROM candles AS c WHERE c."date" = "Current_Date"',
    'FROM candles WHERE "date" = today()',
    "FROM candles WHERE candle_begin_time > transaction_timestamp()",
    "FROM candles WHERE candle_begin_time < localtimestamp",
    "FROM candles WHERE age(candle_begin_time::TIMESTAMP) > INTERVAL 1 DAY",
    "FROM candles WHERE candle_begin_time > ago(INTERVAL 1 DAY)",
    "FROM candles WHERE open > random()",
    "FROM candles WHERE symbol < uuid()::VARCHAR",
    "FROM candles WHERE symbol = user",
    "FROM candles WHERE symbol = (SELECT min(symbol) FROM gaps)",
    "FROM candles WHERE market IN (SELECT name FROM duckdb_settings())",
    "FROM candles JOIN pg_timezone_names() ON symbol = name",
    'SELECT (SELECT max(high) FROM candles WHERE "date" < current_date)',
    "FROM candles_of('spot', 'BTCUSDT', '1m', since := now())",
    "FROM candles_of('spot', 'BTCUSDT', '1m', since := '7d')",
    "FROM candles_of('spot', 'BTCUSDT', '1m', since := '7 days')",
    "FROM candles_of('spot', 'BTCUSDT', '1m', until := '1h'::VARCHAR)",
    "FROM candles_of('spot', 'BTCUSDT', '1m', until := '7' || 'd')",
    "FROM resample('spot', 'BTCUSDT', '1m', '1h', UNTIL := $s || '')",
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineKey(Path("/nowhere"), readable=False))


@pytest.fixture
def connection(engine: Engine) -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.cursor() as cursor:
        yield cursor


@pytest.mark.parametrize("sql", REPEATABLE)
def test_filters_that_follow_from_the_statement_are_kept(
    connection: duckdb.DuckDBPyConnection, sql: str
) -> None:
    """A statement over candles with stable functions keeps its filters."""
    assert check(connection, sql).repeatable


@pytest.mark.parametrize("sql", NOT_REPEATABLE)
def test_filters_that_follow_from_more_are_found_each_time(
    connection: duckdb.DuckDBPyConnection, sql: str
) -> None:
    """Time, random numbers, the session and other tables make a statement not repeatable."""
    assert not check(connection, sql).repeatable


def test_stable_functions_are_stable(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB marks each listed function, and those that its macros call, as stable."""
    overloads = connection.execute(
        "SELECT lower(function_name), stability, macro_definition FROM duckdb_functions()"
    ).fetchall()
    for name, stability, macro in overloads:
        if name not in STABLE_FUNCTIONS:
            continue
        if macro is not None:
            assert all_stable(connection, f"SELECT {macro}"), name
        elif stability != "CONSISTENT":
            assert name in BY_TIME_ZONE | RAISES, name


@pytest.mark.parametrize("name", MACROS)
def test_macros_are_repeatable(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Each macro for candles calls only stable functions."""
    assert all_stable(connection, MACROS[name].sql.replace("now()", "TIMESTAMPTZ '2024-06-30'"))


def all_stable(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    [(text,)] = connection.execute("SELECT json_serialize_sql($sql::VARCHAR)", {"sql": sql}).fetchall()
    tree = json.loads(text)
    assert not tree["error"], tree
    return calls_only_stable(nodes(tree["statements"]))


def filters_of(
    engine: Engine, connection: duckdb.DuckDBPyConnection, sql: str, **params: object
) -> StatementFilters:
    statement = check(connection, sql)
    create_macros(engine, connection, statement.macros)
    filters = find_filters(engine, connection, statement.select, params, repeatable=statement.repeatable)
    with contextlib.suppress(duckdb.TransactionException):
        connection.execute("ROLLBACK")
    return filters


def test_kept_filters_are_those_of_the_statement_and_its_values(
    engine: Engine, connection: duckdb.DuckDBPyConnection
) -> None:
    """Equal values of parameters use the cached filters; other values or types do not."""
    sql = "SELECT max(high) FROM candles WHERE trade_num::VARCHAR = $n::VARCHAR AND symbol = $s"
    values: list[object] = [1, "1", True, 1.0, None, datetime(2024, 6, 30), datetime(2024, 6, 30, tzinfo=UTC)]
    found = [filters_of(engine, connection, sql, n=value, s="A") for value in values]
    assert len({id(filters) for filters in found}) == len(values)
    for value, filters in zip(values, found, strict=True):
        assert filters_of(engine, connection, sql, n=value, s="A") is filters
    assert filters_of(engine, connection, sql, n=1, s="B") is not found[0]
    assert filters_of(engine, connection, sql, n=[1], s="A") is not filters_of(
        engine, connection, sql, n=[1], s="A"
    )


class Offset(tzinfo):
    """A time zone whose instances all have the same repr."""

    def __init__(self, hours: int) -> None:
        self._hours = hours

    def __repr__(self) -> str:
        return "Offset"

    def utcoffset(self, _moment: datetime | None) -> timedelta:
        return timedelta(hours=self._hours)

    def tzname(self, _moment: datetime | None) -> str:
        return repr(self)

    def dst(self, _moment: datetime | None) -> timedelta:
        return timedelta(0)


def test_moments_of_zones_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    """Two parameters with different offsets differ, even if their zones have the same repr."""
    store = make_lake(tmp_path, [rest_candle(number) for number in (0, 60, 24 * 60)])
    sql = "SELECT count(*) AS n FROM candles WHERE candle_begin_time < $until"
    counts = [
        run(store, sql, {"until": datetime(2024, 7, 1, tzinfo=Offset(hours))}).to_pylist()[0]["n"]
        for hours in (23, 0, -23)
    ]
    assert counts == [1, 2, 3]


def test_a_number_that_python_does_not_write_is_refused(tmp_path: Path) -> None:
    """DuckDB's error explains the refusal, as for other numbers that are too large."""
    store = make_lake(tmp_path, [rest_candle(0)])
    with pytest.raises(QueryError, match="too large"):
        run(store, "FROM candles WHERE trade_num < $n", {"n": 10**5000})


def test_filters_of_the_time_are_found_again(engine: Engine, connection: duckdb.DuckDBPyConnection) -> None:
    """The filters of a statement with now() are found anew for each run."""
    sql = "SELECT max(high) FROM candles WHERE candle_begin_time > now()"
    assert filters_of(engine, connection, sql) is not filters_of(engine, connection, sql)


def test_a_repeated_statement_sees_what_is_new(tmp_path: Path) -> None:
    """Filters are cached, but never the list of files."""
    store = make_lake(tmp_path / "lake", [rest_candle(0)])
    sql = "SELECT count(*) AS n FROM candles WHERE symbol IN ('BTCUSDT', 'ETHUSDT')"
    assert run(store, sql).to_pylist() == [{"n": 1}]
    for symbol, count in (("ETHUSDT", 2), ("XRPUSDT", 2)):
        make_lake(tmp_path / "lake", [rest_candle(0, symbol=symbol)])
        assert run(store, sql).to_pylist() == [{"n": count}]
    other = make_lake(tmp_path / "other", [rest_candle(number) for number in range(3)])
    assert run(other, sql).to_pylist() == [{"n": 3}]


@pytest.mark.parametrize(
    "sql", [query.sql for query in saved_queries()], ids=[q.name for q in saved_queries()]
)
def test_saved_queries_over_candles_are_repeatable(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Saved queries that read only candles are repeatable."""
    statement = check(connection, sql)
    assert statement.repeatable == (statement.tables == {"candles"})


def test_a_replaced_file_with_other_columns_is_noticed(tmp_path: Path) -> None:
    """A repeated statement follows a replaced file with other columns."""
    store = make_lake(tmp_path, [rest_candle(0)])
    sql = "SELECT close FROM candles"
    assert run(store, sql).to_pylist() == [{"close": 101.0}]
    [partition] = list(store.files())
    path = tmp_path / partition.names[0]
    os.utime(path, (0, 0))
    assert run(store, sql).to_pylist() == [{"close": 101.0}]
    connection = duckdb.connect()
    connection.execute(
        f"COPY (SELECT * REPLACE (7::DECIMAL(9,2) AS close) FROM read_parquet('{path}', hive_partitioning=false))"
        f" TO '{tmp_path}/other.parquet'"
    )
    (tmp_path / "other.parquet").replace(path)
    os.utime(path, (0, 0))
    assert run(LakeStore.open(str(tmp_path)), sql).to_pylist() == [{"close": 7.0}]


def test_an_age_in_a_parameter_is_found_anew(tmp_path: Path) -> None:
    """The filters of `since := $x` follow the present: a candle that arrives later is in the next answer."""
    store = make_lake(tmp_path, [rest_candle(0, symbol="A")])
    now_ms = int(time.time() * 1000) // 60_000 * 60_000
    sql = "FROM candles_of('spot', 'A', '1m', since := $x, until := $y)"
    params = {"x": "1h", "y": "now"}
    assert run(store, sql, params).num_rows == 0
    store = make_lake(tmp_path, [rest_candle(0, symbol="A", begin_ms=now_ms - 60_000, end_ms=now_ms)])
    assert run(store, sql, params).num_rows == 1
    assert run(store, sql, {"x": "1 hour", "y": "9999-12-31"}).num_rows == 1
    assert run(store, sql, {"x": "2024-06-30", "y": "1h"}).num_rows == 1
    assert check(duckdb.connect(), sql).times == {"x", "y"}
