"""No SQL changes a file or a setting, or reads anything except the lake's tables."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lakewriter.errors import LakewriterError
from lakewriter.query.engine import Engine, EngineKey
from lakewriter.query.errors import QueryError
from lakewriter.query.session import run
from lakewriter.query.statement.guard import check
from support.escapes import ALLOWED, REFUSED, everything, filled
from support.lakes import make_lake, rest_candle


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guard")
    make_lake(root / "lake", [rest_candle(0)], hot=[rest_candle(1)])
    (root / "secret.csv").write_text("a,b\nhidden,1\n")
    return root


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"enable_external_access": False}) as connection:
        yield connection


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(place: Path, parser: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Statements that could write, or read outside the lake's tables, do not run."""
    with pytest.raises((QueryError, duckdb.ParserException)):
        check(parser, filled(place, sql))


@pytest.mark.parametrize("sql", REFUSED[::5])
def test_refused_in_one_line_with_nothing_changed(
    place: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is a QueryError of one line, shows no hidden table, and changes no file."""
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
    """Statements that only read the tables run, in each form of SQL."""
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
    """Even without the guard the engine cannot leave the lake."""
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
    """The guard returns the tables of a statement, in any case."""
    connection = duckdb.connect()
    assert check(connection, "SELECT 1").tables == frozenset()
    assert check(connection, "FROM Candles c, (SELECT * FROM partitions)").tables == {"candles", "partitions"}
    assert check(connection, "EXPLAIN SUMMARIZE candles").tables == {"candles"}
    assert check(connection, "FROM Resample('a', 'b', 'c', 'd')").tables == {"candles"}
    assert check(connection, "FROM main.vwap('a', 'b', 'c'), latest()").macros == {"vwap", "latest"}
    assert check(connection, "SELECT $a, $b FROM candles WHERE open > $a").parameters == {"a", "b"}


def test_unknown_table_and_function_are_named() -> None:
    """The message names the unknown table or function, and the hint lists the known ones."""
    with pytest.raises(QueryError, match="there is no table trades") as raised:
        check(duckdb.connect(), "SELECT * FROM trades")
    assert (
        raised.value.hint
        == "tables to read: candles, partitions, gaps, coverage, instruments, subscriptions, forgotten; "
        "a file is one with --table NAME=FILE, a frame with tables={…}"
    )
    with pytest.raises(QueryError, match=r"FROM read_csv\(…\) is not available"):
        check(duckdb.connect(), "SELECT * FROM read_csv('x')")
    with pytest.raises(QueryError, match="PIVOT needs its values named"):
        check(duckdb.connect(), "PIVOT candles ON symbol USING last(close)")


def test_monstrous_nesting_is_refused_not_crashed_on() -> None:
    """Deeply nested SQL is an error of one line."""
    with pytest.raises((QueryError, duckdb.Error)):
        check(duckdb.connect(), "SELECT " + "abs(" * 5000 + "1" + ")" * 5000)


def test_withs_in_withs_are_refused_before_they_are_parsed() -> None:
    """The parser would take seconds and gigabytes for a wrong text of a few words."""
    connection = duckdb.connect()

    def nested(count: int) -> str:
        return "WITH a AS (" * count + "SELECT 1" + ") FROM a" * count

    with pytest.raises(QueryError, match="sql: more than 5 WITH"):
        check(connection, nested(6).replace("SELECT 1", "SELECT 1 x y"))
    check(connection, nested(5))
    check(connection, "SELECT " + ", ".join(["now()::TIMESTAMP WITH TIME ZONE"] * 6))
