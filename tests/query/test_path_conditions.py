"""Statements whose files fulfil their conditions by their paths give the same answers without them."""

from pathlib import Path

import duckdb
import pytest

from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.query.engine import Engine, EngineKey
from lakewriter.query.errors import QueryError
from lakewriter.query.session import run
from lakewriter.query.statement.guard import check
from lakewriter.query.statement.path_conditions import FILES_MIN, without_path_conditions
from support.lakes import add_foreign, make_lake, rest_candle
from support.statements import asked_plainly, in_any_order, plain_copy

SYMBOLS = [f"S{number:02}USDT" for number in range(12)]
SOME = tuple(SYMBOLS[1:])
FIRST_MS = rest_candle(0).begin_ms


def candles_of(days: range, minutes: tuple[int, ...] = (0, 719, 1439)) -> list[object]:
    return [
        rest_candle(day * 1440 + minute, symbol=symbol, close=float(number * 1000 + day))
        for day in days
        for number, symbol in enumerate(SYMBOLS)
        for minute in minutes
    ]


ALL = [
    *candles_of(range(7)),
    *(rest_candle(number, interval="1h", symbol="S03USDT") for number in range(200)),
]


@pytest.fixture(scope="module")
def plain(settled: LakeStore) -> duckdb.DuckDBPyConnection:
    return plain_copy(settled.root)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(tmp_path_factory.mktemp("settled"), ALL)


@pytest.fixture(scope="module")
def hot(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """The same candles; some of them are in the journal, and some in files of another tool."""
    foreign = [one for one in ALL if one.symbol == "S04USDT" and one.begin_ms < FIRST_MS + DAY_MS]
    journal = ALL[::5]
    store = make_lake(
        tmp_path_factory.mktemp("hot"),
        [one for number, one in enumerate(ALL) if number % 5 and one not in foreign],
        journal,
    )
    add_foreign(store.root, foreign)
    return store


STATEMENTS = [
    f"SELECT close FROM candles WHERE symbol IN {SOME}",
    f"SELECT symbol, count(*), sum(close) FROM candles WHERE market = 'spot' AND symbol IN {SOME} GROUP BY symbol",
    f"SELECT symbol, close * 2, max(high) FROM candles c WHERE c.symbol IN {SOME} AND \"interval\" = '1m' AND close > 3000 GROUP BY ALL",
    "FROM candles WHERE \"interval\" = '1m' AND \"date\" BETWEEN '2024-06-30' AND '2024-07-06' AND symbol LIKE 'S0%'",
    "SELECT * FROM candles WHERE symbol LIKE 'S0%' AND \"date\" >= '2024-06-30'",
    "SELECT * FROM candles WHERE \"interval\" = '1m' AND candle_begin_time >= '2024-06-30 12:00' AND candle_begin_time < '2024-07-06'",
    "SELECT DISTINCT symbol FROM candles WHERE NOT (symbol = 'S01USDT' OR symbol > 'S08USDT') ORDER BY symbol DESC LIMIT 3",
    "SELECT symbol, lag(close) OVER (PARTITION BY symbol ORDER BY candle_begin_time) AS before, close FROM candles WHERE market = 'spot' AND \"interval\" = '1m'",
    "SELECT COLUMNS('^(open|close)$'), {'a': high}.a FROM candles WHERE market = 'spot' AND high > 105",
    "SELECT count(*) FILTER (WHERE symbol = 'S03USDT'), count(DISTINCT \"date\") FROM candles WHERE market = 'spot'",
    "SELECT close::DECIMAL(12, 2) AS c, candle_begin_time - INTERVAL 1 HOUR FROM candles WHERE symbol <> 'S00USDT' AND symbol <> 'X'",
]  # fmt: skip


@pytest.mark.parametrize("sql", STATEMENTS)
@pytest.mark.parametrize("lake", ["settled", "hot"])
def test_answers_are_the_same(
    request: pytest.FixtureRequest, plain: duckdb.DuckDBPyConnection, lake: str, sql: str
) -> None:
    """Columns and rows are those of plain DuckDB with all conditions."""
    store = request.getfixturevalue(lake)
    expected, found = asked_plainly(plain, sql), run(store, sql)
    assert found.column_names == expected.column_names
    assert in_any_order(found) == in_any_order(expected)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return Engine(EngineKey(Path("/nowhere"), readable=False)).cursor()


def reduced(connection: duckdb.DuckDBPyConnection, sql: str, *, with_dates: bool = True) -> str:
    where = check(connection, sql).where
    assert where is not None
    found = without_path_conditions(connection, sql, where, with_dates=with_dates)
    return "" if found is None else found.sql


@pytest.mark.parametrize(
    ("where", "left", "left_with_dates"),
    [
        ("symbol = 'A'", "", ""),
        ("symbol = 'A' AND high > 5", "(high > 5)", "(high > 5)"),
        ("symbol = 'A' AND \"date\" = '2024-07-01'", "", "date"),
        ("market = 'spot' AND candle_begin_time > '2024-07-01'", "candle_begin_time", "candle_begin_time"),
        ("symbol = $symbol AND high > $high", "$high", "$high"),
    ],
)
def test_conditions_on_paths_are_removed(
    connection: duckdb.DuckDBPyConnection, where: str, left: str, left_with_dates: str
) -> None:
    """Conditions on rows stay, and those on dates if a file may have several days."""
    for with_dates, part in ((True, left), (False, left_with_dates)):
        _, _, condition = reduced(connection, f"FROM candles WHERE {where}", with_dates=with_dates).partition(
            "WHERE"
        )
        assert part in condition
        assert bool(part) == bool(condition)
        assert not any(name in condition for name in ("symbol", "market"))


@pytest.mark.parametrize(
    "sql",
    [
        "FROM candles WHERE high > 5 AND close > 3",
        "FROM candles WHERE symbol = 'A' AND high > $a AND low > $b",
    ],
)
def test_nothing_is_removed(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """A statement without such conditions stays, and one whose parameters would change their order."""
    assert reduced(connection, sql) == ""


def test_parameters_and_errors_are_the_users(settled: LakeStore) -> None:
    """Values of removed conditions are left out, and errors show the statement as it was written."""
    sql = (
        "SELECT count(*) AS n FROM candles WHERE market = $market AND \"interval\" = '1m' AND close > $close"
    )
    assert sum(1 for one in ALL if one.interval == "1m") > FILES_MIN
    assert run(settled, sql, {"market": "spot", "close": 1e9}).to_pylist() == [{"n": 0}]
    with pytest.raises(QueryError, match="nope"):
        run(settled, "SELECT nope FROM candles WHERE market = 'spot'")


def test_explained_plan_is_that_of_the_statement_as_written(settled: LakeStore) -> None:
    """EXPLAIN shows the user's own conditions."""
    plan = str(
        run(settled, "EXPLAIN SELECT count(*) FROM candles WHERE market = 'spot' AND close > 1").to_pylist()
    )
    assert "count" in plan
