"""Imports of files with mixed, open, duplicate or contradicting rows: no wrong row enters."""

import json
import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from lakewriter.cli import cli
from lakewriter.errors import UsageError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.import_files import FileResult, ImportJob, import_files
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.partition import Partition, day_of
from lakewriter.series import Series
from support.import_files import BEGIN_MS, MTIME_S, NOW_MS, written
from support.running import plain_rows

SPOT = ImportOptions("spot")


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def frame(rows: int = 10, step_ms: int = MINUTE_MS, price: float = 100.0, **columns: object) -> pd.DataFrame:
    """Return rows with the columns that most tools write, and more."""
    table = pd.DataFrame(
        {
            "timestamp": [BEGIN_MS + number * step_ms for number in range(rows)],
            "open": price, "high": price + 2, "low": price - 2, "close": price + 1,
            "volume": [5.0 + number for number in range(rows)],
        }
    )  # fmt: skip
    return table.assign(**columns)


def csv(path: Path, *frames: pd.DataFrame, written_s: float = MTIME_S) -> Path:
    written(path, pd.concat(frames).to_csv(index=False))
    os.utime(path, (written_s, written_s))
    return path


def imported(
    store: LakeStore, path: Path, options: ImportOptions = SPOT, *, named: bool = True, now_ms: int = NOW_MS
) -> FileResult:
    (result,) = import_files(store, [path], ImportJob(options, now_ms, frozenset([path] if named else [])))
    return result


def rows_of(store: LakeStore, symbol: str = "BTCUSDT", interval: str = "1m", market: str = "spot") -> int:
    table = store.read(Partition(market, symbol, interval, day_of(BEGIN_MS)))
    return 0 if table is None else table.num_rows


def test_rows_of_several_symbols(tmp_path: Path, store: LakeStore) -> None:
    """Each row is imported into its own series; a selected symbol leaves out and counts the others."""
    both = [frame(symbol="BTCUSDT"), frame(7, price=20, symbol="ETH/USDT")]
    path = csv(tmp_path / "all_1m.csv", *both)
    chosen = imported(store, path, ImportOptions("spot", "BTCUSDT"))
    assert (chosen.rows, chosen.left_out.other_series, rows_of(store, "ETHUSDT")) == (10, 7, 0)
    every = imported(store, path)
    assert [each.symbol for each in every.series] == ["BTCUSDT", "ETHUSDT"]
    assert (rows_of(store), rows_of(store, "ETHUSDT")) == (10, 7)


def test_a_name_or_an_option_that_contradicts_a_column(tmp_path: Path, store: LakeStore) -> None:
    """A contradiction refuses a named file with both sources; a file found in a directory is skipped."""
    path = csv(tmp_path / "ETHUSDT_1m.csv", frame(symbol="BTCUSDT"))
    assert imported(store, path).error == f"{path} says ETHUSDT, its column symbol says BTCUSDT"
    path = csv(tmp_path / "x_1m.csv", frame(symbol="ETHUSDT"))
    btc = ImportOptions("spot", "BTCUSDT")
    assert (
        imported(store, path, btc).error == f"{path}: its column symbol says ETHUSDT, --symbol says BTCUSDT"
    )
    left_out = imported(store, path, btc, named=False)
    assert (left_out.error, left_out.other_series, left_out.rows) == ("", True, 0)
    assert imported(store, path, btc._replace(relabel=True)).rows == 10
    assert (rows_of(store), rows_of(store, "ETHUSDT")) == (10, 0)


def test_interleaved_symbols_without_a_column(tmp_path: Path, store: LakeStore) -> None:
    """Rows of two symbols without a symbol column are refused as a whole."""
    path = csv(tmp_path / "BTCUSDT_1m.csv", frame(), frame(price=20).assign(volume=99.0))
    assert "10 of 20 rows contradict another row of their candle" in imported(store, path).error
    assert rows_of(store) == 0


@pytest.mark.parametrize(
    ("name", "table", "why"),
    [
        ("BTCUSDT_1h.csv", frame(5, DAY_MS), "these rows are 1d, its name says 1h"),
        ("BTCUSDT_1m.csv", frame(5, HOUR_MS), "these rows are 1h, its name says 1m"),
        ("BTCUSDT_1m.csv", frame(2, HOUR_MS).assign(close_time=lambda rows: rows.timestamp + HOUR_MS - 1),
         "these rows end 1h after they begin, its name says 1m"),
        ("BTCUSDT_1m.csv", frame(5, HOUR_MS, timeframe="1h"), "says 1m, its column timeframe says 1h"),
        ("x.csv", frame(5, DAY_MS, symbol="BTCUSDT", interval="4h"), "these rows are 1d, its column interval says 4h"),
        ("BTCUSDT_4h.csv", frame(5, DAY_MS).assign(date=lambda rows: pd.to_datetime(rows.timestamp, unit="ms").dt.date)
         .drop(columns="timestamp"), "date has days only, and candles of 4h need the time of day"),
    ],
)  # fmt: skip
def test_rows_of_another_interval(
    tmp_path: Path, store: LakeStore, name: str, table: pd.DataFrame, why: str
) -> None:
    """A file that claims another interval than its rows have is refused."""
    path = csv(tmp_path / name, table)
    assert imported(store, path).error.endswith(why)


def test_sparse_rows_can_be_forced(tmp_path: Path, store: LakeStore) -> None:
    """--sparse accepts a series with a gap between all of its rows."""
    path = csv(tmp_path / "BTCUSDT_1m.csv", frame(3, HOUR_MS))
    assert imported(store, path).hint == "--relabel --interval 1h, or --sparse if rows are missing in between"
    assert imported(store, path, SPOT._replace(sparse=True)).rows == 3


@pytest.mark.parametrize("clock", [{"time": [f"00:{minute:02}:00" for minute in range(10)]},
                                   {"hour": 0, "minute": range(10)}])  # fmt: skip
def test_a_date_and_a_time_of_day(tmp_path: Path, store: LakeStore, clock: dict[str, object]) -> None:
    """A column of days and one of times of day form one time."""
    table = frame(10, **clock).assign(date="2024-06-30").drop(columns="timestamp")
    assert imported(store, csv(tmp_path / "BTCUSDT_1m.csv", table)).rows == 10


@pytest.mark.parametrize(
    "marks",
    [{"x": [True] * 9 + [False]}, {"is_closed": ["true"] * 9 + ["false"]}, {"confirm": [1] * 9 + [0]},
     {"status": ["closed"] * 9 + ["open"]}, {"in_progress": [False] * 9 + [True]}],
)  # fmt: skip
def test_candles_that_are_marked_open(tmp_path: Path, store: LakeStore, marks: dict[str, object]) -> None:
    """Rows that the file marks open are left out and counted."""
    result = imported(store, csv(tmp_path / "BTCUSDT_1m.csv", frame(**marks)))
    assert (result.rows, result.left_out.open) == (9, 1)


def test_candles_that_were_not_over(tmp_path: Path, store: LakeStore) -> None:
    """Candles that end after the file was written, or after now, are left out and counted."""
    half_s = (BEGIN_MS + 5 * MINUTE_MS + 30_000) / 1000
    path = csv(tmp_path / "BTCUSDT_1m.csv", frame(), written_s=half_s)
    assert imported(store, path).left_out.open == 5
    path = csv(tmp_path / "ETHUSDT_1m.csv", frame())
    result = imported(store, path, now_ms=BEGIN_MS + 3 * MINUTE_MS)
    assert (result.rows, result.left_out.open) == (3, 7)
    path = csv(tmp_path / "XRPUSDT_1m.csv", frame(), written_s=1)
    refused = imported(store, path)
    assert refused.error == f"{path}: all its candles end after it was written, at 1970-01-01T00:00:01"
    assert refused.hint == f"touch {path}"


def dump(rows: int, step_ms: int = MINUTE_MS) -> str:
    """Return rows of a REST answer as CSV."""
    times = [BEGIN_MS + number * step_ms for number in range(rows)]
    return "".join(f"{at},100,102,98,101,5,{at + step_ms - 1},505,10,1,101,0\n" for at in times)


@pytest.mark.parametrize(
    ("name", "rows", "source"),
    [
        ("BTCUSDT-1m-2024-06-30.csv", 1440, "archive"),
        ("BTCUSDT-1m-2024-06-30.csv", 1439, "rest"),
        ("BTCUSDT-1m-2024-06-30.zip", 700, "rest"),
        ("BTCUSDT-1m-2024-06.csv", 1440, "archive"),  # June 30 is the last day of its month
        ("BTCUSDT-1m-2024-07.csv", 1440, "rest"),
        ("BTCUSDT-1m-2024-07-01.csv", 1440, "rest"),
        ("BTCUSDT-1m.csv", 1440, "rest"),
        ("btcusdt-1m-2024-06-30.csv", 1440, "rest"),
    ],
)
def test_who_is_the_archive(tmp_path: Path, store: LakeStore, name: str, rows: int, source: str) -> None:
    """Rows without a header are the archive's if name, period and file time prove it, else REST's."""
    assert imported(store, written(tmp_path / name, dump(rows))).error == ""
    table = store.read(Partition("spot", "BTCUSDT", "1m", day_of(BEGIN_MS)))
    assert table is not None
    assert set(table["source"].to_pylist()) == {source}


def test_a_day_that_is_not_over_is_none_of_the_archive(tmp_path: Path, store: LakeStore) -> None:
    """A file of today is never proven to be the archive's."""
    path = written(tmp_path / "BTCUSDT-1m-2024-06-30.csv", dump(1440))
    result = imported(store, path, now_ms=BEGIN_MS + DAY_MS - 1)
    assert (result.rows, result.left_out.open) == (1439, 1)
    assert result.notes == ("ranks as rest: its period is not over",)


def test_an_open_dump_does_not_outlast_what_was_recorded(tmp_path: Path, store: LakeStore) -> None:
    """A dump with an open last row loses to the candle with more trades, in any order of import."""
    half = dump(2).replace(",5,", ",1,").replace(",505,10,1,101,0", ",101,2,1,101,0")
    whole = dump(2)
    for first, second in ((half, whole), (whole, half)):
        for text in (first, second):
            imported(store, written(tmp_path / "BTCUSDT-1m-2024-06-30.csv", text))
        table = store.read(Partition("spot", "BTCUSDT", "1m", day_of(BEGIN_MS)))
        assert table is not None
        assert table["trade_num"].to_pylist() == [10, 10]


def test_more_volume_is_later(tmp_path: Path, store: LakeStore) -> None:
    """Of two files without trades, the larger volume wins in any order; the other row is counted."""
    early = csv(tmp_path / "a/BTCUSDT_1m.csv", frame(3), written_s=MTIME_S + 9)
    late = csv(tmp_path / "b/BTCUSDT_1m.csv", frame(3).assign(volume=50.0), written_s=MTIME_S)
    assert imported(store, early).added == 3
    assert imported(store, late).corrections == 3
    assert imported(store, early).disputed == 3
    table = store.read(Partition("spot", "BTCUSDT", "1m", day_of(BEGIN_MS)))
    assert table is not None
    assert table["volume"].to_pylist() == [50.0] * 3


def test_two_columns_of_volumes(tmp_path: Path, store: LakeStore) -> None:
    """Prices decide which column is the volume; otherwise the file is refused."""
    table = frame(3).rename(columns={"volume": "Volume BTC"})
    named = table.assign(**{"Volume USDT": table["Volume BTC"] * 101})[[*table.columns[::-1], "Volume USDT"]]
    assert imported(store, csv(tmp_path / "BTCUSDT_1m.csv", named)).error == ""
    rows = store.read(Partition("spot", "BTCUSDT", "1m", day_of(BEGIN_MS)))
    assert rows is not None
    assert (rows["volume"].to_pylist(), rows["quote_volume"].to_pylist()) == (
        [5.0, 6.0, 7.0],
        [505.0, 606.0, 707.0],
    )
    told = imported(store, csv(tmp_path / "ETHUSDT_1m.csv", table.assign(**{"Volume USDT": 3.0})))
    assert "could each be the volume" in told.error
    swapped = frame(3).assign(quote_volume=lambda rows: rows.volume, volume=lambda rows: rows.volume * 101)
    told = imported(store, csv(tmp_path / "ETHUSDT_1m.csv", swapped[["timestamp", *swapped.columns[:0:-1]]]))
    assert "volume and the quote volume are swapped" in told.error


def test_a_file_of_a_lake_that_was_moved(tmp_path: Path, store: LakeStore) -> None:
    """The metadata of a lake's file claims its series at any path."""
    imported(store, csv(tmp_path / "BTCUSDT_1m.csv", frame()))
    moved = tmp_path / "candles.parquet"
    moved.write_bytes((store.root / Partition("spot", "BTCUSDT", "1m", day_of(BEGIN_MS)).file).read_bytes())
    other = LakeStore.create(str(tmp_path / "other"), "test")
    result = imported(other, moved, ImportOptions())
    assert (result.error, result.added) == ("", 10)
    renamed = moved.rename(tmp_path / "ETHUSDT_1m.parquet")
    assert imported(other, renamed).error == f"{renamed} says ETHUSDT, its metadata says BTCUSDT"


def command(lake: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli, ["import", "--lake", str(lake), *map(str, arguments)])


def test_options_choose_among_the_files_of_a_directory(tmp_path: Path) -> None:
    """Files of other series are left out and counted, in the sentence and in --json, without a failure."""
    data = tmp_path / "data"
    csv(data / "spot_BTCUSDT_1m.csv", frame(), frame(1))
    csv(data / "spot_ETHUSDT_1m.csv", frame(price=20))
    csv(data / "um_BTCUSDT_1m.csv", frame(price=101))
    result = command(tmp_path / "lake", data, "--market", "spot", "--symbol", "BTCUSDT")
    assert (result.exception, result.stderr) == (None, "")
    assert result.stdout.startswith("1 file, 10 candles: 10 added, ")
    assert result.stdout.endswith("\nleft out: 2 files of other series; 1 duplicate row\n")
    assert {row[:2] for row in plain_rows(tmp_path / "lake")} == {("spot", "BTCUSDT")}
    counts = json.loads(command(tmp_path / "lake", data, "--symbol", "BTCUSDT", "--json").stdout)
    assert (counts["failed"], counts["added"], counts["left_out"]["files_of_other_series"]) == (0, 10, 1)


def test_options_that_choose_nothing(tmp_path: Path) -> None:
    """A directory without a file of the selected series is a usage error."""
    csv(tmp_path / "data/spot_ETHUSDT_1m.csv", frame())
    result = command(tmp_path / "lake", tmp_path / "data", "--symbol", "BTCUSDT")
    assert isinstance(result.exception, UsageError)
    assert result.exception.what == "import: none of 1 files is of the selected series"


def test_relabel_needs_a_name(tmp_path: Path) -> None:
    """--relabel without another option is a usage error."""
    result = command(tmp_path / "lake", csv(tmp_path / "BTCUSDT_1m.csv", frame()), "--relabel")
    assert str(result.exception) == "--relabel: no new name is given"


def test_a_symbol_that_was_understood_is_said(tmp_path: Path) -> None:
    """A symbol in another spelling is imported under the exchange's, with a line on stderr."""
    path = csv(tmp_path / "BTC_USDT-1m.csv", frame())
    result = command(tmp_path / "lake", path, "--market", "spot")
    assert result.stderr == f"lakewriter: {path}: read as BTCUSDT\n"
    assert {row[1] for row in plain_rows(tmp_path / "lake")} == {"BTCUSDT"}


def test_a_partial_day_keeps_no_backfill_from_it(tmp_path: Path, store: LakeStore) -> None:
    """Before a backfill an unproven file's last row is left out; the backfill fetches the rest of the day."""
    path = written(tmp_path / "BTCUSDT-1m-2024-06-30.csv", dump(700))
    (result,) = import_files(store, [path], ImportJob(SPOT, NOW_MS, doubt_last=True))
    assert (result.error, result.rows, result.left_out.open) == ("", 699, 1)
    missing = presence_of(store, Series("spot", "BTCUSDT", "1m")).missing(BEGIN_MS, BEGIN_MS + DAY_MS)
    assert missing == [(BEGIN_MS + 699 * MINUTE_MS, BEGIN_MS + DAY_MS)]
    whole = written(tmp_path / "ETHUSDT-1m-2024-06-30.csv", dump(1440))
    (result,) = import_files(store, [whole], ImportJob(SPOT, NOW_MS, doubt_last=True))
    assert (result.rows, result.left_out.open) == (1440, 0)


def test_the_csv_in_a_zip_has_a_name_too(tmp_path: Path, store: LakeStore) -> None:
    """A zip and its CSV with different series in their names are refused, with both names."""
    path = tmp_path / "BTCUSDT-1m-2024-06-30.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ETHUSDT-1m-2024-06-30.csv", dump(1440))
    assert imported(store, path).error == f"{path} says BTCUSDT, its ETHUSDT-1m-2024-06-30.csv says ETHUSDT"
    unnamed = path.rename(tmp_path / "download.zip")
    assert imported(store, unnamed).series == (Series("spot", "ETHUSDT", "1m"),)
