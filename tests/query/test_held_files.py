"""Held files that are replaced meanwhile: read directly, and by slow statements."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import Candle, to_table
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.query.errors import QueryError
from lakewriter.query.execution import BATCH_ROWS, Execution
from lakewriter.query.retry import RetryHints
from lakewriter.query.scan.held_files import (
    FD_DIRECTORY,
    FD_RESERVE,
    HELD_FILES_MAX,
    HeldFiles,
    can_hold,
)
from lakewriter.query.schema import COLUMNS
from lakewriter.query.session import run, stream
from support.lakes import make_lake, rest_candle
from support.running import wait_until

pytestmark = pytest.mark.skipif(not can_hold(), reason="files are held on Linux, by DuckDB 2.0 and later")

NAME = partition_of(rest_candle()).file


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[HeldFiles]:
    held = HeldFiles(tmp_path)
    yield held
    held.close()


def open_files() -> int:
    return len(list(Path(FD_DIRECTORY).iterdir()))


def test_a_held_file_stays_what_it_was(tmp_path: Path, pins: HeldFiles) -> None:
    """A held file keeps its content at its path, after any replacement."""
    store = make_lake(tmp_path, [rest_candle(0)])
    pins.hold([NAME], time.time())
    store.merge(partition_of(rest_candle()), to_table([rest_candle(1)]))
    assert pq.read_metadata(pins.path(NAME)).num_rows == 1
    assert pq.read_metadata(tmp_path / NAME).num_rows == 2
    assert pins.path("other") == f"{tmp_path}/other"


def test_files_are_let_go(tmp_path: Path, pins: HeldFiles) -> None:
    """After a statement no file stays open."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(1440)])
    before = open_files()
    pins.hold([NAME, partition_of(rest_candle(1440)).file], time.time())
    assert open_files() == before + 2
    pins.close()
    assert (open_files(), len(pins.names)) == (before, 0)


@pytest.mark.parametrize(("later_s", "found"), [(0, [NAME]), (7000, [NAME]), (7400, []), (-7400, [NAME])])
def test_recently_changed_files_are_held(
    tmp_path: Path, pins: HeldFiles, later_s: int, found: list[str]
) -> None:
    """Files are held for two hours after a change, and those with a future time always."""
    make_lake(tmp_path, [rest_candle(0)])
    pins.hold([NAME], time.time() + later_s)
    assert list(pins.names) == found


def test_a_renamed_old_file_is_held(tmp_path: Path, pins: HeldFiles) -> None:
    """A renamed old file counts as changed at the rename."""
    make_lake(tmp_path, [rest_candle(0)])
    old_s = time.time() - DAY_MS / 1000
    os.utime(tmp_path / NAME, (old_s, old_s))
    pins.hold([NAME], time.time())
    assert list(pins.names) == [NAME]


def test_the_newest_days_come_first(tmp_path: Path, pins: HeldFiles) -> None:
    """If not all files can be held, those of the newest days are."""
    days = [rest_candle(1440 * day, symbol=symbol) for day in range(3) for symbol in ("AUSDT", "ZUSDT")]
    make_lake(tmp_path, days)
    names = [partition_of(one).file for one in days]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + FD_RESERVE + 3, limits[1]))
    try:
        pins.hold(names, time.time())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert set(names[4:]) < pins.names < set(names[2:])
    assert len(pins.names) <= 3 < HELD_FILES_MAX


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_what_is_no_file_is_not_held(tmp_path: Path, pins: HeldFiles, what: str) -> None:
    """Pipes, directories and other non-files are not held, and nothing waits for them."""
    path = tmp_path / NAME
    path.parent.mkdir(parents=True)
    if what == "link":
        path.symlink_to(__file__)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    pins.hold([NAME], time.time())
    assert not pins.names


def test_errors_name_the_lakes_files(tmp_path: Path, pins: HeldFiles) -> None:
    """Errors name the lake's file instead of the descriptor."""
    make_lake(tmp_path, [rest_candle(0)])
    pins.hold([NAME], time.time())
    shown = pins.with_lake_names(ValueError(f'"{pins.path(NAME)}" and {FD_DIRECTORY}/99999'))
    assert str(shown) == f'"{tmp_path / NAME}" and {FD_DIRECTORY}/99999'
    other = ValueError("something else")
    assert pins.with_lake_names(other) is other


class Moving(LakeStore):
    """A lake whose file is replaced after each listing by one with one more candle."""

    listings = 0

    def files(self, *args: object) -> Iterator[object]:  # type: ignore[override]
        found = list(super().files(*args))  # type: ignore[arg-type]
        self.listings += 1
        self.merge(partition_of(rest_candle()), to_table([rest_candle(self.listings)]))
        return iter(found)


def test_an_answer_of_files_that_moved_is_not_given(tmp_path: Path) -> None:
    """If a file is replaced after its listing, the statement runs once more with its files held."""
    make_lake(tmp_path, [rest_candle(0)])
    store = Moving.local(tmp_path)
    assert run(store, "SELECT count(*) AS n FROM candles").to_pylist() == [{"n": 3}]
    assert store.listings == 2


def test_a_stream_holds_from_the_beginning(tmp_path: Path) -> None:
    """A stream holds its files before its first row, and so runs once."""
    make_lake(tmp_path, [rest_candle(0)])
    store = Moving.local(tmp_path)
    with stream(store, "SELECT count(*) AS n FROM candles") as answer:
        assert [row for batch in answer.batches for row in batch.to_pylist()] == [{"n": 2}]
    assert store.listings == 1


def test_calm_files_are_held_after_the_restless_ones(tmp_path: Path, pins: HeldFiles) -> None:
    """After a file was replaced, all files are held, also those that rarely change."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(1440)])
    names = [NAME, partition_of(rest_candle(1440)).file]
    later_s = time.time() + 3 * 3600
    pins.hold(names, later_s)
    assert not pins.names
    pins.hold(names, later_s, hold_all=True)
    assert pins.names == set(names)


def open_names() -> Iterator[str]:
    for shown in Path(FD_DIRECTORY).iterdir():
        with contextlib.suppress(OSError):
            yield str(shown.readlink())


def seconds(symbol: str, close: float) -> list[Candle]:
    """More seconds of a day than fit into one batch, all with one close."""
    first = rest_candle(symbol=symbol, interval="1m", close=close)
    return [
        msgspec.structs.replace(
            first, interval="1s", begin_ms=begin_ms, end_ms=begin_ms + 1000, recv_us=int(close * 1_000_000)
        )
        for begin_ms in range(first.begin_ms, first.begin_ms + (BATCH_ROWS + 5000) * 1000, 1000)
    ]


@pytest.mark.slow
def test_a_long_answer_is_of_one_moment(tmp_path: Path) -> None:
    """If all files are replaced during a long read, the answer still has the first ones' rows."""
    symbols = ("AUSDT", "BUSDT", "CUSDT")
    store = make_lake(tmp_path, [one for symbol in symbols for one in seconds(symbol, 1.0)])
    closes: list[float] = []
    with stream(store, "SELECT symbol, close FROM candles") as answer:
        for number, batch in enumerate(answer.batches):
            if number < len(symbols):
                rows = seconds(symbols[number], 2.0)
                store.merge(partition_of(rows[0]), to_table(rows))
            closes += batch["close"].to_pylist()
    assert len(closes) == 3 * (BATCH_ROWS + 5000)
    assert set(closes) == {1.0}
    assert run(store, "SELECT DISTINCT close FROM candles").to_pylist() == [{"close": 2.0}]
    wait_until(lambda: not any(str(tmp_path) in shown for shown in open_names()))


def test_an_error_of_values_that_moved_is_looked_at_again(tmp_path: Path) -> None:
    """A failed cast of mixed old and new bytes runs again; its second error is the statement's own."""
    make_lake(tmp_path, [rest_candle(0)])
    store = Moving.local(tmp_path)
    with pytest.raises(QueryError, match="sql: Could not convert string 'rest' to INT32"):
        run(store, "SELECT source::INT FROM candles")
    assert store.listings == 2
    with pytest.raises(QueryError, match="nope"):
        run(store, "SELECT nope FROM candles")
    assert store.listings == 2


@pytest.mark.parametrize(
    ("name", "listings"), [("back\\slash", 1), ("gone (deleted)", 2), ("it's [a] %41 *", 2), ("market=x/symbol=Y", 2)]
)  # fmt: skip
def test_a_root_of_any_name_may_have_files_that_move(tmp_path: Path, name: str, listings: int) -> None:
    """If the engine would misread the paths of held files, no file is held."""
    make_lake(tmp_path / name, [rest_candle(0), rest_candle(0, symbol="币USDT")])
    store = Moving.local(tmp_path / name)
    sql = "SELECT symbol, count(*) AS n FROM candles GROUP BY ALL ORDER BY n"
    found = run(store, sql).to_pylist()
    assert found == [{"symbol": "币USDT", "n": 1}, {"symbol": "BTCUSDT", "n": 1 + listings}]
    assert store.listings == listings


@pytest.mark.parametrize("root", ["lake", "market=x"])
@pytest.mark.parametrize("column", ["filename", "FileName", "market", "lake file"])
def test_a_file_may_have_columns_of_any_name(tmp_path: Path, root: str, column: str) -> None:
    """A foreign column of any name changes nothing, with held files and without."""
    make_lake(tmp_path / root, [rest_candle(0, symbol=symbol) for symbol in ("AUSDT", "BUSDT")])
    path = tmp_path / root / partition_of(rest_candle(symbol="AUSDT")).file
    rows = pq.read_table(path)
    pq.write_table(rows.append_column(column, pa.array(["x"])), path)
    for moved in (False, True):
        with Execution(LakeStore.local(tmp_path / root), RetryHints(files_replaced=moved), None) as running:
            answer = running.start("FROM candles ORDER BY symbol", {})
            (batch,) = answer.batches
            assert len(running._held_files.names) == (2 if moved else 0)
        assert batch.schema.names == list(COLUMNS)
        assert (batch["symbol"].to_pylist(), batch["market"].to_pylist()) == (
            ["AUSDT", "BUSDT"],
            ["spot"] * 2,
        )


def test_an_error_of_files_that_are_held_is_the_statements(tmp_path: Path) -> None:
    """With files held, an error is the statement's own, and it does not run again."""
    make_lake(tmp_path, [rest_candle(0)])
    store = Moving.local(tmp_path)
    with pytest.raises(QueryError, match=r"sql: not 101\.0"):
        run(store, "SELECT error('not ' || close::VARCHAR) FROM candles")
    assert store.listings == 2


class Slow(HeldFiles):
    """Held files whose `hold` takes half a second, unless the test ends it sooner."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun = threading.Event()
        self.over = threading.Event()

    def _hold(self, names: Iterable[str]) -> None:
        self.begun.set()
        self.over.wait(0.5)
        super()._hold(names)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_files_are_taken_holds_its_own(tmp_path: Path, pins: HeldFiles) -> None:
    """A fork during another thread's hold leaves the child able to hold files itself."""
    make_lake(tmp_path, [rest_candle(0)])
    slow = Slow(tmp_path)
    thread = threading.Thread(target=slow.hold, args=([NAME], time.time()))
    thread.start()
    slow.begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            pins.hold([NAME], time.time())
        finally:
            os._exit(0 if pins.names == {NAME} else 1)
    slow.over.set()
    thread.join()
    slow.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
