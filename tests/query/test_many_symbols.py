"""Candles of several symbols in one call, and what is said of names without candles."""

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from lakewriter.candle import SCHEMA
from lakewriter.errors import EmptyAnswerWarning, LakeError, UsageError
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.subscriptions import confirm_subscriptions
from lakewriter.query.python.reader import Lake, open_lake
from lakewriter.series import Series
from lakewriter.subscribed_period import Confirmation, RecorderId
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle

SYMBOLS = ("BNBUSDT", "BTCUSDT", "ETHBTC")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three symbols of 1m; ETHBTC lacks the minute 1, and BNBUSDT has a candle in the journal."""
    root = tmp_path_factory.mktemp("many")
    rows = [rest_candle(n, symbol=symbol) for symbol in SYMBOLS for n in range(4)]
    missing = rest_candle(1, symbol="ETHBTC")
    make_lake(
        root,
        [row for row in rows if row != missing] + [rest_candle(0, interval="1h")],
        hot=[
            rest_candle(4, symbol="BNBUSDT"),
            rest_candle(0, symbol="BNBUSDT"),
            rest_candle(0, symbol="NEWUSDT"),
        ],
    )
    return open_lake(root)


def test_a_list_has_a_column_with_the_symbol(lake: Lake) -> None:
    """The rows are those of each symbol alone, ascending by time, then by symbol."""
    frame = lake.candles("spot", ["btcusdt", "BNBUSDT"], "1m")
    assert list(frame.columns[:2]) == ["symbol", "candle_begin_time"]
    assert frame.index.name == "candle_end_time" and frame.index.is_monotonic_increasing
    assert list(frame["symbol"][:4]) == ["BNBUSDT", "BTCUSDT"] * 2
    for symbol in ("BTCUSDT", "BNBUSDT"):
        alone = frame[frame["symbol"] == symbol].drop(columns="symbol")
        pd.testing.assert_frame_equal(alone, lake.candles("spot", symbol, "1m"))


def test_globs_match_what_the_lake_has(lake: Lake) -> None:
    """A glob matches symbols of files and of the journal, also mixed with names."""
    assert set(lake.candles("spot", "*usdt", "1m")["symbol"]) == {"BNBUSDT", "BTCUSDT", "NEWUSDT"}
    assert set(lake.candles("spot", ["ETH*", "BTCUSDT"], "1m")["symbol"]) == {"BTCUSDT", "ETHBTC"}
    assert list(lake.candles("spot", ["BTCUSDT"], "1h")["symbol"]) == ["BTCUSDT"]
    assert set(lake.candles("spot", "btcusdt, ETH*", "1m")["symbol"]) == {"BTCUSDT", "ETHBTC"}
    index = lake.candles("spot", pd.Index(["BTCUSDT", "ETHBTC"]), "1m")
    assert len(index) == 7


def test_arrow_has_the_symbol_first(lake: Lake) -> None:
    """The Arrow table has the symbol, then the columns of the files, and equals SQL's."""
    table = lake.candles_arrow("spot", ["BTCUSDT", "ETHBTC", "BNBUSDT"], "1m")
    assert table.schema.equals(pa.schema([("symbol", pa.string()), *SCHEMA]))
    sql = f"""SELECT symbol, {", ".join(SCHEMA.names)} FROM candles
        WHERE "interval" = '1m' AND symbol != 'NEWUSDT' ORDER BY candle_begin_time, symbol"""
    assert lake.query(sql).arrow().cast(table.schema).equals(table.combine_chunks())


def test_foreign_files_of_each_symbol_are_read(tmp_path: Path) -> None:
    """Files of other tools belong to their own symbol, each candle once."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(0, symbol="ETHUSDT")])
    add_foreign(
        tmp_path, [rest_candle(0, symbol="ETHUSDT", source="archive"), rest_candle(1, symbol="ETHUSDT")]
    )
    table = open_lake(tmp_path).candles_arrow("spot", "*", "1m")
    assert table["symbol"].to_pylist() == ["BTCUSDT", "ETHUSDT", "ETHUSDT"]
    assert table["source"].to_pylist() == ["rest", "archive", "rest"]


def test_some_columns_are_those_of_all(tmp_path: Path) -> None:
    """A read of few columns finds the same winners: of the journal, of other tools' files, of duplicates in our file."""
    store = make_lake(
        tmp_path,
        [rest_candle(n, symbol=symbol) for symbol in ("A", "B", "C", "D") for n in range(3)],
        hot=[rest_candle(1, symbol="A", close=5.0, trade_num=99)],
    )
    add_foreign(tmp_path, [rest_candle(1, symbol="B", close=6.0, source="archive")])
    twice = [
        rest_candle(n, symbol="C", close=close, trade_num=count)
        for n in range(3)
        for close, count in ((7.0, 11), (8.0, 1))
    ]
    add_foreign(tmp_path, twice, "candles.parquet")
    whole = open_lake(tmp_path).candles("spot", "*", "1m")
    some = open_lake(tmp_path).candles("spot", "*", "1m", columns=["close"])
    pd.testing.assert_frame_equal(some, whole[["symbol", "close"]])
    wide = open_lake(tmp_path).matrix("close", "spot", ["D", "C", "B", "A"], "1m")
    assert wide.to_numpy().tolist() == [[101, 7, 101, 101], [102, 7, 6, 5], [103, 7, 103, 103]]
    name = f"{store.name}/market=spot/symbol=D/interval=1m/date=2024-06-30/candles.parquet"
    Path(name).write_bytes(Path(name).read_bytes()[:-9])
    with pytest.raises(LakeError, match="not a readable Parquet file"):
        open_lake(tmp_path).matrix("close", "spot", "*", "1m")


def test_each_symbol_is_filled_on_its_own(lake: Lake) -> None:
    """Each symbol is filled from its first to its last candle, or over the whole range."""
    frame = lake.candles("spot", ["BNBUSDT", "ETHBTC"], "1m", fill="gaps")
    assert dict(frame.groupby("symbol").size()) == {"BNBUSDT": 5, "ETHBTC": 4}
    assert frame["close"].isna().sum() == 1
    stop = BEGIN_MS + 10 * MINUTE_MS
    table = lake.candles_arrow(
        "spot", ["BNBUSDT", "ETHBTC"], "1m", "2024-06-30", pd.Timestamp(stop, unit="ms"), fill="gaps"
    )
    assert table["symbol"].to_pylist() == ["BNBUSDT", "ETHBTC"] * 10
    assert table["close"].null_count == 20 - 5 - 3
    with pytest.raises(UsageError, match="fill: from start to stop there are 63,"):
        lake.candles("spot", ["BNBUSDT", "ETHBTC"], "1m", "1970-01-01", "2030-01-01", fill="gaps")


@pytest.mark.parametrize(
    ("symbols", "interval", "said"),
    [
        ("BTCUSD", "1m", "spot has no symbol BTCUSD; there is BTCUSDT"),
        ("BTCUSDT", "15m", "spot BTCUSDT has no interval 15m; there are 1m, 1h: FROM resample("),
        ("*USDC", "1m", "spot has no symbol *USDC; there are BNBUSDT, BTCUSDT, ETHBTC, NEWUSDT"),
        (["BTCUSDT", "XYZ", "ABC"], "1m", "spot has no symbol XYZ; there are BNBUSDT, BTCUSDT, ETHBTC, NEWUSDT, and 1 more symbols have none"),
        (["ETHBTC", "BTCUSD"], "1h", "spot ETHBTC has no interval 1h; there is 1m"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_an_error(lake: Lake, symbols: str | list[str], interval: str, said: str) -> None:
    """An unknown symbol is an error with the command line's hint, never a missing symbol in the frame."""
    with pytest.raises(UsageError) as raised:
        lake.candles("spot", symbols, interval)
    assert raised.value.what.startswith(f"no candles: {said}")


def test_another_market_is_named(lake: Lake) -> None:
    """The error for a market without symbols names the markets that have some."""
    with pytest.raises(UsageError, match="there is no market coin_futures; there is spot"):
        lake.candles("coin_futures", "BTCUSD_PERP", "1m")


def test_days_without_candles_are_a_warning(lake: Lake) -> None:
    """The frame is empty with its columns, and the warning points to the caller's line."""
    with pytest.warns(EmptyAnswerWarning, match="none of the days asked for") as caught:
        frame = lake.candles("spot", "BTCUSDT", "1m", "2025-01-01", columns="ohlcv")
    assert list(frame.columns) == ["Open", "High", "Low", "Close", "Volume"] and frame.empty
    assert caught[0].filename == __file__
    with pytest.warns(EmptyAnswerWarning, match="none of the days asked for"):
        assert lake.candles("spot", "*USDT", "1m", "2025-01-01").empty
    with pytest.warns(EmptyAnswerWarning, match="start is later than stop"):
        assert lake.candles("spot", "BTCUSDT", "1m", "2024-07-01", "2024-06-30").empty


def test_a_series_without_its_first_candle_is_a_warning(tmp_path: Path) -> None:
    """A newly subscribed series without candles is a warning, not an error."""
    store = make_lake(tmp_path, [rest_candle(0)])
    series = Series("spot", "ETHUSDT", "1m")
    run = RecorderId("test", "journal")
    confirmation = Confirmation(run, [series], lambda _: True, {"spot": BEGIN_MS}, {series: BEGIN_MS}, True)
    confirm_subscriptions(store, confirmation)
    with pytest.warns(EmptyAnswerWarning, match="spot ETHUSDT 1m has none yet"):
        assert open_lake(tmp_path).candles("spot", "ETHUSDT", "1m").empty


@pytest.mark.parametrize("symbols", [[], [5], ["a b"], None, 5, "BTCUSDT,"])
def test_what_is_no_symbol_is_refused(lake: Lake, symbols: object) -> None:
    """An empty list and a number are errors."""
    with pytest.raises(UsageError):
        lake.candles("spot", symbols, "1m")  # type: ignore[arg-type]


def test_ohlcv_has_the_names_of_others(lake: Lake) -> None:
    """The columns have the names of vectorbt, backtesting.py and mplfinance; times are naive UTC on request."""
    frame = lake.candles("spot", "BTCUSDT", "1m", columns="ohlcv", tz=None, index="candle_begin_time")
    assert list(frame.columns) == ["Open", "High", "Low", "Close", "Volume"]
    assert frame.index.tz is None and str(frame.index[0]) == "2024-06-30 00:00:00"
    assert list(frame.iloc[0]) == [100.0, 102.0, 99.0, 101.0, 2.0]


def test_columns_index_and_zone_are_chosen(lake: Lake) -> None:
    """Columns of the lake in any order, with times in any zone."""
    frame = lake.candles("spot", "BTCUSDT", "1m", columns=["close", "source"], index="candle_begin_time")
    assert list(frame.columns) == ["close", "source"] and frame.index.name == "candle_begin_time"
    frame = lake.candles("spot", "BTCUSDT", "1m", tz="Asia/Shanghai")
    assert str(frame.index[0]) == "2024-06-30 08:01:00+08:00"
    assert str(frame["candle_begin_time"].iloc[0]) == "2024-06-30 08:00:00+08:00"
    frame = lake.candles("spot", "BTCUSDT", "1m", index="candle_begin_time")
    assert frame.columns[0] == "candle_end_time"


@pytest.mark.parametrize(
    "wrong",
    [{"columns": "ohlc"}, {"columns": ["price"]}, {"index": "time"}, {"tz": "Mars"}, {"tz": ""}, {"tz": 5}],
)
def test_wrong_shapes_are_usage_errors(lake: Lake, wrong: dict[str, object]) -> None:
    """The error has the wrong name and the choices."""
    with pytest.raises(UsageError):
        lake.candles("spot", "BTCUSDT", "1m", **wrong)  # type: ignore[arg-type]


def test_pandas_joins_trades_as_of_a_time(lake: Lake) -> None:
    """merge_asof joins frames of candles and of SQL with times that pandas parsed."""
    csv = "time,symbol,price\n2024-06-30 00:01:30Z,BTCUSDT,5\n2024-06-30 00:02:00Z,ETHBTC,6\n"
    trades = pd.read_csv(io.StringIO(csv), parse_dates=["time"])
    candles = lake.candles("spot", ["BTCUSDT", "ETHBTC"], "1m")
    joined = pd.merge_asof(trades, candles, left_on="time", right_index=True, by="symbol")
    assert list(joined["close"]) == [101.0, 101.0]
    asked = lake.query("SELECT candle_end_time, close FROM candles WHERE symbol = 'BTCUSDT' ORDER BY 1").df()
    joined = pd.merge_asof(trades, asked, left_on="time", right_on="candle_end_time")
    assert list(joined["close"]) == [101.0, 102.0]
    days = lake.query("SELECT DATE '2024-06-30' AS day").df()
    assert days["day"].dtype == pd.DatetimeIndex(["2024-06-30"]).dtype
