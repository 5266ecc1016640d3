"""The feed: past and present without a seam, each key once, ordered within each series."""

import math
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.follow import feed as feed_module
from lakewriter.follow import history
from lakewriter.follow.followed_candle import encode_line, key_of_line
from lakewriter.follow.journal_tail import Appended
from lakewriter.lake import journal as journal_module
from lakewriter.lake.compact import compact_partitions
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.series import Series
from support.candles import stream_candle
from support.compaction import plan_compaction
from support.following import Reader, flush
from support.lakes import BEGIN_MS, add_foreign, make_lake, merge_candles, rest_candle
from support.lengths import examples
from support.living_recorder import kill_recorder

DAY = 1440


def minutes(*numbers: int, symbol: str = "BTCUSDT") -> list[Candle]:
    return [stream_candle(number, symbol) for number in numbers]


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return make_lake(tmp_path / "lake")


@pytest.fixture
def journal(store: LakeStore) -> Iterator[Journal]:
    with closing(create_journal(store.root, "test")) as journal:
        yield journal


def test_history_journal_and_present_are_one(store: LakeStore, journal: Journal) -> None:
    """Candles of a partition, of the journal and of later commits follow each other, each once."""
    merge_candles(store, minutes(0, 1, 2))
    journal.commit(minutes(2, 3, 4))
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert reader.minutes() == [0, 1, 2, 3, 4]
        journal.commit(minutes(5))
        assert reader.minutes() == [5]
        flush(store, journal)
        assert reader.minutes() == []
        journal.commit(minutes(5, 6))
        assert reader.minutes() == [6]


def test_without_since_only_new_candles_come(store: LakeStore, journal: Journal) -> None:
    """Nothing comes of what files and journals have; a series that the lake lacks is followed from its first."""
    merge_candles(store, minutes(0, 1))
    merge_candles(store, minutes(5, symbol="ETHUSDT"))
    journal.commit(minutes(2))
    with closing(Reader(store.root)) as reader:
        assert reader.minutes() == []
        merge_candles(store, minutes(1, 2, 3))
        journal.commit(minutes(0, 1, symbol="BNBUSDT"))
        assert reader.minutes() == [0, 1, 3]


def test_what_was_flushed_unread_comes_before_what_is_newer(store: LakeStore, journal: Journal) -> None:
    """A reader that slept through whole segments gets their candles from partitions, in order, unmarked."""
    journal.commit(minutes(0))
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert reader.minutes() == [0]
        journal.roll()
        journal.commit(minutes(1, 2))
        flush(store, journal)
        journal.commit(minutes(3))
        assert reader.minutes() == [1, 2, 3]


def test_a_healed_candle_comes_late_and_marked(store: LakeStore, journal: Journal) -> None:
    """A candle after a later one of its series has the mark, wherever it was written."""
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        journal.commit(minutes(0, 3))
        assert reader.minutes() == [0, 3]
        merge_candles(store, [rest_candle(1)])
        assert reader.minutes() == [-1]
        journal.commit([rest_candle(2)])
        assert reader.minutes() == [-2]
        journal.commit(minutes(4))
        assert reader.minutes() == [4]


def test_an_earlier_day_comes_late(store: LakeStore, journal: Journal) -> None:
    """A backfill's new partition is found. What lies before the start of the series is not wanted."""
    journal.commit(minutes(DAY))
    with closing(Reader(store.root, since_ms=BEGIN_MS + 60_000)) as reader:
        assert len(reader.take()) == 1
        merge_candles(store, minutes(0, 1, 2))
        assert reader.minutes() == [-1, -2]


def test_a_new_series_of_a_glob_comes(store: LakeStore, journal: Journal) -> None:
    """A series that begins later is followed, if a glob or a name covers it, and no other one."""
    with closing(Reader(store.root, "spot:B*:1m", "spot:ETHUSDT:5m", since_ms=BEGIN_MS)) as reader:
        journal.commit(minutes(0, symbol="BNBUSDT") + minutes(0, symbol="ETHUSDT"))
        assert [candle.symbol for candle in reader.take()] == ["BNBUSDT"]
        merge_candles(store, [rest_candle(0, interval="5m", symbol="ETHUSDT"), rest_candle(0, interval="5m")])
        assert [(candle.symbol, candle.interval) for candle in reader.take()] == [("ETHUSDT", "5m")]


def test_the_candles_of_a_killed_recorder(store: LakeStore, journal: Journal) -> None:
    """They come from its journal, and not again from the partitions that the next recorder fills."""
    journal.commit(minutes(0))
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        journal.commit(minutes(1))
        kill_recorder(journal)
        journal._lock_fd = create_journal(store.root, "next")._lock_fd
        assert reader.minutes() == [0, 1]
        merge_candles(store, minutes(0, 1))
        shutil.rmtree(journal.directory)
        assert reader.minutes() == []


def test_no_lake_yet(tmp_path: Path) -> None:
    """A lake that is made later is followed, from its first candle on."""
    root = tmp_path / "deep" / "er" / "lake"
    with closing(Reader(root)) as reader:
        assert reader.minutes() == []
        (tmp_path / "deep").mkdir()
        assert reader.minutes() == []
        root.mkdir(parents=True)
        store = make_lake(root)
        with closing(create_journal(root, "test")) as journal:
            journal.commit(minutes(0))
            assert reader.minutes() == [0]
        merge_candles(store, minutes(1))
        assert reader.minutes() == [1]


def test_a_lake_that_is_deleted_and_made_again(store: LakeStore, journal: Journal) -> None:
    """The follower lives on, and hands out what it has not handed out."""
    journal.commit(minutes(0))
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert reader.minutes() == [0]
        shutil.rmtree(store.root)
        assert reader.minutes() == []
        make_lake(store.root, minutes(0, 1))
        assert reader.minutes() == [1]


def test_foreign_files(store: LakeStore, journal: Journal) -> None:
    """A file of another tool is in the history. A later one comes when its partition changes."""
    add_foreign(store.root, minutes(0, 1))
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert reader.minutes() == [0, 1]
        journal.commit(minutes(4))
        assert reader.minutes() == [4]
        add_foreign(store.root, minutes(2, 3), "part-0001.parquet")
        assert reader.minutes() == []
        list(compact_partitions(store, plan_compaction(store).work, 1.8e9))
        assert reader.minutes() == [-2, -3]


def test_corrections_on_request(store: LakeStore, journal: Journal) -> None:
    """A candle whose values change comes again with the mark; without the wish it does not."""
    journal.commit(minutes(0, 1))
    with (
        closing(Reader(store.root, since_ms=BEGIN_MS, corrections=True)) as reader,
        closing(Reader(store.root, since_ms=BEGIN_MS)) as other,
    ):
        assert reader.minutes() == other.minutes() == [0, 1]
        flush(store, journal)
        assert reader.take() == other.take() == []
        same, changed = stream_candle(0, source="archive"), stream_candle(1, source="archive", close=7.0)
        merge_candles(store, [same, changed, stream_candle(2)])
        corrected, new = reader.take()
        assert (corrected.close, corrected.correction, corrected.late) == (7.0, True, False)
        assert not new.correction
        assert other.minutes() == [2]
        merge_candles(store, [stream_candle(1, trade_num=10**6, close=8.0), stream_candle(3)])
        assert [candle.correction for candle in reader.take()] == [False]


def test_a_loser_in_the_journal_is_no_correction(store: LakeStore, journal: Journal) -> None:
    """Two recorders may differ. The candle that has lost is neither handed out nor a correction."""
    with closing(Reader(store.root, since_ms=BEGIN_MS, corrections=True)) as reader:
        journal.commit([stream_candle(0, trade_num=100)])
        assert len(reader.take()) == 1
        journal.commit([stream_candle(0, trade_num=99, close=7.0)])
        assert reader.take() == []
        merge_candles(store, [stream_candle(0, trade_num=99, close=7.0)])
        assert reader.take() == []
        flush(store, journal)
        assert reader.take() == []


def test_of_two_new_candles_of_a_key_the_better_one_comes(store: LakeStore, journal: Journal) -> None:
    journal.commit(
        [stream_candle(0, trade_num=100), stream_candle(0, trade_num=101), stream_candle(0, trade_num=99)]
    )
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert [candle.trade_num for candle in reader.take()] == [101]


def test_the_past_comes_in_the_order_of_ends(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candle is known at its end: a 5m candle comes after the 1m candles in it, a week after its days."""
    first_monday = 1  # 2024-07-01
    candles = [
        *(rest_candle(number) for number in range(0, 3 * DAY, 7)),
        *(rest_candle(number, interval="5m", symbol="ETHUSDT") for number in range(3 * DAY // 5)),
        *(rest_candle(number, interval="1d") for number in range(10)),
        rest_candle(0, interval="1w", begin_ms=BEGIN_MS + first_monday * DAY * 60_000, end_ms=BEGIN_MS + (first_monday + 7) * DAY * 60_000),
    ]  # fmt: skip
    merge_candles(store, candles)
    everything = ("spot:*:1m,5m,1d,1w",)
    for batch in (history.BATCH_CANDLES, 3):
        monkeypatch.setattr(history, "BATCH_CANDLES", batch)
        with closing(Reader(store.root, *everything, since_ms=BEGIN_MS)) as reader:
            taken = reader.take()
        assert len(taken) == len(candles)
        assert not any(candle.late for candle in taken)
        keys = [(candle.end_ms, candle.symbol) for candle in taken]
        assert keys == sorted(keys)


def test_many_series_come_in_groups(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series that do not fit into memory together come one group after the other, all of them."""
    assert [
        len(group) for group in history.groups([Series("spot", f"S{number}", "1m") for number in range(800)])
    ] == [347, 347, 106]
    assert list(history.groups([Series("spot", "A", "1s")] * 2, rows=5)) == [[Series("spot", "A", "1s")]] * 2
    monkeypatch.setattr(history, "groups", None)
    monkeypatch.setattr(feed_module, "groups", lambda series: [[each] for each in series])
    merge_candles(store, [stream_candle(number, symbol) for number in range(3) for symbol in ("A", "B")])
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert [(each.symbol, each.begin_ms) for each in reader.take()] == sorted(
            (symbol, BEGIN_MS + number * 60_000) for number in range(3) for symbol in ("A", "B")
        )


def test_until_ends_it(store: LakeStore, journal: Journal) -> None:
    """It ends when each series has passed the time, also if the last candle before it is missing."""
    merge_candles(store, minutes(0, 1))
    with closing(
        Reader(store.root, "spot:BTCUSDT,ETHUSDT:1m", since_ms=BEGIN_MS, until_ms=BEGIN_MS + 3 * 60_000)
    ) as reader:
        assert reader.minutes() == [0, 1]
        journal.commit(minutes(2, symbol="ETHUSDT") + minutes(3))
        assert [candle.symbol for candle in reader.take()] == ["ETHUSDT"]
        assert next(reader._batches, "the end") == "the end"


def test_until_waits_for_what_the_lake_has(store: LakeStore, journal: Journal) -> None:
    """At the end journals and changed partitions are read once more, if the history is at `until` already."""
    merge_candles(store, minutes(0, 1, 3, 4, 6))
    journal.commit(minutes(2))
    with closing(Reader(store.root, since_ms=BEGIN_MS, until_ms=BEGIN_MS + 7 * 60_000)) as reader:
        first = next(reader._batches)
        merge_candles(store, minutes(5))
        assert [candle.begin_ms for candle in first] == [each.begin_ms for each in minutes(0, 1, 3, 4, 6)]
        assert reader.minutes() == [-2, -5]
        assert next(reader._batches, "the end") == "the end"


def test_until_between_two_files(store: LakeStore) -> None:
    """A series that the lake has beyond `until` is at its end, if the last candle before it is missing."""
    merge_candles(store, minutes(0, DAY))
    with closing(Reader(store.root, since_ms=BEGIN_MS, until_ms=BEGIN_MS + DAY * 60_000)) as reader:
        assert [len(batch) for batch in reader._batches] == [1]


def test_until_does_not_wait_for_a_series_of_an_earlier_run(store: LakeStore) -> None:
    """A series that is in the position, and is not wanted any more, does not keep it from its end."""
    merge_candles(store, [*minutes(0, 1, 2), *minutes(0, symbol="ETHUSDT")])
    with closing(Reader(store.root, "spot:BTCUSDT,ETHUSDT:1m", since_ms=BEGIN_MS)) as reader:
        assert len(reader.take()) == 4
        position = reader.position()
    until_ms = BEGIN_MS + 3 * 60_000
    with closing(Reader(store.root, "spot:BTCUSDT:1m", after=position, until_ms=until_ms)) as reader:
        assert next(reader._batches, "the end") == "the end"


def test_a_recorder_that_dies_while_segments_are_missed(
    store: LakeStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its whole lines after the mark are read at once, also if its death is seen by a look for merges."""
    other = create_journal(store.root, "other")
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        other.commit(minutes(0))
        assert reader.minutes() == [0]
        journal.commit(minutes(1))
        flush(store, journal)
        journal.commit(minutes(2))
        read = reader.feed._tail.read

        def read_then_die() -> Appended:
            appended = read()
            if appended.missed:
                monkeypatch.setattr(journal_module, "write_mark", lambda fd, mark: None)
                other.commit(minutes(3))
                kill_recorder(other)
            return appended

        monkeypatch.setattr(reader.feed._tail, "read", read_then_die)
        assert reader.minutes() == [1, 2, 3]


def test_corrections_hold_no_rows_that_came_already(store: LakeStore, journal: Journal) -> None:
    """Of a changed partition only new rows and corrections stay in memory."""
    merge_candles(store, minutes(*range(500)))
    with closing(Reader(store.root, since_ms=BEGIN_MS, corrections=True)) as reader:
        assert len(reader.take()) == 500
        merge_candles(store, [rest_candle(500), stream_candle(7, source="archive", close=7.0)])
        reader.feed._locks = reader.feed._watch.changes().locks
        held = reader.feed._look(math.inf)
        assert [(each.begin_ms - BEGIN_MS) // 60_000 for each in held] == [7, 500]


def test_a_follower_that_died_gets_what_it_missed(store: LakeStore, journal: Journal) -> None:
    """It goes on behind its last candle, and gets candles that were healed in the meantime."""
    journal.commit(minutes(0, 1, 3))
    with closing(Reader(store.root, since_ms=BEGIN_MS)) as reader:
        assert reader.minutes() == [0, 1, 3]
        position = reader.position()
    merge_candles(store, minutes(2))
    flush(store, journal)
    journal.commit(minutes(4))
    with closing(Reader(store.root, after=position)) as reader:
        assert reader.minutes() == [-2, 4]
        position = reader.position()
    with closing(Reader(store.root, after=position, since_ms=0)) as reader:
        assert reader.minutes() == []
    assert position.count("[[") == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["commit", "commit", "flush", "roll", "merge", "read", "read", "die", "recorder dies"]
        ),
        st.integers(0, 25),
        st.integers(1, 4),
    ),
    max_size=25,
)


@examples(40, 1_000)
@given(STEPS)
def test_any_order_of_events(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Commits, flushes, merges and deaths in any order: what came is the lake, each key once."""
    store = make_lake(tmp_path_factory.mktemp("any") / "lake")
    journal = create_journal(store.root, "test")
    dead: list[Journal] = []
    reader = Reader(store.root, since_ms=BEGIN_MS)
    taken: list[Candle] = []
    written: set[int] = set()
    try:
        for step, minute, count in steps:
            candles = minutes(*range(minute, minute + count))
            if step in ("commit", "merge"):
                written.update(candle.begin_ms for candle in candles)
            if step == "commit":
                journal.commit(candles)
            elif step == "merge":
                merge_candles(store, candles)
            elif step == "flush":
                flush(store, journal)
            elif step == "roll":
                journal.roll()
            elif step == "read":
                taken += reader.take()
            elif step == "die":
                taken += reader.take()
                reader.close()
                reader = Reader(store.root, after=reader.position())
            else:
                kill_recorder(journal)
                dead.append(journal)
                journal = create_journal(store.root, "test")
        taken += reader.take()
    finally:
        reader.close()
        journal.close()
    assert sorted(candle.begin_ms for candle in taken) == sorted(written)
    newest = -1
    for candle in taken:
        assert candle.late == (candle.begin_ms < newest)  # type: ignore[attr-defined]
        newest = max(newest, candle.begin_ms)


def test_a_line_is_that_of_a_query(store: LakeStore) -> None:
    """A line has the columns and the spelling of `FROM candles`, and tells its key."""
    import io

    from lakewriter.query.output.text import DisplayLimits
    from lakewriter.query.output.writers import write_answer
    from lakewriter.query.session import stream

    candles = [
        stream_candle(0),
        rest_candle(1, close=1e-8, recv_us=1_719_705_600_000_000),
        stream_candle(2, "币安USDT"),
    ]
    merge_candles(store, candles)
    out = io.BytesIO()
    with stream(store, "FROM candles ORDER BY candle_begin_time", {}) as answer:
        write_answer("ndjson", answer, out, DisplayLimits())
    with closing(Reader(store.root, since_ms=0)) as reader:
        taken = reader.take()
    assert [encode_line(candle) for candle in taken] == out.getvalue().splitlines(keepends=True)
    assert [key_of_line(encode_line(candle)) for candle in taken] == [
        (each.series, each.begin_ms) for each in candles
    ]
    assert key_of_line(b"{}") is key_of_line(b'{"market":1}') is key_of_line(b"\xff") is None
