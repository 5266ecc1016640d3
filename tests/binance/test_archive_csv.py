"""The archive's CSV → a table: the doubles that Python's float() gives, or an error that names the row."""

import gzip
import io
import math
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from datetime import date
from decimal import Decimal, localcontext

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.backfill.archive_import import read_zip
from lakewriter.backfill.plan import PlannedFile
from lakewriter.binance.archive_csv import CsvError, gunzip, inflated_bytes_max, parse_csv, unzip
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.candle import SCHEMA, Candle, int_column, to_table
from lakewriter.series import Series

BTC = Series("spot", "BTCUSDT", "1m")
BEGIN_MS = 1_719_705_600_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)
VALUES = ["1.5", "3.0", "0.5", "2.0", "10.0", str(BEGIN_MS + 59_999), "20.0", "7", "4.0", "8.0", "0"]
KILOBYTE = 1 << 10


def line(minute: float = 0, changed: dict[int, str] | None = None) -> str:
    """Return a row; `changed` replaces values by their position."""
    values = [str(int(BEGIN_MS + minute * 60_000)), *VALUES]
    for place, value in (changed or {}).items():
        values[place] = value
    return ",".join(values)


def parsed(*lines: str, series: Series = BTC, end: str = "\n") -> pa.Table:
    return parse_csv((end.join(lines) + end).encode(), series, 99, "f.csv")


def refused(*lines: str, series: Series = BTC) -> CsvError:
    with pytest.raises(CsvError) as caught:
        parsed(*lines, series=series)
    assert caught.value.what.startswith("f.csv: ")
    assert "\n" not in caught.value.what
    return caught.value


def minutes(table: pa.Table) -> list[float]:
    return [(begin - BEGIN_MS) / 60_000 for begin in int_column(table, "candle_begin_time").tolist()]


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def test_a_row_is_a_candle() -> None:
    """Each value of a row is in its column; the source is archive, and there is no event time."""
    table = parsed(line())
    assert table.schema.equals(SCHEMA)
    assert table.equals(
        to_table([
            Candle(
                "spot", "BTCUSDT", "1m", BEGIN_MS, BEGIN_MS + 60_000, 1.5, 3.0, 0.5, 2.0, 10.0, 20.0, 7,
                4.0, 8.0, None, 99, "archive",
            )
        ])
    )  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [(), (HEADER,)])
def test_a_header_or_none(header: tuple[str, ...], end: str) -> None:
    """A header is skipped, and its names are ignored; lines may end as on Windows."""
    assert parsed(*header, line(), line(1), end=end).equals(parsed(line(), line(1)))


def test_the_last_line_need_not_end() -> None:
    """A last line without an end of line is read."""
    assert parse_csv(line().encode(), BTC, 99, "f.csv").equals(parsed(line()))


def test_microseconds_and_milliseconds() -> None:
    """The size of a time determines its unit, and one file may have both."""
    micro = line(1, {0: str((BEGIN_MS + 60_000) * 1000), 6: str((BEGIN_MS + 120_000) * 1000 - 1)})
    assert minutes(parsed(line(), micro)) == [0, 1]


def test_rows_are_sorted_and_each_is_there_once() -> None:
    """Rows are sorted, and of two rows with one time the one with more trades is kept."""
    table = parsed(line(2), line(0), line(2, {8: "9"}), line(1))
    assert minutes(table) == [0, 1, 2]
    assert table["trade_num"].to_pylist() == [7, 7, 9]


@pytest.mark.parametrize(
    "changed",
    [{6: str(BEGIN_MS + 41_646)}, {6: "?"}, {11: "10779.83873125"}, {11: ""}, {11: "0,more,still"}],
    ids=["halt", "close time", "ignore", "empty", "more values"],
)
def test_what_is_not_looked_at(changed: dict[int, str]) -> None:
    """The close time and values after the twelfth may be anything; the end comes from the grid."""
    assert parsed(line(0, changed)).equals(parsed(line()))


@pytest.mark.parametrize(
    ("interval", "begin_ms", "end_ms"),
    [
        ("1s", BEGIN_MS + 1000, BEGIN_MS + 2000),
        ("3d", BEGIN_MS + 86_400_000, BEGIN_MS + 4 * 86_400_000),
        ("1w", 1_719_792_000_000, 1_720_396_800_000),
        ("1mo", 1_706_745_600_000, 1_709_251_200_000),
    ],
)
def test_the_grid_of_each_interval(interval: str, begin_ms: int, end_ms: int) -> None:
    """Weeks end on Mondays, months have their own lengths, and `3d` may begin at any midnight."""
    series = Series("spot", "BTCUSDT", interval)
    table = parsed(line(0, {0: str(begin_ms)}), series=series)
    assert int_column(table, "candle_end_time").tolist() == [end_ms]
    assert refused(line(0, {0: str(begin_ms + 500)}), series=series).kind == "time"


@pytest.mark.parametrize(
    ("changed", "kind", "what"),
    [
        ({0: str(BEGIN_MS + 14_000)}, "time", "begins 14 s off the grid of 1m, at 1719705614000"),
        ({0: f"{BEGIN_MS}500"}, "time", f"no candle begins at {BEGIN_MS}500"),
        ({0: "0"}, "time", "no candle begins at 0"),
        ({0: "-1719705600000"}, "time", "no candle begins at -1719705600000"),
        ({0: "9" * 15}, "time", f"no candle begins at {'9' * 15}"),
        ({1: "nan"}, "number", "open is nan"),
        ({2: "inf"}, "number", "high is inf"),
        ({3: "1e999"}, "number", "low is inf"),
        ({4: "-0.5"}, "number", "close is -0.5"),
        ({8: "-1"}, "number", "trade_num is -1"),
        ({8: str(2**53 + 1)}, "number", f"trade_num is {2**53 + 1}"),
        ({8: "7.0"}, "number", "CSV conversion error to int64: invalid value '7.0'"),
        ({5: "1_0"}, "number", "CSV conversion error to double: invalid value '1_0'"),
        ({7: ""}, "number", "CSV conversion error to double: invalid value ''"),
        ({3: "2.5"}, "order", "open high low close are 1.5 3.0 2.5 2.0"),
        ({9: "four"}, "number", "CSV conversion error to double: invalid value 'four'"),
        ({0: "9" * 40}, "number", f"CSV conversion error to int64: invalid value '{'9' * 40}'"),
    ],
    ids=range(17),
)
def test_a_row_that_cannot_be_a_candle(changed: dict[int, str], kind: str, what: str) -> None:
    """One bad row refuses the file, and the error has its number."""
    error = refused(HEADER, line(), line(1, changed), line(2))
    assert (error.kind, error.what) == (kind, f"f.csv: row 3: {what}")
    assert refused(line(), line(1, changed)).what == f"f.csv: row 2: {what}"


@pytest.mark.parametrize("place", [0, 8])
def test_hexadecimal_is_no_number(place: int) -> None:
    """0x10, which Arrow reads as 16, is refused in each column."""
    assert refused(line(0, {place: hex(BEGIN_MS)})).kind == "number"
    assert refused(line(), line(1, {place: f' "{hex(BEGIN_MS)}"'})).kind == "number"


@pytest.mark.parametrize(
    ("lines", "kind", "what"),
    [
        ((HEADER,), "shape", "has no rows"),
        ((line(), line(1)[:30]), "shape", "row 2: Expected 12 columns, got 6"),
        ((line()[:-2],), "shape", "rows of 11 values, not 12"),
        ((",".join([*VALUES, "0"]),), "number", "row 1: CSV conversion error to int64: invalid value '1.5'"),
        (("",), "header", "does not begin with a candle or a header: ''"),
        (("<html>", "404"), "header", "does not begin with a candle or a header: '<html>'"),
        (("open,open_time,high", line()), "header", "does not begin with a candle or a header: 'open,"),
    ],
    ids=range(7),
)
def test_what_is_no_file_of_candles(lines: tuple[str, ...], kind: str, what: str) -> None:
    """Rows of another shape, no rows, or other content are refused in one line."""
    error = refused(*lines)
    assert (error.kind, error.what[: len(f"f.csv: {what}")]) == (kind, f"f.csv: {what}")


def test_a_file_cut_off_anywhere_is_whole_rows_or_an_error() -> None:
    """A file cut off at any byte is an error, or loses whole rows only."""
    data = "\n".join([HEADER, line(), line(1), line(2)]).encode()
    for length in range(len(data)):
        with suppress(CsvError):
            table = parse_csv(data[:length], BTC, 99, "f.csv")
            assert table.equals(parsed(line(), line(1), line(2)).slice(0, table.num_rows))


def test_many_blocks_are_one_table() -> None:
    """A file larger than one of Arrow's blocks gives the same table."""
    rows = [line(minute, {11: "0" * KILOBYTE}) for minute in range(17 * KILOBYTE)]
    table = parsed(*rows)
    assert minutes(table) == list(range(17 * KILOBYTE))
    assert table["open"].num_chunks == 1
    assert refused(*rows, line(0, {4: "x"})).what.startswith(f"f.csv: row {17 * KILOBYTE + 1}: ")


DIGITS = st.text("0123456789", min_size=1, max_size=25)
DECIMALS = (
    DIGITS
    | st.tuples(DIGITS, DIGITS).map(".".join)
    | st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(repr)
    | st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(lambda each: f"{each:.30g}")
)


@given(st.lists(DECIMALS, min_size=1, max_size=20))
def test_a_double_is_pythons(texts: list[str]) -> None:
    """For any decimal text, the double has the bits of `float(text)`."""
    table = parsed(*(line(minute, {5: text}) for minute, text in enumerate(texts)))
    assert [struct.pack("d", value) for value in table["volume"].to_pylist()] == [
        struct.pack("d", float(text)) for text in texts
    ]


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_halfway_decimals_are_rounded_to_even(value: float) -> None:
    """Decimals at or near the middle of two doubles are rounded as Python rounds them."""
    with localcontext() as context:
        context.prec = 1500
        middle = (Decimal(value) + Decimal(math.nextafter(value, math.inf))) / 2
        hair = middle.scaleb(-700)
        texts = [f"{each:f}" for each in (middle, middle + hair, middle - hair)]
    table = parsed(*(line(minute, {5: text}) for minute, text in enumerate(texts)))
    assert table["volume"].to_pylist() == [float(text) for text in texts]


@given(st.binary(max_size=80) | st.text(',.0123456789x\r\n"', max_size=200).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    """Any bytes give candles or an ExchangeError."""
    for text in (data, line().encode() + b"\n" + data, HEADER.encode() + b"\n" + data):
        with suppress(CsvError):
            assert parse_csv(text, BTC, 0, "f.csv").schema.equals(SCHEMA)


def test_the_csv_in_a_zip() -> None:
    """The only CSV is found under any name, and other members are ignored."""
    assert unzip(zipped(other_csv=b"12,3", readme_txt=b"?"), "f.zip", KILOBYTE) == ("other.csv", b"12,3")


@pytest.mark.parametrize("members", [{}, {"a_txt": b""}, {"a_csv": b"1", "b_csv": b"2"}], ids=range(3))
def test_not_one_csv_in_a_zip(members: dict[str, bytes]) -> None:
    """No CSV or several CSVs are an error that has their number."""
    with pytest.raises(CsvError, match=r"^f\.zip: \d CSV files in it, not one$"):
        unzip(zipped(**members), "f.zip", KILOBYTE)


def test_a_bomb_is_not_inflated() -> None:
    """A CSV that claims more than the limit is refused, and never inflated beyond it."""
    bomb = zipped(a_csv=b"0" * (KILOBYTE + 1))
    with pytest.raises(CsvError, match=r"^f\.zip: 1,025 bytes of CSV in it, more than 1,024$"):
        unzip(bomb, "f.zip", KILOBYTE)
    assert len(unzip(bomb, "f.zip", KILOBYTE + 1).text) == KILOBYTE + 1
    size = struct.pack("<I", KILOBYTE + 1)
    with pytest.raises(CsvError, match=r"^f\.zip: not a whole zip: "):
        unzip(bomb.replace(size, struct.pack("<I", 10)), "f.zip", KILOBYTE)


def test_a_day_inflates_to_a_day() -> None:
    """A day's zip that would inflate to 400 MB is refused without inflating it."""
    file = ArchiveFile(BTC, "daily", date(2024, 6, 30))
    bomb = zipped(a_csv=bytes(400_000_000))
    assert len(bomb) < file.zip_bytes_max, "it would be downloaded"
    tracemalloc.start()
    try:
        with pytest.raises(CsvError, match=r"400,000,000 bytes of CSV in it, more than 385,024$"):
            read_zip(bomb, PlannedFile(file, len(bomb), file.start_ms, file.stop_ms), 0)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_gzip_is_inflated_no_further_than_its_limit() -> None:
    """A gzip file is read up to its limit; a larger or broken one is an error."""
    content = "\n".join(line(minute) for minute in range(20)).encode()
    whole = gzip.compress(content)
    assert gunzip(whole, "f.gz", len(content)) == content
    with pytest.raises(CsvError, match=r"^f\.gz: more than 19 bytes in it$"):
        gunzip(whole, "f.gz", 19)
    for length in range(len(whole)):
        with (
            pytest.raises(CsvError, match=r"^f\.gz: not a whole gzip file") if length else suppress(CsvError)
        ):
            gunzip(whole[:length], "f.gz", len(content))
    bomb = gzip.compress(bytes(400_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(CsvError, match="more than"):
            gunzip(bomb, "f.gz", inflated_bytes_max(len(bomb)) // 10)
        assert tracemalloc.get_traced_memory()[1] < len(bomb) * 40
    finally:
        tracemalloc.stop()


def test_what_candles_shrink_to_is_within_the_bound() -> None:
    """The most compressible real candles stay within the limit on inflation."""
    rows = "\n".join(
        line(minute, {5: "0.0", 7: "0.0", 8: "0", 9: "0.0", 10: "0.0"}) for minute in range(43_200)
    )
    packed = gzip.compress(rows.encode(), 9)
    assert len(rows) > 1 << 20
    assert len(rows) < inflated_bytes_max(len(packed)) / 3


def test_a_broken_zip() -> None:
    """A zip that is cut off or changed anywhere in its content is an error, never a wrong CSV."""
    content = "\n".join(line(minute) for minute in range(20)).encode()
    whole = zipped(a_csv=content)
    for length in range(len(whole)):
        with pytest.raises(CsvError, match=r"^f\.zip: "):
            unzip(whole[:length], "f.zip", KILOBYTE * 8)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        with suppress(CsvError):
            assert unzip(bytes(damaged), "f.zip", KILOBYTE * 8).text == content


@given(st.binary(max_size=200))
def test_any_bytes_are_no_zip(data: bytes) -> None:
    """Any bytes are an ExchangeError, with or without a zip's signatures."""
    for text in (data, b"PK\x03\x04" + data, data + zipped(a_csv=b"1")[-22:]):
        with suppress(CsvError):
            unzip(text, "f.zip", KILOBYTE)


def test_a_page_in_the_place_of_a_zip() -> None:
    """HTML in place of a zip is an error like other damage."""
    with pytest.raises(CsvError, match=r"^f\.zip: not a whole zip: File is not a zip file$"):
        unzip(b"<html>", "f.zip", KILOBYTE)
