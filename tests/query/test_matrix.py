"""The wide table of time × symbol, and the list of the series."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import to_table
from lakewriter.errors import EmptyAnswerWarning, LakeError, UsageError
from lakewriter.query.python.matrix import matrix_table
from lakewriter.query.python.reader import Lake, open_lake
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle
from support.lengths import examples


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """BTCUSDT with the minutes 0 to 5, ETHUSDT without 2 and 4, BNBUSDT with 7 in the journal alone."""
    root = tmp_path_factory.mktemp("matrix")
    rows = [rest_candle(n) for n in range(6)]
    rows += [rest_candle(n, symbol="ETHUSDT") for n in (0, 1, 3, 5)]
    make_lake(root, [*rows, rest_candle(0, interval="1d")], hot=[rest_candle(7, symbol="BNBUSDT")])
    return open_lake(root)


def test_a_matrix_is_the_long_frame_pivoted(lake: Lake) -> None:
    """Times ascend, symbols are in the caller's order, and missing candles are NaN."""
    matrix = lake.matrix("close", "spot", ["ETHUSDT", "BTCUSDT"], "1m")
    long = lake.candles("spot", ["ETHUSDT", "BTCUSDT"], "1m")
    pivoted = long.reset_index().pivot(index="candle_end_time", columns="symbol", values="close")
    pd.testing.assert_frame_equal(matrix, pivoted[["ETHUSDT", "BTCUSDT"]], check_freq=False)
    assert matrix.index.name == "candle_end_time" and matrix.columns.name == "symbol"
    assert matrix["ETHUSDT"].isna().sum() == 2
    assert list(matrix.dtypes) == [np.dtype("float64")] * 2


def test_globs_are_sorted_and_names_keep_their_place(lake: Lake) -> None:
    """A name before a glob comes first, and occurs once."""
    assert list(lake.matrix("close", "spot", "*USDT", "1m")) == ["BNBUSDT", "BTCUSDT", "ETHUSDT"]
    assert list(lake.matrix("close", "spot", ["ETHUSDT", "*"], "1m")) == ["ETHUSDT", "BNBUSDT", "BTCUSDT"]
    assert list(lake.matrix("volume", "spot", "btcusdt", "1d")) == ["BTCUSDT"]


def test_gaps_of_all_symbols_are_filled(lake: Lake) -> None:
    """Minute 6, which no symbol has, gets a row; a range is filled from start to stop."""
    assert len(lake.matrix("close", "spot", "*", "1m")) == 7
    assert len(lake.matrix("close", "spot", "*", "1m", fill="gaps")) == 8
    stop = datetime.fromtimestamp(BEGIN_MS / 1000 + 900, UTC)
    filled = lake.matrix("close", "spot", "*", "1m", "2024-06-29T23:59", stop, fill="gaps")
    assert len(filled) == 16 and filled.iloc[[0, 7, -1]].isna().all(axis=None)


def test_polars_takes_the_arrow_table(lake: Lake) -> None:
    """The Arrow table has a time and a column for each symbol, with null for a missing candle."""
    table = lake.matrix_arrow("trade_num", "spot", ["BTCUSDT", "ETHUSDT"], "1m", index="candle_begin_time")
    assert table.schema.names == ["candle_begin_time", "BTCUSDT", "ETHUSDT"]
    assert table.schema.field("ETHUSDT").type == pa.int64()
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert frame["ETHUSDT"].to_list() == [10, 10, None, 10, None, 10]
    assert frame["candle_begin_time"][0] == datetime(2024, 6, 30, tzinfo=UTC)


def test_times_are_of_the_index_and_the_zone(lake: Lake) -> None:
    """Times are begins or ends, in any zone, or naive on request."""
    naive = lake.matrix("close", "spot", "BTCUSDT", "1m", index="candle_begin_time", tz=None)
    assert str(naive.index[0]) == "2024-06-30 00:00:00" and naive.index.tz is None
    there = lake.matrix("close", "spot", "BTCUSDT", "1m", tz="Asia/Tokyo")
    assert str(there.index[0]) == "2024-06-30 09:01:00+09:00"
    assert naive.index.dtype == pd.DatetimeIndex(["2024-06-30"]).dtype


@examples(30, 300)
@given(st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=1, max_size=4))
def test_any_holes_are_null(held: list[set[int]]) -> None:
    """Each value is in the row of its time, for any missing candles."""
    rows = {f"S{at}": to_table([rest_candle(n) for n in sorted(each)]) for at, each in enumerate(held)}
    table = matrix_table(rows, "open", "candle_begin_time", "1m", None)
    times = sorted(set().union(*held))
    assert [at.timestamp() * 1000 for at in table[0].to_pylist()] == [BEGIN_MS + n * 60_000 for n in times]
    for at, each in enumerate(held):
        assert table[f"S{at}"].to_pylist() == [100.0 + n if n in each else None for n in times]


def test_a_name_without_candles_keeps_its_column(lake: Lake) -> None:
    """A symbol without candles keeps its column, and a warning has the reason."""
    start = datetime.fromtimestamp(BEGIN_MS / 1000 + 360, UTC)
    with pytest.warns(EmptyAnswerWarning):
        matrix = lake.matrix("close", "spot", ["BTCUSDT", "BNBUSDT"], "1m", "2024-07-01")
    assert list(matrix) == ["BTCUSDT", "BNBUSDT"] and matrix.empty
    matrix = lake.matrix("close", "spot", ["BTCUSDT", "BNBUSDT"], "1m", start)
    assert list(matrix) == ["BTCUSDT", "BNBUSDT"] and list(matrix["BTCUSDT"].isna()) == [True]


@pytest.mark.parametrize("wrong", [("price", "1m"), ("close", "7m"), ("symbol", "1m")])
def test_wrong_columns_and_intervals_are_refused(lake: Lake, wrong: tuple[str, str]) -> None:
    """The error lists the choices."""
    with pytest.raises(UsageError) as raised:
        lake.matrix(wrong[0], "spot", "BTCUSDT", wrong[1])
    assert "close" in raised.value.hint or "1h" in raised.value.hint


def test_the_series_are_listed(lake: Lake) -> None:
    """Each series has its first and last candle and its number of candles, as in SQL."""
    frame = lake.series()
    assert list(frame) == ["market", "symbol", "interval", "first", "last", "candles"]
    assert [tuple(row) for row in frame[["symbol", "interval", "candles"]].to_numpy()] == [
        ("BNBUSDT", "1m", 1), ("BTCUSDT", "1m", 6), ("BTCUSDT", "1d", 1), ("ETHUSDT", "1m", 4),
    ]  # fmt: skip
    asked = lake.query(
        'SELECT symbol, "interval", min(candle_begin_time), max(candle_begin_time), count(*) FROM candles GROUP BY ALL'
    )
    listed = frame.drop(columns="market").itertuples(index=False)
    assert sorted(tuple(row) for row in listed) == sorted(asked.df().itertuples(index=False, name=None))


def test_series_are_filtered(lake: Lake) -> None:
    """Market, symbols and interval filter the list; a filter without a match is an error with a hint."""
    assert len(lake.series("spot", "B*", "1m")) == 2
    assert list(lake.series(symbol=["ethusdt", "BNBUSDT"])["symbol"]) == ["BNBUSDT", "ETHUSDT"]
    assert list(lake.series(interval="1d")["symbol"]) == ["BTCUSDT"]
    with pytest.raises(UsageError, match="there is no market coin_futures; there is spot"):
        lake.series("coin_futures")
    with pytest.raises(UsageError, match="spot has no symbol BTCUSD; there is BTCUSDT"):
        lake.series(symbol="BTCUSD")


def test_series_of_foreign_and_unflushed_candles_are_counted_once(tmp_path: Path) -> None:
    """A candle in two files, or in a file and the journal, counts once."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(3)], hot=[rest_candle(n) for n in (1, 3, 1441)])
    add_foreign(tmp_path, [rest_candle(2), rest_candle(3)])
    add_foreign(tmp_path, [rest_candle(0, symbol="ETHUSDT")])
    frame = open_lake(tmp_path).series()
    assert list(frame["candles"]) == [5, 1]
    assert str(frame["last"][0]) == "2024-07-01 00:01:00+00:00"


def test_an_empty_lake_has_no_series(tmp_path: Path) -> None:
    """The frame has its columns; with a filter the error says that the lake is empty."""
    make_lake(tmp_path)
    assert list(open_lake(tmp_path).series()) == ["market", "symbol", "interval", "first", "last", "candles"]
    with pytest.raises(UsageError, match="no candles: the lake is empty"):
        open_lake(tmp_path).series("spot")


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    """An unreadable file is an error, because a count without it would be wrong."""
    store = make_lake(tmp_path, [rest_candle(0)])
    (tmp_path / next(iter(store.files())).names[0]).write_bytes(b"broken")
    with pytest.raises(LakeError, match="not a readable Parquet file"):
        open_lake(tmp_path).series()
