"""A partition's path: formatted and parsed again, and never outside of the lake."""

from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from urllib.parse import quote

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakewriter.candle import to_table
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.market import MARKETS, is_symbol
from lakewriter.partition import (
    Partition,
    checked_partition,
    day_of,
    day_start_ms,
    parse_partition,
    partition_at,
    partition_of,
    partition_on,
    split_by_partition,
)
from lakewriter.series import Series
from support.candles import DAY_START_MS, stream_candle

PATH = "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30"

symbols = st.text("ABZ019_-.币安人生龙虾한", min_size=1, max_size=32).filter(is_symbol)
series = st.tuples(st.sampled_from(list(MARKETS)), symbols, st.sampled_from(list(INTERVALS)))
days = st.dates(date(1970, 1, 1))
partitions = st.builds(partition_on, series, days)


def test_path():
    """A partition's directory and file have Hive's form, in plain UTF-8."""
    partition = Partition("usdt_futures", "币安人生USDT", "1mo", date(2026, 1, 1))
    assert partition.path == "market=usdt_futures/symbol=币安人生USDT/interval=1mo/date=2026-01-01"
    assert partition.file == partition.path + "/candles.parquet"
    assert str(partition) == "usdt_futures 币安人生USDT 1mo 2026-01-01"


@given(series, days)
def test_a_day_of_a_period_is_of_its_partition(series, day):
    """A directory with any day of a period belongs to its partition, whose path has the first day."""
    partition = partition_on(series, day)
    assert parse_partition(msgspec.structs.replace(partition, date=day).path) == partition
    assert partition.start_ms <= day_start_ms(day) < partition.stop_ms
    assert partition_on(series, partition.date) == partition
    assert partition_at(series, day_start_ms(day) + DAY_MS - 1) == partition
    assert partition_at(series, partition.stop_ms - 1) == partition
    assert partition.stop_ms > 253_402_214_400_000 or partition_at(series, partition.stop_ms) != partition


@pytest.mark.parametrize(
    ("interval", "first", "last"),
    [
        *((interval, "2024-06-30", "2024-06-30") for interval in ("1s", "1m", "3m", "5m")),
        *((interval, "2024-06-01", "2024-06-30") for interval in ("15m", "30m", "1h", "2h")),
        *(
            (interval, "2024-01-01", "2024-12-31")
            for interval in ("4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo")
        ),
    ],
)
def test_periods(interval, first, last):
    """Short intervals have a partition per day, longer ones per month or year."""
    partition = partition_on(("spot", "BTCUSDT", interval), date(2024, 6, 30))
    assert partition.date == date.fromisoformat(first)
    assert day_of(partition.stop_ms - 1) == date.fromisoformat(last)


def test_no_partition_begins_within_a_period():
    """A partition with another day than its period's first is refused before a write."""
    with pytest.raises(LakeError) as caught:
        checked_partition(Partition("spot", "BTCUSDT", "1h", date(2024, 6, 30)))
    assert caught.value.what == "partition: no file of 1h begins on 2024-06-30"


def test_rows_are_split_where_a_period_ends():
    """A series' rows are split by partition, in order."""
    series = Series("spot", "BTCUSDT", "12h")
    day = date(2023, 12, 30)
    begins = [day_start_ms(day) + number * DAY_MS // 2 for number in range(8)]
    rows = to_table(
        msgspec.structs.replace(stream_candle(), interval="12h", begin_ms=begin, end_ms=begin + DAY_MS // 2)
        for begin in begins
    )
    found = split_by_partition(series, rows)
    assert [(partition.date, part.num_rows) for partition, part in found] == [
        (date(2023, 1, 1), 4),
        (date(2024, 1, 1), 4),
    ]
    assert pa.concat_tables([part for _, part in found]).equals(rows)


@given(partitions)
def test_round_trip(partition):
    """A path of four levels, without escapes, is parsed back to its partition."""
    assert parse_partition(partition.path) == partition
    assert len(PurePosixPath(partition.path).parts) == 4
    assert quote(partition.path, safe="/=_-.") == quote(partition.path, safe="/=_-.:*?\"'<>|%#[]{}^\\")
    assert checked_partition(partition) is partition


@given(partitions)
def test_percent_encoded(partition):
    """The paths that DuckDB, pyarrow and Polars write are parsed to the same partition."""
    encoded = "/".join(
        f"{level}={quote(value, safe='')}"
        for level, _, value in (part.partition("=") for part in partition.path.split("/"))
    )
    assert parse_partition(encoded) == partition
    everything = "/".join(
        level + "=" + "".join(f"%{byte:02x}" for byte in value.encode())
        for level, _, value in (part.partition("=") for part in partition.path.split("/"))
    )
    assert parse_partition(everything) == partition


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "market=spot",
        "/" + PATH,
        PATH + "/",
        PATH + "/candles.parquet",
        PATH.replace("/", "//"),
        "../" + PATH,
        PATH.replace("date=", "day="),
        PATH.replace("market=", "Market="),
        "symbol=BTCUSDT/market=spot/interval=1m/date=2024-06-30",
    ],
)
def test_other_levels(path):
    """A path with other levels is no partition, and the message lists the levels of a partition."""
    with pytest.raises(LakeError) as caught:
        parse_partition(path)
    assert str(caught.value) == f"{path}: not a partition (market=/symbol=/interval=/date=)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("spot", "forex", "partition: market 'forex' is unknown"),
        ("spot", "..", "partition: market '..' is unknown"),
        ("spot", "", "partition: market '' is unknown"),
        ("spot", "%2e%2e", "partition: market '..' is unknown"),
        ("BTCUSDT", "..", "partition: '..' cannot be a symbol"),
        ("BTCUSDT", "%2E%2E", "partition: '..' cannot be a symbol"),
        ("BTCUSDT", "..%2f..%2fetc", "partition: '../../etc' cannot be a symbol"),
        ("BTCUSDT", "%00", "partition: '\\x00' cannot be a symbol"),
        ("BTCUSDT", "%252e%252e", "partition: '%2e%2e' cannot be a symbol"),
        ("BTCUSDT", "btcusdt", "partition: 'btcusdt' cannot be a symbol"),
        (
            "BTCUSDT",
            "__HIVE_DEFAULT_PARTITION__",
            "partition: '__HIVE_DEFAULT_PARTITION__' cannot be a symbol",
        ),
        ("1m/", "1M/", "partition: interval '1M' is unknown"),
        ("1m/", "%2F/", "partition: interval '/' is unknown"),
    ],
)
def test_refused_parts(old, new, message):
    """The message names the part that cannot be a directory."""
    with pytest.raises(LakeError) as caught:
        parse_partition(PATH.replace(old, new))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-6-30",
        "2024-06-31",
        "2023-02-29",
        "20240630",
        "1969-12-31",
        "0000-00-00",
        "2024-06-30 ",
        "２０２４-06-30",
    ],
)
def test_refused_dates(text):
    """Only ISO days since 1970 are accepted."""
    path = PATH.replace("2024-06-30", text)
    with pytest.raises(LakeError) as caught:
        parse_partition(path)
    assert str(caught.value) == f"{path}: {text!r} is not a date"


def test_refused_bytes():
    """A percent-encoded name that is not UTF-8 is refused."""
    with pytest.raises(LakeError) as caught:
        parse_partition(PATH.replace("BTCUSDT", "%ff"))
    assert str(caught.value) == f"{PATH.replace('BTCUSDT', '%ff')}: '%ff' is not UTF-8"


@given(
    st.lists(st.text(st.characters() | st.sampled_from("/.%=\0\\"), max_size=8), min_size=4, max_size=4)
    | st.tuples(
        st.sampled_from(list(MARKETS)),
        st.lists(st.sampled_from(["..", "/", "%2f", "%2e", "A", "\0", "%00", "%", "="]), max_size=6).map(
            "".join
        ),
        st.sampled_from(list(INTERVALS)),
        st.just("2024-06-30"),
    )
)
@example(["spot", "\udcff", "1m", "2024-06-30"])
def test_nothing_leaves_the_lake(values):
    """Each path is refused, or names a partition below the lake's root."""
    path = "/".join(
        f"{level}={value}"
        for level, value in zip(("market", "symbol", "interval", "date"), values, strict=True)
    )
    try:
        partition = parse_partition(path)
    except LakeError:
        return
    parts = PurePosixPath("lake", partition.path).parts
    assert len(parts) == 5
    assert ".." not in parts
    assert parse_partition(partition.path) == partition


@pytest.mark.parametrize(
    "wrong", [("x", "A", "1m"), ("spot", "a", "1m"), ("spot", "A", "1M"), ("spot", "../A", "1m")]
)
def test_checked_refuses(wrong):
    """`checked_partition` refuses invalid parts."""
    with pytest.raises(LakeError, match=r"^partition: "):
        checked_partition(Partition(*wrong, date(2024, 6, 30)))


@given(st.integers(0, 253_402_300_799_999))
def test_days(time_ms):
    """A moment belongs to its UTC day, from the first millisecond to before the next day."""
    day = day_of(time_ms)
    assert day == datetime.fromtimestamp(time_ms // 1000, UTC).date()
    partition = Partition("spot", "A", "1m", day)
    assert partition.start_ms <= time_ms < partition.stop_ms == partition.start_ms + DAY_MS


def test_partition_of():
    """A candle belongs to the day on which it begins."""
    last = stream_candle(1439)
    assert last.end_ms == DAY_START_MS + DAY_MS
    assert partition_of(last) == parse_partition(PATH)
    assert partition_of(stream_candle(1440)).date == date(2024, 7, 1)


def test_order():
    """Partitions sort by market, symbol, interval, then day."""
    names = [("coin_futures", "Z"), ("spot", "A"), ("spot", "B"), ("usdt_futures", "A")]
    ordered = [Partition(*name, "1m", date(2024, 1, day)) for name in names for day in (1, 2)]
    assert sorted([*ordered[3:], *ordered[:3]]) == ordered
