"""The partition's file: its encoding, its readers, and the foreign files that we read."""

import contextlib
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter import __version__
from lakewriter.candle import SCHEMA, to_table
from lakewriter.errors import LakeError
from lakewriter.lake.parquet import (
    Footer,
    Statistics,
    decode,
    decode_with_layout,
    encode,
    encode_next,
    leading_padding,
    read_begins,
    read_footer,
    read_header,
    read_statistics,
    written_by_us,
)
from lakewriter.partition import Partition
from support.candles import DAY_START_MS, candles, stream_candle
from support.lengths import either, examples

PARTITION = Partition("spot", "BTCUSDT", "1m", date(2024, 6, 30))
ROWS = to_table(
    [stream_candle(0), stream_candle(1, event_ms=None, source="rest"), stream_candle(2, source="archive")]
)
DATA = encode(ROWS, PARTITION)


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Return the table as a Parquet file of another writer."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def with_column(name: str, column: pa.Array) -> pa.Table:
    """Return the rows with one column in another type."""
    return ROWS.set_column(ROWS.schema.get_field_index(name), name, column)


def refused(data: bytes) -> LakeError:
    with pytest.raises(LakeError) as caught:
        decode(data, "the/file.parquet")
    assert str(caught.value).startswith("the/file.parquet: ")
    assert "\n" not in str(caught.value)
    return caught.value


@given(st.lists(candles(), max_size=30))
def test_round_trip(rows):
    """An encoded table decodes to the same rows and nulls."""
    table = to_table(rows)
    data = encode(table, PARTITION)
    again = decode(data, "x")
    assert again.equals(table)
    assert again.schema.equals(SCHEMA, check_metadata=True)
    assert written_by_us(data)


def test_same_bytes():
    """Equal rows give equal bytes."""
    assert encode(ROWS, PARTITION) == DATA


def torn(footer_of: bytes, pages_of: bytes) -> bytes:
    """Return the rows that a reader gets if the file is replaced between its two opens."""

    def footer_at(data: bytes) -> int:
        return len(data) - 8 - int.from_bytes(data[-8:-4], "little")

    return pages_of[: footer_at(pages_of)] + footer_of[footer_at(footer_of) :]


READERS: dict[str, Callable[[Path], list[datetime]]] = {
    "duckdb": lambda path: [
        row[0] for row in duckdb.sql(f"SELECT candle_begin_time FROM '{path}' ORDER BY ALL").fetchall()
    ],
    "pandas": lambda path: list(pd.read_parquet(path, columns=["candle_begin_time"])["candle_begin_time"]),
    "polars": lambda path: pl.read_parquet(path, columns=["candle_begin_time"]).to_series().to_list(),
}
READERS_ERRORS = (duckdb.Error, pl.exceptions.PolarsError, OSError)


@pytest.mark.parametrize("engine", READERS)
def test_an_old_footer_does_not_fit_a_later_file(engine: str, tmp_path: Path):
    """A reader with one file's footer and a later file's pages fails, instead of missing its last rows."""
    path, read = tmp_path / "candles.parquet", READERS[engine]
    before = [encode(to_table([stream_candle(minute) for minute in range(100, 101)]), PARTITION)]
    short = 0
    for earlier in range(1, 40):
        rows = to_table([stream_candle(minute) for minute in range(100 - earlier, 101)])
        path.write_bytes(torn(before[-1], encode(rows, PARTITION, leading_padding(before[-1]))))
        with contextlib.suppress(*READERS_ERRORS):
            short += read(path)[-1] < datetime(2024, 6, 30, 1, 40, tzinfo=UTC)
        following = encode_next(rows, PARTITION, before[-1])
        for file in before:
            path.write_bytes(torn(file, following))
            with pytest.raises(READERS_ERRORS):
                read(path)
        path.write_bytes(following)
        assert len(read(path)) == 1 + earlier
        before = [*before[-9:], following]
    assert short, "there is nothing to be afraid of"


def test_no_page_of_times_is_smaller_than_a_shift():
    """For any rows, the pages of times are longer than the largest padding."""
    for rows in ([stream_candle(0)], [stream_candle(minute) for minute in range(1440)]):
        group = pq.read_metadata(pa.BufferReader(encode(to_table(rows), PARTITION))).row_group(0)
        assert min(group.column(at).total_compressed_size for at in (0, 1)) > 80


@given(st.lists(candles(), min_size=1, max_size=30), st.lists(candles(), min_size=1, max_size=30))
def test_no_page_begins_where_one_did(old, new):
    """No page of the next file has the offset of a page of this one, and the rows are equal."""
    before = encode(to_table(old), PARTITION, 8 * (len(old) % 11))
    rows = to_table(new)
    following = encode_next(rows, PARTITION, before)
    assert page_starts(before).isdisjoint(page_starts(following))
    assert leading_padding(following) in range(0, 81, 8)
    assert encode(rows, PARTITION, leading_padding(following)) == following
    assert decode(following, "x").equals(rows)
    assert written_by_us(following)
    table, layout = decode_with_layout(before, "x")
    assert table.equals(to_table(old))
    assert encode_next(rows, PARTITION, layout) == following, "its layout says as much as the file"
    assert read_footer(following, "x") == read_footer(encode(rows, PARTITION), "x")


def page_starts(data: bytes) -> set[int]:
    """Return the offsets of the pages in the footer, as another engine reads them."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(data)
        file.flush()
        found = duckdb.sql(
            f"SELECT data_page_offset, dictionary_page_offset FROM parquet_metadata('{file.name}')"
        )
        return {at for row in found.fetchall() for at in row if at}


def test_encodings():
    """Each column has the encoding that was measured best, statistics, and zstd."""
    group = pq.read_metadata(pa.BufferReader(DATA)).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    assert [column.path_in_schema for column in columns] == SCHEMA.names
    for column in columns:
        assert column.compression == "ZSTD"
        assert column.is_stats_set
        field = SCHEMA.field(column.path_in_schema)
        if field.name == "source":
            assert "RLE_DICTIONARY" in column.encodings
        elif pa.types.is_floating(field.type):
            assert "PLAIN" in column.encodings
            assert not {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(column.encodings)
        else:
            assert "DELTA_BINARY_PACKED" in column.encodings
            assert not {"RLE_DICTIONARY", "PLAIN_DICTIONARY", "PLAIN"} & set(column.encodings)
    begin = columns[0].statistics
    assert begin.has_min_max
    assert begin.min.timestamp() * 1000 == DAY_START_MS
    assert columns[SCHEMA.names.index("event_time")].statistics.null_count == 1


def test_metadata():
    """The metadata has the writer, the partition and the row count, but no Arrow schema."""
    metadata = pq.read_metadata(pa.BufferReader(DATA)).metadata
    assert len(metadata.pop(b"lakewriter.footer_crc")) == 8
    assert metadata == {
        b"lakewriter.version": __version__.encode(),
        b"lakewriter.rows": b"3",
        b"market": b"spot",
        b"symbol": b"BTCUSDT",
        b"interval": b"1m",
        b"date": b"2024-06-30",
    }
    assert b"ARROW:schema" not in DATA


def test_a_day_of_seconds():
    """The largest partition, a day of seconds, has one row group."""
    count = 86_400
    begins = np.arange(count) * 1000 + DAY_START_MS
    columns = []
    for field in SCHEMA:
        if pa.types.is_timestamp(field.type):
            columns.append(pa.array(begins).cast(field.type))
        elif field.name == "source":
            columns.append(pa.array(["stream"] * count))
        else:
            columns.append(pa.array(np.arange(count) % 997).cast(field.type))
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    data = encode(table, PARTITION)
    assert pq.read_metadata(pa.BufferReader(data)).num_row_groups == 1
    assert decode(data, "x").equals(table)


def test_written_by_us():
    """A file counts as ours if its metadata says so and has the right number of rows."""
    metadata = pq.read_metadata(pa.BufferReader(DATA)).metadata
    assert written_by_us(DATA)
    assert not written_by_us(parquet(ROWS))
    assert written_by_us(parquet(ROWS.replace_schema_metadata(metadata)))
    assert not written_by_us(parquet(ROWS.slice(1).replace_schema_metadata(metadata)))


def test_label():
    """The header is read from any file; a torn footer is one clear line."""
    label = read_header(DATA, "x")
    assert label.schema.equals(SCHEMA, check_metadata=True)
    assert label.metadata["lakewriter.rows"] == "3"
    assert label.metadata["symbol"] == "BTCUSDT"
    assert label.rows == 3
    foreign = read_header(parquet(pa.table({"x": [1, 2]})), "x")
    assert (foreign.schema.names, foreign.rows) == (["x"], 2)
    assert "lakewriter.rows" not in foreign.metadata
    with pytest.raises(LakeError, match=r"the/file.parquet: not a readable Parquet file"):
        read_header(DATA[:-1], "the/file.parquet")


def test_statistics():
    """The statistics of a column are its least and greatest stored value, and its number of nulls."""
    found = read_statistics(DATA)
    assert list(found) == SCHEMA.names
    assert found["candle_begin_time"] == Statistics(DAY_START_MS, DAY_START_MS + 120_000, 0)
    assert found["open"] == Statistics(60_000.5, 60_002.5, 0)
    assert found["event_time"].nulls == 1
    assert found["source"] == Statistics(b"archive", b"stream", 0)
    assert read_statistics(encode(ROWS.slice(0, 0), PARTITION))["open"] == Statistics(None, None, None)


BEGINS = [DAY_START_MS + number * 60_000 for number in range(3)]
FOOTER = Footer(3, BEGINS[0], BEGINS[-1])


def test_footer():
    """The footer of our file has its number of rows and their range; for foreign files it is None."""
    assert read_footer(DATA, "x") == FOOTER
    assert read_footer(encode(ROWS.slice(0, 0), PARTITION), "x") == Footer(0, 0, 0)
    assert read_footer(parquet(ROWS), "x") is None
    assert read_begins(DATA, "x").tolist() == read_begins(parquet(ROWS), "x").tolist() == BEGINS


@pytest.mark.parametrize("kind", [pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC")])
def test_a_footer_that_only_says_it_is_ours(kind: pa.DataType):
    """If another writer kept our metadata, the rows are read, with times in any unit."""
    rows = with_column("candle_begin_time", ROWS["candle_begin_time"].cast(kind))
    copied = parquet(rows.replace_schema_metadata(pq.read_metadata(pa.BufferReader(DATA)).metadata))
    assert read_footer(copied, "x") == FOOTER
    assert read_begins(copied, "x").tolist() == BEGINS
    empty = parquet(
        ROWS.slice(0, 0).replace_schema_metadata({"lakewriter.version": "0", "lakewriter.rows": "0"})
    )
    assert read_footer(empty, "x") == Footer(0, 0, 0)


@pytest.mark.parametrize("flip", [1, 2, 3, 4, 8, 0x80])
def test_a_damaged_footer_is_refused_or_harmless(flip: int):
    """A changed byte of the footer neither ends the process nor changes an answer."""
    footer_bytes = int.from_bytes(DATA[-8:-4], "little")
    answers = {"refused": 0, "right": 0}
    # A short run damages every third byte, of which ones depends on the flip.
    for at in range(len(DATA) - 8 - footer_bytes + flip % either(3, 1), len(DATA), either(3, 1)):
        damaged = DATA[:at] + bytes([DATA[at] ^ flip]) + DATA[at + 1 :]
        try:
            footer = read_footer(damaged, "x")
            begins = read_begins(damaged, "x").tolist()
        except LakeError:
            answers["refused"] += 1
            continue
        answers["right"] += 1
        assert (footer in (FOOTER, None), begins) == (True, BEGINS), at
    assert min(answers.values()) > either(30, 100), answers


def test_a_row_group_that_says_too_little():
    """A file that yields fewer rows than its footer claims is refused."""
    short = 0
    for at in range(len(DATA) - 8 - int.from_bytes(DATA[-8:-4], "little"), len(DATA) - 8):
        if DATA[at : at + 2] == b"\x16\x06":  # a count of three, in Thrift's zigzag
            try:
                found = decode(DATA[:at] + b"\x16\x04" + DATA[at + 2 :], "x")
            except LakeError as error:
                short += "has 2 of its 3 rows" in error.what
            else:
                assert found.num_rows == 3
    assert short


TIMES = ("candle_begin_time", "candle_end_time", "event_time", "recv_time")


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("us")]
)
@pytest.mark.parametrize("name", TIMES)
def test_foreign_times(name, kind):
    """Times in other units are cast; naive times are UTC."""
    naive = ROWS[name].cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    column = naive.cast(pa.timestamp("ns", kind.tz)).cast(kind)
    assert decode(parquet(with_column(name, column)), "x").equals(ROWS)


def test_foreign_zone():
    """A time in another zone keeps its moment."""
    column = ROWS["candle_begin_time"].cast(pa.timestamp("us", "Asia/Tokyo"))
    assert decode(parquet(with_column("candle_begin_time", column)), "x").equals(ROWS)


def test_foreign_int96():
    """Times in the INT96 of Impala and old Spark are read."""
    assert decode(parquet(ROWS, use_deprecated_int96_timestamps=True), "x").equals(ROWS)


def test_foreign_receive_time_in_nanoseconds():
    """A receive time in nanoseconds is truncated to microseconds."""
    column = pa.array([1_719_705_600_000_000_001] * 3, pa.timestamp("ns", "UTC"))
    again = decode(parquet(with_column("recv_time", column)), "x")
    assert again["recv_time"].cast(pa.int64()).to_pylist() == [1_719_705_600_000_000] * 3


@pytest.mark.parametrize("kind", [pa.decimal128(38, 18), pa.decimal128(20, 8), pa.decimal256(60, 18)])
def test_foreign_decimals(kind):
    """A decimal becomes the nearest double."""
    values = [Decimal("60000.12345678"), Decimal("0.00000001"), Decimal("123456789.5")]
    column = pa.array(values, kind)
    assert decode(parquet(with_column("close", column)), "x")["close"].to_pylist() == [
        float(value) for value in values
    ]


@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.int32(), pa.int64(), pa.uint8(), pa.string(), pa.large_string()]
)
def test_foreign_numbers(kind):
    """Other numbers, and numbers in strings, become doubles."""
    column = pa.array([1, 2, 3]).cast(kind)
    assert decode(parquet(with_column("high", column)), "x")["high"].to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.float64()])
def test_foreign_counts(kind):
    """A count of another type is cast to ours."""
    column = ROWS["trade_num"].cast(kind)
    assert decode(parquet(with_column("trade_num", column)), "x").equals(ROWS)


@pytest.mark.parametrize(
    "column",
    [
        ROWS["source"].dictionary_encode(),
        ROWS["source"].cast(pa.large_string()),
        ROWS["source"].cast(pa.string_view()),
        ROWS["source"].cast(pa.binary()),
    ],
    ids=["dictionary", "large", "view", "binary"],
)
def test_foreign_strings(column):
    """Strings of all types are cast to ours."""
    assert decode(parquet(with_column("source", column)), "x").equals(ROWS)


def test_foreign_columns():
    """Other columns and those of the path are dropped, in any order."""
    extra = ROWS
    for name in ("market", "symbol", "interval", "date", "__index_level_0__", "币"):
        extra = extra.append_column(name, pa.array(["x"] * 3))
    shuffled = extra.select(sorted(extra.column_names))
    assert decode(parquet(shuffled), "x").equals(ROWS)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SCHEMA.names
        if name not in ("candle_begin_time", "open", "high", "low", "close", "volume")
    ],
)
def test_missing_optional_column(name):
    """A missing optional column becomes null."""
    again = decode(parquet(ROWS.drop_columns([name])), "x")
    assert again.schema.equals(SCHEMA)
    assert again[name].null_count == 3
    assert again.drop_columns([name]).equals(ROWS.drop_columns([name]))


SOME = pa.schema([SCHEMA.field(name) for name in ("candle_begin_time", "close", "source")])


def test_some_columns():
    """Some columns of a file are those of all its columns, in our files and in foreign ones."""
    assert decode(DATA, "f", SOME).equals(ROWS.select(SOME.names))
    foreign = parquet(with_column("close", ROWS["close"].cast(pa.float32())), compression="snappy")
    assert decode(foreign, "f", SOME).equals(decode(foreign, "f").select(SOME.names))
    for wrong in (parquet(ROWS.drop(["open"])), DATA[:-9]):
        with pytest.raises(LakeError):
            decode(wrong, "f", SOME)
    without = ROWS.set_column(0, SCHEMA.field(0), pa.nulls(3, SCHEMA.field(0).type))
    with pytest.raises(LakeError, match="has a row without candle_begin_time"):
        decode(parquet(without, store_schema=False), "f", SOME)


@pytest.mark.parametrize("name", ["candle_begin_time", "open", "high", "low", "close", "volume"])
def test_missing_required_column(name):
    """A file without a required column is refused, with the column's name."""
    error = refused(parquet(ROWS.drop_columns([name])))
    assert error.what == f"the/file.parquet: has no column {name}"
    assert error.hint == "a candle file needs candle_begin_time, open, high, low, close, volume"


def test_null_begin_time():
    """A row without a begin time refuses the file."""
    begins = pa.array([DAY_START_MS, None, DAY_START_MS + 60_000], pa.timestamp("ms", "UTC"))
    for columns in (ROWS.column_names, ROWS.column_names[:8]):
        error = refused(parquet(with_column("candle_begin_time", begins).select(columns)))
        assert error.what == "the/file.parquet: has a row without candle_begin_time"


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("open", pa.array(["a", "b", "c"])),
        ("open", pa.array([[1.0], [2.0], [3.0]])),
        ("open", pa.array([{"a": 1}] * 3)),
        ("candle_begin_time", pa.array([1.5, 2.5, 3.5])),
        ("candle_begin_time", pa.array(["x", "y", "z"])),
        ("candle_begin_time", pa.array([1, 2, 3], pa.timestamp("ns", "UTC"))),
        ("trade_num", pa.array([1.5, 2.5, 3.5])),
        ("source", pa.array([b"\xff", b"", b""])),
    ],
    ids=range(8),
)
def test_columns_of_no_use(name, column):
    """A column that cannot be cast is refused, with a hint."""
    error = refused(parquet(with_column(name, column)))
    assert error.what.startswith("the/file.parquet: not a readable Parquet file of candles: ")
    assert error.hint == "nothing was changed; move the file out of the lake, then run again"


def test_column_twice():
    """A file with a repeated column is refused, because the column is ambiguous."""
    twice = pa.Table.from_arrays([*ROWS.columns, ROWS["open"]], names=[*ROWS.column_names, "open"])
    refused(parquet(twice))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" * 5,
        b"symbol,open\n",
        b"\0" * 1000,
        DATA[:-1],
        DATA[1:],
        DATA + b"\n",
    ],
    ids=range(9),
)
def test_no_parquet(data):
    """A file that is not whole Parquet is refused with its name."""
    error = refused(data)
    assert error.what.startswith("the/file.parquet: not a readable Parquet file of candles: ")


@given(st.integers(0, len(DATA) - 1))
def test_truncated(length):
    """A file cut off at any byte is refused."""
    refused(DATA[:length])


@examples(100, 500)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_flipped_byte(place, flip):
    """A file with a changed byte is refused, or gives a table."""
    flipped = bytearray(DATA)
    flipped[place] ^= flip
    try:
        assert decode(bytes(flipped), "x").schema.equals(SCHEMA)
    except LakeError as error:
        assert str(error).startswith("x: ")


@pytest.fixture(params=[DATA, encode_next(ROWS, PARTITION, DATA)], ids=["first", "next"])
def file(request, tmp_path):
    path = tmp_path / "candles.parquet"
    path.write_bytes(request.param)
    return path


def test_read_by_duckdb(file):
    """DuckDB reads the file without options, with times in UTC."""
    with duckdb.connect() as connection:
        said = connection.sql(f"DESCRIBE SELECT * FROM '{file}'").fetchall()
        kinds = {row[0]: row[1] for row in said}
        (found,) = connection.sql(
            f"SELECT epoch_ms(min(candle_begin_time)), count(event_time) FROM '{file}'"
        ).fetchall()
    assert list(kinds) == SCHEMA.names
    assert {kinds[name] for name in TIMES} == {"TIMESTAMP WITH TIME ZONE"}
    assert (kinds["trade_num"], kinds["source"], kinds["open"]) == ("BIGINT", "VARCHAR", "DOUBLE")
    assert found == (DAY_START_MS, 2)


def test_read_by_polars(file):
    """Polars reads the file without options, with times in UTC."""
    frame = pl.read_parquet(file)
    assert frame.columns == SCHEMA.names
    assert frame.schema["candle_begin_time"] == pl.Datetime("ms", "UTC")
    assert frame.schema["recv_time"] == pl.Datetime("us", "UTC")
    assert frame.schema["open"] == pl.Float64
    assert frame.schema["trade_num"] == pl.Int64
    assert frame["source"].to_list() == ["stream", "rest", "archive"]


def test_read_by_pandas(file):
    """pandas reads the file without options, with times in UTC."""
    frame = pd.read_parquet(file)
    assert list(frame.columns) == SCHEMA.names
    assert str(frame["candle_begin_time"].dtype) == "datetime64[ms, UTC]"
    assert str(frame["recv_time"].dtype) == "datetime64[us, UTC]"
    assert str(frame["open"].dtype) == "float64"
    assert frame["candle_begin_time"][0] == pd.Timestamp(DAY_START_MS, unit="ms", tz="UTC")
    assert frame["event_time"].isna().tolist() == [False, True, False]
