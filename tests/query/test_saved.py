"""Saved queries: their comments are parsed, and each of them runs."""

import math
from pathlib import Path

import numpy as np
import pytest

from lakewriter.errors import UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.query.python.reader import open_lake
from lakewriter.query.python.result import Result
from lakewriter.query.saved import Parameter, parse_query, saved_queries, saved_query
from lakewriter.query.session import run
from support.lakes import make_lake, rest_candle

NAMES = [query.name for query in saved_queries()]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Two days of BTCUSDT with a missing candle, and the first hour of ETHUSDT and two futures."""
    coin = [rest_candle(n, market="coin_futures", symbol="BTCUSD_PERP") for n in range(60)]
    future = [rest_candle(n, market="usdt_futures", close=202.0 + 2 * n) for n in range(60)]
    ether = [rest_candle(n, symbol="ETHUSDT", close=200.0 - n, open=200.0) for n in range(60)]
    return make_lake(
        tmp_path_factory.mktemp("saved"),
        [rest_candle(n) for n in range(2880) if n != 7] + ether + coin + future,
        hot=[rest_candle(2880)],
    )


def asked(store: LakeStore, name: str, **params: str) -> list[dict[str, object]]:
    query = saved_query(name)
    result = Result(run(store, query.sql, query.values(params)))
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows()]


def test_there_are_some() -> None:
    """The saved queries that README names exist."""
    assert {
        "daily_ohlcv",
        "resample",
        "vwap",
        "returns",
        "realised_volatility",
        "top_movers",
        "latest",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_on_its_defaults(lake: LakeStore, name: str) -> None:
    """Each saved query returns rows without any parameter."""
    assert asked(lake, name)


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_on_an_empty_lake(tmp_path: Path, name: str) -> None:
    """On an empty lake each saved query returns no rows, and no error."""
    assert asked(make_lake(tmp_path), name) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_explains_itself(name: str) -> None:
    """Its first line says what it answers, and each parameter has a description."""
    query = saved_query(name)
    assert query.title.endswith(".")
    assert all(parameter.what for parameter in query.parameters)


def test_daily_ohlcv_is_right(lake: LakeStore) -> None:
    """A day opens with its first candle, and closes with its last."""
    first, second, third = asked(lake, "daily_ohlcv")
    assert (first["open"], first["high"], first["low"], first["close"]) == (100.0, 1541.0, 99.0, 1540.0)
    assert (first["volume"], first["trade_num"], first["candles"]) == (2 * 1439, 10 * 1439, 1439)
    assert [row["complete"] for row in (first, second, third)] == [False, True, False]
    assert second["candles"] == 1440
    assert third["candles"] == 1


def test_resample_is_right(lake: LakeStore) -> None:
    """A longer candle combines all candles that begin in it, and has their number."""
    rows = asked(lake, "resample", bucket="5 minutes", until="2024-06-30T00:10:00Z")
    assert [(row["open"], row["close"], row["high"], row["low"], row["candles"]) for row in rows] == [
        (100.0, 105.0, 106.0, 99.0, 5),
        (105.0, 110.0, 111.0, 104.0, 4),
    ]
    months = asked(lake, "resample", bucket="1 month")
    assert [str(row["candle_begin_time"])[:10] for row in months] == ["2024-06-01", "2024-07-01"]
    assert str(months[0]["candle_end_time"])[:10] == "2024-07-01"


def test_vwap_is_right(lake: LakeStore) -> None:
    """The price is quote volume over volume; on coin futures the contracts weigh the prices."""
    there = [n for n in range(1440) if n != 7]
    assert asked(lake, "vwap")[0]["vwap"] == pytest.approx(100.5 + sum(there) / len(there))
    coin = asked(lake, "vwap", market="coin_futures", symbol="BTCUSD_PERP")
    typical = [(102 + n + 99 + n + 101 + n) / 3 for n in range(60)]
    assert coin[0]["vwap"] == pytest.approx(sum(typical) / 60)


def test_returns_are_right(lake: LakeStore) -> None:
    """The first bucket has no return, and each other one compares closes."""
    first, second, _ = asked(lake, "returns")
    assert first["simple_return"] is None
    assert second["simple_return"] == pytest.approx(2980 / 1540 - 1)
    assert second["log_return"] == pytest.approx(math.log(2980 / 1540))


def test_realised_volatility_skips_gaps(lake: LakeStore) -> None:
    """A missing candle removes two returns, and no return spans the gap."""
    first = asked(lake, "realised_volatility")[0]
    closes = [101.0 + n for n in range(1440)]
    returns = [math.log(closes[n] / closes[n - 1]) for n in range(1, 1440) if n not in (7, 8)]
    assert first["returns"] == len(returns) == 1437
    assert first["realised_volatility"] == pytest.approx(math.sqrt(sum(r * r for r in returns)))


def test_top_movers_are_sorted_by_size_of_the_move(tmp_path: Path) -> None:
    """The largest moves come first, upward or downward."""
    store = make_lake(
        tmp_path,
        [rest_candle(0, symbol="AUSDT", open=100.0, close=110.0), rest_candle(0, symbol="BUSDT", open=100.0, close=50.0),
         rest_candle(-3000, symbol="OLDUSDT")],
    )  # fmt: skip
    assert [row["symbol"] for row in asked(store, "top_movers")] == ["BUSDT", "AUSDT"]
    assert [row["symbol"] for row in asked(store, "top_movers", rows="1")] == ["BUSDT"]


def test_basis_takes_the_last_spot_price(lake: LakeStore) -> None:
    """Each close of the future is compared with spot's close at that time, or the last one before it."""
    rows = asked(lake, "basis")
    assert len(rows) == 60
    assert rows[5]["basis_percent"] == pytest.approx(100.0)
    assert (rows[5]["spot_age"], rows[7]["spot_age"]) == ((0, 0, 0), (0, 0, 60_000_000_000))
    assert (rows[7]["future"], rows[7]["spot"]) == (216.0, 107.0)


def test_correlation_is_right(lake: LakeStore) -> None:
    """The correlation is Pearson's, of the log returns of candles that both symbols have, without gaps."""
    [row] = asked(lake, "correlation")
    steps = [n for n in range(1, 60) if n not in (7, 8)]
    bitcoin = [math.log((101 + n) / (100 + n)) for n in steps]
    ether = [math.log((200 - n) / (201 - n)) for n in steps]
    assert row["returns"] == len(steps)
    assert row["correlation"] == pytest.approx(np.corrcoef(bitcoin, ether)[0, 1])


def test_latest_is_one_row_a_series(lake: LakeStore) -> None:
    """Each series has its newest candle, journal included."""
    rows = asked(lake, "latest")
    assert [(row["market"], row["symbol"], row["close"]) for row in rows] == [
        ("coin_futures", "BTCUSD_PERP", 160.0),
        ("spot", "BTCUSDT", 2981.0),
        ("spot", "ETHUSDT", 141.0),
        ("usdt_futures", "BTCUSDT", 320.0),
    ]
    assert [row["close"] for row in asked(lake, "latest", since="2024-07-02")] == [2981.0]


def test_coverage_by_day_counts_what_is_missing(lake: LakeStore) -> None:
    """A day's missing candles are its grid's candles without those in the lake."""
    assert [(row["candles"], row["missing"]) for row in asked(lake, "coverage_by_day")] == [
        (1439, 1),
        (1440, 0),
        (1, 1439),
    ]


def test_parameters_select(lake: LakeStore) -> None:
    """Given values replace the defaults."""
    assert asked(lake, "daily_ohlcv", symbol="ETHUSDT")[0]["candles"] == 60
    assert asked(lake, "daily_ohlcv", since="2024-07-01", until="2024-07-02")[0]["candles"] == 1440
    assert asked(lake, "daily_ohlcv", symbol="' OR true --") == []


def test_comments_become_parameters() -> None:
    """The comments at the beginning give the names, defaults and descriptions; later ones do not."""
    query = parse_query(
        "x",
        "-- What it says.\n-- more\n-- :a = 1 day   how long\n--:b=\n-- :c = x y\n\n-- :d = 1  no\nSELECT 1",
    )
    assert query.title == "What it says."
    assert query.parameters == (
        Parameter("a", "1 day", "how long"),
        Parameter("b", "", ""),
        Parameter("c", "x y", ""),
    )


def test_unknown_parameter_names_the_known_ones() -> None:
    """The error for an unknown parameter lists the known ones."""
    with pytest.raises(UsageError, match="query vwap: there is no parameter sybmol") as raised:
        saved_query("vwap").values({"sybmol": "x"})
    assert "symbol" in raised.value.hint
    assert raised.value.exit_code == 2


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory of the user's own queries."""
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / "closes.sql").write_text(
        "-- The closes of a symbol.\n-- :symbol = BTCUSDT   in upper case\n-- :since = 1970-01-01\n"
        "SELECT count(*) AS n, max(close) AS close FROM candles\n"
        "WHERE symbol = $symbol AND candle_begin_time >= $since::TIMESTAMPTZ AND market = 'spot'"
    )
    (directory / "latest.sql").write_text("-- Mine.\nSELECT $x AS mine")
    (directory / "not a name.sql").write_text("SELECT 1")
    (directory / "notes.txt").write_text("no query")
    return directory


def test_a_users_own_directory_comes_first(own: Path) -> None:
    """Own files are beside the shipped ones, and before one of the same name."""
    names = [query.name for query in saved_queries(own)]
    assert names == sorted({*NAMES, "closes"})
    assert saved_query("latest", own).title == "Mine."
    assert saved_query("latest").title != "Mine."
    with pytest.raises(UsageError, match="closse is neither SQL") as raised:
        saved_query("closse", own)
    assert raised.value.hint.startswith("did you mean closes?")


def test_python_runs_saved_queries(lake: LakeStore, own: Path) -> None:
    """A name in place of SQL runs the saved query, with its defaults, ages and checks."""
    opened = open_lake(lake.root, queries=own)
    assert opened.query("closes").rows() == [(2880, 2981.0)]
    assert opened.query(" closes ", {"symbol": "ETHUSDT"}).rows() == [(60, 200.0)]
    assert opened.query("latest", {"x": 7}).rows() == [(7,)]
    with opened.stream("closes", {"since": "3d"}) as answer:
        assert [batch.to_pylist() for batch in answer.batches] == [[{"n": 0, "close": None}]]
    assert open_lake(lake.root).query("vwap").rows() == opened.query("vwap", {"symbol": "btcusdt"}).rows()
    assert [query.name for query in opened.saved_queries()] == [query.name for query in saved_queries(own)]
    with pytest.raises(UsageError, match="query closes: there is no parameter sybmol"):
        opened.query("closes", {"sybmol": "x"})
    with pytest.raises(UsageError, match="there is no parameter y"):
        opened.query("latest", {"x": 1, "y": 2})
    with pytest.raises(UsageError, match="candels is neither SQL nor a saved query"):
        opened.query("candels")


def test_an_unreadable_directory_is_one_line(tmp_path: Path, own: Path) -> None:
    """A missing directory, a file in place of one, and a file that is no text are told by name."""
    for path, reason in (
        (tmp_path / "none", "No such file or directory"),
        (own / "notes.txt", "Not a directory"),
        (Path("~nobody-here"), "home directory"),
    ):
        with pytest.raises(UsageError, match=f"queries: {path}: .*{reason}"):
            saved_query("vwap", path)
    (own / "bad.sql").write_bytes(b"SELECT '\xff'")
    with pytest.raises(UsageError, match=r"query bad: .*bad\.sql: is not UTF-8 text"):
        saved_query("bad", own)
    (own / "folder.sql").mkdir()
    with pytest.raises(UsageError, match=r"query folder: .*folder\.sql: Is a directory"):
        saved_query("folder", own)


def test_the_list_leaves_out_an_unreadable_file(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no text hides no other query, and is named in a warning."""
    all_before = saved_queries(own)
    (own / "bad.sql").write_bytes(b"SELECT '\xff'")
    assert saved_queries(own) == all_before
    assert caplog.messages == [f"query bad: {own / 'bad.sql'}: is not UTF-8 text"]


def test_unknown_name_suggests() -> None:
    """The error for an unknown name suggests the nearest, and says how to list all."""
    with pytest.raises(UsageError, match="vwpa is neither SQL nor a saved query") as raised:
        saved_query("vwpa")
    assert raised.value.hint == "did you mean vwap? lakewriter query --list shows them all"
    for name in ("../queries/vwap", "vwap.sql", "", "/etc/passwd"):
        with pytest.raises(UsageError):
            saved_query(name)
