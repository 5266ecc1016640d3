"""The table macros: their numbers equal those of pandas and numpy, and they open no unneeded file."""

import math
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.candle import SCHEMA
from lakewriter.errors import EmptyAnswerWarning
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake import compact
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.query.errors import QueryError
from lakewriter.query.macros import MACROS, YEAR_MS
from lakewriter.query.python.reader import open_lake
from lakewriter.query.python.result import Result
from lakewriter.query.session import run
from support.compaction import plan_compaction
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, write_parquet
from support.lengths import LONG, examples
from support.watched_lake import WatchedLake, watched

YEARLY = YEAR_MS / 60_000

__all__ = ["watched"]  # the fixture


def frame(store: LakeStore, sql: str, **params: object) -> pd.DataFrame:
    found: pd.DataFrame = Result(run(store, sql, params or None)).df()
    return found


PRICES = st.floats(1, 1000, allow_nan=False)
DRAWN = st.dictionaries(
    st.integers(0, 2 * 1440), st.tuples(PRICES, PRICES, st.integers(0, 50)), min_size=1, max_size=60
)


def series(drawn: dict[int, tuple[float, float, int]], **fields: object) -> list[Any]:
    return [
        rest_candle(
            number,
            open=opened,
            close=closed,
            high=max(opened, closed) + 1,
            low=min(opened, closed) / 2,
            volume=float(traded),
            quote_volume=traded * (opened + closed) / 2,
            trade_num=traded,
            **fields,
        )
        for number, (opened, closed, traded) in drawn.items()
    ]


def as_frame(candles: list[Any]) -> pd.DataFrame:
    """Return candles as a pandas frame indexed by begin time, ascending."""
    rows = pd.DataFrame(
        {
            name: [getattr(one, name) for one in candles]
            for name in ("begin_ms", "open", "high", "low", "close", "volume", "quote_volume", "trade_num")
        }
    )
    rows.index = pd.DatetimeIndex(pd.to_datetime(rows.pop("begin_ms"), unit="ms", utc=True))
    return rows.sort_index()


def steps(rows: pd.DataFrame) -> pd.Series:
    """The log returns of the candles that directly follow another candle."""
    grid = rows["close"].asfreq("min")
    return np.log(grid / grid.shift()).dropna()


@pytest.mark.slow
@examples(3, 12, suppress_health_check=list(HealthCheck))
@given(
    drawn=DRAWN,
    other=DRAWN,
    bucket=st.sampled_from([("15m", "15min"), ("1h", "60min"), ("7h", "420min"), ("1d", "1440min")]),
)
def test_numbers_are_those_of_pandas(
    drawn: dict[int, tuple[float, float, int]],
    other: dict[int, tuple[float, float, int]],
    bucket: tuple[str, str],
) -> None:
    """Buckets, averages, returns, volatilities and correlations equal those of pandas for any candles."""
    width, rule = bucket
    mine, theirs = series(drawn), series(other, symbol="ETHUSDT")
    with tempfile.TemporaryDirectory() as directory:
        store = make_lake(Path(directory), mine[::2] + theirs, hot=mine[1::2])
        _check_buckets(store, as_frame(mine), width, rule)
        _check_steps(store, as_frame(mine), as_frame(theirs), width, rule)


def _grouped(rows: Any, rule: str) -> Any:
    return rows.resample(rule, origin=pd.Timestamp("2000-01-03", tz="UTC"))


def _check_buckets(store: LakeStore, rows: pd.DataFrame, width: str, rule: str) -> None:
    found = frame(store, "FROM resample('spot', 'btcusdt', '1m', $b)", b=width).set_index("candle_begin_time")
    expected = _grouped(rows, rule).agg(
        {
            "open": "first",
            "high": "max",
            "low": "min",
            "close": "last",
            "volume": "sum",
            "quote_volume": "sum",
        }
    )
    counts = _grouped(rows, rule).size()
    expected = expected[counts > 0]
    assert list(found.index) == list(expected.index)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name])
    assert list(found["candles"]) == list(counts[counts > 0])
    length = pd.Timedelta(rule)
    assert set(found["candle_end_time"] - found.index) == {length}
    assert set(found["expected"]) == {length // pd.Timedelta("1min")}
    assert list(found["complete"]) == list(found["candles"] == found["expected"])
    vwap = frame(store, "FROM vwap('spot', 'BTCUSDT', '1m', $b)", b=width)["vwap"]
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(
            vwap.astype(float), np.where(expected["volume"], expected["quote_volume"] / expected["volume"], np.nan)
        )  # fmt: skip


def _check_steps(store: LakeStore, rows: pd.DataFrame, others: pd.DataFrame, width: str, rule: str) -> None:
    mine, theirs = steps(rows), steps(others)
    found = frame(store, "FROM returns('spot', 'BTCUSDT', '1m')").set_index("candle_begin_time")
    assert list(found.index) == list(rows.index)
    there = found["log_return"].dropna()
    assert list(there.index) == list(mine.index)
    np.testing.assert_allclose(there, mine, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.log1p(found["simple_return"].dropna()), mine, rtol=1e-9, atol=1e-12)

    squares = _grouped(mine**2, rule).agg(["sum", "count"])
    squares = squares[squares["count"] > 0]
    moved = frame(store, "FROM realised_volatility('spot', 'BTCUSDT', '1m', $b)", b=width)
    assert list(moved["candle_begin_time"]) == list(squares.index)
    np.testing.assert_allclose(moved["realised_volatility"], np.sqrt(squares["sum"]), rtol=1e-9)
    np.testing.assert_allclose(
        moved["annualised"], np.sqrt(squares["sum"] / squares["count"] * YEARLY), rtol=1e-9
    )

    both = pd.DataFrame({"a": mine, "b": theirs}).dropna()
    together = frame(store, "FROM correlation('spot', 'BTCUSDT', '1m', 'ETHUSDT', $b)", b=width)
    groups = [(at, group) for at, group in _grouped(both, rule) if len(group)] if len(both) else []
    assert list(together["candle_begin_time"]) == [at for at, _ in groups]
    for (_, group), row in zip(groups, together.to_dict("records"), strict=True):
        assert row["returns"] == len(group)
        if len(group) > 1 and group["a"].nunique() > 1 and group["b"].nunique() > 1:
            (a_a, a_b), (_, b_b) = np.cov(group["a"], group["b"])
            assert row["correlation"] == pytest.approx(a_b / math.sqrt(a_a * b_b), rel=1e-6, abs=1e-6)
            assert row["beta"] == pytest.approx(a_b / b_b, rel=1e-6, abs=1e-6)
        else:
            assert row["correlation"] is None or math.isnan(row["correlation"])


# Of each interval in `lake`; so many half days have a whole month among them.
COUNT = 80


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """COUNT candles of each interval, from 2024-06-24 (a Monday) on."""
    start_ms = BEGIN_MS - 6 * DAY_MS
    candles = []
    for interval in INTERVALS.values():
        grid = interval.anchored(start_ms)
        begin_ms = grid.floor(start_ms)
        for _ in range(COUNT):
            end_ms = grid.end(begin_ms)
            fields = {"interval": interval.name, "begin_ms": begin_ms, "end_ms": end_ms}
            candles.append(msgspec.structs.replace(rest_candle(len(candles)), **fields))
            begin_ms = grid.end(begin_ms)
    return make_lake(tmp_path_factory.mktemp("macros"), candles)


@pytest.mark.parametrize(
    ("interval", "bucket", "expected"),
    [
        ("1s", "'5s'", {5}),
        ("1m", "INTERVAL '4 minutes'", {4}),
        ("1h", "'1d'", {24}),
        ("1h", "'1h'", {1}),
        ("1d", "'7d'", {7}),
        ("1d", "'1w'", {7}),
        ("1d", "'1mo'", {30, 31}),
        ("1d", "'1M'", {30, 31}),
        ("12h", "INTERVAL 1 MONTH", {60, 62}),
        ("3d", "'3d'", {1}),
        ("1w", "'2w'", {2}),
        ("1mo", "'1mo'", {1}),
        ("1M", "'1M'", {1}),
        ("1mo", "'3mo'", {3}),
        ("1mo", "'1 year'", {12}),
    ],
)
def test_a_bucket_knows_how_many_candles_make_it(
    lake: LakeStore, interval: str, bucket: str, expected: set[int]
) -> None:
    """A bucket is complete if it has all its candles; a month's number follows the calendar."""
    found = frame(lake, f"FROM resample('spot', 'BTCUSDT', $i, {bucket})", i=interval)
    assert set(found["expected"]) == expected
    assert found["candles"].sum() == COUNT
    assert found["complete"].any()
    assert list(found["complete"]) == list(found["candles"] == found["expected"])
    assert list(found["candle_begin_time"])[1:] == list(found["candle_end_time"])[:-1]


@pytest.mark.parametrize(
    ("interval", "bucket"),
    [("1m", "'90s'"), ("1h", "'1m'"), ("1w", "'1mo'"), ("1mo", "'30d'"), ("3d", "'6d'"), ("8h", "'12h'")],
)
def test_a_bucket_that_would_cut_candles_is_refused(lake: LakeStore, interval: str, bucket: str) -> None:
    """A bucket that would split a candle is an error."""
    with pytest.raises(QueryError, match=f"is not made of whole {interval} candles"):
        run(lake, f"FROM resample('spot', 'BTCUSDT', '{interval}', {bucket})")


CALLS = {
    "candles_of": "'spot', 'BTCUSDT', $i",
    "filled": "'spot', 'BTCUSDT', $i",
    "latest": "",
    "resample": "'spot', 'BTCUSDT', $i, $i",
    "returns": "'spot', 'BTCUSDT', $i",
    "vwap": "'spot', 'BTCUSDT', $i, bucket := $i",
    "realised_volatility": "'spot', 'BTCUSDT', $i, bucket := $i",
    "correlation": "'spot', 'BTCUSDT', $i, 'BTCUSDT', bucket := $i",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MACROS)
def test_every_interval_can_be_asked_for(lake: LakeStore, name: str) -> None:
    """Each macro works for each interval."""
    for interval in INTERVALS if LONG else ("1m", "1h", "3d", "1w", "1mo"):
        params = {"i": interval} if "$i" in CALLS[name] else {}
        assert len(frame(lake, f"FROM {name}({CALLS[name]})", **params)) in (16, COUNT - 1, COUNT)


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(tmp_path_factory.mktemp("nothing"))


@pytest.mark.parametrize("name", MACROS)
def test_an_empty_lake_has_empty_answers(nothing: LakeStore, name: str) -> None:
    """In an empty lake each macro returns no rows and no error."""
    sql = f"FROM {name}({CALLS[name].replace('$i', chr(39) + '1h' + chr(39))})"
    assert run(nothing, sql).num_rows == 0


@pytest.mark.parametrize(
    ("interval", "yearly"), [("1s", 31_536_000), ("1h", 8760), ("1w", 365 / 7), ("1mo", 12)]
)
def test_a_year_has_so_many_candles(lake: LakeStore, interval: str, yearly: float) -> None:
    """The annualised volatility is that of one candle, times the root of the candles in 365 days."""
    found = frame(lake, "FROM realised_volatility('spot', 'BTCUSDT', $i, $i)", i=interval)
    np.testing.assert_allclose(found["annualised"] / found["realised_volatility"], math.sqrt(yearly))


def test_a_return_of_a_price_that_is_none(tmp_path: Path) -> None:
    """A price of zero has no return, before or after it."""
    store = make_lake(tmp_path, [rest_candle(n, close=close) for n, close in enumerate((2.0, 0.0, 2.0, 3.0))])
    found = run(store, "FROM returns('spot', 'BTCUSDT', '1m')").column("log_return").to_pylist()
    assert found == [None, None, None, pytest.approx(math.log(1.5))]


def test_two_markets_can_be_compared(tmp_path: Path) -> None:
    """`other_market` sets the market of the other symbol."""
    prices = [3.0, 5.0, 4.0, 7.0, 6.0]
    spot = [rest_candle(n, close=price) for n, price in enumerate(prices)]
    future = [rest_candle(n, close=price**2, market="usdt_futures") for n, price in enumerate(prices)]
    store = make_lake(tmp_path, spot + future)
    sql = "FROM correlation('usdt_futures', 'BTCUSDT', '1m', 'BTCUSDT', other_market := 'spot')"
    [row] = run(store, sql).to_pylist()
    assert (row["returns"], row["correlation"], row["beta"]) == (4, pytest.approx(1), pytest.approx(2))


def test_latest_is_the_newest_of_each_series(tmp_path: Path) -> None:
    """`latest` has one row per series, journal included, without series that ended before `since`."""
    store = make_lake(
        tmp_path,
        [rest_candle(n, symbol=s) for n in range(3) for s in ("A", "B")],
        [rest_candle(1440, symbol="B")],
    )
    assert list(frame(store, "FROM latest()")["close"]) == [103.0, 1541.0]
    assert list(frame(store, "FROM latest(since := '2024-07-01')")["symbol"]) == ["B"]
    assert list(frame(store, "FROM latest() WHERE symbol = 'A'")["symbol"]) == ["A"]


def test_latest_looks_behind_a_day_of_nothing(tmp_path: Path) -> None:
    """A foreign file without rows hides no series, before a compaction or after it."""
    store = make_lake(tmp_path, [rest_candle(0)])
    write_parquet(tmp_path, partition_of(rest_candle(1440)).path, SCHEMA.empty_table())
    assert list(frame(store, "FROM latest()")["close"]) == [101.0]
    assert [
        outcome.error
        for outcome in compact.compact_partitions(store, plan_compaction(store).work, time.time())
    ] == ["", ""]
    assert list(frame(store, "FROM latest()")["close"]) == [101.0]


FILES = st.lists(
    st.tuples(
        st.sampled_from(["AUSDT", "BUSDT"]),
        st.integers(0, 4),  # day
        st.integers(0, 1439),  # minute
        st.sampled_from(["own", "foreign", "hot", "empty"]),
    ),
    max_size=12,
)


@pytest.mark.slow
@examples(10, 40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=FILES, since=st.sampled_from(["1970-01-01", "2024-07-01", "2024-07-02 07:00"]))
def test_latest_is_what_all_candles_say(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int, str]], since: str
) -> None:
    """`latest` returns each symbol's newest candle, from own, foreign and empty files and the journal."""
    candles: dict[str, list[Any]] = {kind: [] for kind in ("own", "foreign", "hot", "empty")}
    for symbol, day, minute, kind in rows:
        candles[kind].append(rest_candle(day * 1440 + minute, symbol=symbol))
    store = make_lake(tmp_path_factory.mktemp("lake"), candles["own"], candles["hot"])
    for number, one in enumerate(candles["foreign"]):
        add_foreign(store.root, [one], f"part-{number}.parquet")
    for one in candles["empty"]:
        write_parquet(store.root, partition_of(one).path, SCHEMA.empty_table(), "empty.parquet")
    slow = f"""FROM candles WHERE candle_begin_time >= '{since}'
        QUALIFY row_number() OVER (PARTITION BY symbol ORDER BY candle_begin_time DESC) = 1 ORDER BY symbol"""
    assert run(store, f"FROM latest(since := '{since}')").equals(run(store, slow))


SYMBOLS = ["AUSDT", "BUSDT", "BEUR", "币USDT"]
LISTS: list[tuple[str, list[str]]] = [
    ("['AUSDT', 'BUSDT']", ["AUSDT", "BUSDT"]),
    ("['busdt', 'ausdt', 'ausdt']", ["AUSDT", "BUSDT"]),
    ("'BUSDT,AUSDT'", ["AUSDT", "BUSDT"]),
    ("'AUSDT, BUSDT'", ["AUSDT", "BUSDT"]),
    ("['AUSDT']", ["AUSDT"]),
    ("'*USDT'", ["AUSDT", "BUSDT", "币USDT"]),
    ("'b*'", ["BEUR", "BUSDT"]),
    ("'?USDT'", ["AUSDT", "BUSDT", "币USDT"]),
    ("['B*', '币USDT']", ["BEUR", "BUSDT", "币USDT"]),
    ("'B[EU]*'", ["BEUR", "BUSDT"]),
    ("['B[E]*', 'AUSDT']", ["AUSDT", "BEUR"]),
    ("'*'", sorted(SYMBOLS)),
    ("['NONE', 'BEUR']", ["BEUR"]),
    ("'X*'", []),
    ("[]", []),
    ("'A\"USDT,AUSDT'", ["AUSDT"]),
    ("'AUSDT.*'", []),
]


@pytest.fixture(scope="module")
def symbols(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Two days of four symbols, each with a gap and prices of its own; part of one in the journal."""
    candles = [
        rest_candle(n, symbol=symbol, close=float(10 * at + n % 7 + 1), volume=float(at + n % 3))
        for at, symbol in enumerate(SYMBOLS, 1)
        for n in range(1000, 1800)
        if n % 7 != at
    ]
    return make_lake(tmp_path_factory.mktemp("symbols"), candles[:-50], hot=candles[-50:])


@pytest.mark.parametrize(("written", "expected"), LISTS)
def test_lists_and_globs_are_several_symbols(symbols: LakeStore, written: str, expected: list[str]) -> None:
    """A list, a text with commas and a glob choose symbols; each has the rows it has alone."""
    found = run(symbols, f"FROM candles_of('spot', {written}, '1m') ORDER BY symbol, candle_begin_time")
    names = ", ".join(f"'{symbol}'" for symbol in expected) or "''"
    assert found.equals(
        run(symbols, f"FROM candles WHERE symbol IN ({names}) ORDER BY symbol, candle_begin_time")
    )
    assert sorted(set(found["symbol"].to_pylist())) == expected


@pytest.mark.parametrize("name", [name for name in MACROS if name != "latest"])
def test_symbols_do_not_mix(symbols: LakeStore, name: str) -> None:
    """Each symbol of a glob has the numbers that it has alone, in the order of symbols and times."""
    call = CALLS[name].replace("$i", "'1h'", 2).replace("'1h'", "'1m'", 1)
    several = run(symbols, f"FROM {name}({call.replace('BTCUSDT', '*USDT', 1).replace('BTCUSDT', 'BEUR')})")
    alone = [
        run(symbols, f"FROM {name}({call.replace('BTCUSDT', symbol, 1).replace('BTCUSDT', 'BEUR')})")
        for symbol in ("AUSDT", "BUSDT", "币USDT")
    ]
    order = [("symbol", "ascending"), ("candle_begin_time", "ascending")]
    if name == "candles_of":
        several, alone = several.sort_by(order), [each.sort_by(order) for each in alone]
    assert several.equals(pa.concat_tables(alone))
    assert several.num_rows > 30 or name in ("vwap", "realised_volatility", "correlation")


def test_only_symbol_of_a_correlation_is_compared_with(symbols: LakeStore) -> None:
    """A second list would compare each with each; that is told."""
    with pytest.raises(QueryError, match="other: B\\* is not one symbol"):
        run(symbols, "FROM correlation('spot', 'AUSDT', '1m', 'B*')")


@pytest.fixture(scope="module")
def two_weeks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LakeStore]:
    """Return by month the lakes of two weeks in which clocks are changed."""
    found = {}
    for month in (3, 11):
        begin = pd.Timestamp(f"2024-{month:02}-01", tz="UTC")
        first = int((begin - pd.Timestamp(BEGIN_MS, unit="ms", tz="UTC")) / pd.Timedelta("15min"))
        candles = [rest_candle(first + n, interval="15m", close=float(n)) for n in range(96 * 14)]
        found[month] = make_lake(tmp_path_factory.mktemp("weeks"), candles)
    return found


@pytest.mark.parametrize(
    ("zone", "shift", "bucket"),
    [
        ("Asia/Shanghai", "0s", "1d"),
        ("Asia/Shanghai", "8h", "1d"),
        ("America/New_York", "17h", "1d"),
        ("America/New_York", "0s", "1h"),
        ("America/New_York", "0s", "4h"),
        ("Asia/Kolkata", "0s", "1h"),
        ("Asia/Kolkata", "-15m", "4h"),
        ("UTC", "8h", "1d"),
        ("UTC", "30m", "1h"),
        ("America/New_York", "0s", "1mo"),
        ("Asia/Tokyo", "12h", "1w"),
    ],
)
@pytest.mark.parametrize("month", [3, 11])
def test_days_begin_where_a_zone_says(
    two_weeks: dict[int, LakeStore], zone: str, shift: str, bucket: str, month: int
) -> None:
    """Buckets by the clock of a zone, in weeks whose clocks are changed: no candle lost or counted twice.

    An hour that the clock shows twice is two hours; a day of 23 or 25 hours expects as many candles.
    """
    begin = pd.Timestamp(f"2024-{month:02}-01", tz="UTC")
    found = frame(
        two_weeks[month],
        "FROM resample('spot', 'BTCUSDT', '15m', $b, zone := $z, shift := $s)", b=bucket, z=zone, s=shift,
    )  # fmt: skip
    times = pd.date_range(begin, periods=96 * 14, freq="15min")
    clock = (times.tz_convert(zone).tz_localize(None)) - pd.Timedelta(shift)
    starts = {
        "1d": lambda: clock.floor("D"),
        "1h": lambda: times - (clock - clock.floor("h")),
        "4h": lambda: clock.floor("4h"),
        "1mo": lambda: clock.to_period("M").start_time,
        "1w": lambda: clock.to_period("W-SUN").start_time,
    }[bucket]()
    if bucket != "1h":
        starts = (starts + pd.Timedelta(shift)).tz_localize(zone).tz_convert("UTC")
    expected = pd.Series(range(len(times))).groupby(starts)
    assert list(found["candle_begin_time"]) == list(expected.last().index)
    assert list(found["close"]) == list(expected.last())
    assert list(found["candles"]) == list(expected.size())
    assert list(found["candle_begin_time"])[1:] == list(found["candle_end_time"])[:-1]
    assert list(found["complete"][1:-1]) == [True] * (len(found) - 2)
    assert found["candles"].sum() == len(times)


@pytest.mark.parametrize("name", ["returns", "vwap", "realised_volatility", "correlation"])
def test_all_macros_with_buckets_follow_a_zone(symbols: LakeStore, name: str) -> None:
    """The buckets of each macro are those of resample."""
    call = (
        CALLS[name]
        .replace("BTCUSDT", "AUSDT", 1)
        .replace("BTCUSDT", "BEUR")
        .replace("bucket := $i", "bucket := '1d'")
    )
    call = call.replace("$i", "'1m'") + (", bucket := '1d'" if name == "returns" else "")
    clock = "zone := 'Asia/Shanghai', shift := '8h30m'"
    found = frame(symbols, f"FROM {name}({call}, {clock})")["candle_begin_time"]
    bars = frame(symbols, f"FROM resample('spot', 'AUSDT', '1m', '1d', {clock})")["candle_begin_time"]
    assert set(found) <= set(bars)
    assert {str(begin)[11:19] for begin in found} == {"00:30:00"}


@pytest.mark.parametrize(
    ("interval", "clock"),
    [
        ("1m", "shift := '30s'"),
        ("1h", "zone := 'Asia/Kolkata'"),
        ("1d", "shift := '8h'"),
        ("1w", "shift := '1d'"),
    ],
)
def test_a_clock_that_would_cut_candles_is_refused(lake: LakeStore, interval: str, clock: str) -> None:
    """Where a bucket would begin within a candle, the answer would be wrong."""
    bucket = "'2w'" if interval == "1w" else "'7d'"
    with pytest.raises(QueryError, match=f"is within a candle of {interval}"):
        run(lake, f"FROM resample('spot', 'BTCUSDT', '{interval}', {bucket}, {clock})")


def test_an_unknown_zone_or_shift_is_one_line(lake: LakeStore) -> None:
    """The engine's own words name it."""
    with pytest.raises(QueryError, match="Unknown TimeZone 'Mars/Olympus'"):
        run(lake, "FROM resample('spot', 'BTCUSDT', '1m', '1d', zone := 'Mars/Olympus')")
    with pytest.raises(QueryError, match="'noon'"):
        run(lake, "FROM resample('spot', 'BTCUSDT', '1m', '1d', shift := 'noon')")


HOLEY = ("1m", "1h", "3d", "1w", "1mo")


@pytest.fixture(scope="module")
def holey(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Twenty candles of each interval of HOLEY, of which some are missing."""
    candles = []
    for interval in HOLEY:
        grid = INTERVALS[interval].anchored(BEGIN_MS)
        begin_ms = grid.floor(BEGIN_MS)
        for number in range(20):
            if number not in (0, 3, 4, 9):
                fields = {"interval": interval, "begin_ms": begin_ms, "end_ms": grid.end(begin_ms)}
                candles.append(msgspec.structs.replace(rest_candle(number), **fields))
            begin_ms = grid.end(begin_ms)
    return make_lake(tmp_path_factory.mktemp("holey"), candles)


@pytest.mark.parametrize("interval", HOLEY)
@pytest.mark.parametrize(
    ("since", "until"),
    [(None, None), ("2024-06-20", None), (None, "2024-07-30 12:34"), ("2024-07-02", "2024-07-20")],
)
def test_filled_is_what_python_fills(
    holey: LakeStore, interval: str, since: str | None, until: str | None
) -> None:
    """A row of NULL for each missing candle, as `Lake.candles_arrow(…, fill="gaps")` has it."""
    span = ", ".join(f"{name} := '{value}'" for name, value in (("since", since), ("until", until)) if value)
    found = run(holey, f"FROM filled('spot', 'btcusdt', '{interval}'{', ' if span else ''}{span})")
    with warnings.catch_warnings(action="ignore", category=EmptyAnswerWarning):
        expected = open_lake(holey.root).candles_arrow("spot", "BTCUSDT", interval, since, until, fill="gaps")
    assert found.select(SCHEMA.names).cast(SCHEMA).equals(expected.combine_chunks())
    assert set(found["symbol"].to_pylist()) <= {"BTCUSDT"}
    days = found["candle_begin_time"].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    assert found["date"].to_pylist() == days.to_pylist()


@pytest.mark.parametrize(
    "arguments",
    [
        "'BTCUSDT', '1s', until := '2099-01-01'",
        # 12.6 million minutes for each of them
        "['A', 'B', 'C'], '1m', since := '2000-01-01', until := '2024-01-01'",
    ],
)
def test_filled_has_a_limit(lake: LakeStore, arguments: str) -> None:
    """A range that is a mistake is told before memory is asked for, however many symbols share it."""
    with pytest.raises(QueryError, match="filled: from since to until there are more than 32000000 candles"):
        run(lake, f"FROM filled('spot', {arguments})")


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("'90m'", 2),
        ("'2h'", 3),
        ("INTERVAL 90 MINUTE", 2),
        ("'1d'", 4),
        ("'2w'", 5),
        ("now() - INTERVAL 150 MINUTE", 3),
        ("'1970-01-01'", 5),
    ],
)
def test_an_age_counts_back_from_now(tmp_path: Path, since: str, found: int) -> None:
    """`since := '7d'` is seven days ago, also in a parameter; `until` takes ages as well."""
    now_ms = int(time.time() * 1000)
    hours = (0, 1, 2, 20, 100)  # ago, less a bit
    store = make_lake(tmp_path, [
        rest_candle(symbol="A", begin_ms=now_ms // 60_000 * 60_000 - h * 3_600_000, end_ms=now_ms // 60_000 * 60_000 - h * 3_600_000 + 60_000)
        for h in hours
    ])  # fmt: skip
    found = found - 1 if since == "'2h'" else found
    assert run(store, f"FROM candles_of('spot', 'A', '1m', since := {since})").num_rows == found
    assert (
        run(store, f"FROM candles_of('spot', 'A', '1m', until := {since})").num_rows == 5 - found
        or since == "'1970-01-01'"
    )
    if since.startswith("'"):
        text = since.strip("'")
        assert (
            run(store, "FROM candles_of('spot', 'A', '1m', since := $when)", {"when": text}).num_rows == found
        )
        sql = "SELECT close FROM candles WHERE candle_begin_time >= $since::TIMESTAMPTZ"
        assert run(store, sql, {"since": text}).num_rows == found


WHOSE = "'spot', 'AUSDT', '1m'"
DAY = "since := '2024-07-01', until := '2024-07-01 12:00'"


@pytest.mark.parametrize(
    ("call", "partitions"),
    [
        (f"candles_of({WHOSE})", 3),
        (f"candles_of({WHOSE}, {DAY})", 1),
        (f"candles_of({WHOSE}) WHERE \"date\" = '2024-07-02'", 1),
        (f"candles_of({WHOSE}) WHERE candle_begin_time >= '2024-07-01'", 2),
        ("candles_of('spot', 'ausdt', '1m', since := DATE '2024-07-02')", 1),
        ("latest()", 12),
        ("latest() WHERE symbol = 'AUSDT'", 4),
        ("latest(since := '2024-07-02')", 12),
        (f"resample({WHOSE}, '1d')", 3),
        (f"resample({WHOSE}, INTERVAL 1 HOUR, {DAY})", 1),
        (f"returns({WHOSE}, {DAY})", 1),
        (f"vwap({WHOSE}, {DAY})", 1),
        (f"realised_volatility({WHOSE}, '1d', {DAY})", 1),
        (f"correlation({WHOSE}, 'BUSDT')", 6),
        (f"correlation({WHOSE}, 'AUSDT', other_market := 'usdt_futures', {DAY})", 2),
        ("candles_of('spot', ['AUSDT', '币USDT'], '1m')", 6),
        (f"candles_of('spot', 'BUSDT,AUSDT', '1m', {DAY})", 2),
        ("candles_of('spot', '?USDT', '1m')", 9),
        ("candles_of('spot', 'A*', '1m', since := '2024-07-02')", 1),
        ("candles_of('spot', ['A*', '币USDT'], '1m') WHERE \"date\" = '2024-07-02'", 2),
        ("resample('usdt_futures', 'B*', '5m', '1d', zone := 'Asia/Shanghai')", 3),
        ("(FROM candles_of('spot', 'A*', '1m') UNION ALL FROM candles_of('spot', 'B*', '5m'))", 6),
        (f"filled({WHOSE}, {DAY})", 1),
        (f"candles_of({WHOSE}, {DAY}) a ASOF JOIN candles_of('usdt_futures', 'BUSDT', '5m', {DAY}) b ON a.candle_end_time >= b.candle_end_time", 2),
    ],
)  # fmt: skip
def test_only_these_partitions_are_listed(watched: WatchedLake, call: str, partitions: int) -> None:
    """Market, symbol, interval and times reach the scan, so no other partition is listed."""
    run(watched, f"SELECT count(*) FROM {call}")
    assert len(set(watched.listed)) == partitions


def test_the_plan_shows_the_filters_in_the_scan(watched: WatchedLake) -> None:
    """EXPLAIN shows the filter on the series inside the scan."""
    [row] = run(
        watched, f"EXPLAIN FROM resample({WHOSE}, '1d', since := $s)", {"s": "2024-07-01"}
    ).to_pylist()
    plan = re.sub(r"[│\s]|\\n", "", row["explain_value"])
    scan = plan[plan.index("candle_begin_time>='2024-07-01") - 500 :]
    assert "READ_PARQUET" in scan.upper()
    assert {partition.path for partition in watched.listed} == {
        f"market=spot/symbol=AUSDT/interval=1m/date=2024-07-0{day}" for day in (1, 2)
    }


def test_the_catalog_tells_what_they_are(lake: LakeStore) -> None:
    """`duckdb_functions()` lists the macros with their parameters and results."""
    rows = run(
        lake, "SELECT function_name AS name, comment FROM duckdb_functions() WHERE function_type = 'table_macro' AND NOT internal"
    ).to_pylist()  # fmt: skip
    assert {row["name"] for row in rows} == set(MACROS)
    assert all(row["comment"].startswith(MACROS[row["name"]].what) for row in rows)


def test_parameters_are_called_by_name(lake: LakeStore) -> None:
    """Parameters can be named, in any order."""
    sql = "FROM resample(bucket := '4m', symbol := 'BTCUSDT', market := 'spot', \"interval\" := '1m')"
    assert run(lake, sql).num_rows == COUNT // 4
    assert run(lake, sql.replace('"', "")).num_rows == COUNT // 4
