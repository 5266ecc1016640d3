"""The Python interface: one series read from its files, and SQL."""

import tempfile
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lakewriter.candle import SCHEMA, to_table
from lakewriter.errors import EmptyAnswerWarning, LakeError, UsageError
from lakewriter.interval import INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionFiles
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.query.python.frames import FRAME_COLUMNS
from lakewriter.query.python.reader import Lake, open_lake
from lakewriter.query.python.series_rows import SymbolSelection, read_rows
from lakewriter.query.retry import TRIES_MAX
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, write_parquet
from support.lengths import examples

BEGIN = pd.Timestamp(BEGIN_MS, unit="ms", tz="UTC")
TOKYO = timezone(timedelta(hours=9))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("reader")
    make_lake(
        root,
        [rest_candle(n) for n in range(2880)]
        + [rest_candle(0, symbol="ETHUSDT"), rest_candle(0, interval="1h")],
        hot=[rest_candle(2879), rest_candle(2880), rest_candle(5, symbol="ETHUSDT")],
    )
    return open_lake(root)


def test_frame_is_the_original_recorders(lake: Lake) -> None:
    """The frame is indexed by candle_end_time in UTC, ascending, with the documented columns."""
    frame = lake.candles("spot", "BTCUSDT", "1m")
    assert tuple(frame.columns) == FRAME_COLUMNS
    assert frame.index.name == "candle_end_time"
    assert frame.index.dtype == pd.DatetimeIndex(["2024-06-30"], tz="UTC").dtype
    assert frame.index[0] == pd.Timestamp("2024-06-30T00:01:00Z")
    assert frame["candle_begin_time"].iloc[0] == pd.Timestamp("2024-06-30T00:00:00Z")
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert str(frame["trade_num"].dtype) == "int64"


def test_journalled_candles_are_there_once(lake: Lake) -> None:
    """The frame has the journal's rows of this series, each once."""
    assert len(lake.candles("spot", "BTCUSDT", "1m")) == 2881
    assert len(lake.candles("spot", "ETHUSDT", "1m")) == 2
    assert len(lake.candles("spot", "BTCUSDT", "1h")) == 1


def test_arrow_has_every_column(lake: Lake) -> None:
    """The Arrow table has all columns of the files with their types."""
    assert lake.candles_arrow("spot", "BTCUSDT", "1m").schema.equals(SCHEMA)
    assert lake.candles_arrow("spot", "BTCUSDT", "1m", "2024-06-30", "2024-06-30").schema.equals(SCHEMA)


def test_direct_reads_and_sql_agree(lake: Lake) -> None:
    """Direct reads and SQL give the same rows."""
    names = ", ".join(SCHEMA.names)
    asked = lake.query(
        f"SELECT {names} FROM candles WHERE symbol = 'BTCUSDT' AND \"interval\" = $i ORDER BY candle_begin_time",
        {"i": "1m"},
    )
    assert asked.arrow().cast(SCHEMA).equals(lake.candles_arrow("spot", "BTCUSDT", "1m").combine_chunks())


@pytest.mark.parametrize(
    "start",
    [
        "2024-06-30T23:58:00Z",
        "2024-06-30 23:58",
        "2024-07-01T08:58:00+09:00",
        datetime(2024, 6, 30, 23, 58),
        datetime(2024, 6, 30, 23, 58, tzinfo=UTC),
        datetime(2024, 7, 1, 8, 58, tzinfo=TOKYO),
        pd.Timestamp("2024-06-30 23:57:59.999999"),
        pd.Timestamp("2024-06-30 23:58", tz="UTC"),
    ],
)
@pytest.mark.parametrize(
    "stop", ["2024-07-01T00:01:00Z", datetime(2024, 7, 1, 0, 1), pd.Timestamp("2024-07-01 00:00:30")]
)
def test_range_is_half_open_on_begin_times(lake: Lake, start: object, stop: object) -> None:
    """Ranges are [start, stop) in each format of time; naive times are UTC."""
    frame = lake.candles("spot", "BTCUSDT", "1m", start=start, stop=stop)  # type: ignore[arg-type]
    assert [str(time)[11:16] for time in frame["candle_begin_time"]] == ["23:58", "23:59", "00:00"]


def test_dates_are_their_first_moment(lake: Lake) -> None:
    """A day as start is included, as stop excluded."""
    assert len(lake.candles("spot", "BTCUSDT", "1m", date(2024, 6, 30), date(2024, 7, 1))) == 1440
    assert len(lake.candles("spot", "BTCUSDT", "1m", "2024-07-01")) == 1441
    assert len(lake.candles("spot", "BTCUSDT", "1m", "2024-07-01", "2024-07-01")) == 0
    assert len(lake.candles("spot", "BTCUSDT", "1m", stop="1969-01-01")) == 0
    assert len(lake.candles("spot", "BTCUSDT", "1m", date.min, date.max)) == 2881


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("moon", "BTCUSDT", "1m"), "market: 'moon' is unknown"),
        ((["spot"], "BTCUSDT", "1m"), "market: ['spot'] is unknown"),
        (("spot", "BTCUSDT", "7m"), "interval: '7m' is unknown"),
        (("spot", "BTCUSDT", ["1m", "1h"]), "interval: ['1m', '1h'] is unknown"),
        (("spot", "../../etc", "1m"), "symbol: '../../etc' cannot be a symbol"),
        (("spot", "A..B", "1m"), "symbol: 'A..B' cannot be a symbol"),
        (("spot", "BTC/USDT", "1m"), "symbol: 'BTC/USDT' cannot be a symbol"),
        (("spot", "BTCUSDT", "1m", "yesterday"), "start: 'yesterday' is not a day or time"),
        (("spot", "BTCUSDT", "1m", None, 5), "stop: 5 is no time"),
        (("spot", "BTCUSDT", "1m", pd.NaT), "start: NaT is no time"),
    ],
)
def test_wrong_arguments_are_usage_errors(lake: Lake, arguments: tuple[str, ...], message: str) -> None:
    """An invalid argument is refused by name before anything is read."""
    with pytest.raises(UsageError) as raised:
        lake.candles(*arguments)
    assert raised.value.what.startswith(message)


def test_containers_of_wrong_types_are_usage_errors(lake: Lake) -> None:
    """Columns, parameters and tables that are no such containers are refused in one line."""
    with pytest.raises(UsageError, match="columns: 5 is unknown"):
        lake.candles("spot", "BTCUSDT", "1m", columns=5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="names no parameters"):
        lake.query("SELECT ?", [1])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tables: list has no names"):
        lake.query("FROM trades", tables=[{"a": 1}])  # type: ignore[arg-type]


def test_names_are_taken_as_people_write_them(lake: Lake) -> None:
    """Lower-case symbols, and `1M` for months, are accepted."""
    assert len(lake.candles("spot", "ethusdt", "1m")) == 2
    assert len(lake.candles("spot", "Ethusdt", "1h", "2024-06-30", "2024-06-30")) == 0
    with pytest.raises(UsageError, match="spot BTCUSDT has no interval 1mo; there are 1m, 1h"):
        lake.candles("spot", "BTCUSDT", "1M")


@examples(10, 60)
@given(
    there=st.sets(st.integers(0, 100), min_size=1),
    start=st.none() | st.integers(-20, 120),
    length=st.none() | st.integers(0, 60),
)
def test_filled_frames_are_reindexed_ones(there: set[int], start: int | None, length: int | None) -> None:
    """Each candle of the grid has a row with its values or NaN, as pandas' reindex gives."""
    stop = None if length is None else (start or 0) + length
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_lake(root, [rest_candle(n) for n in sorted(there)])
        bounds = [None if n is None else BEGIN + n * pd.Timedelta("1min") for n in (start, stop)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyAnswerWarning)
            plain = open_lake(root).candles("spot", "BTCUSDT", "1m", *bounds)
            filled = open_lake(root).candles("spot", "BTCUSDT", "1m", *bounds, fill="gaps")
    inside = [n for n in sorted(there) if (start is None or n >= start) and (stop is None or n < stop)]
    first = min(inside, default=None) if start is None else start
    last = max(inside, default=None) if stop is None else stop - 1
    rows = [] if first is None or last is None else list(range(first, last + 1))
    assert list(filled["candle_begin_time"]) == [BEGIN + n * pd.Timedelta("1min") for n in rows]
    assert list(filled.index) == [BEGIN + (n + 1) * pd.Timedelta("1min") for n in rows]
    assert filled.index.dtype == plain.index.dtype
    assert str(filled["trade_num"].dtype) == "float64"
    assert list(filled.columns) == list(plain.columns)
    values = plain.drop(columns="candle_begin_time").reindex(filled.index).astype({"trade_num": "float64"})
    pd.testing.assert_frame_equal(filled.drop(columns="candle_begin_time"), values, check_freq=False)


def test_months_and_three_days_are_filled_on_their_grid(tmp_path: Path) -> None:
    """Months have their own lengths; three days count from the first candle."""
    months = INTERVALS["1mo"]
    june = months.floor(BEGIN_MS)
    rows = [june, months.end(months.end(june))]
    day = 86_400_000
    make_lake(
        tmp_path,
        [replace(rest_candle(0), interval="1mo", begin_ms=at, end_ms=months.end(at)) for at in rows]
        + [replace(rest_candle(0), interval="3d", begin_ms=BEGIN_MS + n * day, end_ms=BEGIN_MS + (n + 3) * day) for n in (0, 6)],
    )  # fmt: skip
    found = open_lake(tmp_path).candles("spot", "BTCUSDT", "1M", fill="gaps")
    assert [str(end)[:10] for end in found.index] == ["2024-07-01", "2024-08-01", "2024-09-01"]
    assert list(found["close"].isna()) == [False, True, False]
    found = open_lake(tmp_path).candles("spot", "BTCUSDT", "3d", stop="2024-07-12", fill="gaps")
    assert [str(begin)[:10] for begin in found["candle_begin_time"]] == [
        "2024-06-30", "2024-07-03", "2024-07-06", "2024-07-09",
    ]  # fmt: skip


def test_filling_has_an_end(lake: Lake) -> None:
    """A range with too many candles to fill is refused before memory is used, and so is an unknown `fill`."""
    with pytest.raises(UsageError, match="fill: from start to stop there are"):
        lake.candles("spot", "BTCUSDT", "1m", "1970-01-01", "9999-01-01", fill="gaps")
    with pytest.raises(UsageError, match="fill: 'zeros' is unknown"):
        lake.candles("spot", "BTCUSDT", "1m", fill="zeros")  # type: ignore[arg-type]
    assert len(lake.candles("spot", "BTCUSDT", "1m", "2024-07-01", "2024-07-01", fill="gaps")) == 0


def test_missing_candles_are_null_in_arrow(tmp_path: Path) -> None:
    """The Arrow table has the same rows, with the files' types."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(2)])
    table = open_lake(tmp_path).candles_arrow("spot", "BTCUSDT", "1m", fill="gaps")
    assert table.schema.equals(SCHEMA)
    assert table["trade_num"].to_pylist() == [10, None, 10]


def test_foreign_files_and_encoded_directories_are_read(tmp_path: Path) -> None:
    """Foreign files and percent-encoded directories belong to the series, each candle once."""
    symbol = "币安人生USDT"
    make_lake(tmp_path, [rest_candle(0, symbol=symbol)])
    add_foreign(tmp_path, [rest_candle(0, symbol=symbol, source="archive"), rest_candle(1, symbol=symbol)])
    encoded = "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT"
    rows = to_table([rest_candle(2, symbol=symbol), rest_candle(1, symbol=symbol)])
    write_parquet(tmp_path, f"market=spot/symbol={encoded}/interval=1m/date=2024-06-30", rows)
    table = Lake(str(tmp_path)).candles_arrow("spot", symbol, "1m")
    assert table["open"].to_pylist() == [100.0, 101.0, 102.0]
    assert table["source"].to_pylist() == ["archive", "rest", "rest"]


def test_other_series_are_never_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Broken files of other symbols, intervals and days have no effect."""
    make_lake(tmp_path, [rest_candle(0)])
    for other in (rest_candle(0, symbol="ETHUSDT"), rest_candle(0, interval="1h"), rest_candle(1440)):
        add_foreign(tmp_path, [other]).write_bytes(b"broken")
    assert len(Lake(tmp_path).candles("spot", "BTCUSDT", "1m", "2024-06-30", "2024-07-01")) == 1
    assert "not a readable Parquet file" not in caplog.text
    assert len(Lake(tmp_path).candles("spot", "BTCUSDT", "1m")) == 1
    assert caplog.text.count("not a readable Parquet file") == 1


def test_what_cannot_be_read_is_one_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows below the wrong day are an error in each answer; a circular link is logged and left out."""
    make_lake(tmp_path, [rest_candle(0)])
    foreign = add_foreign(tmp_path, [rest_candle(1), rest_candle(1440)])
    with pytest.raises(LakeError, match="spot BTCUSDT 1m 2024-06-30: 1 of its rows begin on another day"):
        Lake(tmp_path).candles("spot", "BTCUSDT", "1m", "2024-06-30", "2024-07-01")
    foreign.unlink()
    foreign.symlink_to(foreign.name)
    assert len(Lake(tmp_path).candles("spot", "BTCUSDT", "1m")) == 1
    assert f"lake: {foreign}: Too many levels of symbolic links; its candles are left out" in caplog.text


class Compacting(LakeStore):
    """A lake where compaction folds a foreign file between listing and reading."""

    victims: list[Path]

    def files(self, wanted: PartitionFilter = ALL) -> Iterator[PartitionFiles]:
        found = list(super().files(wanted))
        if self.victims:
            self.victims.pop().unlink()
        return iter(found)


def test_file_that_vanishes_is_no_matter(tmp_path: Path) -> None:
    """If a listed file vanishes before it is read, the series is listed again, a bounded number of times."""
    make_lake(tmp_path, [rest_candle(0)])
    day_ms = (BEGIN_MS, BEGIN_MS + 86_400_000)
    wanted = SymbolSelection("spot", ["BTCUSDT"], "1m", day_ms)
    store = Compacting.local(tmp_path)
    store.victims = [add_foreign(tmp_path, [rest_candle(0)], f"part-{n}.parquet") for n in range(2)]
    assert read_rows(store, wanted, day_ms)["BTCUSDT"].num_rows == 1
    store.victims = [add_foreign(tmp_path, [rest_candle(0)], f"part-{n}.parquet") for n in range(TRIES_MAX)]
    with pytest.raises(LakeError, match="No such file") as raised:
        read_rows(store, wanted, day_ms)
    assert "kept vanishing" in raised.value.hint


def test_one_lake_serves_many_threads(lake: Lake) -> None:
    """Direct reads and SQL may run concurrently on one object."""
    counts: list[int] = []

    def ask() -> None:
        counts.append(len(lake.candles("spot", "BTCUSDT", "1m")))
        counts.append(lake.query("SELECT count(*) FROM candles WHERE symbol = 'BTCUSDT'").rows()[0][0] - 1)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [2881] * 12


def test_streams_come_in_batches(lake: Lake) -> None:
    """A large answer can be read batch by batch, without holding it in memory."""
    with lake.stream("SELECT candle_begin_time FROM candles") as answer:
        assert answer.schema.names == ["candle_begin_time"]
        assert sum(batch.num_rows for batch in answer.batches) == 2884


def test_absent_lake_is_told(tmp_path: Path) -> None:
    """An absent lake is an error."""
    with pytest.raises(LakeError, match="does not exist"):
        open_lake(tmp_path / "nowhere")
