"""The engine: cached, restricted to the lake's files, with one cursor for each statement."""

import functools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakewriter.candle import to_table
from lakewriter.errors import LakewriterError
from lakewriter.partition import partition_of
from lakewriter.query.engine import (
    KEPT_ENGINES_MAX,
    EngineKey,
    check_release,
    engine_of,
    nodes,
    parse_version,
    settings_required,
    time_limited,
)
from lakewriter.query.errors import QueryError
from lakewriter.query.limits import QueryLimits
from lakewriter.query.scan.scan_sql import NAMES_MAX
from lakewriter.query.session import run, stream
from lakewriter.query.statement.guard import check
from support.lakes import add_foreign, make_lake, rest_candle, write_parquet
from support.running import PATIENCE_S


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.0.1", (2, 0)), ("1.5.0.dev12", (1, 5)), ("2.1.0rc1", (2, 1)), ("12.34", (12, 34)), ("v?", (0, 0))],
)
def test_version_is_read(text: str, version: tuple[int, int]) -> None:
    """A version gives its first two numbers."""
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["2.0.0", "2.0.1", "2.7.0.dev3", duckdb.__version__])
def test_known_releases_may_be_used(text: str) -> None:
    """Releases from 2.0 up to the next major one are accepted."""
    check_release(text)


@pytest.mark.parametrize(
    ("text", "age"),
    [("0.10.3", "old"), ("1.5.6", "old"), ("3.0.0", "new"), ("4.1.0.dev1", "new"), ("?", "old")],
)
def test_other_releases_are_refused_in_one_line(text: str, age: str) -> None:
    """An untested release of DuckDB is refused, and the hint is the command that installs a tested one."""
    with pytest.raises(LakewriterError, match=f"too {age}") as raised:
        check_release(text)
    assert raised.value.what == f"query: DuckDB {text} is too {age}"
    assert raised.value.hint == "pip install 'duckdb>=2.0,<3'"


def test_setting_that_a_release_lacks_is_one_line() -> None:
    """The error for a missing setting names the release, and has no traceback."""
    with pytest.raises(LakewriterError) as raised, settings_required():
        duckdb.connect(config={"no_such_setting": True})
    assert raised.value.what.startswith(f"query: DuckDB {duckdb.__version__}: ")
    assert "\n" not in raised.value.what
    with pytest.raises(LakewriterError), settings_required():
        duckdb.connect().execute("SET no_such_setting = true")


@functools.cache
def _lake_of_days(directory: Path, days: int) -> Path:
    """Create a lake of this many files; tests copy it."""
    return make_lake(
        directory / f"lake-of-{days}-days", [rest_candle(1440 * day) for day in range(days)]
    ).root


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lake", "a [b] c", "[", "]", "* ?", "{a,b}", "**", "a\\b", "a\\b [c]", "it's", "é 币"]
)
@pytest.mark.parametrize("files", [2, NAMES_MAX + 1])
def test_lake_of_any_name_is_read_and_its_twin_is_not(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str, files: int
) -> None:
    """A lake whose name is a glob is read alone, without other lakes that match it."""
    twin = name.translate(str.maketrans({"[": "", "]": "", "*": "x", "?": "y"})) or "x"
    for root, count in ((name, files), (twin, 1)):
        shutil.copytree(
            _lake_of_days(tmp_path_factory.getbasetemp(), count), tmp_path / root, dirs_exist_ok=True
        )
    store = make_lake(tmp_path / name)
    for sql in (
        "FROM candles",
        "FROM candles WHERE symbol LIKE '%C%'",
        "FROM candles WHERE symbol = 'BTCUSDT'",
    ):
        assert run(store, f"SELECT count(*) AS n FROM ({sql})").to_pylist() == [{"n": files}]


LONG = "SELECT sum(hash(a.range, b.range)) FROM range(10000000) a, range(10000) b"


def test_long_work_is_interrupted_in_its_block_and_not_after_it() -> None:
    """The timer interrupts long work inside its block, and nothing after the block."""
    with duckdb.connect() as connection:
        with pytest.raises(duckdb.InterruptException), time_limited(connection, 100):
            connection.execute(LONG)
        with time_limited(connection, 100):
            pass
        until_s = time.monotonic() + 0.4
        while time.monotonic() < until_s:
            connection.execute("SELECT sum(range) FROM range(1000000)").fetchall()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


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
    """Statements that the parser replaces by another one are refused."""
    with pytest.raises(QueryError):
        run(make_lake(tmp_path, [rest_candle(0)]), sql)


def test_spaces_of_any_kind_are_space(tmp_path: Path) -> None:
    """A statement with Unicode spaces, as in text from a web page, is still a SELECT."""
    store = make_lake(tmp_path, [rest_candle(0)])
    sql = "SELECT\u00a0count(*)\u2003AS n\u3000FROM candles"
    assert run(store, sql).to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("sql", ["PIVOT candles ON symbol USING last(close)", "PIVOT candles ON symbol"])
def test_pivot_without_values_says_what_to_do(sql: str) -> None:
    """The error for a PIVOT without values says to list them, in each form of the statement."""
    with duckdb.connect() as connection, pytest.raises(QueryError, match="PIVOT needs its values named"):
        check(connection, sql)


def test_every_object_is_found_at_any_depth() -> None:
    """All objects of a parse tree are found, 10,000 levels deep; other values are skipped."""
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"below": [deep, 1, "text", None]}
    assert sum(1 for _ in nodes([deep, {"beside": {}}])) == 10_003
    assert list(nodes("text")) == []


def made_for(root: Path) -> EngineKey:
    return EngineKey(root, readable=True)


def test_engine_is_kept_for_its_lake(tmp_path: Path) -> None:
    """Statements on one lake share an engine; two lakes have separate ones."""
    one, other = made_for(tmp_path / "one"), made_for(tmp_path / "other")
    assert engine_of(one) is engine_of(one)
    assert engine_of(one) is not engine_of(other)


def test_engine_with_a_memory_limit_is_not_kept(tmp_path: Path) -> None:
    """A statement's memory limit belongs to a separate engine, and does not hold for later statements."""
    limited = made_for(tmp_path)._replace(memory="100MB")
    assert engine_of(limited) is not engine_of(limited)
    with engine_of(limited).cursor() as cursor:
        assert cursor.execute("SELECT current_setting('memory_limit')").fetchall() == [("95.3 MiB",)]
    with engine_of(made_for(tmp_path)).cursor() as cursor:
        assert cursor.execute("SELECT current_setting('memory_limit')").fetchall() != [("95.3 MiB",)]


def test_engines_are_bounded_and_one_in_use_goes_on(tmp_path: Path) -> None:
    """A process caches a few engines; a cursor works after its engine leaves the cache."""
    first = engine_of(made_for(tmp_path / "first"))
    with first.cursor() as cursor:
        for number in range(KEPT_ENGINES_MAX):
            engine_of(made_for(tmp_path / str(number)))
        assert engine_of(made_for(tmp_path / "first")) is not first
        del first
        assert cursor.execute("SELECT 42").fetchall() == [(42,)]


def test_a_fault_of_the_engine_ends_its_own_statement_alone(tmp_path: Path) -> None:
    """After an internal error other statements continue, and the next one gets a new engine.

    The error comes from a PIVOT without columns, which this DuckDB cannot read.
    """
    store = make_lake(tmp_path, [rest_candle(0)])
    pivot = "SELECT json_serialize_sql('FROM (PIVOT t ON a IN (1) USING max(b))')"
    [(text,)] = duckdb.connect().execute(pivot).fetchall()
    tree = json.loads(text)
    below = tree["statements"][0]["node"]["from_table"]["subquery"]["node"]["from_table"]
    below["pivots"][0]["pivot_expressions"] = [None]
    counting = "SELECT count(*) AS n FROM candles"
    engine = engine_of(EngineKey(tmp_path, readable=True))
    with stream(store, "SELECT range AS n FROM range(1000000)") as running:
        with pytest.raises(QueryError, match="NULL"):
            run(store, f"SELECT json_deserialize_sql(symbol[1:0] || '{json.dumps(tree)}') FROM candles")
        assert engine_of(EngineKey(tmp_path, readable=True)) is not engine
        assert run(store, counting).to_pylist() == [{"n": 1}]
        assert sum(batch.num_rows for batch in running.batches) == 1_000_000


def test_cursors_share_no_table_and_no_variable(tmp_path: Path) -> None:
    """A cursor's tables and variables are invisible to other cursors, and gone after its close."""
    engine = engine_of(made_for(tmp_path))
    with engine.cursor() as one, engine.cursor() as other:
        one.execute("CREATE TEMP VIEW candles AS SELECT 1 AS a; SET VARIABLE settled = 'x'")
        with pytest.raises(duckdb.CatalogException):
            other.execute("FROM candles")
        assert other.execute("SELECT getvariable('settled')").fetchall() == [(None,)]
        other.execute("CREATE TEMP VIEW candles AS SELECT 2 AS a")
        assert one.execute("FROM candles").fetchall() == [(1,)]
    with engine.cursor() as later, pytest.raises(duckdb.CatalogException):
        later.execute("FROM candles")


def test_filters_are_found_one_thread_at_a_time(tmp_path: Path) -> None:
    """The disabled optimizers are an engine-wide setting, so only one thread at a time changes it."""
    engine = engine_of(made_for(tmp_path))
    inside = threading.Semaphore()

    def find() -> None:
        for _ in range(20):
            with engine.without_runtime_filters(), engine.cursor() as cursor:
                assert inside.acquire(blocking=False)
                assert cursor.execute("SELECT current_setting('disabled_optimizers')").fetchall() != [("",)]
                inside.release()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(find) for _ in range(4)]:
            done.result()
    with engine.cursor() as cursor:
        assert cursor.execute("SELECT current_setting('disabled_optimizers')").fetchall() == [("",)]


def _strange(root: Path) -> None:
    """Make the file that sorts first one without a `source` column, which the engine alone cannot read."""
    rows = to_table([rest_candle(7, market="coin_futures")])
    write_parquet(
        root,
        partition_of(rest_candle(7, market="coin_futures")).path,
        rows.drop(["source"]),
        "candles.parquet",
    )


def _nothing(_root: Path) -> None: ...


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": _nothing,
    "another file": lambda root: make_lake(root, [rest_candle(2000, symbol="ETHUSDT")]),
    "hot rows": lambda root: make_lake(root, hot=[rest_candle(0, trade_num=99), rest_candle(5000)]),
    "foreign rows": lambda root: add_foreign(root, [rest_candle(0), rest_candle(9)]),
    "the file is gone": lambda root: (root / partition_of(rest_candle(0)).file).unlink(),
    "another file is misfit": _strange,
}

STATEMENTS = [
    "SELECT count(*), min(open), max(open), sum(trade_num) FROM candles",
    "SELECT count(*) FROM main.candles WHERE open > 101",
    "SELECT count(*) FROM candles AS one JOIN candles AS other USING (market, symbol, candle_begin_time)",
    "SELECT count(*) FROM candles WHERE symbol = 'NONE'",
    "SHOW TABLES",
    "DESCRIBE candles",
    "SELECT count(*), max(open) FROM latest()",
    "SELECT 42",
]


@pytest.mark.parametrize("change", CHANGES)
def test_kept_engine_changes_no_answer(tmp_path: Path, change: str) -> None:
    """A cached engine gives the same answers as a new one after the lake has changed."""
    store = make_lake(tmp_path, [rest_candle(number * 700) for number in range(5)])
    for sql in STATEMENTS:
        run(store, sql)
    CHANGES[change](tmp_path)
    kept = [run(store, sql) for sql in STATEMENTS]
    for sql, answer in zip(STATEMENTS, kept, strict=True):
        anew = run(store, sql, limits=QueryLimits(memory="1GB"))
        assert answer.equals(anew)


# A process that has run other tests has threads of other libraries, which a fork may break.
FORKING = """
import os, signal, sys, lakewriter
lake = lakewriter.open_lake(sys.argv[1])
lake.query("SELECT 1")
child = os.fork()
if child == 0:
    signal.alarm(60)
    code = 1
    try:
        code = 0 if lake.query("SELECT count(*) FROM candles").rows() == [(3,)] else 1
    finally:
        os._exit(code)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_asks_with_an_engine_of_its_own(tmp_path: Path) -> None:
    """A forked worker process creates its own engine, answers, and ends."""
    make_lake(tmp_path, [rest_candle(n) for n in range(3)])
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(tmp_path)]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (asked.stdout, asked.stderr) == ("0\n", "")
