"""What differs between the engine's releases; each test runs with whichever is installed."""

import threading
import time
from pathlib import Path

import duckdb
import pytest
from test_query_files import candle, make_lake

from lakewriter.errors import LakewriterError
from lakewriter.query.engine import (
    RELEASE,
    VERSION,
    check_release,
    path_text,
    prepared,
    release_of,
    time_limited,
    version_of,
)
from lakewriter.query.errors import QueryError
from lakewriter.query.guard import check
from lakewriter.query.scan.scan_sql import NAMES_MAX
from lakewriter.query.session import run


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.0.1", (2, 0)), ("1.5.0.dev12", (1, 5)), ("2.1.0rc1", (2, 1)), ("12.34", (12, 34)), ("v?", (0, 0))],
)
def test_version_is_read(text: str, version: tuple[int, int]) -> None:
    """The release of a version is its first two numbers."""
    assert version_of(text) == version


@pytest.mark.parametrize("text", ["1.4.0", "1.4.5", "1.5.6", "2.0.1", "2.7.0.dev3", duckdb.__version__])
def test_known_releases_may_be_used(text: str) -> None:
    """From 1.4 up to the next major one."""
    check_release(text)
    assert release_of(version_of(text)) == release_of(min(version_of(text), (2, 0)))


@pytest.mark.parametrize(
    ("text", "age"),
    [("0.10.3", "old"), ("1.3.2", "old"), ("3.0.0", "new"), ("4.1.0.dev1", "new"), ("?", "old")],
)
def test_other_releases_are_refused_in_one_line(text: str, age: str) -> None:
    """What its trees and plans look like is not known; the hint is what to type."""
    with pytest.raises(LakewriterError, match=f"too {age}") as raised:
        check_release(text)
    assert raised.value.what == f"query: DuckDB {text} is too {age}"
    assert raised.value.hint == "pip install 'duckdb>=1.4,<3'"


def test_setting_that_a_release_lacks_is_one_line() -> None:
    """It names the release, and shows no traceback."""
    with pytest.raises(LakewriterError) as raised, prepared():
        duckdb.connect(config={"no_such_setting": True})
    assert raised.value.what.startswith(f"query: DuckDB {duckdb.__version__}: ")
    assert "\n" not in raised.value.what
    with pytest.raises(LakewriterError), prepared():
        duckdb.connect().execute("SET no_such_setting = true")


@pytest.mark.parametrize(
    "name", ["lake", "a [b] c", "[", "]", "* ?", "{a,b}", "**", "a\\b", "a\\b [c]", "it's", "é 币"]
)
@pytest.mark.parametrize("files", [2, NAMES_MAX + 1])
def test_lake_of_any_name_is_read_and_its_twin_is_not(tmp_path: Path, name: str, files: int) -> None:
    """A name that is a pattern elsewhere finds itself alone, few files or many."""
    twin = name.translate(str.maketrans({"[": "", "]": "", "*": "x", "?": "y"})) or "x"
    for root, count in ((name, files), (twin, 1)):
        make_lake(tmp_path / root, [candle(1440 * day) for day in range(count)])
    store = make_lake(tmp_path / name)
    for sql in (
        "FROM candles",
        "FROM candles WHERE symbol LIKE '%C%'",
        "FROM candles WHERE symbol = 'BTCUSDT'",
    ):
        assert run(store, f"SELECT count(*) AS n FROM ({sql})").to_pylist() == [{"n": files}]


@pytest.mark.skipif(RELEASE.file_structs, reason="since 2.0 names are taken as they stand")
def test_pattern_of_a_path_is_itself() -> None:
    """Before 2.0 each name is a pattern."""
    assert path_text("/a [b]*?/{c}") == "/a [[]b][*][?]/{c}"
    assert path_text("/plain/lake") == "/plain/lake"


@pytest.mark.skipif(not RELEASE.file_structs, reason="before 2.0 each name is a pattern")
def test_path_is_itself() -> None:
    """Since 2.0 names are taken as they stand."""
    assert path_text("/a [b]*?/{c}") == "/a [b]*?/{c}"


LONG = "SELECT sum(hash(a.range, b.range)) FROM range(10000000) a, range(10000) b"


@pytest.mark.skipif(RELEASE.time_setting, reason="since 2.0 the engine keeps the time itself")
def test_long_work_is_interrupted_in_its_block_and_not_after_it() -> None:
    """Before 2.0 a timer interrupts what runs too long, and what runs then never."""
    with duckdb.connect() as connection:
        with pytest.raises(duckdb.InterruptException), time_limited(connection, 100):
            connection.execute(LONG)
        with time_limited(connection, 100):
            pass
        until_s = time.monotonic() + 0.4
        while time.monotonic() < until_s:
            connection.execute("SELECT sum(range) FROM range(1000000)").fetchall()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.mark.skipif(VERSION >= (2, 0), reason="since 2.0 a statement is parsed without a look at files")
def test_parser_opens_no_file_outside(tmp_path: Path) -> None:
    """Before 2.0 IMPORT DATABASE is read while it is parsed; the lock is on the door by then."""
    store = make_lake(tmp_path / "lake", [candle(0)])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "schema.sql").write_text("SELECT 'hidden' FROM;")
    (tmp_path / "other" / "load.sql").write_text("")
    for sql in (f"IMPORT DATABASE '{tmp_path}/other'", f"PRAGMA import_database('{tmp_path}/other')"):
        with pytest.raises(QueryError) as raised:
            run(store, sql)
        assert "hidden" not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA show_tables",
        "PRAGMA version",
        "PRAGMA table_info('candles')",
        "PRAGMA database_list",
        'PRAGMA json_execute_serialized_sql(\'{"error":false,"statements":[]}\')',
        "IMPORT DATABASE 'nowhere'",
        "IMPORT\u00a0DATABASE 'nowhere'",
        "pragma\u2003show_tables",
    ],
)
def test_what_stands_for_another_statement_is_refused(tmp_path: Path, sql: str) -> None:
    """Before 2.0 the parser has put the other one in its place already."""
    with pytest.raises(QueryError):
        run(make_lake(tmp_path, [candle(0)]), sql)


def test_spaces_of_any_kind_are_space(tmp_path: Path) -> None:
    """What was pasted from a web page is still a SELECT."""
    store = make_lake(tmp_path, [candle(0)])
    sql = "SELECT\u00a0count(*)\u2003AS n\u3000FROM candles"
    assert run(store, sql).to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("sql", ["PIVOT candles ON symbol USING last(close)", "PIVOT candles ON symbol"])
def test_pivot_without_values_says_what_to_do(sql: str) -> None:
    """Whatever a release makes of it: two statements, or one of many."""
    with duckdb.connect() as connection, pytest.raises(QueryError, match="PIVOT needs its values named"):
        check(connection, sql)
