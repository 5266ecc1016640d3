"""Verification of real files: each planted defect is found and named, and correct files have no finding."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.candle import SCHEMA, int_column
from lakewriter.interval import DAY_MS, INTERVALS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode, encode, read_footer
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import Partition, day_of, partition_at, partition_on
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from lakewriter.verify.findings import LOCAL_CHECKS, VerifyReport
from lakewriter.verify.run import VerifyOptions, verify
from support.lengths import examples
from support.running import CAPTURES
from support.truth_lakes import (
    BTC,
    MONDAY_MS,
    Reported,
    edited,
    merge_truth,
    reported,
    rewrite,
    traded_row,
    truth_lake,
    truth_table,
    verify_lake,
)

DAY = partition_at(BTC, MONDAY_MS + DAY_MS)  # the second of three
FIRST_MS = DAY.start_ms


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of minutes of one symbol."""
    return truth_lake(tmp_path_factory.mktemp("days") / "lake", [(BTC, 3)]).root


@pytest.fixture
def store(three_days: Path, tmp_path: Path) -> LakeStore:
    """A copy of the lake, which a test may damage."""
    return LakeStore.local(Path(shutil.copytree(three_days, tmp_path / "lake")))


def minute(number: int) -> int:
    return FIRST_MS + number * MINUTE_MS


def one(check: str, kind: str, begin_ms: int = FIRST_MS, series: Series = BTC) -> list[Reported]:
    return [(check, kind, series, begin_ms)]


@pytest.mark.slow
def test_a_lake_of_the_truth_has_no_finding(tmp_path: Path) -> None:
    """A lake of the truth, with each interval and several symbols of all markets, has no finding."""
    days = {"1s": 1, "1d": 62, "3d": 62, "1w": 62, "1mo": 62}
    series = [(Series("spot", "BTCUSDT", name), days.get(name, 15)) for name in INTERVALS]
    series += [(Series("usdt_futures", "LTCUSDT", name), 5) for name in ("1m", "15m", "1h", "1d")]
    series += [(Series("coin_futures", "BTCUSD_PERP", name), 15) for name in ("5m", "1h", "1d", "1w")]
    store = truth_lake(tmp_path, series)
    report = VerifyReport(100)
    done = list(verify(store, report))
    assert reported(report) == []
    assert report.total == 0
    assert len(done) == len(list(store.partitions()))
    compared = {
        (each.market, each.interval): tally.checked
        for (each, check), tally in report.counts.items()
        if check == "intervals"
    }
    assert compared[("spot", "1m")] == 1440
    assert compared[("spot", "1h")] == 15 * 24
    assert compared[("spot", "1d")] == 15
    assert compared[("spot", "3d")] == 20
    assert compared[("spot", "1w")] == 8
    assert compared[("spot", "1mo")] == 1
    assert compared[("coin_futures", "1h")] == 15 * 24, "added up from 5m, without any 1m"
    assert ("coin_futures", "5m") not in compared
    for each in store.partitions():
        assert report.counts[(Series(each[0].market, each[0].symbol, each[0].interval), "partition")].checked


Change = Callable[[pa.Table], pa.Table]


def swapped(rows: pa.Table) -> pa.Table:
    order = np.arange(rows.num_rows)
    order[5], order[6] = 6, 5
    return rows.take(pa.array(order))


def doubled(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 8), rows.slice(7)])


def of_next_day(rows: pa.Table) -> pa.Table:
    late = minute(1440 + 7)
    return pa.concat_tables(
        [rows, edited(rows.slice(0, 1), 0, candle_begin_time=late, candle_end_time=late + MINUTE_MS)]
    )


@pytest.mark.parametrize(
    ("change", "kind", "begin_ms"),
    [
        (swapped, "unsorted", minute(5)),
        (doubled, "duplicate", minute(7)),
        (lambda rows: edited(rows, 8, candle_begin_time=minute(8) + 1), "grid", minute(8) + 1),
        (of_next_day, "day", minute(1447)),
        (lambda rows: edited(rows, 9, candle_end_time=minute(10) - 1), "end", minute(9)),
        (lambda rows: edited(rows, 9, candle_end_time=None), "end", minute(9)),
    ],
    ids=["unsorted", "duplicate", "off the grid", "of another day", "wrong end", "no end"],
)
def test_rows_out_of_place(store: LakeStore, change: Change, kind: str, begin_ms: int) -> None:
    """Rows that are unsorted, repeated, off the grid, of another day or too long are findings."""
    rewrite(store, DAY, change)
    assert verify_lake(store) == one("partition", kind, begin_ms)


def traded(**factors: float) -> Change:
    """Return a change that multiplies columns of one traded candle."""

    def change(rows: pa.Table) -> pa.Table:
        at = traded_row(rows)
        return edited(rows, at, **{name: rows[name][at].as_py() * by for name, by in factors.items()})

    return change


def put(**values: object) -> Change:
    """Return a change that sets values of one traded candle."""
    return lambda rows: edited(rows, traded_row(rows), **values)


def quiet(values: Callable[[dict[str, float]], dict[str, object]]) -> Change:
    """Return a change of one candle into one without trades, with further values."""

    def change(rows: pa.Table) -> pa.Table:
        at = traded_row(rows)
        close = rows["close"][at - 1].as_py()
        flat: dict[str, object] = dict.fromkeys(("open", "high", "low", "close"), close)
        nothing: dict[str, object] = dict.fromkeys(
            ("volume", "quote_volume", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume"), 0.0
        )
        return edited(rows, at, trade_num=0, **{**flat, **nothing, **values({"close": close})})

    return change


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda rows: edited(rows, traded_row(rows), low=rows["high"][traded_row(rows)].as_py()), "low"),
        (lambda rows: edited(rows, traded_row(rows), high=rows["low"][traded_row(rows)].as_py()), "high"),
        (put(volume=-1.0), "volume"),
        (put(quote_volume=float("inf")), "volume"),
        (put(taker_buy_quote_asset_volume=float("nan")), "volume"),
        (put(volume=None), "volume"),
        (put(high=float("nan")), "price"),
        (put(low=0.0), "price"),
        (put(high=float("inf")), "price"),
        (put(low=None), "price"),
        (lambda rows: edited(rows, traded_row(rows), taker_buy_base_asset_volume=1e12), "taker"),
        (lambda rows: edited(rows, traded_row(rows), taker_buy_quote_asset_volume=1e15), "taker"),
        (put(trade_num=-1), "trades"),
        (put(trade_num=2**53 + 1), "trades"),
        (traded(quote_volume=1.01), "quote"),
        (traded(quote_volume=0.99), "quote"),
        (traded(quote_volume=1000.0), "quote"),
        (quiet(lambda each: {"high": each["close"] * 1.0001}), "flat"),
        (quiet(lambda each: {"open": each["close"] * 1.0001, "high": each["close"] * 1.0001}), "flat"),
        (quiet(lambda _: {"volume": 1.0}), "quiet"),
        (quiet(lambda _: {"quote_volume": 1e-8}), "quiet"),
    ],
    ids=[
        "low above open or close", "high below", "negative volume", "infinite volume", "NaN for a volume", "no volume",
        "NaN price", "price of 0", "infinite price", "no price", "taker above total",
        "taker quote above total", "negative trades", "too many trades", "quote above any price", "quote below any price",
        "quote in another unit", "quiet with a wick", "quiet that moved",
        "quiet with volume", "quiet with quote volume",
    ],
)  # fmt: skip
def test_a_candle_that_cannot_be(store: LakeStore, change: Change, kind: str) -> None:
    """Each violation is exactly one finding of its candle."""
    at = traded_row(decode((store.root / DAY.file).read_bytes(), ""))
    rewrite(store, DAY, change)
    assert verify_lake(store) == one("candle", kind, minute(at))


@pytest.mark.parametrize(
    ("by", "wrong"), [(0.0, False), (1.0, False), (3.0, True)], ids=["equal", "an ulp", "more"]
)
def test_takers_may_be_off_by_a_last_digit(store: LakeStore, by: float, wrong: bool) -> None:
    """Sums of doubles may exceed the whole by their last digit, and by no more."""

    def change(rows: pa.Table) -> pa.Table:
        at = traded_row(rows)
        volume = rows["volume"][at].as_py()
        return edited(rows, at, taker_buy_base_asset_volume=volume + by * np.spacing(volume))

    rewrite(store, DAY, change)
    assert bool(verify_lake(store)) == wrong


def test_a_quiet_candle_is_right(store: LakeStore) -> None:
    """A candle without trades, flat and without volume, is no finding."""
    rewrite(store, DAY, quiet(lambda _: {}))
    assert [each for each in verify_lake(store) if each[0] != "jumps"] == []


def torn(data: bytes) -> bytes:
    return data[:-100]


def flipped(data: bytes) -> bytes:
    """Flip one bit in the middle of a page of prices."""
    column = pq.read_metadata(pa.BufferReader(data)).row_group(0).column(SCHEMA.get_field_index("close"))
    at = column.data_page_offset + column.total_compressed_size // 2
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.mark.parametrize(
    "change", [torn, flipped, lambda _: b"", lambda _: b"PAR1"], ids=["torn", "bit", "empty", "stub"]
)
def test_a_file_that_is_not_whole(store: LakeStore, change: Callable[[bytes], bytes]) -> None:
    """A truncated file and a flipped bit in a page are findings, and other days are still checked."""
    path = store.root / DAY.file
    path.write_bytes(change(path.read_bytes()))
    assert verify_lake(store) == one("partition", "unreadable")
    only = VerifyOptions(frozenset(("candle",)))
    assert verify_lake(store, options=only) == one("partition", "unreadable"), "whatever else is asked for"
    report = VerifyReport(1)
    list(verify(store, report))
    assert report.counts[(BTC, "candle")].checked == 2 * 1440


def parquet(rows: pa.Table, said: dict[bytes, bytes]) -> bytes:
    """Return rows of any schema as a file with our metadata."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, store_schema=False) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(said)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def integers(rows: pa.Table) -> pa.Table:
    at = SCHEMA.get_field_index("trade_num")
    return rows.set_column(at, "trade_num", rows["trade_num"].cast(pa.int32()))


@pytest.mark.parametrize(
    "change",
    [
        integers,
        lambda rows: rows.drop_columns(["event_time"]),
        lambda rows: rows.append_column("note", pa.nulls(rows.num_rows, pa.string())),
        lambda rows: rows.select(SCHEMA.names[::-1]),
    ],
    ids=["type", "absent", "one more", "order"],
)
def test_another_schema(store: LakeStore, change: Change) -> None:
    """A column of another type, a missing or extra one, or another order is a finding, though it can be read."""
    path = store.root / DAY.file
    data = path.read_bytes()
    said = pq.read_metadata(pa.BufferReader(data)).metadata
    path.write_bytes(parquet(change(decode(data, "")), said))
    assert verify_lake(store) == one("partition", "schema")


@pytest.mark.parametrize(
    "other",
    [
        Partition("usdt_futures", "BTCUSDT", "1m", DAY.date),
        Partition("spot", "ETHUSDT", "1m", DAY.date),
        Partition("spot", "BTCUSDT", "3m", DAY.date),
        Partition("spot", "BTCUSDT", "1m", date(2024, 6, 1)),
    ],
    ids=["market", "symbol", "interval", "date"],
)
def test_a_file_that_says_it_is_another(store: LakeStore, other: Partition) -> None:
    """Metadata that contradicts the path is a finding: the file was moved."""
    path = store.root / DAY.file
    path.write_bytes(encode(decode(path.read_bytes(), ""), other))
    assert verify_lake(store) == one("partition", "metadata")


def test_a_file_that_counts_wrong(store: LakeStore) -> None:
    """Metadata with another number of rows is a finding."""
    path = store.root / DAY.file
    data = path.read_bytes()
    said = {**pq.read_metadata(pa.BufferReader(data)).metadata, b"lakewriter.rows": b"7"}
    path.write_bytes(parquet(decode(data, ""), said))
    assert verify_lake(store) == one("partition", "metadata")


def test_a_file_of_another_writer(store: LakeStore) -> None:
    """A foreign candles.parquet is a finding, and its rows are checked, too."""
    path = store.root / DAY.file
    rows = put(volume=-1.0)(decode(path.read_bytes(), ""))
    pq.write_table(rows, path)
    at = traded_row(rows)
    assert verify_lake(store) == one("partition", "writer") + one("candle", "volume", minute(at))


@pytest.mark.slow
def test_statistics_that_lie(store: LakeStore) -> None:
    """A wrong first begin time in a footer's statistics is a finding: readers skip files by it."""
    path = store.root / DAY.file
    data = path.read_bytes()
    end = int.from_bytes(data[-8:-4], "little") + 8
    later = data[-end:].replace(FIRST_MS.to_bytes(8, "little"), (FIRST_MS + 1).to_bytes(8, "little"))
    path.write_bytes(data[:-end] + later)
    assert data[-end:] != later
    assert verify_lake(store) == one("partition", "statistics")


@pytest.mark.slow
def test_an_older_version_is_no_finding(store: LakeStore) -> None:
    """A file in another version's encoding has right statistics, and no finding."""
    path = store.root / DAY.file
    data = path.read_bytes()
    path.write_bytes(parquet(decode(data, ""), pq.read_metadata(pa.BufferReader(data)).metadata))
    assert path.read_bytes() != data
    assert verify_lake(store) == []


@pytest.mark.slow
@given(st.data())
@examples(6, 60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit(store: LakeStore, data: st.DataObject) -> None:
    """A flipped bit is a finding, or changes neither rows nor statistics."""
    path = store.root / DAY.file
    good = (store.root / DAY.file).read_bytes()
    end = int.from_bytes(good[-8:-4], "little") + 8
    anywhere = st.integers(0, len(good) - 1) | st.integers(len(good) - end, len(good) - 1)
    at, bit = data.draw(anywhere), data.draw(st.integers(0, 7))
    path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
    try:
        if not verify_lake(store):
            bad = path.read_bytes()
            assert decode(bad, "").equals(decode(good, ""))
            assert read_footer(bad, "") == read_footer(good, "")
    finally:
        path.write_bytes(good)


def test_a_foreign_file(store: LakeStore) -> None:
    """A foreign file is a finding, and its candles are checked, too."""
    rows = put(volume=-1.0)(decode((store.root / DAY.file).read_bytes(), ""))
    at = traded_row(rows)
    newer = edited(rows.slice(at, 1), 0, trade_num=10**6)
    pq.write_table(newer, store.root / DAY.path / "part-0.parquet")
    assert verify_lake(store) == one("partition", "foreign") + one("candle", "volume", minute(at))
    (store.root / DAY.path / "part-0.parquet").write_bytes(b"torn")
    assert verify_lake(store) == one("partition", "unreadable")


def test_leftovers_are_no_finding(store: LakeStore) -> None:
    """Temporary files of a crashed writer and other tools' markers are no finding."""
    for name in (".candles.parquet.tmp-1-ab", "_SUCCESS", ".hidden.parquet"):
        (store.root / DAY.path / name).write_bytes(b"torn")
    assert verify_lake(store) == []


HOUR = Series("spot", "BTCUSDT", "1h")
EVERY = [Series("spot", "BTCUSDT", name) for name in ("1m", "1h", "1d", "3d", "1w", "1mo")]


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few days of minutes and hours, and two months of days and longer intervals."""
    days = {"1m": 3, "1h": 3}
    root = tmp_path_factory.mktemp("months") / "lake"
    return truth_lake(root, [(each, days.get(each.interval, 62)) for each in EVERY]).root


@pytest.fixture
def months(two_months: Path, tmp_path: Path) -> LakeStore:
    """A copy of the lake, which a test may damage."""
    return LakeStore.local(Path(shutil.copytree(two_months, tmp_path / "months")))


COLUMNS = (
    "open", "high", "low", "close", "trade_num", "volume", "quote_volume", "taker_buy_base_asset_volume",
)  # fmt: skip
WRONG: list[Change] = [
    lambda rows: edited(rows, 0, open=(rows["low"][0].as_py() + rows["open"][0].as_py()) / 2),
    lambda rows: edited(rows, 0, high=rows["high"][0].as_py() * 1.00001),
    lambda rows: edited(rows, 0, low=rows["low"][0].as_py() * 0.99999),
    lambda rows: edited(rows, 0, close=(rows["low"][0].as_py() + rows["close"][0].as_py()) / 2),
    lambda rows: edited(rows, 0, trade_num=rows["trade_num"][0].as_py() + 1),
    lambda rows: edited(rows, 0, volume=rows["volume"][0].as_py() * (1 + 1e-7)),
    lambda rows: edited(rows, 0, quote_volume=rows["quote_volume"][0].as_py() * (1 + 1e-7)),
    lambda rows: edited(
        rows, 0, taker_buy_base_asset_volume=rows["taker_buy_base_asset_volume"][0].as_py() * (1 - 1e-7)
    ),
]


def from_row(at: int, change: Change) -> Change:
    """Return a change that applies another one to the rows from a position on."""
    return lambda rows: pa.concat_tables([rows.slice(0, at), change(rows.slice(at))])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "column"),
    list(
        zip(
            WRONG,
            (
                "open",
                "high",
                "low",
                "close",
                "trade_num",
                "volume",
                "quote_volume",
                "taker_buy_base_asset_volume",
            ),
            strict=True,
        )
    ),
    ids=COLUMNS,
)
@pytest.mark.parametrize("interval", ["1h", "3d", "1w", "1mo"])
def test_a_longer_candle_that_does_not_add_up(
    months: LakeStore, change: Change, column: str, interval: str
) -> None:
    """Each column of a longer candle is compared with the shorter ones, and the finding names the column."""
    series = Series("spot", "BTCUSDT", interval)
    at = {"1h": 24, "3d": 1, "1w": 1, "1mo": 0}[interval]
    [(partition, *_)] = months.partitions(PartitionFilter(intervals=(interval,)))
    begin_ms = int(int_column(months.read(partition), "candle_begin_time")[at])
    rewrite(months, partition, from_row(at, change))
    report = VerifyReport(10)
    list(verify(months, report))
    assert reported(report) == one("intervals", "differs", begin_ms, series)
    assert report.findings[0].what.startswith(f"{column} ")
    assert ("1m candles" if interval == "1h" else "1d candles") in report.findings[0].what


def test_only_whole_candles_are_compared(months: LakeStore) -> None:
    """A longer candle is not compared if one of its shorter ones is absent."""
    rewrite(months, partition_on(HOUR, DAY.date), from_row(24, WRONG[1]))
    rewrite(months, DAY, lambda rows: rows.slice(1))
    report = VerifyReport(10)
    list(verify(months, report))
    assert reported(report) == []
    assert report.counts[(HOUR, "intervals")].checked == 3 * 24 - 1


def test_the_first_trade_may_be_late(tmp_path: Path) -> None:
    """An hour may include or omit the price that a quiet first minute repeats."""
    store = truth_lake(tmp_path, [(BTC, 1), (HOUR, 1)])
    first = partition_at(BTC, MONDAY_MS)

    def with_quiet_start(rows: pa.Table) -> pa.Table:
        close = rows["open"][0].as_py() * 1.01
        flat = dict.fromkeys(("open", "high", "low", "close"), close)
        zeros = dict.fromkeys(
            ("volume", "quote_volume", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume"), 0.0
        )
        return edited(rows, 0, trade_num=0, **flat, **zeros)

    minutes = with_quiet_start(decode((store.root / first.file).read_bytes(), ""))
    rewrite(store, first, lambda _: minutes)
    only = VerifyOptions(frozenset(("intervals",)))
    assert verify_lake(store, options=only) != [], "the hour still has the trades of its first minute"
    for skipped in (0, 1):
        of_hour = minutes.slice(skipped, 60 - skipped)

        def made(rows: pa.Table, of_hour: pa.Table = of_hour) -> pa.Table:
            sums = {
                name: float(np.sum(minutes[name].to_numpy()[:60]))
                for name in SCHEMA.names
                if name.endswith("volume")
            }
            return edited(
                rows, 0, open=of_hour["open"][0].as_py(), high=max(of_hour["high"].to_pylist()),
                low=min(of_hour["low"].to_pylist()), close=of_hour["close"][-1].as_py(),
                trade_num=sum(minutes["trade_num"].to_pylist()[:60]), **sums,
            )  # fmt: skip

        rewrite(store, partition_at(HOUR, MONDAY_MS), made)
        assert verify_lake(store, options=only) == []


def shifted(from_row: int, by: float) -> Change:
    """Return a change that multiplies all prices and quote volumes from one row on."""

    def change(rows: pa.Table) -> pa.Table:
        quotes = ("quote_volume", "taker_buy_quote_asset_volume")
        for name in ("open", "high", "low", "close", *quotes):
            values = rows[name].to_numpy().copy()
            values[from_row:] *= by
            rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), pa.array(values))
        return rows

    return change


LAST = partition_at(BTC, MONDAY_MS + 2 * DAY_MS)


@pytest.mark.parametrize("row", [0, 700], ids=["at midnight", "within a day"])
def test_a_jump(store: LakeStore, row: int) -> None:
    """A price that continues at another level is reported at its first candle, also between two files."""
    rewrite(store, LAST, shifted(row, 10.0))
    assert verify_lake(store) == one("jumps", "jump", LAST.start_ms + row * MINUTE_MS)
    assert verify_lake(store, options=VerifyOptions(deviations=0.0)) == []
    assert verify_lake(store, options=VerifyOptions(deviations=1e6)) == []


def test_no_jump_across_a_gap(store: LakeStore) -> None:
    """Any price after a gap is no jump."""
    rewrite(store, LAST, lambda rows: shifted(0, 10.0)(rows).slice(1))
    assert verify_lake(store) == []


def test_only_what_is_asked_for(store: LakeStore) -> None:
    """Filters select series and days, --check selects checks, and the count covers only those."""
    rewrite(store, DAY, put(volume=-1.0))
    rewrite(store, LAST, shifted(0, 10.0))
    before = PartitionFilter(until=day_of(MONDAY_MS))
    assert verify_lake(store, before) == []
    assert verify_lake(store, options=VerifyOptions(frozenset(("jumps",)))) == one(
        "jumps", "jump", LAST.start_ms
    )
    report = VerifyReport(10)
    list(verify(store, report, options=VerifyOptions(frozenset(("partition",)))))
    assert [check for _, check in report.counts] == ["partition"]
    assert report.total == 0


def test_findings_beyond_the_limit_are_counted(store: LakeStore) -> None:
    """Findings beyond the limit are counted without a text."""
    rewrite(store, DAY, lambda rows: rows.set_column(6, SCHEMA.field(6), pa.array([-1.0] * rows.num_rows)))
    report = VerifyReport(3)
    list(verify(store, report))
    assert reported(report) == [("candle", "volume", BTC, minute(number)) for number in range(3)]
    assert report.total == 1440


def test_a_moved_directory_of_another_spelling(tmp_path: Path) -> None:
    """A percent-encoded directory is the same series, and its file counts as foreign."""
    series = Series("usdt_futures", "币安人生USDT", "1m")
    store = truth_lake(tmp_path, [(series, 1)])
    raw = store.root / "market=usdt_futures" / "symbol=币安人生USDT"
    raw.rename(raw.parent / "symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT")
    assert verify_lake(store) == one("partition", "foreign", MONDAY_MS, series)


names = st.sampled_from(
    [("spot", "BTCUSDT"), ("spot", "BNBUSDT"), ("usdt_futures", "LTCUSDT"), ("coin_futures", "ETHUSD_PERP")]
)


@given(
    seed=st.integers(0, 2**32),
    name=names,
    intervals=st.sets(st.sampled_from(["1m", "3m", "5m", "1h", "4h", "12h", "1d"]), min_size=1, max_size=3),
    defect=st.sampled_from(["", "low", "volume", "end", "duplicate", "day"]),
    data=st.data(),
)
@examples(15, 60)
def test_exactly_what_was_planted(
    seed: int, name: tuple[str, str], intervals: set[str], defect: str, data: st.DataObject
) -> None:
    """A lake of the truth has no finding; with one defect it has exactly that one."""
    with tempfile.TemporaryDirectory() as root:
        series = [Series(*name, interval) for interval in sorted(intervals)]
        store = truth_lake(Path(root), [(each, 2) for each in series], Truth(seed))
        assert verify_lake(store) == []
        if not defect:
            return
        chosen = data.draw(st.sampled_from(series))
        partition = partition_at(chosen, MONDAY_MS + DAY_MS * data.draw(st.integers(0, 1)))
        begins = int_column(store.read(partition), "candle_begin_time").tolist()
        at = data.draw(st.integers(0, len(begins) - 1))
        begin_ms = begins[at]
        plants: dict[str, tuple[Change, str, int]] = {
            # Nothing is below every price but 0, and nothing of one candle is in another's sum but these.
            "low": (lambda rows: edited(rows, at, low=-1.0), "price", begin_ms),
            "volume": (lambda rows: edited(rows, at, taker_buy_base_asset_volume=-1.0), "volume", begin_ms),
            "end": (lambda rows: edited(rows, at, candle_end_time=begin_ms + 1), "end", begin_ms),
            "duplicate": (lambda rows: pa.concat_tables([rows.slice(0, at + 1), rows.slice(at)]), "duplicate", begin_ms),
            "day": (
                lambda rows: edited(
                    rows, rows.num_rows - 1, candle_begin_time=partition.stop_ms,
                    candle_end_time=partition.stop_ms + chosen.grid.length_ms,
                ),
                "day",
                partition.stop_ms,
            ),
        }  # fmt: skip
        change, kind, found_ms = plants[defect]
        rewrite(store, partition, change)
        local = VerifyOptions(frozenset(LOCAL_CHECKS) - {"intervals"})
        check = "candle" if kind in ("price", "volume") else "partition"
        assert verify_lake(store, options=local) == [(check, kind, chosen, found_ms)]


CSV = (
    "candle_begin_time", "open", "high", "low", "close", "volume", "closed", "quote_volume", "trade_num",
    "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume", "ignore",
)  # fmt: skip
MARKET_OF = {"spot": "spot", "um": "usdt_futures", "cm": "coin_futures"}


def captured(path: Path) -> tuple[Series, pa.Table]:
    """Return a captured archive file as rows of the lake."""
    import pandas as pd

    raw = pd.read_csv(path, header=None, names=CSV)
    frame = raw[raw["candle_begin_time"] != "open_time"].astype(float)
    begins = frame["candle_begin_time"].to_numpy().astype(np.int64)
    begins = np.where(begins >= 10**15, begins // 1000, begins)
    symbol, interval, _ = path.name.split("-", 2)
    series = Series(MARKET_OF[path.parent.name], symbol, interval)
    columns = {name: frame[name].to_numpy() for name in SCHEMA.names if name in CSV}
    columns |= {
        "candle_begin_time": begins,
        "candle_end_time": begins + series.grid.length_ms,
        "trade_num": frame["trade_num"].to_numpy().astype(np.int64),
        "recv_time": begins * 1000,
    }
    more = {"event_time": pa.nulls(len(begins), pa.int64()), "source": pa.array(["archive"] * len(begins))}
    arrays = [
        (more[field.name] if field.name in more else pa.array(columns[field.name])).cast(field.type)
        for field in SCHEMA
    ]
    return series, pa.Table.from_arrays(arrays, schema=SCHEMA)


@pytest.mark.captures
@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures here")
def test_the_real_archive_has_no_finding(tmp_path: Path) -> None:
    """Real published candles, with a first day and a halt among them, have no finding and no jump."""
    store = LakeStore.create(str(tmp_path), "test")
    files = [
        path
        for path in sorted((CAPTURES / "archive").glob("*/*-*"))
        if path.suffix in (".zip", ".gz", ".csv")
    ]
    candles = 0
    for path in files:
        series, rows = captured(path)
        days = rows["candle_begin_time"].cast(pa.int64()).to_numpy() // DAY_MS
        for day in np.unique(days):
            store.merge(partition_at(series, int(day) * DAY_MS), rows.filter(pa.array(days == day)))
        candles += rows.num_rows
    report = VerifyReport(100)
    list(verify(store, report))
    assert report.findings == []
    checked = {check: 0 for _, check in report.counts}
    for (_, check), tally in report.counts.items():
        checked[check] += tally.checked
    assert checked["candle"] == candles > 80_000
    assert checked["jumps"] > candles - 100


def test_truth_tables_are_whole() -> None:
    """The tests' own rows have the lake's schema, in order."""
    rows = truth_table(Truth(), BTC, MONDAY_MS, MONDAY_MS + DAY_MS)
    assert rows.schema.equals(SCHEMA)
    assert rows.num_rows == 1440


def test_a_file_that_goes_while_it_is_read(tmp_path: Path) -> None:
    """A lake that changes during a verification is verified as found; later changes wait for the next run."""
    store = truth_lake(tmp_path, [(BTC, 2)])
    report = VerifyReport(10)
    working = verify(store, report)
    next(working)
    merge_truth(store, Series("spot", "ETHUSDT", "1m"), 1)
    assert len(list(working)) >= 1
    assert report.total == 0
