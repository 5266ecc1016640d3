"""Each statement returns the rows that plain DuckDB returns over a plain glob of the same rows.

It runs twice. One lake is settled. In the other lake some rows are still in the
journal, in both journal and file, or in files of other writers.
"""

import resource
import zlib
from itertools import groupby
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given

from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.query.execution import Execution
from lakewriter.query.retry import RetryHints
from lakewriter.query.scan.held_files import FD_RESERVE, can_hold
from lakewriter.query.session import run
from support.day_layout import further_directories, to_day_layout
from support.lakes import add_foreign, make_lake, merge_candles
from support.lengths import LONG, either, examples
from support.statements import (
    ALL_ROWS,
    FILTERS,
    PREDICATES,
    STATEMENTS,
    as_statement,
    asked_plainly,
    in_any_order,
    params_of,
    plain_copy,
    two_scans,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(tmp_path_factory.mktemp("settled"), ALL_ROWS)


@pytest.fixture(scope="module")
def hot(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """The same candles, in turn in a file, in the journal, in both, or in place of a losing row."""
    root = tmp_path_factory.mktemp("hot")
    worse = [msgspec.structs.replace(one, trade_num=0, source="rest", high=1e6) for one in ALL_ROWS]
    files, waiting, foreign = [], [], []
    for number, one in enumerate(ALL_ROWS):
        if number % 5 in (0, 2):
            files.append(one)
        if number % 5 in (1, 2, 3):
            waiting.append(one)
        if number % 5 == 3:
            files.append(worse[number])
        if number % 5 == 4:
            waiting.append(worse[number])
            (foreign if number % 15 == 4 else files).append(one)
    store = make_lake(root, files, waiting)
    for _, rows in groupby(foreign, partition_of):
        add_foreign(root, list(rows))
    return store


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """The same candles in directories of days; some are also in files of months and years."""
    root = tmp_path_factory.mktemp("days")
    store = make_lake(root, ALL_ROWS)
    to_day_layout(root)
    merge_candles(store, ALL_ROWS[::7])
    assert len(further_directories(store)) > 30
    return store


@pytest.fixture(scope="module")
def plain(settled: LakeStore) -> duckdb.DuckDBPyConnection:
    return plain_copy(settled.root)


_PLAIN_ANSWERS: dict[str, list[str]] = {}


def plain_answer(plain: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Return plain DuckDB's rows in any order; run each statement once."""
    if sql not in _PLAIN_ANSWERS:
        _PLAIN_ANSWERS[sql] = in_any_order(asked_plainly(plain, sql))
    return _PLAIN_ANSWERS[sql]


def expect_equal(plain: duckdb.DuckDBPyConnection, stores: list[LakeStore], sql: str) -> None:
    """Check that each lake gives plain DuckDB's answer, with held files and without.

    A short run tries one of these ways per statement.
    """
    expected = plain_answer(plain, sql)
    for store in stores:
        for ask in WAYS if LONG else [WAYS[zlib.crc32(sql.encode()) % len(WAYS)]]:
            assert in_any_order(ask(store, sql)) == expected


def held(store: LakeStore, sql: str) -> pa.Table:
    """Query as after files were replaced: with all files held, or, for every other statement, half of them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = sum(1 for _ in store.files())
    room = files if len(sql) % 2 else files // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + FD_RESERVE + room, limits[1]))
    try:
        with Execution(store, RetryHints(files_replaced=True), None) as running:
            answer = running.start(sql, params_of(sql))
            assert bool(running._held_files.names) == (can_hold() and bool(running._snapshot.own))
            return pa.Table.from_batches(list(answer.batches), answer.schema)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def now(store: LakeStore, sql: str) -> pa.Table:
    return run(store, sql, params_of(sql))


WAYS = (held, now)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.parametrize("predicate", PREDICATES[:: either(12, 1)])
def test_predicate(plain: duckdb.DuckDBPyConnection, hot: LakeStore, predicate: str) -> None:
    """No WHERE clause loses or gains a row by the choice of files."""
    expect_equal(plain, [hot], as_statement(predicate))


@pytest.mark.parametrize("sql", STATEMENTS[:: either(8, 1)])
def test_statement(plain: duckdb.DuckDBPyConnection, hot: LakeStore, sql: str) -> None:
    """Clauses, joins, subqueries and set operations with a predicate return plain DuckDB's answer."""
    expect_equal(plain, [hot], sql)


@pytest.mark.parametrize(
    "sql", [*map(as_statement, PREDICATES[:: either(30, 4)]), *STATEMENTS[:: either(30, 4)]]
)
def test_settled_lake(plain: duckdb.DuckDBPyConnection, settled: LakeStore, sql: str) -> None:
    """A lake without a journal and foreign files gives plain DuckDB's answers."""
    expect_equal(plain, [settled], sql)


@pytest.mark.parametrize(
    "sql", [*map(as_statement, PREDICATES[:: either(25, 1)]), *STATEMENTS[:: either(25, 1)]]
)
def test_lake_of_days(plain: duckdb.DuckDBPyConnection, days: LakeStore, sql: str) -> None:
    """A lake with one directory per day, also for months and years, gives the same answers."""
    expect_equal(plain, [days], sql)


def test_the_statements_are_worth_asking(plain: duckdb.DuckDBPyConnection) -> None:
    """Nearly all statements return rows, so a lost row would be noticed."""
    asked = [as_statement(predicate) for predicate in PREDICATES] + STATEMENTS
    empty = [sql for sql in asked if not plain_answer(plain, sql)]
    assert len(asked) >= 250
    assert len(empty) < 30


@examples(6, 60, suppress_health_check=list(HealthCheck))
@given(one=FILTERS, other=FILTERS)
def test_any_filters_of_two_scans(
    plain: duckdb.DuckDBPyConnection, settled: LakeStore, hot: LakeStore, one: str, other: str
) -> None:
    """Each scan has its own filter, and gets at least the rows that pass it."""
    expect_equal(plain, [settled, hot], two_scans(one, other))
