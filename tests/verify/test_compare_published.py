"""Comparisons with published candles: differing, missing and unpublished ones, and their repair."""

import asyncio
import itertools
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import precedence, to_table
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.partition import day_of, partition_at
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from lakewriter.verify.compare_published import SETTLED_AFTER_MS, Window, compare_published, windows
from lakewriter.verify.differences import differences, winning_rows
from lakewriter.verify.findings import VerifyReport
from support.candles import unknown_candles
from support.running import PATIENCE_S
from support.truth_lakes import (
    BTC,
    LONG_AFTER_MS,
    MONDAY_MS,
    Published,
    edited,
    reported,
    rewrite,
    truth_lake,
    truth_table,
    verify_lake,
)

DAY = partition_at(BTC, MONDAY_MS + DAY_MS)  # the second of three


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return truth_lake(tmp_path_factory.mktemp("days") / "lake", [(BTC, 3)]).root


@pytest.fixture
def store(three_days: Path, tmp_path: Path) -> LakeStore:
    return LakeStore.local(Path(shutil.copytree(three_days, tmp_path / "lake")))


def compared(
    store: LakeStore,
    publisher: Published,
    wanted: PartitionFilter = ALL,
    now_ms: int = LONG_AFTER_MS,
    repair: bool = False,
) -> VerifyReport:
    async def main() -> VerifyReport:
        report = VerifyReport(100)
        async for _ in compare_published(store, publisher, wanted, report, now_ms=now_ms, repair=repair):
            pass
        return report

    return asyncio.run(main())


def minute(number: int) -> int:
    return DAY.start_ms + number * MINUTE_MS


def rows_of(store: LakeStore) -> pa.Table:
    rows = store.read(DAY)
    assert rows is not None
    return rows


def differ(store: LakeStore, at: int, **values: object) -> None:
    rewrite(store, DAY, lambda rows: edited(rows, at, **values))


def test_the_truth_is_what_is_published(store):
    """A lake equal to the published candles has no finding, and the count includes them."""
    report = compared(store, Published())
    assert reported(report) == []
    assert report.counts_of(BTC, "against").checked == 3 * 1440


def test_a_candle_that_differs(store):
    """The finding has the series, the time, the columns and both values."""
    close = rows_of(store)["close"][7].as_py()
    differ(store, 7, close=close + 1, trade_num=1)
    trades = truth_table(Truth(), BTC, minute(7), minute(8))["trade_num"][0].as_py()
    report = compared(store, Published())
    assert reported(report) == [("against", "differs", BTC, minute(7))]
    assert report.findings[0].what == (
        f"close {close + 1!r}, archive has {close!r}; trade_num 1, archive has {trades}"
    )
    assert rows_of(store)["close"][7].as_py() == close + 1, "nothing is repaired unasked"


def test_a_candle_that_is_missing(store):
    """A published candle that the lake lacks is a finding, and a repair adds that candle only."""
    rewrite(store, DAY, lambda rows: pa.concat_tables([rows.slice(0, 9), rows.slice(10)]))
    report = compared(store, Published(), repair=True)
    assert reported(report) == [("against", "missing", BTC, minute(9))]
    assert report.findings[0].what == "is not here, archive has it (added)"
    assert (report.counts_of(BTC, "against").added, report.counts_of(BTC, "against").corrected) == (1, 0)
    sources = rows_of(store)["source"].to_pylist()
    assert (len(sources), sources[9], sources.count("archive")) == (1440, "archive", 1)
    assert reported(compared(store, Published())) == []


def test_a_candle_that_is_not_published(store):
    """A candle of the lake that is not published is a finding, and a repair keeps it."""
    report = compared(store, Published(without=[minute(11)]), repair=True)
    assert reported(report) == [("against", "unpublished", BTC, minute(11))]
    assert report.findings[0].what == "archive has no such candle"
    assert rows_of(store).num_rows == 1440


@pytest.mark.parametrize("source", ["archive", "rest"])
def test_repair(store, source):
    """Each publisher corrects a wrong value, the count includes it, and then no check finds anything."""
    good = rows_of(store)
    differ(store, 7, low=-1.0)
    report = compared(store, Published(source), repair=True)
    assert reported(report) == [("against", "differs", BTC, minute(7))]
    assert report.findings[0].what.endswith(" (corrected)")
    assert report.counts_of(BTC, "against").corrected == 1
    assert rows_of(store)["low"].equals(good["low"])
    assert verify_lake(store) == []
    assert reported(compared(store, Published(source))) == []


@pytest.mark.parametrize(("source", "wins"), [("archive", True), ("rest", False)])
def test_a_candle_with_more_trades(store, source, wins):
    """The archive's row wins over any of ours; a REST row with fewer trades changes nothing."""
    differ(store, 7, trade_num=10**6)
    report = compared(store, Published(source), repair=True)
    assert reported(report) == [("against", "differs", BTC, minute(7))]
    outcome = "(corrected)" if wins else "(left: ours has more trades, or is from the archive)"
    assert report.findings[0].what.endswith(outcome)
    assert report.counts_of(BTC, "against").corrected == int(wins)
    assert (rows_of(store)["trade_num"][7].as_py() == 10**6) != wins


def test_rest_never_wins_over_the_archive(store):
    """A row from the archive stays, even if REST's differs."""
    compared(store, Published(change=lambda rows: edited(rows, 7, volume=1e6)), repair=True)
    assert rows_of(store)["source"][7].as_py() == "rest", "only the first day's candle was other"
    rewrite(store, DAY, lambda rows: edited(rows, 8, source="archive", volume=1e6))
    report = compared(store, Published("rest"), repair=True)
    assert (("against", "differs", BTC, minute(8))) in reported(report)
    assert rows_of(store)["volume"][8].as_py() == 1e6


def test_nothing_published_is_nothing_to_compare(store):
    """Days that are not published yet are no finding, and are not counted."""
    now_ms = MONDAY_MS + 4 * DAY_MS
    report = compared(store, Published(until_ms=MONDAY_MS + 2 * DAY_MS), now_ms=now_ms)
    assert reported(report) == []
    assert report.counts_of(BTC, "against").checked == 2 * 1440


def test_what_just_closed_is_not_compared(store):
    """Recently closed candles are not compared, because published values may still change."""
    now_ms = minute(100) + SETTLED_AFTER_MS + 30_000
    differ(store, 99, volume=1e6)
    differ(store, 100, volume=1e6)
    assert reported(compared(store, Published("rest"), now_ms=now_ms)) == [
        ("against", "differs", BTC, minute(99))
    ]


def test_before_the_first_and_after_the_last_nothing_is_missing(store):
    """A series is compared only from its first to its last candle."""
    first, last = (partition_at(BTC, MONDAY_MS + day * DAY_MS) for day in (0, 2))
    rewrite(store, first, lambda rows: rows.slice(700))
    rewrite(store, last, lambda rows: rows.slice(0, 700))
    publisher = Published()
    assert reported(compared(store, publisher)) == []
    assert publisher.asked == [(BTC, MONDAY_MS + 700 * MINUTE_MS, last.start_ms + 699 * MINUTE_MS + 1)]


def test_a_day_that_is_missing_whole(store):
    """Each candle of a partition missing between others is a finding, and a repair creates the partition."""
    shutil.rmtree(store.root / DAY.path)
    report = compared(store, Published(), repair=True)
    assert report.counts_of(BTC, "against").findings == 1440
    assert report.counts_of(BTC, "against").added == 1440
    assert rows_of(store).num_rows == 1440


def test_a_day_that_cannot_be_read_is_passed_over(store):
    """The check `partition` reports an unreadable file; nothing is merged into it here."""
    path = store.root / DAY.file
    path.write_bytes(b"torn")
    report = compared(store, Published(), repair=True)
    assert reported(report) == []
    assert report.counts_of(BTC, "against").checked == 2 * 1440
    assert path.read_bytes() == b"torn"
    (store.root / partition_at(BTC, MONDAY_MS).file).write_bytes(b"torn")
    assert compared(store, Published()).counts_of(BTC, "against").checked == 1440


def test_foreign_files_count(store):
    """A candle that only a foreign file has is present."""
    rows = rows_of(store)
    rewrite(store, DAY, lambda rows: rows.slice(0, 1000))
    import pyarrow.parquet as pq

    pq.write_table(rows.slice(1000), store.root / DAY.path / "part.parquet")
    assert reported(compared(store, Published())) == []


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("interval", "now", "starts"),
    [
        ("1h", "2024-12-01", ["2024-06-20", "2024-07-01"]),
        ("1h", "2024-08-20", ["2024-06-20", "2024-07-01", "2024-07-02", "2024-07-03"]),
        ("1w", "2024-08-01", ["2024-06-24", "2024-07-01"]),
    ],
)
def test_windows(tmp_path, interval, now, starts):
    """Long past months are compared whole, later days one by one, and weeks always by month."""
    series = Series("spot", "BTCUSDT", interval)
    store = LakeStore.create(str(tmp_path), "test")
    for day_ms in range(ms("2024-06-20"), ms("2024-07-04"), DAY_MS):
        rows = truth_table(Truth(), series, day_ms, day_ms + DAY_MS)
        if rows.num_rows:
            store.merge(partition_at(series, day_ms), rows)
    given_windows = list(windows(store, ALL, ms(now)))
    assert [window.start_ms for window in given_windows] == [ms(text) for text in starts]
    assert all(one.stop_ms == two.start_ms for one, two in itertools.pairwise(given_windows))
    assert sum(window.partitions for window in given_windows) == len(list(store.partitions()))
    only = PartitionFilter(since=day_of(ms("2024-07-02")), until=day_of(ms("2024-07-02")))
    assert list(windows(store, only, ms("2024-12-01"))) == (
        [Window(series, ms("2024-07-02"), ms("2024-07-03"), 1)] if interval == "1h" else []
    )


def test_it_can_be_cancelled(store):
    """A comparison cancelled between two windows keeps its merges, and ends at once."""

    async def main() -> int:
        done = 0
        report = VerifyReport(1)
        async with asyncio.timeout(PATIENCE_S):
            task = asyncio.current_task()
            assert task is not None
            try:
                now_ms = MONDAY_MS + 5 * DAY_MS  # a window a day
                async for _ in compare_published(store, Published(), ALL, report, now_ms=now_ms):
                    done += 1
                    task.cancel()
            except asyncio.CancelledError:
                task.uncancel()
        return done

    assert asyncio.run(main()) == 1


@given(unknown_candles(minutes=1), unknown_candles(minutes=1))
def test_who_wins_is_as_in_every_merge(ours, published):
    """`winning_rows` agrees with `precedence`; among full ties the published row wins."""
    wins = winning_rows(to_table([ours]), to_table([published]))
    assert wins.tolist() == [precedence(published) >= precedence(ours)]


@given(st.lists(st.integers(0, 5), unique=True), st.lists(st.integers(0, 5), unique=True), st.integers(0, 5))
def test_differences_are_sets(here, there, other):
    """Each key is either equal, differing, missing or unpublished."""
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + 6 * MINUTE_MS)
    ours = rows.take(pa.array(sorted(here), pa.int64()))
    published = edited(rows, other, volume=1e6).take(pa.array(sorted(there), pa.int64()))
    result = differences(ours, published)
    assert [sorted(there)[at] for at in result.missing] == sorted(set(there) - set(here))
    assert [sorted(here)[at] for at in result.unpublished] == sorted(set(here) - set(there))
    assert [sorted(there)[at] for at in result.differs] == (
        [other] if other in set(here) & set(there) else []
    )
    assert [sorted(here)[at] for at in result.ours] == [sorted(there)[at] for at in result.differs]


def test_null_is_no_difference_to_null(store):
    """Two nulls do not differ; a value that only the exchange has differs."""
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + HOUR_MS)
    without = edited(rows, 3, quote_volume=None)
    assert len(differences(without, without).differs) == 0
    assert differences(without, rows).differs.tolist() == [3]
    assert decode((store.root / DAY.file).read_bytes(), "").num_rows == 1440
