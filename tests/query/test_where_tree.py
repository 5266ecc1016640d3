"""Conditions that are read from the syntax tree select the partitions that the engine's filters would."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.query.engine import Engine, EngineKey
from lakewriter.query.scan.constant_pruner import ConstantPruner
from lakewriter.query.statement.guard import check
from support.lakes import make_lake
from support.lengths import examples
from support.statements import (
    ALL_ROWS,
    FILTERS,
    PREDICATES,
    params_of,
    plain_glob,
)

LEVELS = ("market", "symbol", "interval")
SYMBOLS = ["1F", "BTCUSDT", "BTCUSD_PERP", "ETHUSDT", "S00_A", "S00xA", "a%b", "币USDT"]
DAYS = [(date(2024, 6, 25) + timedelta(days=number)).isoformat() for number in range(20)]

PATTERNS = st.text("%_B币TCSUDx\\.*[", max_size=5).filter(lambda text: text.count("%") <= 3)
LIKES = st.builds(
    "symbol {}LIKE '{}'".format,
    st.sampled_from(["", "NOT "]),
    PATTERNS.map(lambda text: text.replace("'", "''")),
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with Engine(EngineKey(Path("/nowhere"), readable=False)).cursor() as cursor:
        yield cursor


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    return plain_glob(make_lake(tmp_path_factory.mktemp("plain"), ALL_ROWS).root)


def pruner(connection: duckdb.DuckDBPyConnection, sql: str, **params: object) -> ConstantPruner | None:
    where = check(connection, sql).where
    bound = None if where is None else where.bind(params)
    return None if bound is None else ConstantPruner(bound)


def kept(
    connection: duckdb.DuckDBPyConnection, predicate: str, **params: object
) -> tuple[list[str], list[str]]:
    """Return the symbols and days that a predicate keeps."""
    found = pruner(connection, f"FROM candles WHERE {predicate}", **params)
    assert found is not None, predicate
    return found.keep("symbol", SYMBOLS), found.keep_days("1m", DAYS)


@pytest.mark.parametrize(
    ("predicate", "symbols"),
    [
        ("symbol = 'BTCUSDT'", ["BTCUSDT"]),
        ("'BTCUSDT' < symbol", SYMBOLS[2:]),
        ("symbol IN ('1F', 'NONE') AND high > 5", ["1F"]),
        ("symbol IN ('1F', 'ETHUSDT') AND symbol = 'ETHUSDT'", ["ETHUSDT"]),
        ("symbol = '1F' AND symbol = 'ETHUSDT'", []),
        ("symbol LIKE 'S00%'", ["S00_A", "S00xA"]),
        ("symbol NOT LIKE '%U%'", ["1F", "S00_A", "S00xA", "a%b"]),
        ("symbol LIKE '_USDT'", ["币USDT"]),
        ("symbol BETWEEN 'B' AND 'C' AND symbol <> 'BTCUSDT'", ["BTCUSD_PERP"]),
        ("(symbol = '1F' OR symbol LIKE 'a%') AND market = 'spot'", ["1F", "a%b"]),
        ("NOT (symbol >= 'B' OR symbol = '1F')", []),
        ("c.symbol = '1F' AND abs(c.high) > low", ["1F"]),
        ("\"SYMBOL\" = '1F'", ["1F"]),
        ("symbol = $symbol", ["BTCUSDT"]),
    ],
)
def test_names(connection: duckdb.DuckDBPyConnection, predicate: str, symbols: list[str]) -> None:
    """The conditions keep exactly the names in which they hold."""
    found = pruner(connection, f"SELECT max(high) FROM candles c WHERE {predicate}", symbol="BTCUSDT")
    assert found is not None
    assert found.keep("symbol", SYMBOLS) == symbols


@pytest.mark.parametrize(
    ("predicate", "first", "last"),
    [
        ("\"date\" = '2024-07-01'", "2024-07-01", "2024-07-01"),
        ("\"date\" > '2024-07-01' AND \"date\" <= DATE '2024-07-03'", "2024-07-02", "2024-07-03"),
        (
            "candle_begin_time >= '2024-07-01' AND candle_begin_time < '2024-07-03'",
            "2024-07-01",
            "2024-07-02",
        ),
        ("candle_begin_time BETWEEN '2024-07-01 12:00' AND '2024-07-03'", "2024-07-01", "2024-07-03"),
        ("candle_begin_time < TIMESTAMPTZ '2024-07-03 00:00:00.000001+00'", "2024-06-25", "2024-07-03"),
        ("candle_begin_time = '2024-07-03 01:00+02'", "2024-07-02", "2024-07-02"),
        ("candle_begin_time >= '2024-07-03'::DATE", "2024-07-03", DAYS[-1]),
        ("candle_end_time <= TIMESTAMP '2024-07-03'", "2024-06-25", "2024-07-02"),
        ("candle_begin_time >= $day AND candle_begin_time < $moment", "2024-07-02", "2024-07-03"),
        ('"date" < $day', "2024-06-25", "2024-07-01"),
    ],
)
def test_days(connection: duckdb.DuckDBPyConnection, predicate: str, first: str, last: str) -> None:
    """The conditions keep exactly the days in which they hold."""
    moment = datetime(2024, 7, 4, 1, tzinfo=timezone(timedelta(hours=2)))
    used = {
        name: value
        for name, value in {"day": date(2024, 7, 2), "moment": moment}.items()
        if name in predicate
    }
    _, days = kept(connection, predicate, **used)
    assert (days[0], days[-1]) == (first, last)


def test_few_names_and_days_are_known_without_a_listing(connection: duckdb.DuckDBPyConnection) -> None:
    """A few wanted names or days are known without a listing, and the reason for an empty answer names them."""
    found = pruner(
        connection,
        "FROM candles WHERE market = 'spot' AND symbol IN ('B', 'A') AND \"date\" BETWEEN '2024-07-01' AND '2024-07-02'",
    )
    assert found is not None
    assert found.names("symbol") == ["A", "B"]
    assert found.names("interval") is None
    assert (found.single_name("market"), found.single_name("symbol"), found.single_name("interval")) == (
        "spot",
        "",
        "",
    )
    assert found.few_days("1m") == ["2024-07-01", "2024-07-02"]
    assert found.few_days("1h") is None
    assert not found.newest


NOT_SIMPLE = [
    "SELECT 1",
    "FROM candles",
    "SELECT count(*) FROM gaps WHERE symbol = 'A'",
    "FROM candles a, candles b WHERE a.symbol = 'A' AND b.symbol = 'B'",
    "FROM candles, gaps WHERE candles.symbol = 'A'",
    "FROM candles JOIN range(3) r(n) ON symbol = 'A' WHERE symbol = 'A'",
    "FROM candles WHERE symbol = 'A' UNION ALL FROM candles",
    "SELECT (SELECT max(high) FROM candles) FROM candles WHERE symbol = 'A'",
    "FROM candles WHERE symbol = 'A' AND high > (SELECT 1)",
    "WITH candles AS (FROM candles WHERE symbol = 'B') FROM candles WHERE symbol = 'A'",
    "WITH x AS (SELECT 1) FROM candles WHERE symbol = 'A'",
    "FROM (FROM candles) WHERE symbol = 'A'",
    "FROM latest() WHERE symbol = 'A'",
    "FROM candles TABLESAMPLE 10% WHERE symbol = 'A'",
    "SELECT * FROM candles WHERE symbol = 'A' USING SAMPLE 3",
    "FROM candles AS c(market, other) WHERE market = 'A'",
    "FROM candles AS symbol WHERE symbol = 'A'",
    'SELECT "date", max(high) FROM candles WHERE symbol = \'A\' GROUP BY "date" HAVING "date" = \'2024-07-01\'',
    "SELECT * FROM candles WHERE symbol = 'A' QUALIFY row_number() OVER (ORDER BY high) = 1",
    "FROM candles WHERE false",
    "FROM candles WHERE symbol = 'A' AND 1 = 0",
    "FROM candles WHERE symbol = 'A' OR high > 5",
    "FROM candles WHERE symbol = 'A' OR market = 'spot'",
    "FROM candles WHERE NOT \"date\" > '2024-07-01'",
    "FROM candles WHERE \"date\" IN ('2024-07-01')",
    "FROM candles WHERE \"date\" <> '2024-07-01'",
    "FROM candles WHERE \"date\" = '2024-7-1'",
    "FROM candles WHERE \"date\" = '2024-07-01 12:00'",
    "FROM candles WHERE \"date\" = '2024-02-30'",
    "FROM candles WHERE \"date\" <= TIMESTAMP '2024-07-01'",
    "FROM candles WHERE \"date\" > '9999-12-31'",
    "FROM candles WHERE \"date\" > '-infinity'",
    "FROM candles WHERE candle_begin_time > now()",
    "FROM candles WHERE candle_begin_time > TIMESTAMPTZ '2024-07-01' + INTERVAL 1 DAY",
    "FROM candles WHERE candle_begin_time > TIMESTAMP '2024-07-01 12:00+03'",
    "FROM candles WHERE candle_begin_time > TIME '12:00'",
    "FROM candles WHERE candle_begin_time < '0001-01-01 00:00+10'",
    "FROM candles WHERE candle_begin_time > '2024-07-01' IS TRUE",
    "FROM candles WHERE candle_end_time > '2024-07-01'",
    "FROM candles WHERE lower(symbol) = 'a'",
    "FROM candles WHERE symbol = 1",
    "FROM candles WHERE symbol = NULL",
    "FROM candles WHERE symbol IN ('A', NULL)",
    "FROM candles WHERE symbol NOT IN ('A', NULL)",
    "FROM candles WHERE symbol = 'A' COLLATE NOCASE",
    "FROM candles WHERE symbol COLLATE NOCASE = 'a'",
    "FROM candles WHERE symbol = '1'::INTEGER",
    "FROM candles WHERE symbol = market",
    "FROM candles WHERE symbol LIKE '%a%b%c%d%'",
    "FROM candles WHERE symbol LIKE 'a!%' ESCAPE '!'",
    "FROM candles WHERE symbol ILIKE 'a'",
    "FROM candles WHERE symbol IS NULL",
    "FROM candles c WHERE symbol = '1F' AND c IS NOT NULL",
]


@pytest.mark.parametrize("sql", NOT_SIMPLE)
def test_doubtful_statements_are_not_simple(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """A statement that the module does not fully understand is not simple."""
    assert pruner(connection, sql) is None


@pytest.mark.parametrize(
    "value", [1, None, 1.5, ["A"], b"A", datetime(2024, 7, 1), type("Text", (str,), {})("A")]
)
def test_other_values_are_left_to_the_engine(connection: duckdb.DuckDBPyConnection, value: object) -> None:
    """A parameter that is no plain text is left to DuckDB's comparison."""
    assert pruner(connection, "FROM candles WHERE symbol = $value", value=value) is None


@pytest.mark.parametrize("value", ["2024-07-01", 1, None, datetime(2024, 7, 1), date.max, date.min])
def test_other_days_are_left_to_the_engine(connection: duckdb.DuckDBPyConnection, value: object) -> None:
    """A parameter that is no plain day is left to DuckDB's comparison."""
    assert pruner(connection, 'FROM candles WHERE "date" > $value', value=value) is None


def expect_sound(
    connection: duckdb.DuckDBPyConnection, plain: duckdb.DuckDBPyConnection, predicate: str
) -> bool:
    """Check that each row that passes is kept; return whether the conditions were read."""
    found = pruner(connection, f"FROM candles c WHERE {predicate}", **(params_of(predicate) or {}))
    if found is None:
        return False
    passing = plain.sql(
        f'SELECT DISTINCT market, symbol, "interval", "date" FROM candles c WHERE {predicate}',
        params=params_of(predicate) or None,
    ).fetchall()
    for *names, day in passing:
        for level, name in zip(LEVELS, names, strict=True):
            assert found.keep(level, [name]) == [name]
            assert name in (found.names(level) or [name])
        assert found.keep_days("1m", [str(day)])
        few = found.few_days("1m")
        assert few is None or str(day) in few
    return True


def test_no_row_is_lost(connection: duckdb.DuckDBPyConnection, plain: duckdb.DuckDBPyConnection) -> None:
    """Each predicate keeps the partitions of its rows, and many predicates are simple."""
    simple = [predicate for predicate in PREDICATES if expect_sound(connection, plain, predicate)]
    assert len(simple) > 25


@examples(50, 3_000, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(FILTERS | LIKES, min_size=1, max_size=4))
def test_no_row_of_any_filters_is_lost(
    connection: duckdb.DuckDBPyConnection, plain: duckdb.DuckDBPyConnection, parts: list[str]
) -> None:
    """Any combination of conditions keeps the partitions of its rows."""
    expect_sound(connection, plain, " AND ".join(f"({part})" for part in parts))


@examples(50, 3_000, suppress_health_check=list(HealthCheck))
@given(predicate=LIKES | st.builds("({} OR {})".format, LIKES, LIKES) | st.builds("NOT {}".format, LIKES))
def test_patterns_match_as_in_the_engine(connection: duckdb.DuckDBPyConnection, predicate: str) -> None:
    """A LIKE pattern matches the same names as in DuckDB."""
    rows = connection.execute(
        f"SELECT symbol FROM (SELECT unnest($names::VARCHAR[]) AS symbol) WHERE {predicate}",
        {"names": SYMBOLS},
    ).fetchall()
    assert kept(connection, predicate)[0] == [name for (name,) in rows]
