"""Files of users in many dialects: read with their intended numbers, or refused in one line."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import int_column
from lakewriter.errors import LakewriterError
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.file_candles import FileCandles, read_candles
from lakewriter.importer.file_table import read_table
from support.lengths import examples

BEGIN_MS = 1_704_067_200_000  # 2024-01-01
NOW_MS = 1_780_000_000_000
MINUTE = ImportOptions("spot", "BTCUSDT", "1m")
DAILY = ImportOptions("spot", "BTCUSDT", "1d")
TIMES = [BEGIN_MS + minute * 60_000 for minute in range(3)]
FRAME = pd.DataFrame(
    {"open": 100.5, "high": 102.0, "low": 98.0, "close": 101.0, "volume": 5.25}, index=range(3)
)
MOMENTS = pd.to_datetime(TIMES, unit="ms", utc=True)
REST = [
    [ms, "100.5", "102", "98", "101", "5.25", ms + 59_999, "525.5", 10, "1", "100.1", "0"] for ms in TIMES
]
CANDLE = (100.5, 102.0, 98.0, 101.0, 5.25)


def read(path: Path, options: ImportOptions = MINUTE) -> FileCandles:
    return read_candles(path, options, NOW_MS)


def candles(path: Path, options: ImportOptions = MINUTE) -> list[tuple[float, ...]]:
    """Return the candles of a file with one series: begin, open, high, low, close, volume."""
    ((_, table),) = read(path, options).parts
    begins = int_column(table, "candle_begin_time").tolist()
    columns = [table[name].to_pylist() for name in ("open", "high", "low", "close", "volume")]
    return list(zip(begins, *columns, strict=True))


def refusal(path: Path, options: ImportOptions = MINUTE) -> str:
    with pytest.raises(LakewriterError) as caught:
        read(path, options)
    assert caught.value.what.startswith(f"{path}: ")
    assert caught.value.what.isprintable()
    return caught.value.what.removeprefix(f"{path}: ")


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def text(header: str, row: str, end: str = "\n") -> str:
    """Return three rows; `row` has {ms}, {s} and {n} for the minute."""
    rows = [row.format(ms=ms, s=ms // 1000, n=n) for n, ms in enumerate(TIMES)]
    return end.join([header, *rows] if header else rows) + end


def dated(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns | {name: FRAME[name] for name in FRAME})


def csv_of(frame: pd.DataFrame, **how: object) -> bytes:
    encoding = how.pop("encoding", "utf-8")
    return frame.to_csv(**how).encode(encoding)  # type: ignore[call-overload, arg-type]


NAIVE = dated(date=MOMENTS.tz_localize(None))
V = "100.5,102,98,101,5.25"
TEXTS = {
    "semicolons": csv_of(NAIVE, index=False, sep=";"),
    "tabs": csv_of(NAIVE, index=False, sep="\t"),
    "bars": csv_of(NAIVE, index=False, sep="|"),
    "carriage returns": csv_of(NAIVE, index=False, lineterminator="\r\n"),
    "old carriage returns": csv_of(NAIVE, index=False, lineterminator="\r"),
    "utf-8 with a mark": csv_of(NAIVE, index=False, encoding="utf-8-sig"),
    "utf-16": csv_of(NAIVE, index=False, encoding="utf-16"),
    "utf-16 big end first": b"\xfe\xff" + csv_of(NAIVE, index=False, encoding="utf-16-be"),
    "utf-16 without a mark": csv_of(NAIVE, index=False, encoding="utf-16-le"),
    "utf-32": csv_of(NAIVE, index=False, encoding="utf-32"),
    "everything quoted": csv_of(NAIVE, index=False, quoting=1),
    "an index without a name": csv_of(FRAME.set_index(MOMENTS)),
    "an index without a name, tabs": csv_of(FRAME.set_index(MOMENTS), sep="\t"),
    "an index that was read back": csv_of(NAIVE.rename_axis("Unnamed: 0")),
    "an index of numbers": csv_of(NAIVE),
    "a title": "https://example.org/data\n\n" + text("unix,open,high,low,close,volume", "{ms}," + V),
    "comments": "# made by x, y\n" + text("unix,open,high,low,close,volume", "{ms}," + V) + "# 1,2,3,4,5,6\n",
    "a header behind a hash": text("# unix open high low close volume", "{ms} 100.5 102 98 101 5.25"),
    "a hint for a spreadsheet": "sep=;\n" + csv_of(NAIVE, index=False, sep=";").decode(),
    "blank lines": text("unix,open,high,low,close,volume\n", "{ms}," + V + "\n  \n\n"),
    "a header for each day": text("unix,open,high,low,close,volume", "unix,open,high,low,close,volume\n{ms}," + V),
    "no header": text("", "{ms}," + V),
    "no header, seconds": text("", "{s}," + V),
    "no header, dates": text("", "2024-01-01 00:0{n}:00," + V),
    "no header, a date and a time": text("", "2024.01.01,00:0{n}," + V),
    "no header, twelve values, tabs": text("", "{ms}\t100.5\t102\t98\t101\t5.25\t{ms}\t525\t1\t0\t0\t0"),
    "columns by number, as pandas calls them": text(
        ",0,1,2,3,4,5,6,7,8,9,10,11", "{n},{ms}," + V + ",{ms},525.5,10,1,100.1,0"
    ),
    "no header, days and times in digits": text("", "20240101 000{n}00;" + V.replace(",", ";")),
    "newest first": "\n".join(text("unix,open,high,low,close,volume", "{ms}," + V).splitlines()[at] for at in (0, 3, 2, 1)),
    "a header that numbers the rows": text("#,Date,Open,High,Low,Close,Volume", "{n},2024-01-01 00:0{n}:00," + V),
    "trailing separators": text("unix,open,high,low,close,volume,", "{ms}," + V + ","),
    "trailing separators without a name": text("unix,open,high,low,close,volume", "{ms}," + V + ","),
    "trailing names without values": text("unix,open,high,low,close,volume,,", "{ms}," + V),
    "names of rows, as R writes them": text("unix,open,high,low,close,volume", '"{n}",{ms},' + V),
    "spaces around": text("unix , open, high, low , close, volume", " {ms} , 100.5, 102 ,98, 101, 5.25"),
    "aligned by spaces": text("          unix   open  high low close volume", "  {ms}  100.5   102  98   101   5.25 "),
    "brackets": text("<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>", "BTCUSDT,1m,20240101,00:0{n}:00," + V),
    "the same column twice": text("unix,open,high,low,close,Close,volume", "{ms},100.5,102,98,101,101.0,5.25").replace("101.0", "101"),
    "year, month and day with slashes": text("date,open,high,low,close,volume", "2024/1/1 0:0{n}," + V),
    "text with an offset": text("time,open,high,low,close,volume", "2024-01-01T02:0{n}:00+02:00," + V),
    "text with a space before its offset": text("time,open,high,low,close,volume", "2023-12-31 19:0{n}:00 -0500," + V),
    "text with UTC": text("Time UTC,open,high,low,close,volume", "2024-01-01 00:0{n}:00 UTC," + V),
    "halves of a day": text("Date,open,high,low,close,volume", "2024-01-01 12:0{n}:00 AM," + V),
    "the day first, which is the month's": text("Gmt time,Open,High,Low,Close,Volume", "01.01.2024 00:0{n}:00.000," + V),
    "digits only": text("datetime,open,high,low,close,volume", "20240101 00:0{n}," + V),
    "a date and a time": text("date,time,open,high,low,close,volume", "2024-01-01,00:0{n}:00," + V),
    "a date, an hour and a minute": text("Date,Hour,Minute,open,high,low,close,volume", "2024-01-01,0,{n}," + V),
    "numbers with a fraction of zero": text("timestamp,open,high,low,close,volume", "{ms}.0," + V),
    "milliseconds by name": text("timestamp_ms,open,high,low,close,volume", "{ms}," + V),
    "nanoseconds": text("ts,open,high,low,close,volume", "{ms}000000," + V),
    "unix beside a local date": text("unix,date,open,high,low,close,volume", "{s},2024-01-01 08:0{n}:00," + V),
    "decimal commas": text("unix;open;high;low;close;volume", "{ms};100,5;102,0;98;101,000;5,25"),
    "decimal commas and thousands": text("unix;open;high;low;close;volume;trades", "{ms};100,5;102,0;98;101;5,25;1.000"),
    "decimal commas in quotes": text("unix,open,high,low,close,volume", '{ms},"100,50","102,00","98,00","101,00","5,25"'),
    "powers of ten": text("unix,open,high,low,close,volume", "{ms},1.005E+02,102,9.8e1,101,525e-2"),
    "a halt as a row without values": text("unix,open,high,low,close,volume", "{ms}," + V) + f"{BEGIN_MS + 180_000},,,,,\n",
    "a halt as a row of NaN": text("unix,open,high,low,close,volume", "{ms}," + V) + f"{BEGIN_MS + 180_000},NaN,NaN,NaN,NaN,0\n",
    "single quotes": text("'unix','open','high','low','close','volume'", "'{ms}','100.5','102','98','101','5.25'"),
    "the asset in the volume's name": text(
        "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount",
        "{ms},2024-01-01 00:0{n}:00,BTC/USDT,100.5,102,98,101,5.25,530.25,7",
    ),
    "the asset in brackets": text(
        "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price", "{s}," + V + ",530.25,101"
    ),
    "a partial name of other columns": text("unix,open,high,low,close,adj close,volume,dividends", "{ms},100.5,102,98,101,7,5.25,0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_texts(tmp_path: Path, kind: str) -> None:
    """All dialects of a text give the same candles."""
    path = put(tmp_path / "candles.csv", TEXTS[kind])
    assert candles(path) == [(ms, *CANDLE) for ms in TIMES]


def arrow_files() -> dict[str, tuple[str, pa.Table]]:
    values = {name: pa.array(FRAME[name]) for name in FRAME}
    indexed = pa.Table.from_pandas(FRAME.set_index(MOMENTS))
    assert "__index_level_0__" in indexed.column_names
    shanghai = pa.array(MOMENTS).cast(pa.timestamp("ns", tz="Asia/Shanghai"))
    naive = pa.array(MOMENTS.tz_localize(None))
    return {
        "an index without a name": ("parquet", indexed),
        "freqtrade's": ("feather", pa.table({"date": pa.array(MOMENTS), **values})),
        "another zone": ("parquet", pa.table({"datetime": shanghai, **values})),
        "no zone": ("feather", pa.table({"datetime": naive, **values})),
        "decimals": ("parquet", pa.table({"t": pa.array(TIMES), **{
            name: pa.array([Decimal(str(each)) for each in FRAME[name]], pa.decimal128(18, 4)) for name in FRAME
        }})),
        "unsigned times, 32 bits": ("parquet", pa.table({"t": pa.array(TIMES, pa.uint64()), **{
            name: each.cast(pa.float32()) for name, each in values.items()
        }})),
        "large texts": ("parquet", pa.table({"t": pa.array([str(ms) for ms in TIMES], pa.large_string()), **{
            name: each.cast(pa.large_string()) for name, each in values.items()
        }})),
        "views of texts": ("feather", pa.table({"t": pa.array([str(ms) for ms in TIMES], pa.string_view()), **{
            name: each.cast(pa.string_view()) for name, each in values.items()
        }})),
        "dictionaries": ("parquet", pa.table({
            "t": pa.array(["2024-01-01T08:00:00+08:00", "2024-01-01T08:01:00+08:00", "2024-01-01T08:02:00+08:00"]).dictionary_encode(),
            **values, "symbol": pa.array(["BTCUSDT"] * 3).dictionary_encode(),
        })),
        "lists beside": ("parquet", pa.table({"t": TIMES, **values, "book": [[1], [2], []]})),
        "a whole date in digits": ("parquet", pa.table({"date": [20240101] * 3, "time": pa.array([0, 60, 120], pa.time32("s")), **values})),
    }  # fmt: skip


@pytest.mark.parametrize("kind", arrow_files())
def test_arrow_files(tmp_path: Path, kind: str) -> None:
    """Parquet and Feather files are read with any types of times and numbers."""
    suffix, table = arrow_files()[kind]
    path = tmp_path / f"candles.{suffix}"
    write = feather.write_feather if suffix == "feather" else pq.write_table
    write(table, path)
    assert candles(path) == [(ms, *CANDLE) for ms in TIMES]


OHLCV = [[ms, *CANDLE] for ms in TIMES]
OBJECTS = [dict(zip(["open_time", *FRAME], row, strict=True)) for row in OHLCV]
JSONS = {
    "freqtrade's": json.dumps(OHLCV),
    "a REST answer": json.dumps(REST),
    "objects": json.dumps(OBJECTS, indent=2),
    "columns": json.dumps({"s": "ok", **{name: [row[name] for row in OBJECTS] for name in OBJECTS[0]}}),
    "objects in lines": "\n".join(map(json.dumps, OBJECTS)),
    "one object": json.dumps(OBJECTS[0]),
    "texts in lines": "\n".join(
        json.dumps({name: str(value) for name, value in row.items()}) for row in OBJECTS
    ),
    "numbers of two kinds": json.dumps(OHLCV).replace("98.0", "98").replace("101.0", '"101"', 1),
}


@pytest.mark.parametrize("kind", JSONS)
@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_json(tmp_path: Path, kind: str, suffix: str) -> None:
    """JSON is read as rows, objects, columns and lines."""
    content = JSONS[kind].encode()
    path = put(tmp_path / f"candles.{suffix}", gzip.compress(content) if suffix.endswith("gz") else content)
    expected = [(ms, *CANDLE) for ms in TIMES]
    assert candles(path) == (expected[:1] if kind == "one object" else expected)


def test_the_rest_of_a_rest_answer(tmp_path: Path) -> None:
    """A saved answer keeps quote volumes, trades and takers."""
    path = put(tmp_path / "candles.json", json.dumps(REST))
    ((_, table),) = read(path).parts
    names = ("quote_volume", "trade_num", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume")
    assert [table[name][0].as_py() for name in names] == [525.5, 10, 1.0, 100.1]
    assert set(table["source"].to_pylist()) == {"rest"}


REFUSED = {
    "decimals or thousands": (
        text("unix;open;high;low;close;volume", "{ms};42,283;42,300;42,100;42,200;1,500"),
        "open has '42,283', whose decimal mark is ambiguous",
    ),
    "points or thousands": (
        text("unix;open;high;low;close;volume", "{ms};42.283;42.300;42.100;42.200;1.500"),
        "open has '42.283', whose decimal mark is ambiguous",
    ),
    "points and commas": (
        text("unix;open;high;low;close;volume", "{ms};100,5;102.5;98;101;5"),
        "open has '100,5', whose decimal mark is ambiguous",
    ),
    "a currency": (text("unix,open,high,low,close,volume", "{ms},$100,102,98,101,5"), "open holds no numbers: '$100'"),
    "days or months": (
        "date,open,high,low,close,volume\n03/04/2024,1,2,1,2,5\n04/04/2024,1,2,1,2,5\n",
        "date has ambiguous days and months: 03/04",
    ),
    "days and months": (
        "date,open,high,low,close,volume\n13/04/2024,1,2,1,2,5\n04/14/2024,1,2,1,2,5\n",
        "date has dates with the day first, and others with the month first",
    ),
    "a year of two digits": ("date,open,high,low,close,volume\n1/2/24,1,2,1,2,5\n", "date holds no times: '1/2/24'"),
    "hours from 1 to 24": (
        "date,hour,open,high,low,close,volume\n2024-01-01,23," + V + "\n2024-01-01,24," + V + "\n",
        "hour is 24, not one of 0 to 23",
    ),
    "lost digits": (
        text("unix,open,high,low,close,volume", "1.70407E+12,100,102,98,101,5"),
        "unix holds times without their last digits: '1.70407E+12'",
    ),
    "a serial day of a spreadsheet": (
        text("date,open,high,low,close,volume", "45292.5,100,102,98,101,5"), "date holds no times: '45292.5'"
    ),
    "offsets in some rows": (
        "date,open,high,low,close,volume\n2024-01-01 00:00+02:00,1,2,1,2,5\n2024-01-01 00:01,1,2,1,2,5\n",
        "date has times with an offset and times without",
    ),
    "a zone that is a name": (
        text("date,open,high,low,close,volume", "2024-01-01 00:0{n} EST," + V), "date holds no times: '2024-01-01 00:00 EST'"
    ),
    "two tickers in the header": (
        "Price,Close,High,Low,Open,Volume\n,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDate,,,,,\n2024-01-01,1,2,1,1,5\n",
        "has no column of begin times",
    ),
    "a column twice": (
        text("unix,open,high,low,close,Close,volume", "{ms},100,102,98,101,99,5"),
        "has two columns for one thing, close and Close",
    ),
    "a price under two names": (
        text("unix,open,open_price,high,low,close,volume", "{ms},100,99,102,98,101,5"),
        "has two columns for one thing, open and open_price",
    ),
    "seven values without a header": (
        text("", "{ms},100,102,98,101,5,7"), "has no header, and its rows have 7 values, not 6 or 12"
    ),
    "a header in another language": (
        text("时间,开盘,最高,最低,收盘,成交量", "{ms}," + V),
        "not a CSV of candles: its header names no open, high, low, close: '时间,开盘,最高,最低,收盘,成交量'",
    ),
    "a gzip file by a wrong name": (gzip.compress(b"x"), "is not a text file but a gzip file"),
    "a spreadsheet by a wrong name": (b"PK\x03\x04" + b"\0" * 99, "is not a text file but a zip or a spreadsheet"),
    "bytes of no kind": (bytes(range(256)), "is not a text file: it has null bytes"),
    "the sequences of a terminal": (
        "date,open\n\x1b]0;title\x07\x1b[31mx,1,2,3,4\n", "not a CSV of candles: no header with open, high, low"
    ),
    "the sequences of a terminal in a cell": (
        text("unix,open,high,low,close,volume", "{ms}," + V) + "1,\x1b[2J\x9b,1,1,1,1\n", r"row 5: open is '\x1b[2J\x9b', no number"
    ),
    "no candles": ("a,b\n1,2\n", "not a CSV of candles: no header with open, high, low, close"),
    "nothing": ("", "not a CSV of candles: no header"),
    "a header alone": ("unix,open,high,low,close,volume\n\n", "has no rows"),
    "a quote that is never closed": (
        text("unix,open,high,low,close,volume,note", "{ms}," + V + ",").replace("5.25,", '5.25,"', 1),
        "has a value on several lines, or an unclosed quote",
    ),
    "bytes that are no text": (
        text("unix,open,high,low,close,volume", "{ms}," + V).encode() + b"1,2,3,4,5,\xff\n",
        "is not valid UTF-8",
    ),
    "half of a UTF-16 text": (csv_of(NAIVE, index=False, encoding="utf-16")[:-1], "is not valid UTF-16"),
    "a row that is cut": (text("unix,open,high,low,close,volume", "{ms}," + V)[:-20], "row 4: has 2 values, not 6"),
    "a word in one row": (
        text("unix,open,high,low,close,volume", "{ms}," + V) + "\n\n1704067380000,100,abc,98,101,5\n",
        "row 7: high is 'abc', no number",
    ),
    "a date that is none": (
        "date,open,high,low,close,volume\n2024-02-29,1,2,1,2,5\n2024-02-30,1,2,1,2,5\n", "row 3: date is '2024-02-30', no time"
    ),
    "an empty price": (
        text("unix,open,high,low,close,volume", "{ms}," + V) + "1704067380000,100,,98,101,5\n", "row 5: high is empty"
    ),
    "ccxt's order of others: low and high before open": (
        text("", "{s},98,102,100,101,5"), "row 1: low: low is above"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_texts_that_are_refused(tmp_path: Path, kind: str) -> None:
    """An ambiguous or unreadable text is refused in one line with the reason."""
    content, what = REFUSED[kind]
    options = DAILY if kind.startswith(("day", "a year", "a date")) else MINUTE
    assert refusal(put(tmp_path / "candles.csv", content), options).startswith(what)


def test_other_files_that_are_refused(tmp_path: Path) -> None:
    """JSON, Parquet and Feather files without candles are refused in one line."""
    for content, what in (
        ('{"code": -1121, "msg": "Invalid symbol.\\u001b"}', "is no JSON of candles: it has no rows, but "),
        ("[]", "is no JSON of candles: it has no rows"),
        ("[[1, 2, 3]]", "has rows of 3 values, not 6 or 12"),
        (json.dumps([*OHLCV, [1]]), "row 4 is not a list of 6 values"),
        (json.dumps(OHLCV)[:-5], "is no JSON: "),
        ("[" * 100_000, "is no JSON: "),
        ('{"open": 1}\n{"open": }\n', "is no JSON of candles: "),
        (json.dumps([[1e300, *CANDLE]]), "open_time holds no times"),
        ("[[true, 1, 2, 3, 4, 5]]", "row 1: no candle begins at 1000"),
    ):
        assert refusal(put(tmp_path / "candles.json", content)).startswith(what)
    values = {name: pa.array(FRAME[name]) for name in FRAME}
    for table, what in (
        (
            {"t": pa.array(TIMES, pa.float64()).cast(pa.float32()), **values},
            "t is a float, which holds no exact times",
        ),
        ({"t": TIMES, **values, "high": [True] * 3}, "high holds no numbers: its type is bool"),
        ({"t": TIMES, **values, "high": [[1.0]] * 3}, "has no column high"),
    ):
        pq.write_table(pa.table(table), tmp_path / "candles.parquet")
        assert refusal(tmp_path / "candles.parquet").startswith(what)
    feather.write_feather(pa.table({"t": TIMES, **values}), tmp_path / "candles.feather")
    whole = (tmp_path / "candles.feather").read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        assert refusal(put(tmp_path / "candles.feather", whole[:cut])).startswith(
            "not a readable Feather file: "
        )


def test_unknown_values(tmp_path: Path) -> None:
    """An empty or null cell of an optional column is null; other cells of the column are kept."""
    header = "unix,open,high,low,close,volume,quote_volume,trades"
    rows = [f"{TIMES[0]},{V},530.25,3.0", f"{TIMES[1]},{V},,", f"{TIMES[2]},{V},NaN,null"]
    ((_, table),) = read(put(tmp_path / "candles.csv", "\n".join([header, *rows]))).parts
    assert table["quote_volume"].to_pylist() == [530.25, None, None]
    assert table["trade_num"].to_pylist() == [3, None, None]
    frame = dated(t=TIMES, trades=[3.0, np.nan, np.nan])
    frame.to_parquet(tmp_path / "candles.parquet")
    ((_, table),) = read(tmp_path / "candles.parquet").parts
    assert table["trade_num"].to_pylist() == [3, None, None]


def test_a_letter_beside_whole_names_is_anything(tmp_path: Path) -> None:
    """`n` is the number of trades beside `o`, `h`, `l` and `c`; beside other names it is ignored."""
    whole = text("n,date,open,high,low,close,volume,q", "{n},{ms}," + V + ",7")
    ((_, table),) = read(put(tmp_path / "candles.csv", whole)).parts
    assert table["trade_num"].null_count == table["quote_volume"].null_count == 3
    letters = text("n,t,o,h,l,c,v", "{n}1,{ms}," + V)
    ((_, table),) = read(put(tmp_path / "candles.csv", letters)).parts
    assert table["trade_num"].to_pylist() == [1, 11, 21]


def test_an_error_of_a_spreadsheet_is_no_comment(tmp_path: Path) -> None:
    """A row that begins with #N/A is a row without a time, not a comment."""
    content = text("time,open,high,low,close,volume", "{ms}," + V) + f"#N/A,{V}\n"
    assert refusal(put(tmp_path / "candles.csv", content)) == "row 5: time is empty"


def test_rows_without_values_are_counted(tmp_path: Path) -> None:
    """Empty rows, such as those of a halt, are no candles, and are counted."""
    content = "Timestamp,Open,High,Low,Close,Volume\n" + f"{TIMES[0]},{V}\n{TIMES[1]},,,,,\n{TIMES[2]},{V}\n"
    done = read(put(tmp_path / "candles.csv", content))
    assert (done.rows, done.left_out.empty, done.left_out.bad) == (2, 1, 0)


BAD = "\n".join((
    "unix,open,high,low,close,volume",
    f"{TIMES[0]},{V}",
    "",
    f"{TIMES[1]},abc,102,98,101,5.25",  # row 4
    "# a comment",
    f"{TIMES[1]},100.5,102",
    f"{TIMES[1]},{V}",
    f"never,{V}",
    f"{TIMES[2] + 60_000},100.5,90,98,101,5.25",
    f"{TIMES[2] + 7},{V}",
    f"{TIMES[2]},{V}",
    f"{TIMES[2] + 180_000},,102,98,101,5.25",
    f"5,{V}",
    f"{TIMES[2] + 120_000},inf,102,98,101,5.25",
)) + "\n"  # fmt: skip


def test_bad_rows_refuse_a_file_or_are_left_out(tmp_path: Path) -> None:
    """The first bad row refuses the file; with skipping, bad rows are left out and counted."""
    path = put(tmp_path / "candles.csv", BAD)
    assert refusal(path) == "row 6: has 3 values, not 6"
    done = read(path, MINUTE._replace(skip_bad_rows=True))
    assert (done.rows, done.left_out.bad, done.left_out.empty) == (3, 8, 0)
    assert candles(path, MINUTE._replace(skip_bad_rows=True)) == [(ms, *CANDLE) for ms in TIMES]
    assert done.notes == ("8 bad rows left out, the first is row 6: has 3 values, not 6",)


@pytest.mark.parametrize("bad", ["cut off,1", f"{TIMES[2] + 60_000},5,4,3,2,1,0,0,0,0,0,0"])
def test_a_bad_row_of_the_archives_layout(tmp_path: Path, bad: str) -> None:
    """A file with skipped bad rows does not rank as the archive's."""
    lines = [",".join(map(str, row)) for row in REST]
    lines.insert(1, bad)
    path = put(tmp_path / "BTCUSDT-1m-2024-01-01.csv", "\n".join(lines) + "\n")
    assert "row 2" in refusal(path)
    done = read(path, MINUTE._replace(skip_bad_rows=True))
    assert (done.rows, done.left_out.bad) == (3, 1)
    assert set(done.parts[0][1]["source"].to_pylist()) == {"rest"}


def test_a_file_of_bad_rows_only(tmp_path: Path) -> None:
    """A file without any valid row is refused."""
    path = put(tmp_path / "candles.csv", text("unix,open,high,low,close,volume", "{ms},5,4,3,2,1"))
    with pytest.raises(LakewriterError, match="row 2: low: low is above close"):
        read(path, MINUTE._replace(skip_bad_rows=True))


def test_row_numbers_are_lines(tmp_path: Path) -> None:
    """An error has the line number of an editor, with titles, comments, blank lines and headers counted."""
    content = "a title\n\n# note\nunix,open,high,low,close,volume\n\n"
    content += f"{TIMES[0]},{V}\n# note\nunix,open,high,low,close,volume\n{TIMES[1]},{V}\n\n5,{V}\n"
    assert refusal(put(tmp_path / "candles.csv", content)) == "row 11: no candle begins at 5000"


def test_every_read_is_bounded(tmp_path: Path) -> None:
    """A text with a million columns is refused before it is read."""
    names = ",".join(f"c{number}" for number in range(600))
    content = f"unix,open,high,low,close,volume,{names}\n1,2\n"
    assert refusal(put(tmp_path / "candles.csv", content)) == "has 606 columns, more than 500"
    pq.write_table(pa.table({f"c{number}": [1] for number in range(600)}), tmp_path / "candles.parquet")
    assert "has 600 columns, more than 500" in refusal(tmp_path / "candles.parquet")


def test_a_feather_file_that_inflates(tmp_path: Path) -> None:
    """A small file with huge inflated batches is refused before it is inflated."""
    rows = 10_000_000
    table = pa.table({"t": np.zeros(rows, np.int64), "open": np.zeros(rows)})
    path = tmp_path / "candles.feather"
    feather.write_feather(table, path, compression="zstd", chunksize=rows // 4)
    assert path.stat().st_size < 100_000
    assert refusal(path).startswith("holds more than 67,108,864 bytes")


def test_a_column_of_long_texts_is_passed_over(tmp_path: Path) -> None:
    """A long text that a dictionary has once is not copied for each row."""
    note = pa.DictionaryArray.from_arrays(pa.array([0] * 3, pa.int32()), pa.array(["x" * 1_000_000]))
    table = pa.table({"t": TIMES, **{name: pa.array(FRAME[name]) for name in FRAME}, "note": note})
    pq.write_table(table, tmp_path / "candles.parquet")
    assert read_table(tmp_path / "candles.parquet").table.column_names == ["t", *FRAME]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_a_feather_file_of_several_batches(tmp_path: Path, compression: str) -> None:
    """All batches are read; a file with missing or damaged batches is refused."""
    symbols = pa.array(["BTCUSDT"] * 3).dictionary_encode()
    table = pa.table({"t": TIMES, **{name: pa.array(FRAME[name]) for name in FRAME}, "symbol": symbols})
    path = tmp_path / "candles.feather"
    feather.write_feather(table, path, compression=compression, chunksize=1)
    assert candles(path) == [(ms, *CANDLE) for ms in TIMES]
    whole = path.read_bytes()
    for at in range(8, len(whole), 97):
        put(path, whole[:at] + b"\xff" * 8 + whole[at + 8 :])
        try:
            found = candles(path)
        except LakewriterError as error:
            assert error.what.isprintable()
        else:
            # Bytes of padding, or a number that is another number now: Feather has no checksums.
            assert len(found) <= 3


def test_files_that_end_other_readers(tmp_path: Path) -> None:
    """Names that are not UTF-8, and Feather version 1, are refused before Arrow's reader aborts."""
    line = json.dumps(OBJECTS[0]).encode()
    broken = b"\n".join([line, line.replace(b"open_time", b"open_\xeftime")])
    assert refusal(put(tmp_path / "candles.ndjson", broken)) == "is not valid UTF-8"
    assert refusal(put(tmp_path / "candles.feather", b"FEA1" + bytes(99))).startswith(
        "is Feather of version 1"
    )


MOMENT_TYPES = [
    pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(20, 0), pa.string(), pa.large_string(),
    pa.dictionary(pa.int8(), pa.string()),
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Asia/Shanghai")),
]  # fmt: skip
NUMBER_TYPES = [
    pa.float64(), pa.float32(), pa.decimal128(38, 10), pa.string(), pa.large_string(), pa.string_view(),
    pa.int64(), pa.uint32(), pa.dictionary(pa.int8(), pa.string()),
]  # fmt: skip


def array_of(kind: pa.DataType, numbers: list[object]) -> pa.Array:
    """Return numbers in a type; as text they have Python's format."""
    if pa.types.is_dictionary(kind):
        return pa.array(map(str, numbers)).dictionary_encode()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.array(map(str, numbers), kind)
    if pa.types.is_timestamp(kind):
        return pa.array(numbers, pa.timestamp("ms")).cast(pa.timestamp(kind.unit)).cast(kind)
    return pa.array(numbers, pa.float64() if isinstance(numbers[0], float) else None).cast(kind, safe=False)


@examples(30, 300)
@given(data=st.data())
def test_an_arrow_table_of_any_types_is_read_or_refused(tmp_path_factory, data) -> None:
    """With columns of any type, a Parquet or Feather file gives its own numbers, or a refusal."""
    unit = data.draw(st.sampled_from([1, 1000, 1_000_000]))
    moment = data.draw(st.sampled_from(MOMENT_TYPES))
    times = array_of(moment, TIMES if pa.types.is_timestamp(moment) else [ms // 1000 * unit for ms in TIMES])
    columns, expected = {"t": times}, []
    for name, value in zip(FRAME, CANDLE, strict=True):
        kind = data.draw(st.sampled_from(NUMBER_TYPES))
        value = float(int(value)) if pa.types.is_integer(kind) else value
        columns[name] = array_of(kind, [value] * 3)
        expected.append(value)
    suffix = data.draw(st.sampled_from(["parquet", "feather"]))
    path = tmp_path_factory.mktemp("types") / f"candles.{suffix}"
    if suffix == "feather":
        feather.write_feather(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path)
    assert candles(path) == [(ms, *expected) for ms in TIMES]


# How a random table is written; each part is drawn by itself.
SEPARATORS = (",", ";", "\t", "|")
STAMPS = {
    "ms": lambda moment: str(int(moment.timestamp() * 1000)),
    "s": lambda moment: str(int(moment.timestamp())),
    "us": lambda moment: str(int(moment.timestamp() * 1_000_000)),
    "iso": lambda moment: moment.isoformat(),
    "z": lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "plain": lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S"),
    "slashes": lambda moment: f"{moment.year}/{moment.month}/{moment.day} {moment.hour}:{moment.minute:02}",
    "day first": lambda moment: moment.strftime("%d/%m/%Y %H:%M"),
    "month first": lambda moment: moment.strftime("%m/%d/%Y %H:%M:%S"),
    "halves": lambda moment: moment.strftime("%m/%d/%Y %I:%M %p"),
    "dots": lambda moment: moment.strftime("%d.%m.%Y %H:%M:%S"),
    "digits": lambda moment: moment.strftime("%Y%m%d%H%M"),
    "power": lambda moment: f"{int(moment.timestamp() * 1000):.6E}",
}  # fmt: skip
NUMBERS = {
    "plain": str,
    "comma": lambda number: str(number).replace(".", ","),
    "thousands": lambda number: f"{number:,}",
    "both": lambda number: f"{number:,}".translate({ord(","): ".", ord("."): ","}),
    "power": lambda number: f"{number:.17E}",
}
HEADERS = (
    ("unix", "open", "high", "low", "close", "volume"),
    ("Open time", "Open", "High", "Low", "Close", "Volume"),
    ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"),
    ("t", "o", "h", "l", "c", "v"),
    ("", "open", "high", "low", "close", "volume"),
    (),
)


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[datetime, list[Decimal]]]:
    """Return possible candles in any order."""
    begin = draw(st.integers(0, 60 * 24 * 300))
    scale = draw(st.integers(0, 8))
    prices = st.integers(1, 10 ** draw(st.integers(1, 8))).map(lambda number: Decimal(number).scaleb(-scale))
    rows = []
    for minute in range(draw(st.integers(1, 6))):
        values = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        moment = datetime.fromtimestamp(BEGIN_MS // 1000 + (begin + minute) * 60, UTC)
        rows.append((moment, [values[1], values[3], values[0], values[2], draw(prices)]))
    return rows


@examples(40, 300)
@given(rows=tables(), data=st.data())
def test_a_table_is_read_as_it_was_written_or_refused(tmp_path_factory, rows, data) -> None:
    """Each way of writing gives the same candles or a refusal, never other numbers."""

    def pick(choices):
        return data.draw(st.sampled_from(choices))

    separator, stamp = pick(SEPARATORS), STAMPS[pick(sorted(STAMPS))]
    # Between commas 1.000 is one: no tool that marks thousands by points writes commas between values.
    marked = separator != "," or any(each % 1 for _, values in rows for each in values)
    number = NUMBERS[pick(sorted(NUMBERS if marked else NUMBERS.keys() - {"both"}))]
    header = pick(HEADERS)
    order = data.draw(st.permutations(range(6))) if header and header[0] else list(range(6))
    lines = [list(header)] if header else []
    lines += [[stamp(moment), *map(number, values)] for moment, values in rows]
    lines = [[line[at] for at in order] for line in lines]
    if header and header[0] and data.draw(st.booleans()):  # the index of a frame, or names of rows
        lines = [[str(at - 1) if at else "", *line] for at, line in enumerate(lines)]
    if data.draw(st.booleans()):
        lines = [[*line, "" if pick([True, False]) else "x"] if header else line for line in lines]
    written = pd.DataFrame(lines).to_csv(
        sep=separator, index=False, header=False, quoting=pick([0, 1, 2]), lineterminator=pick(["\n", "\r\n"])
    )
    titles = pick(["", "exported by x\n", "# a, b, c, d, e, f\n\n", "sep=" + separator + "\n"])
    more = pick(["", "# the end\n", "\n \n", written if header and len(rows) > 1 else ""])
    encoding = pick(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
    path = put(tmp_path_factory.mktemp("law") / "candles.csv", (titles + written + more).encode(encoding))
    try:
        found = candles(path)
    except LakewriterError as error:
        assert error.what.isprintable()
        return
    assert found == [(int(moment.timestamp() * 1000), *map(float, values)) for moment, values in rows]


def test_the_law_is_not_empty(tmp_path: Path) -> None:
    """Most dialects are read, each alone beside plain ones."""
    rows = [
        (datetime(2024, 1, 25, 0, n, tzinfo=UTC), ["100.5", "1102.25", "98.1", "101", "5.25"])
        for n in range(3)
    ]
    expected = [(int(m.timestamp() * 1000), *map(float, values)) for m, values in rows]
    for name, stamp in STAMPS.items():
        for kind, number in NUMBERS.items():
            if name == "power":
                continue
            lines = [[stamp(moment), *(number(Decimal(each)) for each in values)] for moment, values in rows]
            frame = pd.DataFrame(lines, columns=list(HEADERS[0]))
            path = put(tmp_path / "candles.csv", csv_of(frame, sep=";", index=False))
            assert candles(path) == expected, (name, kind)


def test_a_file_that_is_refused_leaves_no_thread(tmp_path: Path) -> None:
    """After a refused file no reader thread crashes the process at its exit."""
    path = put(tmp_path / "candles.csv", "unix,open,high,low,close,volume\n" + "1,2\n" * 100_000)
    with pytest.raises(LakewriterError, match="row 2: has 2 values, not 6"):
        read_table(path)
