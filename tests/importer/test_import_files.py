"""Foreign files are recognized by name, read by column, and imported or refused as a whole."""

import gzip
import hashlib
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.kline_columns import RowError, RowOrigin, begins_from_ends, candle_table
from lakewriter.candle import SCHEMA, Candle, int_column, to_table
from lakewriter.candle_arrays import ends
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.choice import OtherSeriesError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.arrow_file import ROWS_MAX
from lakewriter.importer.columns import FileColumns, read_file_columns
from lakewriter.importer.file_candles import read_candles, series_by_name
from lakewriter.importer.import_files import FileResult, ImportJob, check_files, find_files, import_files
from lakewriter.importer.typed_columns import typed_columns
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, LakeStore
from lakewriter.partition import partition_of
from lakewriter.series import Series
from support.candles import stream_candle
from support.import_files import BEGIN_MS, MTIME_S, NOW_MS, frame, line, lines, written

BTC = Series("spot", "BTCUSDT", "1m")
STAMP = RowOrigin(BTC, "rest", 99)
SPOT = ImportOptions(market="spot")


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def archive_candle(minute: int, symbol: str = "BTCUSDT") -> Candle:
    begin_ms = BEGIN_MS + minute * 60_000
    return Candle(
        "spot", symbol, "1m", begin_ms, begin_ms + 60_000, 2.0, 3.0, 0.5, 2.0, 10.0, 20.0, 7, 4.0, 8.0,
        None, MTIME_S * 1_000_000, "archive",
    )  # fmt: skip


class OneSeries(NamedTuple):
    series: Series
    rows: pa.Table


def read_one(path: Path, options: ImportOptions) -> OneSeries:
    """Return the one series in a file."""
    (part,) = read_candles(path, options, NOW_MS).parts
    return OneSeries(*part)


def import_one(store: LakeStore, path: Path, options: ImportOptions = SPOT) -> FileResult:
    """Import one named file, which must not be refused."""
    (imported,) = import_files(store, [path], ImportJob(options, NOW_MS, frozenset([path])))
    assert imported.error == ""
    return imported


@pytest.mark.parametrize(
    ("path", "series"),
    [
        ("data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-06-30.zip", ("spot", "BTCUSDT", "1m")),
        ("x/data/futures/um/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-06.zip", ("usdt_futures", "BTCUSDT", "1mo")),
        ("/a/futures/cm/BTCUSD_PERP-1s-2024-06-30.csv.gz", ("coin_futures", "BTCUSD_PERP", "1s")),
        ("BTCUSD_PERP-1m-2024-06-30.csv", ("coin_futures", "BTCUSD_PERP", "1m")),
        ("ETHUSD_261225-12h-2024-06.zip", ("coin_futures", "ETHUSD_261225", "12h")),
        ("BTCUSDT_261225-1m-2024-06-30.zip", ("usdt_futures", "BTCUSDT_261225", "1m")),
        ("usdt_futures_BTCUSDT_1m.pqt", ("usdt_futures", "BTCUSDT", "1m")),
        ("coin_futures_BTCUSD_PERP_3m.pqt", ("coin_futures", "BTCUSD_PERP", "3m")),
        ("spot_BTCUSDT_1M.parquet", ("spot", "BTCUSDT", "1mo")),
        ("spot-1000PEPEUSDT-1h.csv", ("spot", "1000PEPEUSDT", "1h")),
        ("data/spot/ETHUSDT_1d.parquet", ("spot", "ETHUSDT", "1d")),
        ("usdt_futures_币安人生USDT_1m.pqt", ("usdt_futures", "币安人生USDT", "1m")),
        ("lake/market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30/part-0.parquet", ("spot", "BTCUSDT", "1m")),
    ],
)  # fmt: skip
def test_a_name_that_tells(path: str, series: tuple[str, str, str]) -> None:
    """The name and directories of each kind of file give market, symbol and interval."""
    assert series_by_name(Path(path), ImportOptions()) == Series(*series)


@pytest.mark.parametrize(
    ("path", "what", "hint"),
    [
        ("BTCUSDT-1m-2024-06-30.zip", "its market is unknown", "--market usdt_futures"),
        ("spot/BTCUSDT-1m-2024-06-30.zip", "its market is unknown", "--market usdt_futures"),
        ("spot_1h.csv", "its symbol is unknown", "--symbol BTCUSDT"),
        ("spot_BTCUSDT_7m.pqt", "its interval is unknown", "--interval 1m"),
        ("spot_.._1m.pqt", "its symbol is unknown", "--symbol BTCUSDT"),
    ],
)
def test_a_name_that_does_not_tell(path: str, what: str, hint: str) -> None:
    """A missing claim is an error that names the option for it."""
    with pytest.raises(UsageError) as caught:
        series_by_name(Path(path), ImportOptions())
    assert (caught.value.what, caught.value.hint) == (f"{path}: {what}", hint)


def test_options_fill_in_what_a_name_does_not_say() -> None:
    """An option supplies a missing claim; it overrules the name only with --relabel."""
    path = Path("data/spot/BTCUSDT-1m-2024-06-30.zip")
    assert series_by_name(path, ImportOptions("spot")) == ("spot", "BTCUSDT", "1m")
    with pytest.raises(OtherSeriesError) as caught:
        series_by_name(path, ImportOptions("spot", "ETHUSDT"))
    assert caught.value.what == f"{path} says BTCUSDT, --symbol says ETHUSDT"
    assert series_by_name(path, ImportOptions("spot", "ETHUSDT", relabel=True)) == ("spot", "ETHUSDT", "1m")
    every = ImportOptions("coin_futures", "ETHUSD_PERP", "1h", relabel=True)
    assert series_by_name(Path("bybit_BTCUSDT_1m.csv"), every) == ("coin_futures", "ETHUSD_PERP", "1h")
    assert series_by_name(Path("x.csv"), ImportOptions("spot", "ETHUSDT", "1h")) == ("spot", "ETHUSDT", "1h")


@pytest.mark.parametrize("suffix", [".zip", ".csv", ".csv.gz"])
def test_files_of_the_archive(tmp_path: Path, suffix: str) -> None:
    """A zip, a CSV and a gzipped CSV give the same table, with the source "archive" and the file's time."""
    path = written(tmp_path / f"BTCUSDT-1m-2024-06-30{suffix}", lines(1, 0, 1439))
    read = read_one(path, SPOT)
    assert read.series == BTC
    assert read.rows.equals(to_table([archive_candle(0), archive_candle(1), archive_candle(1439)]))
    shouted = path.rename(path.with_name("BTCUSDT-1m-2024-06-30" + suffix.upper()))
    assert read_one(shouted, SPOT).rows.equals(read.rows)


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark before the first row is ignored."""
    path = written(tmp_path / "BTCUSDT-1m-2024-06-30.csv", "\ufeff" + lines(1439))
    assert read_one(path, SPOT).rows.equals(to_table([archive_candle(1439)]))


@pytest.mark.parametrize("index", [True, False])
def test_files_of_the_original_recorder(tmp_path: Path, index: bool) -> None:
    """A pandas frame indexed by end times is read, with or without begin times."""
    path = tmp_path / "usdt_futures_BTCUSDT_1m.pqt"
    (frame() if index else frame().drop(columns="candle_begin_time")).to_parquet(path)
    os.utime(path, (MTIME_S, MTIME_S))
    read = read_one(path, ImportOptions())
    assert read.series == Series("usdt_futures", "BTCUSDT", "1m")
    expected = to_table([archive_candle(minute) for minute in range(3)])
    assert read.rows.drop_columns("source").equals(expected.drop_columns("source"))
    assert set(read.rows["source"].to_pylist()) == {"rest"}


def test_a_partition_of_another_lake(tmp_path: Path, store: LakeStore) -> None:
    """A partition of another lake keeps its sources, event times and receive times."""
    rows = to_table([stream_candle(0), stream_candle(1, source="archive", event_ms=None)])
    store.merge(partition_of(stream_candle(0)), rows)
    assert read_one(store.root / partition_of(stream_candle(0)).file, ImportOptions()).rows.equals(rows)
    other = LakeStore.create(str(tmp_path / "other"), "test")
    assert [
        each.added
        for each in import_files(other, find_files([store.root]), ImportJob(ImportOptions(), NOW_MS))
    ] == [2]
    assert other.read(partition_of(stream_candle(0))).equals(rows)


def test_what_said_so_can_be_told(tmp_path: Path) -> None:
    """--source applies to each kind of file; only `archive` needs evidence."""
    archive = written(tmp_path / "BTCUSDT-1m-2024-06-30.csv", lines(0))
    assert read_one(archive, ImportOptions("spot", source="stream")).rows["source"].to_pylist() == ["stream"]
    frame(1).to_parquet(tmp_path / "spot_BTCUSDT_1m.pqt")
    assert (
        read_one(tmp_path / "spot_BTCUSDT_1m.pqt", ImportOptions(source="stream")).rows["source"][0].as_py()
        == "stream"
    )
    with pytest.raises(UsageError, match="--source says archive, but it does not have the archive's layout"):
        read_one(tmp_path / "spot_BTCUSDT_1m.pqt", ImportOptions(source="archive"))


def said_by(table: pa.Table) -> FileColumns:
    """Return the claims of a table's columns after their types are converted."""
    return read_file_columns(typed_columns(table).table)


def candles_in(table: pa.Table, stamp: RowOrigin) -> pa.Table:
    """Return a table's candles as an import makes them."""
    columns = said_by(table)
    grid = stamp.series.grid
    begins = begins_from_ends(columns.ends, grid) if columns.begins is None else columns.begins
    return candle_table(begins, columns.values, stamp, foreign=True)


VALUES = {"open": [2.0], "high": [3.0], "low": [0.5], "close": [2.0], "volume": [10.0]}
MOMENT = datetime(2024, 6, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "times",
    [
        {"open_time": [BEGIN_MS]},
        {"Open Time": [BEGIN_MS // 1000]},
        {"timestamp": [BEGIN_MS * 1000]},
        {"t": [BEGIN_MS * 1_000_000]},
        {"time": [float(BEGIN_MS)]},
        {"date": pa.array([MOMENT.date()])},
        {"datetime": pa.array([MOMENT], pa.timestamp("ns", tz="Asia/Shanghai"))},
        {"begin_time": pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("s"))},
        {"start_time": ["2024-06-30 00:00:00"]},
        {"start_time": ["2024-06-30T00:00:00Z"]},
        {"start_time": pa.array(["2024-06-30T00:00:00+00:00"]).dictionary_encode()},
        {"close_time": [BEGIN_MS + 59_999]},
        {"close_time": [BEGIN_MS * 1000 + 59_999_999]},
        {"close_time": [BEGIN_MS + 60_000]},
        {"candle_end_time": pa.array([BEGIN_MS + 60_000]).cast(pa.timestamp("ms"))},
        {"close_time": [5], "open_time": [BEGIN_MS]},
    ],
    ids=range(16),
)
def test_times(times: dict[str, object]) -> None:
    """The name, type or size of a column identifies its times; an end implies its begin."""
    table = candles_in(pa.table({**times, **VALUES}), STAMP)
    assert int_column(table, "candle_begin_time").tolist() == [BEGIN_MS]
    assert int_column(table, "candle_end_time").tolist() == [BEGIN_MS + 60_000]


@pytest.mark.parametrize(
    ("times", "what"),
    [
        ({"open_time": [BEGIN_MS * 1000 + 1]}, "no candle begins at -1"),
        ({"open_time": [BEGIN_MS + 14_000]}, "begins 14 s off the grid of 1m, at 1719705614000"),
        ({"open_time": [-5]}, "no candle begins at 0"),
        ({"close_time": [BEGIN_MS + 41_646]}, "begins 41.646 s off the grid of 1m, at 1719705581646"),
        ({"open_time": pa.array([None], pa.int64())}, "open_time is empty"),
    ],
    ids=range(5),
)
def test_times_that_no_candle_has(times: dict[str, object], what: str) -> None:
    """A time off the grid, out of range or absent refuses the row."""
    with pytest.raises(RowError) as caught:
        candles_in(pa.table({**times, **VALUES}), STAMP)
    assert (caught.value.kind, caught.value.row, caught.value.what) == ("time", 0, what)


@pytest.mark.parametrize("interval", INTERVALS)
@given(data=st.data())
def test_an_end_stands_for_its_begin(interval: str, data: st.DataObject) -> None:
    """For every interval the end, or its last millisecond, implies the begin; off-grid ends stay off-grid."""
    grid = INTERVALS[interval]
    begin_ms = grid.floor(data.draw(st.integers(1_500_000_000_000, 4_000_000_000_000)))
    begins = np.array([begin_ms])
    stops = ends(grid, begins)
    assert stops.tolist() == [grid.end(begin_ms)]
    assert begins_from_ends(stops, grid).tolist() == begins_from_ends(stops - 1, grid).tolist() == [begin_ms]
    off_ms = data.draw(st.integers(1, min(grid.length_ms or DAY_MS, DAY_MS) - 2))
    if (stops[0] + off_ms) % 1000 != 999:
        assert not grid.on_grid(int(begins_from_ends(stops + off_ms, grid)[0]))


def test_columns_by_other_names() -> None:
    """Names of libraries and tutorials are known, any numeric type is accepted, and missing columns are null."""
    table = candles_in(
        pa.table({
            "Open time": [BEGIN_MS],
            "Open": ["2.5"],
            "High": pa.array(["3.1"]).cast(pa.decimal128(10, 4)),
            "Low": pa.array([0.5], pa.float32()),
            "Close": pa.array([2], pa.int16()),
            "Volume": pa.array(["10.7"]).dictionary_encode(),
            "Quote asset volume": [20.0],
            "Number of trades": [7.0],
            "comment": ["?"],
        }),
        STAMP,
    )  # fmt: skip
    assert table.schema.equals(SCHEMA)
    row = table.to_pylist()[0]
    assert [row[name] for name in SCHEMA.names[2:11]] == [2.5, 3.1, 0.5, 2.0, 10.7, 20.0, 7, None, None]
    assert (row["event_time"], row["source"]) == (None, "rest")


def test_columns_by_the_exchanges_letters() -> None:
    """Single letters have the exchange's meanings: `v` is the volume, `V` the takers' part."""
    letters = {"V": 4.0, "Q": 8.0, "o": 2.0, "h": 3.0, "l": 0.5, "c": 2.0, "v": 10.0, "q": 20.0, "n": 7}
    times = {"T": BEGIN_MS + 59_999, "t": BEGIN_MS}
    table = candles_in(pa.table({name: [value] for name, value in {**times, **letters}.items()}), STAMP)
    assert table.drop_columns(["source", "recv_time"]).equals(
        to_table([archive_candle(0)]).drop_columns(["source", "recv_time"])
    )


@given(st.decimals(min_value=0, max_value=10**9, places=8))
def test_a_decimal_is_the_nearest_double(value) -> None:
    """A decimal of any Parquet file is the double that Python reads from its digits."""
    decimals = pa.array([value], pa.decimal128(20, 8))
    prices = dict.fromkeys(("open", "high", "low", "close"), decimals if value else VALUES["open"])
    volumes = {"volume": [0.0], "taker_buy_volume": decimals if not value else [0.0]}
    table = candles_in(pa.table({"t": [BEGIN_MS], **prices, **volumes}), STAMP)
    read = table["open" if value else "taker_buy_base_asset_volume"]
    assert read.to_pylist() == [float(value)]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"volume": None}, LakewriterError("has no column volume")),
        ({"open_time": None}, LakewriterError("has no column of begin times")),
        ({"open": ["x"]}, LakewriterError("open holds no numbers: ")),
        ({"open_time": ["x"]}, LakewriterError("open_time holds no times: ")),
        ({"open_time": [True]}, RowError("time", "no candle begins at", 0)),
        ({"open_time": [[1]]}, LakewriterError("open_time holds no times: ")),
        ({"open": [[1]]}, LakewriterError("open holds no numbers: ")),
        ({"count": [7.5]}, LakewriterError("count holds no numbers: ")),
        ({"count": [-7]}, RowError("trades", "trades: trade_num -7", 0)),
        ({"close": [float("nan")]}, RowError("price", "price: open 2.0, high 3.0, low 0.5, close nan", 0)),
        ({"close": pa.array([None], pa.float64())}, RowError("number", "close is empty", 0)),
        (
            {"low": [2.1]},
            RowError("low", "low: low is above open: open 2.0, high 3.0, low 2.1, close 2.0", 0),
        ),
        (
            {"high": [1.9]},
            RowError("high", "high: high is below open: open 2.0, high 1.9, low 0.5, close 2.0", 0),
        ),
    ],
    ids=range(13),
)
def test_columns_that_cannot_be_candles(changed: dict[str, object], error: LakewriterError) -> None:
    """Missing, non-numeric or impossible columns are refused in one line."""
    columns = {"open_time": [BEGIN_MS], **VALUES, **changed}
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    with pytest.raises(LakewriterError) as caught:
        candles_in(table, STAMP)
    assert type(caught.value) is type(error)
    assert caught.value.what.startswith(error.what)
    assert "\n" not in caught.value.what


def test_a_csv_by_its_header(tmp_path: Path) -> None:
    """A CSV from pandas is read by its names, and row numbers count its header."""
    path = tmp_path / "spot_BTCUSDT_1m.csv"
    frame(3).to_csv(path)
    assert int_column(read_one(path, ImportOptions()).rows, "candle_begin_time").tolist() == [
        BEGIN_MS + minute * 60_000 for minute in range(3)
    ]
    bad = frame(3)
    bad.iloc[1, bad.columns.get_loc("low")] = 5.0
    bad.to_csv(path)
    with pytest.raises(LakewriterError, match=r"row 3: low: low is above open: open 2\.0"):
        read_one(path, ImportOptions())
    assert read_file_error(written(path, "a,b\n1\n")).startswith(f"{path}: not a CSV of candles: ")
    assert read_file_error(written(path, "")).startswith(f"{path}: not a CSV of candles: ")
    assert read_file_error(written(path, b"\xff\xfe,x\n1,2\n")).startswith(f"{path}: ")


def read_file_error(path: Path) -> str:
    with pytest.raises(LakewriterError) as caught:
        read_one(path, SPOT)
    assert "\n" not in caught.value.what
    return caught.value.what


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken file of any kind is one line with its name."""
    name = "BTCUSDT-1m-2024-06-30"
    assert "not a whole zip" in read_file_error(
        written(tmp_path / f"{name}.zip.x", b"PK").rename(tmp_path / f"{name}.zip")
    )
    (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(line().encode())[:-9])
    assert "not a whole gzip file" in read_file_error(tmp_path / f"{name}.csv.gz")
    assert "not a readable Parquet file" in read_file_error(
        written(tmp_path / "spot_BTCUSDT_1m.pqt", b"PAR1")
    )
    assert "cannot be imported" in read_file_error(written(tmp_path / "spot_BTCUSDT_1m.h5", b""))
    assert "row 1: begins 30 s off the grid of 1m" in read_file_error(
        written(tmp_path / f"{name}.csv", line().replace(str(BEGIN_MS), str(BEGIN_MS + 30_000), 1))
    )
    pq.write_table(
        pa.table({"t": [BEGIN_MS, 5], **{name: values * 2 for name, values in VALUES.items()}}),
        tmp_path / "spot_BTCUSDT_1m.pqt",
    )
    assert "row 2: no candle begins at 5000" in read_file_error(tmp_path / "spot_BTCUSDT_1m.pqt")


def test_a_parquet_file_whose_names_are_no_text(tmp_path: Path) -> None:
    """A column name that is not UTF-8 is an error of one line."""
    path = tmp_path / "spot_BTCUSDT_1m.pqt"
    frame().to_parquet(path, index=False)
    whole = path.read_bytes()
    footer_at = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    at = whole.index(b"volume", footer_at)
    written(path, whole[:at] + b"\xff" + whole[at + 1 :])
    assert "not a readable Parquet file" in read_file_error(path)


def test_a_file_of_too_many_rows(tmp_path: Path) -> None:
    """A small Parquet file that claims too many rows in its footer is refused."""
    path = tmp_path / "spot_BTCUSDT_1m.parquet"
    pq.write_table(pa.table({"t": np.zeros(ROWS_MAX + 1, np.int8)}), path)
    assert path.stat().st_size < 1 << 20
    assert read_file_error(path) == f"{path}: has more than {ROWS_MAX} rows"


def test_a_checksum_beside_it(tmp_path: Path) -> None:
    """A zip must match the checksum beside it, if there is one."""
    path = written(tmp_path / "BTCUSDT-1m-2024-06-30.zip", line())
    said = path.with_name(path.name + ".CHECKSUM")
    said.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    assert read_one(path, SPOT).rows.num_rows == 1
    digits = hashlib.sha256(path.read_bytes()).hexdigest()
    for form in (f"{digits.upper()} *{path.name}\r\n", f"SHA256 ({path.name}) = {digits}\n"):
        said.write_text(form)
        assert read_one(path, SPOT).rows.num_rows == 1
    for wrong in (f"SHA256 ({path.name}) = {'0' * 64}", "", digits[:-1]):
        said.write_text(wrong)
        assert read_file_error(path) == f"{path}: does not match {path.name}.CHECKSUM beside it"
    said.write_text(f"{'0' * 64}  {path.name}")
    assert read_file_error(path) == f"{path}: does not match {path.name}.CHECKSUM beside it"


@pytest.mark.parametrize("member", ["BTCUSDT-1m-2024-06-30.csv", "exported/BTCUSDT.CSV"])
def test_a_zip_that_was_packed_again(tmp_path: Path, member: str) -> None:
    """The only CSV is read, also beside macOS's files; two CSVs are refused."""
    path = tmp_path / "BTCUSDT-1m-2024-06-30.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, lines(0))
        archive.writestr(f"__MACOSX/._{member}", b"\0\5\26\7")
        archive.writestr("._x.csv", b"\0\5\26\7")
    assert read_one(path, SPOT).rows.num_rows == 1
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("second.csv", lines(0))
    assert "2 CSV files in it, not one" in read_file_error(path)


def test_a_file_is_split_into_days(tmp_path: Path, store: LakeStore) -> None:
    """Each day's rows are in its partition, sorted, in any order of the file."""
    path = written(tmp_path / "BTCUSDT-1m-2024-06.zip", lines(4320, 0, 1439, 1440, 1))
    imported = import_one(store, path, SPOT)
    assert (imported.rows, imported.partitions, imported.added, imported.error) == (5, 3, 5, "")
    counts = [store.read(found.partition).num_rows for found in store.files()]
    assert counts == [3, 1, 1]


def test_importing_again_changes_nothing(tmp_path: Path, store: LakeStore) -> None:
    """A second import changes no row, and writes no file."""
    path = written(tmp_path / "BTCUSDT-1m-2024-06-30.zip", lines(0, 1))
    import_one(store, path, SPOT)
    versions = [store.storage.version(name) for found in store.files() for name in found.names]
    again = import_one(store, path, SPOT)
    assert (again.rows, again.added, again.replaced, again.corrections) == (2, 0, 0, 0)
    assert [store.storage.version(name) for found in store.files() for name in found.names] == versions


def test_what_is_better_known_stays(tmp_path: Path, store: LakeStore) -> None:
    """Rows of the archive replace recorded ones; rows of other files do not replace the archive's."""
    key = partition_of(stream_candle(0))
    store.merge(key, to_table([stream_candle(0, trade_num=8), stream_candle(1)]))
    path = tmp_path / "spot_BTCUSDT_1m.pqt"
    frame(2).to_parquet(path)
    os.utime(path, (BEGIN_MS // 1000 + 180,) * 2)
    first = import_one(store, path, ImportOptions())
    assert (first.replaced, first.disputed) == (0, 2)
    imported = import_one(store, written(tmp_path / "BTCUSDT-1m-2024-06-30.zip", lines(0, 1439)), SPOT)
    assert (imported.added, imported.replaced, imported.corrections, imported.disputed) == (1, 1, 1, 0)
    os.utime(path, (4e9, 4e9))
    again = import_one(store, path, ImportOptions())
    assert (again.replaced, again.disputed) == (0, 1)
    assert store.read(key)["source"].to_pylist() == ["archive", "stream", "archive"]


def symbols(directory: Path, count: int) -> list[Path]:
    return [
        written(directory / f"data/spot/S{number:03d}USDT-1m-2024-06-30.zip", lines(0, 1))
        for number in range(count)
    ]


def test_many_files(tmp_path: Path, store: LakeStore) -> None:
    """More files than fit into a batch are all imported, with results in order."""
    paths = symbols(tmp_path, BATCH_PARTITIONS_MAX + 3)
    done = list(import_files(store, find_files([tmp_path / "data"]), ImportJob(ImportOptions(), NOW_MS)))
    assert [each.path for each in done] == paths
    assert {each.added for each in done} == {2}
    assert len(list(store.files())) == len(paths)


def test_one_bad_file_keeps_no_other_out(tmp_path: Path, store: LakeStore) -> None:
    """A refused file has its result in order, and leaves no row; the others are imported."""
    paths = symbols(tmp_path, 6)
    written(paths[1], lines(0) + line(1, "nan") + "\n")
    paths[3].unlink()
    done = list(import_files(store, paths, ImportJob(ImportOptions(), NOW_MS)))
    assert [bool(each.error) for each in done] == [False, True, False, True, False, False]
    assert done[1].error == f"{paths[1]}: row 2: open is nan"
    assert done[3].error == f"{paths[3]}: No such file or directory"
    assert [found.partition.symbol for found in store.files()] == [
        "S000USDT",
        "S002USDT",
        "S004USDT",
        "S005USDT",
    ]


def test_one_bad_partition_keeps_no_other_out(tmp_path: Path, store: LakeStore) -> None:
    """A damaged partition fails only the files with rows in it."""
    paths = symbols(tmp_path, 4)
    damaged = store.root / partition_of(archive_candle(0, "S002USDT")).file
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"torn")
    done = list(import_files(store, paths, ImportJob(ImportOptions(), NOW_MS)))
    assert [bool(each.error) for each in done] == [False, False, True, False]
    assert str(damaged) in done[2].error
    assert damaged.read_bytes() == b"torn"
    assert sum(each.added for each in done) == 6


def test_files_that_overlap(tmp_path: Path, store: LakeStore) -> None:
    """A day in several files has each candle once."""
    month = written(tmp_path / "BTCUSDT-1m-2024-06.zip", lines(*range(5), 1440))
    day = written(tmp_path / "BTCUSDT-1m-2024-06-30.zip", lines(*range(3, 8)))
    done = list(import_files(store, [month, day, month], ImportJob(SPOT, NOW_MS)))
    assert [each.added for each in done] == [6, 3, 0]
    assert store.read(partition_of(archive_candle(0))).num_rows == 8


def test_checking_imports_nothing(tmp_path: Path) -> None:
    """A check gives the same counts as an import, and writes nothing."""
    paths = symbols(tmp_path, 3)
    written(paths[1], "")
    done = list(check_files(paths, ImportJob(ImportOptions(), NOW_MS)))
    assert [(each.rows, each.added, bool(each.error)) for each in done] == [
        (2, 0, False),
        (0, 0, True),
        (2, 0, False),
    ]


def test_files_in_a_directory(tmp_path: Path) -> None:
    """All candidate files of a directory are found, at any depth; a named file is always tried."""
    kept = ["a/x.csv", "a/b/y.csv.gz", "z.zip", "q.pqt", "p.parquet"]
    for name in (
        *kept,
        "z.zip.CHECKSUM",
        "readme.md",
        "_lakewriter/lake.json",
        ".p.parquet.tmp-1",
        "_x.csv",
        ".y.csv",
    ):
        written(tmp_path / name, "")
    assert list(find_files([tmp_path])) == sorted(tmp_path / name for name in kept)
    assert list(find_files([tmp_path / "readme.md"])) == [tmp_path / "readme.md"]
    with pytest.raises(UsageError, match="absent: does not exist"):
        list(find_files([tmp_path / "absent"]))


def test_columns_that_say_of_which_series(tmp_path: Path) -> None:
    """A column of symbols, pairs, exchanges or timeframes stays text, under the file's own name."""
    table = pa.table({
        "t": [BEGIN_MS], "Pair": pa.array(["BTC/USDT"]).dictionary_encode(), "exchange": [b"x"],
        "timeframe": [60], "S": [1.0], "i": ["1m"], **VALUES,
    })  # fmt: skip
    claims = [(each.level, each.name, each.values.to_pylist()) for each in said_by(table).claims]
    assert claims == [
        ("symbol", "Pair", ["BTC/USDT"]),
        ("market", "exchange", ["b'x'"]),
        ("interval", "timeframe", ["60"]),
        ("interval", "i", ["1m"]),
    ]


@pytest.mark.parametrize(
    ("marks", "closed"),
    [
        ({}, None),
        ({"x": [True, False]}, [True, False]),
        ({"isClosed": ["True", "false"]}, [True, False]),
        ({"is_final": [1, 0]}, [True, False]),
        ({"confirm": ["1", None]}, [True, True]),
        ({"in_progress": [0.0, 1.0]}, [True, False]),
        ({"closed": [True, True], "partial": ["no", "yes"]}, [True, False]),
    ],
)
def test_columns_that_mark_open_candles(marks: dict[str, object], closed: list[bool] | None) -> None:
    """A row is open if any column marks it open; an empty cell marks nothing."""
    values = {name: value * 2 for name, value in VALUES.items()}
    said = said_by(pa.table({"t": [BEGIN_MS, BEGIN_MS + 60_000], **values, **marks})).closed
    assert (None if said is None else said.tolist()) == closed


def test_a_mark_that_is_none() -> None:
    """A column named like a closed mark, with other cells than true and false, is refused."""
    with pytest.raises(LakewriterError, match="closed is '7', neither true nor false"):
        said_by(pa.table({"t": [BEGIN_MS], "closed": [7], **VALUES}))
    # A letter that is not the exchange's marks nothing.
    assert said_by(pa.table({"t": [BEGIN_MS], "x": [7], **VALUES})).closed is None


@pytest.mark.parametrize(
    ("times", "days"),
    [
        ({"date": ["2024-06-30"]}, "date"),
        ({"Date": pa.array([MOMENT.date()])}, "date"),
        ({"date": ["2024-06-30 00:00"]}, ""),
        ({"date": [BEGIN_MS]}, ""),
    ],
)
def test_times_that_are_days(times: dict[str, object], days: str) -> None:
    """A column of days without time of day is distinguished from a column of times."""
    assert said_by(pa.table({**times, **VALUES})).days == days
