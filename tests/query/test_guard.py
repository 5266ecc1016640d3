"""No SQL changes anything, or reads anything but the lake's tables."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lakewriter.errors import LakewriterError
from lakewriter.query.engine import Engine, EngineKey
from lakewriter.query.errors import QueryError
from lakewriter.query.guard import check
from lakewriter.query.session import run
from support.lakes import make_lake, rest_candle

# {inside} is a file in the lake, {outside} one beside it, {new} one that is not there.
REFUSED = [
    "COPY (SELECT 1) TO '{new}'",
    "COPY candles TO '{inside}'",
    "WITH x AS (COPY (SELECT 1) TO '{new}') SELECT * FROM x",
    "WITH x AS (SELECT 1), y AS (COPY (SELECT 1) TO '{new}') SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{new}') FROM x)",
    "WITH x AS (DELETE FROM candles RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO partitions VALUES ('a','b','c','2024-01-01',1,1) RETURNING *) SELECT * FROM x",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{new}'",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{new}') SELECT * FROM x",
    "EXPLAIN (FORMAT json) SELECT 1",
    "EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO '{new}'",
    "DESCRIBE COPY (SELECT 1) TO '{new}'",
    "SUMMARIZE FROM read_text('{outside}')",
    "DESCRIBE '{outside}'",
    "DESCRIBE FROM '{inside}'",
    "EXPORT DATABASE '{new}'",
    "IMPORT DATABASE '{new}'",
    "ATTACH '{new}' AS other",
    "ATTACH '{inside}.db' AS other",
    "DETACH memory",
    "USE main",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW candles AS SELECT 1",
    "CREATE TEMP TABLE t (a INT)",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE TYPE mood AS ENUM ('a')",
    "DROP VIEW candles",
    "ALTER TABLE partitions RENAME TO p",
    "INSERT INTO partitions VALUES ('a','b','c','2024-01-01',1,1)",
    "UPDATE partitions SET files = 0",
    "DELETE FROM partitions",
    "TRUNCATE partitions",
    "MERGE INTO partitions USING candles ON false WHEN NOT MATCHED THEN INSERT BY NAME",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{outside}'",
    "SET enable_external_access = true",
    "SET GLOBAL lock_configuration = false",
    "RESET allowed_directories",
    "SET VARIABLE settled = ['{outside}']",
    "PRAGMA enable_external_access",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{new}'",
    "SELECT * FROM read_text('{outside}')",
    "SELECT * FROM read_text('{inside}')",
    "SELECT * FROM READ_TEXT('{outside}')",
    'SELECT * FROM "read_text"(\'{outside}\')',
    "SELECT * FROM system.main.read_text('{outside}')",
    "SELECT (SELECT content FROM read_text('{outside}'))",
    "SELECT * FROM candles, LATERAL (SELECT * FROM read_text('{outside}'))",
    "SELECT 1 UNION ALL SELECT content FROM read_text('{outside}')",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM glob('/*'))",
    "SELECT [x FOR x IN (SELECT list(file) FROM glob('/*'))]",
    "SELECT 1 ORDER BY (SELECT count(*) FROM glob('/*'))",
    "SELECT 1 LIMIT (SELECT count(*) FROM glob('/*'))",
    "FROM (PIVOT read_text('{outside}') ON size IN (1) USING count(*))",
    "SELECT * FROM read_blob('{outside}')",
    "SELECT * FROM read_csv('{outside}')",
    "SELECT * FROM read_json_auto('{outside}')",
    "SELECT * FROM read_parquet('{inside}')",
    "SELECT * FROM parquet_scan('{inside}')",
    "SELECT * FROM parquet_metadata('{inside}')",
    "SELECT * FROM read_duckdb('{inside}')",
    "SELECT * FROM sniff_csv('{outside}')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('candles')",
    "SELECT * FROM query_table(['{outside}'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_arrow_scan(1, 2)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM histogram('{outside}', a)",
    "SELECT * FROM '{outside}'",
    "SELECT * FROM '{inside}'",
    'SELECT * FROM "{outside}"',
    "TABLE '{outside}'",
    "SELECT * FROM secret.csv",
    'SELECT * FROM main."secret.csv"',
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '/proc/self/fd/3'",
    "SELECT * FROM read_text('/proc/self/fd/3')",
    "SELECT * FROM read_blob('/dev/fd/3')",
    "SELECT * FROM read_parquet('/proc/self/fd/3')",
    "SELECT * FROM read_parquet(['/proc/self/fd/*'], filename = true)",
    "SELECT * FROM parquet_metadata('/proc/self/fd/3')",
    "SELECT * FROM glob('/proc/self/fd/*')",
    "COPY (SELECT 1) TO '/proc/self/fd/3'",
    "COPY candles FROM '/proc/self/fd/3'",
    "SELECT * FROM lake_held",
    "SELECT * FROM lake_unmerged",
    'SELECT * FROM memory.main.candles',
    "DESCRIBE lake_held",
    "SELECT getvariable('settled_held')",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    'SELECT * FROM (WITH "secret.csv" AS (SELECT 1) FROM "secret.csv"), "secret.csv"',
    "SELECT * FROM secret_frame",
    "SELECT * FROM lake.journal",
    "SELECT * FROM main.journal",
    "SELECT * FROM pg_catalog.pg_tables",
    "SHOW DATABASES",
    "SELECT getenv('HOME')",
    "SELECT getvariable('settled')",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
]  # fmt: skip

ALLOWED = [
    "SELECT 1",
    "FROM candles",
    "VALUES (1, 'a'), (2, 'b')",
    "TABLE candles",
    "SELECT * FROM main.candles",
    'SELECT * FROM "CANDLES" LIMIT 1;',
    "-- a comment\nSELECT 1 /* another */ ;",
    "DESCRIBE candles",
    "DESCRIBE SELECT 1",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SHOW candles",
    "SUMMARIZE candles",
    "EXPLAIN SELECT count(*) FROM candles",
    "explain analyze FROM candles",
    "WITH a AS (FROM candles), b AS MATERIALIZED (FROM a) SELECT count(*) FROM b",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
    "SELECT * EXCLUDE (open) REPLACE (high + 1 AS high) FROM candles ORDER BY ALL LIMIT 5 OFFSET 1",
    "SELECT symbol, count(*) FROM candles GROUP BY ALL HAVING count(*) > 0",
    'SELECT symbol, "date", count(*) FROM candles GROUP BY GROUPING SETS ((symbol), ("date"), ())',
    (
        "SELECT avg(close) OVER w FROM candles WINDOW w AS (PARTITION BY symbol ORDER BY candle_begin_time "
        "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) QUALIFY row_number() OVER w = 1"
    ),
    "SELECT a.open FROM candles a ASOF JOIN candles b ON a.symbol = b.symbol AND a.candle_begin_time >= b.candle_begin_time",
    "SELECT * FROM candles a LEFT JOIN candles b USING (symbol) CROSS JOIN range(2) r POSITIONAL JOIN range(3) s",
    "FROM (PIVOT candles ON symbol IN ('BTCUSDT') USING last(close) GROUP BY candle_begin_time)",
    "PIVOT candles ON symbol IN ('BTCUSDT') USING last(close) GROUP BY candle_begin_time",
    "FROM (UNPIVOT (SELECT open, close FROM candles) ON open, close)",
    (
        "SELECT time_bucket(INTERVAL '5 minutes', candle_begin_time), open::DECIMAL(18, 2), {'a': [1, 2]}, MAP {'k': 1}, "
        "list_transform([1], lambda x: x + 1), [x FOR x IN [1, 2] IF x > 1], CASE WHEN true THEN 1 ELSE 2 END, "
        "candle_begin_time AT TIME ZONE 'Asia/Tokyo', TRY_CAST('x' AS INT), symbol LIKE 'B%', symbol COLLATE NOCASE, "
        "open BETWEEN 1 AND 2, NOT true, symbol IN ('a', 'b'), open IS NULL, count(*) FILTER (WHERE true) OVER (), "
        "cast(NULL AS STRUCT(a INT)), cast('a' AS ENUM ('a')), NULL::INT[3], random() FROM candles"
    ),
    "SELECT string_agg(DISTINCT symbol, ',' ORDER BY symbol), quantile_cont(close, [0.1, 0.9]) FROM candles",
    "SELECT COLUMNS('open|close') FROM candles USING SAMPLE 10%",
    "SELECT DISTINCT ON (symbol) * FROM candles WHERE close > (SELECT avg(close) FROM candles)",
    "SELECT 1 AS a UNION ALL BY NAME SELECT 2 AS b EXCEPT (SELECT 3, 4 INTERSECT SELECT 4, 5)",
    "SELECT unnest([1, 2]), n FROM generate_series(1, 3) t(n), unnest([1, 2]) u(m)",
    "SELECT table_name FROM information_schema.tables",
    "SELECT function_name FROM duckdb_functions() LIMIT 1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guard")
    make_lake(root / "lake", [rest_candle(0)], hot=[rest_candle(1)])
    (root / "secret.csv").write_text("a,b\nhidden,1\n")
    return root


def everything(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"enable_external_access": False}) as connection:
        yield connection


def filled(place: Path, sql: str) -> str:
    inside = next((place / "lake").rglob("candles.parquet"))
    return sql.format(inside=inside, outside=place / "secret.csv", new=place / "new.csv")


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(place: Path, parser: duckdb.DuckDBPyConnection, sql: str) -> None:
    """No statement that could write, or read what is not one of the lake's tables, gets to run."""
    with pytest.raises((QueryError, duckdb.ParserException)):
        check(parser, filled(place, sql))


@pytest.mark.parametrize("sql", REFUSED[::5])
def test_refused_in_one_line_with_nothing_changed(
    place: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is our own error, shows nothing that is hidden, and leaves every file as it was."""
    secret_frame = pa.table({"hidden": [1]})
    monkeypatch.chdir(place)
    before = everything(place)
    with pytest.raises(LakewriterError) as raised:
        run(make_lake(place / "lake"), filled(place, sql))
    assert everything(place) == before
    assert "\n" not in raised.value.what
    assert "hidden" not in str(raised.value)
    assert raised.value.exit_code == 1
    assert secret_frame is not None


@pytest.mark.parametrize("sql", ALLOWED)
def test_allowed(place: Path, sql: str) -> None:
    """Whatever only reads the tables is run, in any of SQL's shapes."""
    run(make_lake(place / "lake", [rest_candle(0)]), sql)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{new}'",
        "FROM read_text('{outside}')",
        "FROM '{outside}'",
        "FROM glob('{outside}')",
        "FROM read_text('{open}')",
        "FROM read_blob('{open}')",
        "FROM read_csv('{open}')",
        "FROM '{open}'",
        "COPY (SELECT 1) TO '{open}'",
        "FROM glob('/proc/self/fd/*')",
        "FROM read_text('/proc/self/fd/*')",
        "FROM read_text('/proc/self/environ')",
        "ATTACH '{new}'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET temp_directory = '/'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "FROM secret_frame",
    ],
)
def test_the_engine_itself_is_restricted(place: Path, sql: str) -> None:
    """Should the guard miss something, the engine still has no way out of the lake."""
    secret_frame = pa.table({"hidden": [1]})
    make_lake(place / "lake", [rest_candle(0)])
    with (
        Engine(EngineKey(place / "lake", readable=True)).cursor() as cursor,
        (place / "secret.csv").open("r+b") as file,
        pytest.raises(duckdb.Error),
    ):
        opened = f"/proc/self/fd/{file.fileno()}"
        cursor.execute(sql.format(outside=place / "secret.csv", new=place / "new.csv", open=opened))
    assert not (place / "new.csv").exists()
    assert (place / "secret.csv").read_text() == "a,b\nhidden,1\n"
    assert secret_frame is not None


def test_tables_that_are_read_are_named() -> None:
    """The session learns which tables to fill; names are case-insensitive."""
    connection = duckdb.connect()
    assert check(connection, "SELECT 1").tables == frozenset()
    assert check(connection, "FROM Candles c, (SELECT * FROM partitions)").tables == {"candles", "partitions"}
    assert check(connection, "EXPLAIN SUMMARIZE candles").tables == {"candles"}
    assert check(connection, "FROM Resample('a', 'b', 'c', 'd')").tables == {"candles"}
    assert check(connection, "FROM main.vwap('a', 'b', 'c'), latest()").macros == {"vwap", "latest"}
    assert check(connection, "SELECT $a, $b FROM candles WHERE open > $a").parameters == {"a", "b"}


def test_unknown_table_and_function_are_named() -> None:
    """The message names what is missing, the hint what there is."""
    with pytest.raises(QueryError, match="there is no table trades") as raised:
        check(duckdb.connect(), "SELECT * FROM trades")
    assert (
        raised.value.hint
        == "tables to read: candles, partitions, gaps, coverage, instruments, subscriptions, forgotten"
    )
    with pytest.raises(QueryError, match=r"FROM read_csv\(…\) is not available"):
        check(duckdb.connect(), "SELECT * FROM read_csv('x')")
    with pytest.raises(QueryError, match="PIVOT needs its values named"):
        check(duckdb.connect(), "PIVOT candles ON symbol USING last(close)")


def test_monstrous_nesting_is_refused_not_crashed_on() -> None:
    """SQL nested beyond reason is an error like any other."""
    with pytest.raises((QueryError, duckdb.Error)):
        check(duckdb.connect(), "SELECT " + "abs(" * 5000 + "1" + ")" * 5000)
