"""Limits of time and memory end a statement, and its progress can be read."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO

import pytest

from lakewriter.cli.answer import Target, print_answer
from lakewriter.cli.query_bar import QueryBar, bar_line
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.query.errors import QueryError
from lakewriter.query.execution import RowStream
from lakewriter.query.limits import QueryLimits
from lakewriter.query.session import run, stream
from support import running
from support.lakes import make_lake, rest_candle

ENDLESS = [
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t, candles) SELECT count(*) FROM t",
    "SELECT count(*) FROM range(10000000000) a, range(10000000000) b WHERE hash(a.range, b.range) = 8",
    "SELECT count(*) FROM candles a, candles b, candles c, candles d, candles e WHERE hash(a.open + b.open + c.open + d.open + e.open) = 1",
    "FROM range(1000000000000) WHERE range = -1",
    "SELECT count(*) FROM range(1000000000000) a ASOF JOIN range(1000000000000) b ON a.range >= b.range",
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(tmp_path_factory.mktemp("control"), [rest_candle(n) for n in range(1440)])


@pytest.mark.parametrize("sql", ENDLESS)
def test_a_statement_without_an_end_is_ended(lake: LakeStore, sql: str) -> None:
    """A statement is interrupted at its timeout, and the next statement is answered."""
    began_s = time.monotonic()
    with pytest.raises(QueryError, match=r"sql: not done after 0\.4 s"):
        run(lake, sql, None, QueryLimits(timeout_s=0.4))
    assert time.monotonic() - began_s < 30
    assert run(lake, "SELECT count(*) AS n FROM candles", None, QueryLimits(timeout_s=60)).to_pylist() == [
        {"n": 1440}
    ]


def test_a_disk_that_gives_up_is_not_the_end_of_the_time() -> None:
    """A TimeoutError of the system stays that error, and is not taken for the statement's timeout."""
    future: Future[None] = Future()
    future.set_exception(TimeoutError("the disk"))
    with pytest.raises(TimeoutError, match="the disk"):
        QueryLimits(timeout_s=60).wait(future)


def test_the_time_of_a_stream_counts_while_rows_come(lake: LakeStore) -> None:
    """The timeout also ends a stream that returns rows for ever."""
    with (
        pytest.raises(QueryError, match="not done after 1 s"),
        stream(lake, "SELECT * FROM range(10000000000000)", None, QueryLimits(timeout_s=1)) as answer,
    ):
        for _ in answer.batches:
            pass


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(2000000000)",
        "SELECT string_agg(x, '') FROM (SELECT repeat('a', 100000) || range AS x FROM range(1000000))",
        "SELECT list(md5(a.range::VARCHAR) ORDER BY hash(a.range)) FROM range(10000000) a",
    ],
)
def test_memory_has_a_limit(lake: LakeStore, sql: str) -> None:
    """A statement beyond its memory that cannot spill fails with one line."""
    with pytest.raises(QueryError) as raised:
        run(lake, sql, None, QueryLimits(timeout_s=120, memory="100MB"))
    assert any(words in raised.value.what for words in ("llocate", "emory", "pin block"))
    assert "\n" not in raised.value.what


@pytest.mark.parametrize(
    ("timeout_s", "memory"), [(0, ""), (-1, ""), (None, "lots"), (None, "'; SET x='1GB"), (None, "5")]
)
def test_bounds_that_cannot_be_are_refused(timeout_s: float | None, memory: str) -> None:
    """An invalid limit is refused before the statement runs."""
    with pytest.raises(UsageError):
        QueryLimits(timeout_s=timeout_s, memory=memory)


@pytest.mark.slow
def test_progress_is_told_while_it_runs_and_no_longer(lake: LakeStore) -> None:
    """The progress grows while the statement runs, and is None before and after it."""
    control = QueryLimits(timeout_s=60)
    assert control.fraction() is None
    seen = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.01):
            fraction = control.fraction()
            if fraction is not None:
                seen.append(fraction)

    asking = threading.Thread(target=ask)
    asking.start()
    run(lake, "SELECT sum(a.range * b.range % 7) FROM range(30000) a, range(10000) b", None, control)
    stop.set()
    asking.join()
    assert control.fraction() is None
    assert all(0 < fraction <= 1 for fraction in seen)


@pytest.mark.parametrize(
    ("fraction", "line"),
    [
        (None, "running 12 s"),
        (0.0, "╺" + "─" * 29 + "   0% 12 s"),
        (0.5, "━" * 15 + "╺" + "─" * 14 + "  50% 12 s"),
        (1.0, "━" * 30 + " 100% 12 s"),
    ],
)
def test_bar(fraction: float | None, line: str) -> None:
    """A bar has a fixed width, and is filled in proportion to the progress."""
    assert bar_line(fraction, 12.3) == line


def query(lake: LakeStore, *arguments: str) -> subprocess.CompletedProcess[str]:
    return running.run("--lake", str(lake.root), "query", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql", [ENDLESS[0], "SELECT list_sort(list_transform(range(1000000000), lambda x: hash(x)))[1]"]
)
def test_timeout_ends_the_process(lake: LakeStore, sql: str, tmp_path: Path) -> None:
    """If the engine cannot be interrupted, the process still ends: exit 1, one line, and no file."""
    done = query(lake, sql, "--timeout", "700ms", "--memory-limit", "4GB", "-o", str(tmp_path / "x.csv"))
    assert done.returncode == 1
    first = done.stderr.splitlines()[0]
    assert first.startswith(("lakewriter: sql: not done after 0.7 s", "lakewriter: sql: Failed to allocate"))
    assert "leaked" not in done.stderr
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.slow
def test_an_engine_that_is_deaf_is_left(lake: LakeStore) -> None:
    """At the timeout the process ends, even if the engine computes one value of 400 MB uninterrupted."""
    sql = "SELECT length(regexp_replace(repeat('a', 400000000), '(a|b)', '', 'g'))"
    command = [sys.executable, "-m", "lakewriter", "--lake", str(lake.root), "query", sql, "--timeout", "1s"]
    asking = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert asking.stderr is not None
    with asking.stderr as stderr:
        said = stderr.read()
    _, status, used = os.wait4(asking.pid, 0)
    asking.returncode = os.waitstatus_to_exitcode(status)
    assert asking.returncode == 1 and said.startswith("lakewriter: sql: not done after 1 s")
    assert used.ru_utime < 12  # seconds; the statement takes twice as many


@pytest.mark.slow
def test_memory_limit_counts_what_the_engine_does_not(lake: LakeStore) -> None:
    """The kernel refuses one value of many gigabytes, and the error is one line."""
    done = query(lake, "SELECT list_sum(range(1000000000))", "--memory-limit", "100MB")
    assert done.returncode == 1
    assert done.stderr.startswith("lakewriter: sql: ")
    assert "Traceback" not in done.stderr


class Huge(Target):
    """A target whose text does not fit into memory."""

    def write(self, answer: RowStream, out: BinaryIO, bar: QueryBar) -> None:
        raise MemoryError


def test_answer_that_memory_cannot_hold_is_one_error(lake: LakeStore, tmp_path: Path) -> None:
    """If the kernel refuses memory while rows are written, the error is one line, and no file is left."""
    with pytest.raises(LakewriterError, match="too little memory"):
        print_answer(lake, "SELECT 1 AS a", {}, Huge(tmp_path / "x.csv", None, None))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_memory_limit_beyond_all_addresses_is_none(lake: LakeStore) -> None:
    """A limit above the address space bounds nothing; one that the engine cannot represent is an error."""
    assert query(lake, "SELECT 1 AS a", "--memory-limit", "900000TB").returncode == 0
    done = query(lake, "SELECT 1 AS a", "--memory-limit", "999999999TB")
    # Before 1.5 the engine takes what it cannot count for nothing.
    code, said = 2, "memory limit: 999999999TB: "
    assert done.returncode == code
    assert done.stderr.startswith(f"lakewriter: {said}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value"), [("--timeout", "soon"), ("--timeout", "0s"), ("--memory-limit", "much")]
)
def test_wrong_bounds_exit_2(lake: LakeStore, option: str, value: str) -> None:
    """An invalid limit exits 2."""
    done = query(lake, "SELECT 1", option, value)
    assert done.returncode == 2
    assert LakewriterError.__name__ not in done.stderr
