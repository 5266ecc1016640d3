"""The calls by which DuckDB reads an Arrow dataset. DuckDB promises none of them, so tests check them.

If a test fails with a new DuckDB, queries may be slow or wrong. Read
lakewriter/query/scan/pushdown.py before you change anything.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pytest

from lakewriter.query.engine import Engine, EngineKey
from lakewriter.query.scan.pruning import CANDLES_SCHEMA
from lakewriter.query.scan.pushdown import (
    EVERYTHING,
    NO_SCANS,
    TIME_MS_MAX,
    FilterProbe,
    PushedFilters,
    filters_from_plan,
    pushed_filters,
)

ROWS = 3_000

# An IN, as the engine puts it into Arrow's words.
IN = (
    'if_else(is_valid(symbol), is_in(symbol, {value_set=string:[ "A", "B" ], '
    "null_matching_behavior=MATCH}), null[bool])"
)


class Cursor(NamedTuple):
    """A cursor of an engine."""

    engine: Engine
    connection: duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineKey(Path("/nowhere"), readable=False))


@pytest.fixture
def cursor(engine: Engine) -> Iterator[Cursor]:
    with engine.cursor() as connection:
        yield Cursor(engine, connection)


def asked(cursor: Cursor, sql: str, **params: object) -> PushedFilters:
    """Return the filters of a statement; leave its transaction open."""
    with contextlib.suppress(duckdb.TransactionException):
        cursor.connection.rollback()
    return pushed_filters(cursor.engine, cursor.connection, CANDLES_SCHEMA, sql, params)


def printed(found: PushedFilters) -> list[str]:
    """Return the filters as Arrow prints them, with times cut to the millisecond."""
    assert not found.everything
    return sorted(re.sub(r"(\.\d{3})000Z", r"\1Z", " ".join(str(each).split())) for each in found.filters)


def full_table() -> pa.Table:
    """Return rows of fifty symbols and a hundred days."""
    columns: dict[str, Any] = {
        "market": ["spot"] * ROWS,
        "symbol": [f"S{number % 50:02}" for number in range(ROWS)],
        "interval": ["1m"] * ROWS,
        "date": [date(2024, 1, 1) + timedelta(days=number % 100) for number in range(ROWS)],
    }
    numbers = pa.array(range(ROWS), pa.int64())
    return pa.Table.from_arrays(
        [
            pa.array(columns[field.name], field.type) if field.name in columns else numbers.cast(field.type)
            for field in CANDLES_SCHEMA
        ],
        schema=CANDLES_SCHEMA,
    )


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("symbol = 'A'", '(symbol == "A")'),
        ("symbol <> 'A'", '(symbol != "A")'),
        ("symbol = $symbol", '(symbol == "B")'),
        (
            "\"date\" BETWEEN '2024-01-01' AND '2024-01-03'",
            "((date >= 2024-01-01) and (date <= 2024-01-03))",
        ),
        (
            "candle_begin_time >= '2024-01-01' AND candle_begin_time < '2024-01-04'",
            (
                "((candle_begin_time >= 2024-01-01 00:00:00.000Z)"
                " and (candle_begin_time < 2024-01-04 00:00:00.000Z))"
            ),
        ),
        ("symbol IN ('A', 'B')", IN),
        (
            "date_trunc('month', candle_begin_time) = '2024-03-01'",
            (
                "((candle_begin_time >= 2024-03-01 00:00:00.000Z)"
                " and (candle_begin_time < 2024-04-01 00:00:00.000Z))"
            ),
        ),
        ("candle_end_time <= '2024-01-01'", "(candle_end_time <= 2024-01-01 00:00:00.000Z)"),
        ("\"interval\" = '1m' AND random() < 2", '(interval == "1m")'),
    ],
)
def test_pushed_filters(cursor: Cursor, predicate: str, expected: str) -> None:
    """A scan's filter arrives as the argument `filter`, an Arrow expression."""
    params = {"symbol": "B"} if "$symbol" in predicate else {}
    assert printed(asked(cursor, f"SELECT max(high) FROM candles WHERE {predicate}", **params)) == [expected]


def test_each_scan_has_its_own_filter(cursor: Cursor) -> None:
    """Both sides of a join, a subquery and a CTE have their own filters; equal filters count once."""
    sql = """
        WITH x AS (FROM candles WHERE symbol = 'A')
        SELECT (SELECT max(high) FROM candles WHERE symbol = 'B'), count(*)
        FROM x JOIN candles c USING (candle_begin_time) WHERE c.symbol = 'C'
        UNION ALL SELECT 1, count(*) FROM candles WHERE symbol = 'A'
    """
    assert printed(asked(cursor, sql)) == ['(symbol == "A")', '(symbol == "B")', '(symbol == "C")']


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM candles",
        "SELECT * FROM candles WHERE symbol LIKE '%A%'",
        "SELECT * FROM candles WHERE symbol = 'A' UNION ALL FROM candles",
        "SELECT count(*) FROM candles a JOIN candles b USING (candle_begin_time) WHERE a.symbol = 'A'",
        # The seen scan might have run twice, and the other one not at all.
        (
            "WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t, (SELECT count(*) c FROM candles"
            " WHERE symbol = 'A') WHERE n < c) SELECT n, (SELECT count(*) FROM candles WHERE symbol = 'B') FROM t"
        ),
    ],
)
def test_everything_is_asked_for(cursor: Cursor, sql: str) -> None:
    """A scan without a filter, or one that the plan does not confirm, needs every row."""
    assert asked(cursor, sql) == EVERYTHING


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM candles WHERE false", "FROM candles LIMIT 0", "DESCRIBE candles", "SELECT 1"]
)
def test_nothing_is_asked_for(cursor: Cursor, sql: str) -> None:
    """A statement that needs no row needs no file."""
    assert asked(cursor, sql) == NO_SCANS


LEARNT = [
    "symbol = (SELECT coalesce(max(symbol), 'S01') FROM candles)",
    "symbol = (SELECT coalesce(max(symbol), 'S01') FROM candles WHERE high > 1e9)",
    "symbol IN (SELECT coalesce(max(symbol), 'S01') FROM candles)",
    "symbol IN (SELECT symbol FROM candles UNION ALL VALUES ('S01'))",
    "\"date\" = DATE '2024-01-01' + (SELECT count(*)::INT % 7 FROM candles)",
    '"date" >= (SELECT coalesce(max("date"), DATE \'2025-01-01\') FROM candles)',
    "candle_begin_time >= (SELECT coalesce(max(candle_begin_time), TIMESTAMPTZ '2025-01-01') FROM candles)",
    "symbol IN (SELECT s FROM (VALUES ('S01'), ('S02')) v(s))",
    "trade_num IN (SELECT i FROM range(3) r(i))",
    "trade_num = (SELECT max(i) FROM range(3) r(i))",
    "EXISTS (SELECT 1 FROM (VALUES ('S01')) v(s) WHERE s = c.symbol)",
]
LEARNT_STATEMENTS = [f"SELECT count(*) FROM candles c WHERE {predicate}" for predicate in LEARNT] + [
    "SELECT count(*) FROM candles c JOIN (VALUES ('S01'), ('S02')) v(s) ON c.symbol = v.s",
    "SELECT count(*) FROM candles c SEMI JOIN (VALUES ('S01')) v(s) ON c.symbol = v.s",
    "SELECT count(*) FROM (VALUES ('S01')) v(s) LEFT JOIN candles c ON c.symbol = v.s",
    "SELECT count(*) FROM candles c RIGHT JOIN (VALUES ('S01')) v(s) ON c.symbol = v.s",
    "SELECT count(*) FROM candles c JOIN (SELECT DATE '2024-01-03' + i::INT d FROM range(3) r(i)) v ON c.\"date\" = v.d",
    "SELECT symbol FROM candles INTERSECT VALUES ('S01')",
    "SELECT * FROM candles ORDER BY \"date\" LIMIT 3",
    "SELECT * FROM candles ORDER BY symbol DESC LIMIT 3",
    "SELECT max(\"date\"), min(symbol) FROM candles",
    "SELECT * FROM candles ASOF JOIN (VALUES ('S01', TIMESTAMPTZ '2024-01-01')) v(s, t) ON s = symbol AND t >= candle_begin_time",
    "SELECT s, (SELECT max(high) FROM candles WHERE symbol = s) FROM (VALUES ('S01')) v(s)",
]  # fmt: skip


@pytest.mark.parametrize("sql", LEARNT_STATEMENTS)
def test_what_is_learnt_while_running_is_never_asked(cursor: Cursor, sql: str) -> None:
    """Filters from a join's build side or a LIMIT do not count: the pass over empty tables cannot know them."""
    found = asked(cursor, sql)
    assert found == EVERYTHING or printed(found) == ["is_valid(symbol)"]


@pytest.mark.parametrize("sql", LEARNT_STATEMENTS)
def test_what_is_learnt_while_running_is_not_pushed(cursor: Cursor, sql: str) -> None:
    """Filters from a run's own rows do not reach a dataset, even without the special setting."""
    probe = FilterProbe(CANDLES_SCHEMA.empty_table())
    cursor.connection.register("candles", probe)
    cursor.connection.sql(sql).to_arrow_table()
    cursor.connection.unregister("candles")
    for pushed in probe.filters:
        assert pushed is None or str(pushed) in ("is_valid(symbol)", "(high > 1e+09)")


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("sql", LEARNT_STATEMENTS)
def test_filters_are_the_same_whatever_the_dataset_holds(plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    """The engine pushes the same filters to a full and to an empty dataset."""
    pushed = []
    for table in (CANDLES_SCHEMA.empty_table(), full_table()):
        probe = FilterProbe(table)
        with contextlib.closing(plain.cursor()) as connection:
            connection.register("candles", probe)
            connection.sql(sql).to_arrow_table()
            connection.unregister("candles")
        pushed.append(sorted(map(str, probe.filters)))
    assert pushed[0] == pushed[1]


def test_now_is_the_same_both_times(cursor: Cursor) -> None:
    """`now()` has the same value in the filters and in the statement's run."""
    [pushed] = printed(asked(cursor, "FROM candles WHERE candle_begin_time < now()"))
    [(text,)] = cursor.connection.execute("SELECT strftime(now(), '%Y-%m-%d %H:%M:%S.%g')").fetchall()
    assert text in pushed


@pytest.mark.parametrize("sql", ["FROM", "SELECT nope FROM candles", "SELECT * FROM nowhere, candles"])
def test_wrong_statement_is_told_at_once(cursor: Cursor, sql: str) -> None:
    """A statement that is wrong on any lake raises at once."""
    with pytest.raises(duckdb.Error):
        asked(cursor, sql)


@pytest.mark.parametrize(
    "sql",
    ["SELECT error('boo') FROM candles", "SELECT 'x'::INT FROM range(3), candles", "SELECT error('boo')"],
)
def test_failing_statement_needs_everything(cursor: Cursor, sql: str) -> None:
    """A statement that fails on no rows needs every row, and its transaction still works."""
    asked(cursor, sql)
    assert cursor.connection.execute("SELECT current_setting('disabled_optimizers')").fetchall() == [("",)]


def test_long_statement_is_given_up(cursor: Cursor) -> None:
    """The first pass of a long statement stops at its time limit."""
    sql = "SELECT (SELECT sum(hash(a.range, b.range)) FROM range(100000000) a, range(100000000) b), max(high) FROM candles WHERE symbol = 'A'"
    assert asked(cursor, sql) == EVERYTHING
    assert asked(cursor, "SELECT max(high) FROM candles WHERE symbol = 'A'") != EVERYTHING


def test_statement_after_the_first_pass_has_all_the_time(cursor: Cursor) -> None:
    """The time limit of the first pass does not hold for statements after it."""
    assert asked(cursor, "SELECT max(high) FROM candles WHERE symbol = 'A'") != EVERYTHING
    started_s = time.monotonic()
    rows = 1_000_000
    while time.monotonic() - started_s < 2 * TIME_MS_MAX / 1000:
        rows *= 2
        assert cursor.connection.execute(f"SELECT count(hash(range)) FROM range({rows})").fetchall() == [
            (rows,)
        ]


def test_settings_are_as_before(cursor: Cursor) -> None:
    """After the first pass all optimizers are enabled again, without a time limit."""
    settings = "SELECT current_setting('disabled_optimizers'), current_setting('max_execution_time')"
    before = cursor.connection.execute(settings).fetchall()
    asked(cursor, "FROM candles WHERE symbol = 'A'")
    assert cursor.connection.execute(settings).fetchall() == before


SCAN = {"type": "TABLE_SCAN", "extra_info": {"Function": "PYTHON_ARROW_SCAN"}}


@pytest.mark.parametrize(
    ("scans", "recorded"), [(1, 0), (0, 1), (2, 1), (1, 2)], ids=lambda number: str(number)
)
def test_scan_that_is_not_accounted_for(scans: int, recorded: int) -> None:
    """If the plan and the record differ, every row is needed."""
    import pyarrow.dataset as ds

    filters = [ds.field("symbol") == "A"] * recorded
    assert filters_from_plan({"operator": [SCAN] * scans}, filters) == EVERYTHING
    assert filters_from_plan({"operator": [SCAN] * recorded}, filters) == PushedFilters(tuple(filters[:1]))


def test_recursion_repeats_its_scans() -> None:
    """In a recursive CTE one scan may be recorded repeatedly; with a second scan every row is needed."""
    import pyarrow.dataset as ds

    pushed = ds.field("symbol") == "A"
    below = {"type": "RECURSIVE_CTE", "children": [SCAN]}
    assert filters_from_plan(below, [pushed] * 3) == PushedFilters((pushed,))
    assert filters_from_plan(below, []) == EVERYTHING
    assert filters_from_plan({"children": [below, SCAN]}, [pushed] * 2) == EVERYTHING
