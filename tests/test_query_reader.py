"""One series straight from its files, and SQL, from Python."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest
from test_query_files import add_foreign, candle, make_lake, put

from lakewriter.candle import SCHEMA, to_table
from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.lake import ALL, LakeStore, PartitionFiles, PartitionFilter
from lakewriter.query import reader
from lakewriter.query.reader import FRAME_COLUMNS, Lake, open_lake
from lakewriter.query.retry import TRIES_MAX

TOKYO = timezone(timedelta(hours=9))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("reader")
    make_lake(
        root,
        [candle(n) for n in range(2880)] + [candle(0, symbol="ETHUSDT"), candle(0, interval="1h")],
        hot=[candle(2879), candle(2880), candle(5, symbol="ETHUSDT")],
    )
    return open_lake(root)


def test_frame_is_the_original_recorders(lake: Lake) -> None:
    """Indexed by candle_end_time in UTC, with its columns in their order, ascending."""
    frame = lake.candles("spot", "BTCUSDT", "1m")
    assert tuple(frame.columns) == FRAME_COLUMNS
    assert frame.index.name == "candle_end_time"
    assert str(frame.index.dtype) == "datetime64[ms, UTC]"
    assert frame.index[0] == pd.Timestamp("2024-06-30T00:01:00Z")
    assert frame["candle_begin_time"].iloc[0] == pd.Timestamp("2024-06-30T00:00:00Z")
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert str(frame["trade_num"].dtype) == "int64"


def test_journalled_candles_are_there_once(lake: Lake) -> None:
    """The frame is fresh: rows of the journal are in it, each once, of this series alone."""
    assert len(lake.candles("spot", "BTCUSDT", "1m")) == 2881
    assert len(lake.candles("spot", "ETHUSDT", "1m")) == 2
    assert len(lake.candles("spot", "BTCUSDT", "1h")) == 1


def test_arrow_has_every_column(lake: Lake) -> None:
    """The Arrow table has the columns of the files, typed as they are."""
    assert lake.candles_arrow("spot", "BTCUSDT", "1m").schema.equals(SCHEMA)
    assert lake.candles_arrow("spot", "NONEUSDT", "1m").schema.equals(SCHEMA)


def test_direct_reads_and_sql_agree(lake: Lake) -> None:
    """Both ways give the same rows."""
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
    """[start, stop), whatever they are written as; naive means UTC."""
    frame = lake.candles("spot", "BTCUSDT", "1m", start=start, stop=stop)  # type: ignore[arg-type]
    assert [str(time)[11:16] for time in frame["candle_begin_time"]] == ["23:58", "23:59", "00:00"]


def test_dates_are_their_first_moment(lake: Lake) -> None:
    """A day as start is in, as stop is out."""
    assert len(lake.candles("spot", "BTCUSDT", "1m", date(2024, 6, 30), date(2024, 7, 1))) == 1440
    assert len(lake.candles("spot", "BTCUSDT", "1m", "2024-07-01")) == 1441
    assert len(lake.candles("spot", "BTCUSDT", "1m", stop="1969-01-01")) == 0
    assert len(lake.candles("spot", "BTCUSDT", "1m", "2024-07-01", "2024-07-01")) == 0
    assert len(lake.candles("spot", "BTCUSDT", "1m", date.min, date.max)) == 2881


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("moon", "BTCUSDT", "1m"), "market: 'moon' is unknown"),
        (("spot", "BTCUSDT", "7m"), "interval: '7m' is none"),
        (("spot", "../../etc", "1m"), "symbol: '../../etc' cannot be one"),
        (("spot", "A..B", "1m"), "symbol: 'A..B' cannot be one"),
        (("spot", "BTC/USDT", "1m"), "symbol: 'BTC/USDT' cannot be one"),
        (("spot", "BTCUSDT", "1m", "yesterday"), "start: 'yesterday' is no time"),
        (("spot", "BTCUSDT", "1m", None, 5), "stop: 5 is no time"),
        (("spot", "BTCUSDT", "1m", pd.NaT), "start: NaT is no time"),
    ],
)
def test_wrong_arguments_are_usage_errors(lake: Lake, arguments: tuple[str, ...], message: str) -> None:
    """What cannot be is refused by name before anything is read."""
    with pytest.raises(UsageError) as raised:
        lake.candles(*arguments)
    assert raised.value.what.startswith(message)


def test_names_are_taken_as_people_write_them(lake: Lake) -> None:
    """Lower-case symbols and `1M` for months are understood."""
    assert len(lake.candles("spot", "ethusdt", "1m")) == 2
    assert len(lake.candles("spot", "BTCUSDT", "1M")) == 0


def test_foreign_files_and_encoded_directories_are_read(tmp_path: Path) -> None:
    """What other tools put there is part of the series, each candle once."""
    symbol = "币安人生USDT"
    make_lake(tmp_path, [candle(0, symbol=symbol)])
    add_foreign(tmp_path, [candle(0, symbol=symbol, source="archive"), candle(1, symbol=symbol)])
    encoded = "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT"
    rows = to_table([candle(2, symbol=symbol), candle(1, symbol=symbol)])
    put(tmp_path, f"market=spot/symbol={encoded}/interval=1m/date=2024-06-30", rows)
    table = Lake(str(tmp_path)).candles_arrow("spot", symbol, "1m")
    assert table["open"].to_pylist() == [100.0, 101.0, 102.0]
    assert table["source"].to_pylist() == ["archive", "rest", "rest"]


def test_other_series_are_never_opened(tmp_path: Path) -> None:
    """Broken files of another symbol, interval or day do not matter."""
    make_lake(tmp_path, [candle(0)])
    for other in (candle(0, symbol="ETHUSDT"), candle(0, interval="1h"), candle(1440)):
        add_foreign(tmp_path, [other]).write_bytes(b"broken")
    assert len(Lake(tmp_path).candles("spot", "BTCUSDT", "1m", "2024-06-30", "2024-07-01")) == 1
    with pytest.raises(LakeError, match="not a readable Parquet file"):
        Lake(tmp_path).candles("spot", "BTCUSDT", "1m")


class Compacting(LakeStore):
    """A lake where compaction folds a foreign file between listing and reading."""

    victims: list[Path]

    def files(self, wanted: PartitionFilter = ALL) -> Iterator[PartitionFiles]:
        found = list(super().files(wanted))
        if self.victims:
            self.victims.pop().unlink()
        return iter(found)


def test_file_that_vanishes_is_no_matter(tmp_path: Path) -> None:
    """If a listed file is folded away before it is read, the series is listed again; not for ever."""
    make_lake(tmp_path, [candle(0)])
    series = ("spot", "BTCUSDT", "1m")
    store = Compacting(tmp_path)
    store.victims = [add_foreign(tmp_path, [candle(0)], f"part-{n}.parquet") for n in range(2)]
    assert reader._read(store, series, ALL).num_rows == 1
    store.victims = [add_foreign(tmp_path, [candle(0)], f"part-{n}.parquet") for n in range(TRIES_MAX)]
    with pytest.raises(LakeError, match="No such file") as raised:
        reader._read(store, series, ALL)
    assert "kept vanishing" in raised.value.hint


def test_one_lake_serves_many_threads(lake: Lake) -> None:
    """Direct reads and SQL may run at the same time on one object."""
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
    """A large answer can be walked through without holding it."""
    with lake.stream("SELECT candle_begin_time FROM candles") as answer:
        assert answer.schema.names == ["candle_begin_time"]
        assert sum(batch.num_rows for batch in answer.batches) == 2884


def test_absent_lake_is_told(tmp_path: Path) -> None:
    """There is no lake where there is none."""
    with pytest.raises(LakeError, match="does not exist"):
        open_lake(tmp_path / "nowhere")
