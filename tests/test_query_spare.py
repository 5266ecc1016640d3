"""Engines that are made before they are needed."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from running import wait_until
from test_query_files import add_foreign, candle, make_lake, put

import lakewriter
from lakewriter.candle import to_table
from lakewriter.partition import partition_of
from lakewriter.query.scan.tables import foresee_candles
from lakewriter.query.session import prepare, run
from lakewriter.query.spare import SPARE, Engine, Spare

HERE = Path("/here")


def test_each_engine_is_taken_once() -> None:
    """Two statements never share an engine, however many ask at the same time."""
    spare = Spare()
    engines: list[duckdb.DuckDBPyConnection] = []

    def take() -> None:
        for _ in range(4):
            spare.prepare()
            engines.append(spare.take(HERE).connection)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in engines}) == 16
    for engine in engines:
        assert engine.sql("SELECT 42").fetchall() == [(42,)]
        engine.close()


def test_an_engine_shut_in_one_lake_is_not_used_for_another() -> None:
    """What was made for one lake is closed when it is another's turn."""
    spare, other = Spare(), Path("/elsewhere")
    spare.prepare(lambda connection: Engine(connection, HERE))
    engine = spare.take(other)
    assert engine.root is None
    engine.connection.close()
    spare.prepare(lambda connection: Engine(connection, HERE))
    engine = spare.take(HERE)
    assert engine.root == HERE
    engine.connection.close()


def test_what_cannot_be_made_ahead_is_made_when_it_is_needed() -> None:
    """An error behind the caller's back is nobody's; the next statement says it, if it is there still."""

    def fails(_connection: duckdb.DuckDBPyConnection) -> Engine:
        raise OSError("no")

    spare = Spare()
    spare.prepare(fails)
    engine = spare.take(HERE)
    assert engine.connection.sql("SELECT 42").fetchall() == [(42,)]
    engine.connection.close()


def test_one_waits_after_an_answer(tmp_path: Path) -> None:
    """The next statement finds an engine that is made already."""
    make_lake(tmp_path, [candle(0)])
    lake = lakewriter.open_lake(tmp_path)
    lake.query("SELECT 1")
    wait_until(lambda: SPARE._making is not None and SPARE._making.done())
    made = SPARE._making.result()
    engine = SPARE.take(tmp_path)
    assert engine.connection is made.connection, "it was made only now"
    assert engine.root == tmp_path
    engine.connection.close()


def _strange(root: Path) -> None:
    """Let the file that sorts first be one that the engine cannot read as it stands."""
    rows = to_table([candle(7, market="coin_futures")])
    put(root, partition_of(candle(7, market="coin_futures")).path, rows.drop(["source"]), "candles.parquet")


def _nothing(_root: Path) -> None: ...


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": _nothing,
    "another file": lambda root: make_lake(root, [candle(2000, symbol="ETHUSDT")]),
    "hot rows": lambda root: make_lake(root, hot=[candle(0, trade_num=99), candle(5000)]),
    "foreign rows": lambda root: add_foreign(root, [candle(0), candle(9)]),
    "the file is gone": lambda root: (root / partition_of(candle(0)).file).unlink(),
    "another file is misfit": _strange,
}

STATEMENTS = [
    "SELECT count(*), min(open), max(open), sum(trade_num) FROM candles",
    "SELECT count(*) FROM memory.main.candles WHERE open > 101",
    "SELECT count(*) FROM candles AS one JOIN candles AS other USING (market, symbol, candle_begin_time)",
    "SELECT count(*) FROM candles WHERE symbol = 'NONE'",
    "SHOW TABLES",
    "DESCRIBE candles",
    "SELECT count(*), max(open) FROM latest()",
    "SELECT 42",
]


@pytest.mark.parametrize("sql", STATEMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_made_ahead_changes_no_answer(tmp_path: Path, change: str, sql: str) -> None:
    """Whatever becomes of the lake after an engine was made for it: it answers as one made only now."""
    store = make_lake(tmp_path, [candle(number * 700) for number in range(5)])
    SPARE.take(tmp_path).connection.close()
    prepare(store)
    made = SPARE.take(tmp_path)
    assert made.foreseen
    made.connection.close()
    prepare(store)
    wait_until_made()
    CHANGES[change](tmp_path)
    ahead = run(store, sql)
    assert ahead.equals(run(store, sql))


def wait_until_made() -> None:
    """Return when the engine that is being made is made."""
    making = SPARE._making
    assert making is not None
    making.result()


@pytest.mark.parametrize("change", ["empty", "foreign", "misfit"])
def test_nothing_is_foreseen_without_a_file_that_is_fit(tmp_path: Path, change: str) -> None:
    """In a lake that has none, the view is made when the statement is there."""
    store = make_lake(tmp_path)
    if change == "foreign":
        add_foreign(tmp_path, [candle(0)])
    if change == "misfit":
        _strange(tmp_path)
    prepare(store)
    wait_until_made()
    with contextlib.closing(SPARE.take(tmp_path).connection) as connection:
        assert not foresee_candles(connection, store)
        assert connection.sql("SELECT count(*) FROM candles").fetchall() == [(0,)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_asks_with_an_engine_of_its_own(tmp_path: Path) -> None:
    """A worker process that is forked between two questions gets its answer, and ends."""
    make_lake(tmp_path, [candle(n) for n in range(3)])
    lake = lakewriter.open_lake(tmp_path)
    lake.query("SELECT 1")
    SPARE.prepare()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 1
        try:
            code = 0 if lake.query("SELECT count(*) FROM candles").rows() == [(3,)] else 1
        finally:
            SPARE.take(tmp_path).connection.close()
            os._exit(code)
    deadline_s = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline_s, "the child hangs"
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert lake.query("SELECT count(*) FROM candles").rows() == [(3,)]
