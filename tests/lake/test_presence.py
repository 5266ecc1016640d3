"""A survey finds the present and the absent candles, in own and foreign files."""

import time
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import Footer, encode, read_begins, read_footer
from lakewriter.lake.presence import Presence, SurveyResult, presence_of, survey
from lakewriter.partition import by_partition, day_of, partition_of
from lakewriter.series import Series
from support.candles import stream_candle
from support.lengths import examples

BTC = Series("spot", "BTCUSDT", "1m")
START_MS = 1_719_705_600_000  # 2024-06-30
MINUTE_MS = 60_000


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def put(store: LakeStore, candles: list[Candle]) -> None:
    """Merge candles into their partitions."""
    for partition, rows in by_partition(candles).items():
        store.merge(partition, to_table(rows))  # type: ignore[arg-type]


def put_foreign(store: LakeStore, candles: list[Candle], name: str = "part-0.parquet") -> None:
    """Put a foreign file into the first candle's partition."""
    path = store.root / partition_of(candles[0]).path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(candles), path)


def of(interval: str, begin_ms: int, **changes: object) -> Candle:
    return stream_candle(
        0, interval=interval, begin_ms=begin_ms, end_ms=INTERVALS[interval].end(begin_ms), **changes
    )


def minutes(found: object) -> list[int]:
    return [(int(begin_ms) - START_MS) // MINUTE_MS for begin_ms in found]  # type: ignore[attr-defined]


def test_a_footer_says_what_the_rows_are() -> None:
    """The footer of our file has count, first and last; that of a foreign file is not used."""
    rows = [stream_candle(minute) for minute in (3, 4, 9)]
    data = encode(to_table(rows), partition_of(rows[0]))
    assert read_footer(data, "x") == Footer(3, rows[0].begin_ms, rows[-1].begin_ms)
    assert read_begins(data, "x").tolist() == [row.begin_ms for row in rows]
    empty = encode(to_table([]), partition_of(rows[0]))
    assert read_footer(empty, "x") == Footer(0, 0, 0)
    assert read_begins(empty, "x").tolist() == []
    sink = pa.BufferOutputStream()
    pq.write_table(to_table([rows[1], rows[0], rows[1]]), sink)
    foreign = sink.getvalue().to_pybytes()
    assert read_footer(foreign, "x") is None
    assert read_begins(foreign, "x").tolist() == [row.begin_ms for row in rows[:2]]
    with pytest.raises(LakeError, match="x: not a readable Parquet file"):
        read_footer(data[:-9], "x")


def test_own_foreign_and_hot_candles_are_there_once(store: LakeStore) -> None:
    """A candle in several files or the journal counts once."""
    put(store, [stream_candle(minute) for minute in (1, 2, 1441)])
    put_foreign(store, [stream_candle(minute) for minute in (7, 2, 7)])
    hot = [
        stream_candle(9),
        stream_candle(1),
        stream_candle(10, symbol="ETHUSDT"),
        stream_candle(10, interval="1h"),
        stream_candle(-1),
    ]
    assert minutes(presence_of(store, BTC, hot).begins(START_MS, START_MS + 2 * DAY_MS)) == [1, 2, 7, 9, 1441]
    assert minutes(
        presence_of(store, BTC, hot).begins(START_MS + 2 * MINUTE_MS, START_MS + 9 * MINUTE_MS)
    ) == [
        2,
        7,
    ]
    assert minutes(presence_of(store, BTC, hot).begins(START_MS + DAY_MS, START_MS)) == []


def test_a_survey_begins_with_the_first_candle(store: LakeStore) -> None:
    """A survey reports absent candles after the series' first one, and none before it."""
    put(store, [stream_candle(minute) for minute in (10, 11, 14)])
    found = survey(store, BTC, START_MS, START_MS + 16 * MINUTE_MS, [stream_candle(15)])
    assert minutes([found.first_ms, found.last_ms]) == [10, 15]
    assert [minutes(each) for each in found.missing] == [[12, 14]]
    later = survey(store, BTC, START_MS + 13 * MINUTE_MS, START_MS + 18 * MINUTE_MS + 1)
    assert [minutes(each) for each in later.missing] == [[13, 14], [15, 19]]
    assert survey(store, BTC, START_MS, START_MS).missing == []


def test_nothing_is_known_of_a_series_without_candles(store: LakeStore) -> None:
    """A series without candles has no first, last or missing one; a journaled candle is its first."""
    assert survey(store, BTC, START_MS, START_MS + DAY_MS) == SurveyResult(None, None, [])
    put(store, [stream_candle(0, symbol="ETHUSDT")])
    assert survey(store, BTC, START_MS, START_MS + DAY_MS) == SurveyResult(None, None, [])
    assert survey(store, BTC, START_MS, START_MS + MINUTE_MS, [stream_candle(0)]) == SurveyResult(
        START_MS, START_MS, []
    )


def test_empty_and_odd_directories_are_nothing(store: LakeStore) -> None:
    """Days without a file, and directories like days, have no candles."""
    put(store, [stream_candle(1440)])
    series = (store.root / partition_of(stream_candle(0)).path).parent
    for name in ("date=2020-01-01", "date=2024-99-99", "date=x", "notes"):
        (series / name).mkdir()
    (series / "date=2024-07-02").touch()
    found = survey(store, BTC, 0, START_MS + DAY_MS + 3 * MINUTE_MS)
    assert found.first_ms == START_MS + DAY_MS
    assert [minutes(each) for each in found.missing] == [[1441, 1443]]


def test_a_whole_day_is_told_by_its_footer(store: LakeStore) -> None:
    """A complete day and one with a gap are both right."""
    put(store, [stream_candle(minute) for minute in range(3 * 1440) if minute != 2000])
    there = presence_of(store, BTC)
    assert there.missing(START_MS, START_MS + 3 * DAY_MS) == [
        (START_MS + 2000 * MINUTE_MS, START_MS + 2001 * MINUTE_MS)
    ]
    assert [there.count(day_of(START_MS + day * DAY_MS)) for day in range(4)] == [1440, 1439, 1440, 0]
    whole, holed, _ = (there._read[day] for day in sorted(there._read)[:3])
    assert whole.begins is None
    assert holed.begins is not None


@pytest.mark.parametrize("symbol", ["币安人生USDT", "BTCUSDT"])
def test_directories_of_other_spellings(store: LakeStore, symbol: str) -> None:
    """A percent-encoded day counts as well as ours."""
    put(store, [stream_candle(0, symbol=symbol)])
    encoded = partition_of(stream_candle(1, symbol=symbol)).path.replace(
        "币安人生", "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9F"
    )
    path = store.root / encoded / "part.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table([stream_candle(1, symbol=symbol)]), path)
    assert minutes(presence_of(store, Series("spot", symbol, "1m")).begins(START_MS, START_MS + DAY_MS)) == [
        0,
        1,
    ]


def test_grids_of_days_weeks_and_months(store: LakeStore) -> None:
    """Long candles have their own grids; `3d` is anchored at the first one."""
    three = Series("spot", "BTCUSDT", "3d")
    put(store, [of("3d", START_MS + DAY_MS * day) for day in (0, 3, 9)])
    assert survey(store, three, START_MS, START_MS + 12 * DAY_MS).missing == [
        (START_MS + 6 * DAY_MS, START_MS + 9 * DAY_MS)
    ]
    june, july, august, september = INTERVALS["1mo"].grid(1_717_200_000_000, 1_725_148_800_001)
    month = Series("spot", "BTCUSDT", "1mo")
    put(store, [of("1mo", june), of("1mo", august)])
    assert survey(store, month, 0, september).missing == [(july, august)]
    assert survey(store, month, 0, september + 1).missing == [(july, august), (september, INTERVALS["1mo"].end(september))]  # fmt: skip


def test_a_file_that_cannot_be_read_is_an_error(store: LakeStore) -> None:
    """An unreadable file is an error, not a range of missing candles."""
    put(store, [stream_candle(0)])
    (store.root / partition_of(stream_candle(0)).file).write_bytes(b"no")
    with pytest.raises(LakeError, match="not a readable Parquet file of candles"):
        survey(store, BTC, START_MS, START_MS + DAY_MS)


MINUTES = st.lists(st.integers(0, 2890), max_size=8)


@examples(20, 200)
@given(MINUTES, MINUTES, MINUTES, st.integers(-5, 2900), st.integers(-5, 2900), st.booleans())
def test_like_a_set(
    tmp_path_factory: pytest.TempPathFactory,
    own: list[int],
    foreign: list[int],
    hot: list[int],
    start: int,
    stop: int,
    runs: bool,
) -> None:
    """Any mix of files and journal gives the candles of a set of minutes."""
    store = LakeStore.create(str(tmp_path_factory.mktemp("presence")), "test")
    if runs:
        own = [minute + step for minute in own for step in range(3)]
    put(store, [stream_candle(minute) for minute in own])
    for number, minute in enumerate(foreign):
        put_foreign(store, [stream_candle(minute)], f"{number}.parquet")
    journal = [stream_candle(minute) for minute in hot]
    everything = {*own, *foreign, *hot}
    start_ms, stop_ms = START_MS + start * MINUTE_MS - 1, START_MS + stop * MINUTE_MS - 1
    wanted = set(range(start, stop))
    assert minutes(presence_of(store, BTC, journal).begins(start_ms, stop_ms)) == sorted(everything & wanted)
    found = survey(store, BTC, start_ms, stop_ms, journal)
    missing = {minute for low, high in found.missing for minute in range(*minutes((low, high)))}
    first = min(everything, default=stop)
    assert missing == {minute for minute in wanted - everything if minute >= first}
    assert found.missing == sorted(found.missing)
    earlier = {minute for minute in everything if minute < start}
    assert (found.before_ms is None) == (not earlier)
    assert not earlier or found.before_ms == START_MS + max(earlier) * MINUTE_MS
    there: Presence = presence_of(store, BTC, journal)
    for day in range(3):
        assert there.count(day_of(START_MS + day * DAY_MS)) == sum(
            day * 1440 <= minute < (day + 1) * 1440 for minute in everything
        )


@pytest.mark.slow
def test_surveying_is_a_fraction_of_a_millisecond_a_day(store: LakeStore) -> None:
    """A survey of 3,000 series of seven days, 21,000 files, takes a few seconds."""
    symbols = [f"S{number}USDT" for number in range(40)]
    rows = to_table([stream_candle(minute) for minute in range(1440)])
    shift = np.timedelta64(DAY_MS, "ms")
    for day in range(7):
        for symbol in symbols:
            store.merge(partition_of(stream_candle(1440 * day, symbol=symbol)), rows)
        for name in ("candle_begin_time", "candle_end_time"):
            moved = pa.array(rows[name].to_numpy() + shift, rows.schema.field(name).type)
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), moved)
    started_s = time.thread_time()
    for symbol in symbols:
        assert survey(store, Series("spot", symbol, "1m"), START_MS, START_MS + 7 * DAY_MS).missing == []
    each_ms = (time.thread_time() - started_s) * 1000 / 280
    print(f"{each_ms:.3f} ms a partition")
    assert each_ms < 5


@pytest.mark.parametrize("interval", ["1m", "1w", "1mo"])
def test_what_begins_off_the_grid_hides_nothing(store: LakeStore, interval: str) -> None:
    """A row off the grid fills no gap, in a foreign file or folded into ours."""
    series = Series("spot", "BTCUSDT", interval)
    grid = series.grid
    begins = [grid.ceil(START_MS)]
    for _ in range(3):
        begins.append(grid.end(begins[-1]))
    odd_ms = begins[1] + 1_000
    kept = [begins[0], odd_ms, *begins[2:]]
    off = [
        msgspec.structs.replace(stream_candle(0), interval=interval, begin_ms=each, end_ms=grid.end(each))
        for each in kept
    ]

    def check() -> None:
        there = presence_of(store, series)
        assert sum(there.count(day_of(each)) for each in dict.fromkeys(map(day_of_ms, kept))) == 3
        assert there.missing(begins[0], grid.end(begins[-1])) == [(begins[1], begins[2])]

    def day_of_ms(begin_ms: int) -> int:
        return begin_ms // DAY_MS * DAY_MS

    for each in off:
        directory = store.root / partition_of(each).path
        directory.mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table([each]), directory / f"part-{each.begin_ms}.parquet")
    check()
    for each in off:
        for path in (store.root / partition_of(each).path).iterdir():
            path.unlink()
    put(store, off)
    check()
