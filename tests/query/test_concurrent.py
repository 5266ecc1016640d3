"""Queries of a lake while it is flushed and compacted."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.query.errors import file_gone_error
from lakewriter.query.python.reader import Lake
from lakewriter.query.retry import TRIES_MAX, RetryHints, retry_while_files_move
from lakewriter.query.scan.held_files import can_hold
from lakewriter.query.session import run, stream
from support.lakes import add_foreign, make_lake, rest_candle
from support.lengths import either
from support.running import wait_until

SERIES = 100
ROWS = 600
SECONDS = either(1, 20)

# Each of its scans opens all files anew.
AGREE = """
SELECT (SELECT count(*) FROM candles) AS one, (SELECT count(*) FROM candles WHERE volume > 0) AS another,
    (SELECT count(DISTINCT (symbol, candle_begin_time)) FROM candles) AS third
"""

COUNT = "SELECT count(*), count(DISTINCT (symbol, candle_begin_time)) FROM candles"


def minute(number: int) -> list[Candle]:
    return [rest_candle(number, symbol=f"S{series}USDT") for series in range(SERIES)]


def flush_for_ever(root: str, committed: Any, stop: Any) -> None:
    """Add a candle to each partition by journal, merge and drop, again and again."""
    store = LakeStore.open(root)
    journal = create_journal(store.root, "test")
    for number in range(ROWS, 1440):
        if stop.is_set():
            break
        candles = minute(number)
        journal.commit(candles)
        committed.value += len(candles)
        for one in candles:
            store.merge(partition_of(one), to_table([one]))
        journal.drop(journal.roll())


@pytest.fixture
def flushing(tmp_path: Path) -> Iterator[tuple[LakeStore, Any]]:
    """A lake with a flushing process, and the number of candles that it has committed."""
    store = make_lake(tmp_path, [one for number in range(ROWS) for one in minute(number)])
    context = multiprocessing.get_context("spawn")
    committed = context.Value("q", SERIES * ROWS)
    stop = context.Event()
    process = context.Process(target=flush_for_ever, args=(str(tmp_path), committed, stop))
    process.start()
    try:
        wait_until(lambda: committed.value > SERIES * ROWS or not process.is_alive())
        yield store, committed
    finally:
        stop.set()
        process.join()
    assert process.exitcode == 0
    assert committed.value > SERIES * ROWS


def counts(store: LakeStore, number: int) -> list[tuple[int, int]]:
    """Return the answer's counts, in one piece or batch by batch."""
    if number % 2:
        with stream(store, COUNT) as answer:
            rows = [row for batch in answer.batches for row in batch.to_pylist()]
    else:
        rows = run(store, COUNT).to_pylist()
    return [tuple(row.values()) for row in rows]


@pytest.mark.slow
def test_every_query_during_a_flush_is_right(flushing: tuple[LakeStore, Any]) -> None:
    """During flushes each query counts all candles committed before it, and none twice.

    With held files, all scans of one statement see the same rows.
    """
    store, committed = flushing
    until = time.monotonic() + SECONDS
    seen = number = 0
    while time.monotonic() < until or number < 4:
        before = committed.value
        [(rows, distinct)] = counts(store, number)
        # A commit is on the disk just before it is counted.
        assert max(before, seen) <= rows <= committed.value + SERIES
        assert distinct == rows
        seen = rows
        number += 1
        one_series(store)
        if can_hold():
            [agreed] = run(store, AGREE).to_pylist()
            assert len(set(agreed.values())) == 1


def one_series(store: LakeStore) -> None:
    """Query one of many partitions by its filter."""
    sql = f"{COUNT} WHERE symbol = 'S7USDT' AND \"date\" = '2024-06-30' AND candle_begin_time >= '2024-06-30'"
    [(rows, distinct)] = [tuple(row.values()) for row in run(store, sql).to_pylist()]
    assert rows == distinct >= ROWS


class Restless(LakeStore):
    """A lake whose last file is replaced by a broken one after each of the first listings, then repaired."""

    broken = 0
    listings = 0

    def files(self, *args: Any) -> Iterator[Any]:
        found = list(super().files(*args))
        self.listings += 1
        path = self.root / found[-1].names[0]
        if self.listings == 1:
            self.whole = path.read_bytes()
        breaking = self.listings <= self.broken
        beside = path.with_name(".beside")
        beside.write_bytes(self.whole[:-200] + bytes(200) if breaking else self.whole)
        beside.rename(path)
        return iter(found)


@pytest.mark.parametrize("streamed", [0, 1])
def test_error_of_a_file_that_moved_is_not_the_sqls(tmp_path: Path, streamed: int) -> None:
    """If the engine fails because files are replaced, the lake is listed again."""
    make_lake(tmp_path, [rest_candle(0, symbol=symbol) for symbol in ("AUSDT", "BUSDT")])
    store = Restless.local(tmp_path)
    store.broken = 3
    assert counts(store, streamed) == [(2, 2)]
    assert store.listings == 4


def test_replacing_a_hot_file_between_its_two_scans_changes_nothing(tmp_path: Path) -> None:
    """Rows flushed to a file after the listing are in the answer once, from the journal."""
    hot = [rest_candle(number) for number in range(5, 10)]
    store = make_lake(tmp_path, [rest_candle(number) for number in range(5)], hot=hot)
    with stream(store, "SELECT count(*) AS n FROM candles") as answer:
        assert [row["n"] for batch in answer.batches for row in batch.to_pylist()] == [10]
    store.merge(partition_of(hot[0]), to_table(hot))
    assert counts(store, 0) == [(10, 10)]


class Flushing(LakeStore):
    """A lake that runs one of `moments` before each listing, and one after it."""

    moments: list[Callable[[], None]]

    def files(self, *args: Any) -> Iterator[Any]:
        if self.moments:
            self.moments.pop()()
        found = list(super().files(*args))
        if self.moments:
            self.moments.pop()()
        return iter(found)


@pytest.mark.parametrize("streamed", [0, 1])
def test_flush_around_the_listing_hides_nothing(tmp_path: Path, streamed: int) -> None:
    """Rows flushed while a query begins are in the answer once, even if their file is new."""
    make_lake(tmp_path, [rest_candle(0)])
    store = Flushing.local(tmp_path)
    journal = create_journal(tmp_path, "test")

    def flush_of(symbol: str) -> Callable[[], None]:
        hot = [rest_candle(number, symbol=symbol) for number in (0, 1)]
        before = set(journal.roll())
        journal.commit(hot)
        segments = set(journal.roll()) - before

        def flush() -> None:
            store.merge(partition_of(hot[0]), to_table(hot))
            journal.drop(segments)

        return flush

    store.moments = [flush_of("AFTERUSDT"), flush_of("BEFOREUSDT")]
    assert counts(store, streamed) == [(5, 5)]
    assert not store.moments
    assert counts(store, streamed) == [(5, 5)]
    journal.close()


def test_foreign_rows_in_the_directory_of_another_day_are_told(tmp_path: Path) -> None:
    """Foreign rows below the wrong day are an error in each query, not in some."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(1440)])
    add_foreign(tmp_path, [rest_candle(0), rest_candle(1440), rest_candle(1441)])
    with pytest.raises(LakeError, match="spot BTCUSDT 1m 2024-06-30: 2 of its rows begin on another day"):
        counts(store, 0)
    assert run(store, "SELECT count(*) AS n FROM candles WHERE \"date\" = '2024-07-01'").to_pylist() == [
        {"n": 1}
    ]


def own(root: Path, symbol: str = "BTCUSDT") -> Path:
    return root / partition_of(rest_candle(0, symbol=symbol)).file


@pytest.mark.parametrize("symbol", ["AUSDT", "MUSDT", "ZUSDT"])
@pytest.mark.parametrize("what", ["lacks", "integers", "naive", "narrow"])
def test_own_name_of_somebody_elses_file(tmp_path: Path, symbol: str, what: str) -> None:
    """A foreign `candles.parquet` with other columns and types is read like any foreign file."""
    import pyarrow as pa

    from support.lakes import write_parquet

    store = make_lake(tmp_path, [rest_candle(0, symbol=f"{letter}USDT", open=0.1) for letter in "BMN"])
    table = to_table([rest_candle(number, symbol=symbol) for number in range(1, 3)])
    if what == "lacks":
        table = table.drop_columns(["event_time", "trade_num"])
    elif what == "integers":
        for at in (0, 1):
            table = table.set_column(at, table.column_names[at], table[at].cast(pa.int64()))
    elif what == "naive":
        table = table.set_column(0, "candle_begin_time", table[0].cast(pa.timestamp("ns")))
    else:
        table = table.set_column(2, "open", table["open"].cast(pa.float32()))
    write_parquet(tmp_path, partition_of(rest_candle(0, symbol=symbol)).path, table, "candles.parquet")
    [row] = run(
        store,
        "SELECT count(*) AS n, max(candle_begin_time)::VARCHAR AS t, min(open) AS o, max(event_time) FROM candles",
    ).to_pylist()
    assert row["n"] == (4 if symbol == "MUSDT" else 5)
    assert row["t"] == "2024-06-30 00:02:00+00"
    assert row["o"] == 0.1
    with pytest.raises(Exception, match="not found in FROM"):
        run(store, "SELECT nope FROM candles")


def test_links_out_of_the_lake_are_data(tmp_path: Path) -> None:
    """A link to a file outside the lake is read, under a foreign name or ours."""
    store = make_lake(tmp_path / "lake", [rest_candle(0)])
    make_lake(tmp_path / "other", [rest_candle(0), rest_candle(1), rest_candle(0, symbol="AUSDT")])
    own(tmp_path / "lake").with_name("more.parquet").symlink_to(own(tmp_path / "other"))
    assert counts(store, 0) == [(2, 2)]
    linked = own(tmp_path / "lake", "AUSDT")
    linked.parent.mkdir(parents=True)
    linked.symlink_to(own(tmp_path / "other", "AUSDT"))
    assert counts(store, 0) == [(3, 3)]
    assert len(Lake(tmp_path / "lake").candles("spot", "BTCUSDT", "1m")) == 2


def test_a_file_may_go_and_come_again(tmp_path: Path) -> None:
    """A file that is gone in each attempt but the last is found, as when compaction removes and restores it."""
    path = str(own(tmp_path))
    left = iter(range(TRIES_MAX - 1))

    def attempt(_trial: RetryHints) -> str:
        if next(left, None) is not None:
            raise file_gone_error(path)
        return "found"

    assert retry_while_files_move(attempt) == "found"


@pytest.mark.parametrize("name", ["candles.parquet"])
def test_broken_link_is_named(tmp_path: Path, name: str) -> None:
    """An own file name that is a broken link is an error with that name."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(0, symbol="AUSDT")])
    link = own(tmp_path).with_name(name)
    link.unlink(missing_ok=True)
    link.symlink_to("nowhere")
    for ask in (lambda: counts(store, 0), lambda: Lake(tmp_path).candles("spot", "BTCUSDT", "1m")):
        with pytest.raises(LakeError, match=f"BTCUSDT.*{name}.*(No such file|leads nowhere)"):
            ask()


@pytest.mark.parametrize("name", ["candles.parquet"])
def test_file_that_holds_no_candles_is_named(tmp_path: Path, name: str) -> None:
    """An own file that cannot be read is one error with its name."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(0, symbol="AUSDT")])
    own(tmp_path).with_name(name).write_bytes(b"nothing")
    with pytest.raises(Exception, match=f"BTCUSDT.*{name}: not a readable Parquet file"):
        counts(store, 0)
