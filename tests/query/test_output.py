"""Answers in every format, and results in every type."""

import contextlib
import csv
import io
import json
import os
import sys
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.errors import LakewriterError
from lakewriter.lake.lake import LakeStore
from lakewriter.query.errors import QueryError
from lakewriter.query.execution import RowStream
from lakewriter.query.output import excel
from lakewriter.query.output.formats import FORMATS, format_of
from lakewriter.query.output.spool import RowSpool
from lakewriter.query.output.text import DisplayLimits, collect_rows, format_value, table_lines
from lakewriter.query.output.writers import WRITERS, write_answer
from lakewriter.query.python.result import Result
from lakewriter.query.session import run, stream
from support.lakes import make_lake, rest_candle
from support.lengths import either

EVERYTHING = """
SELECT * FROM (VALUES
  (1, 9223372036854775807::BIGINT, 170141183460469231731687303715884105727::HUGEINT, 0.1::DOUBLE + 0.2,
   1.50::DECIMAL(10,2), 'a,"b"' || chr(10) || '币|', TIMESTAMPTZ '2024-06-30 12:34:00+00',
   TIMESTAMP '2024-06-30 12:34:00.5', DATE '2024-06-30', true, [1, 2], {'k': 'v'}, INTERVAL '1 month 2 days 3 hours'),
  (2, NULL, NULL, 'nan'::DOUBLE, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, 0, 0, 'inf'::DOUBLE, -0.05, '', TIMESTAMPTZ '2024-06-30 12:34:00.000001+00',
   NULL, NULL, false, [], NULL, INTERVAL '-1 second')
) t(id, big, huge, float, exact, text, moment, naive, day, flag, list, struct, span) ORDER BY id
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(tmp_path_factory.mktemp("output"), [rest_candle(n) for n in range(100)])


def written(store: LakeStore, name: str, sql: str = EVERYTHING, rows_max: int | None = None) -> bytes:
    out = io.BytesIO()
    with stream(store, sql) as answer:
        write_answer(name, answer, out, DisplayLimits(rows_max))
    return out.getvalue()


def test_each_format_has_a_writer() -> None:
    """Each format has a writer, and each writer a format."""
    assert WRITERS.keys() == FORMATS.keys()


def test_csv_reads_back(store: LakeStore) -> None:
    """CSV has a header, quotes its texts, and keeps all digits of numbers and times."""
    header, first, second, third = csv.reader(io.StringIO(written(store, "csv").decode()))
    assert header[:4] == ["id", "big", "huge", "float"]
    assert first == [
        "1", "9223372036854775807", "170141183460469231731687303715884105727", "0.30000000000000004", "1.50",
        'a,"b"\n币|', "2024-06-30T12:34:00Z", "2024-06-30T12:34:00.5", "2024-06-30", "true", "[1,2]", '{"k":"v"}',
        "1 month 2 days 03:00:00",
    ]  # fmt: skip
    assert second[1:] == ["", "", "nan", *[""] * 9]
    assert third[6] == "2024-06-30T12:34:00.000001Z"
    assert third[12] == "-00:00:01"


@pytest.mark.parametrize("name", ["json", "ndjson"])
def test_json_reads_back(store: LakeStore, name: str) -> None:
    """JSON keeps all digits of numbers; NaN and infinity are null."""
    text = written(store, name).decode()
    rows = json.loads(text) if name == "json" else [json.loads(line) for line in text.splitlines()]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert rows[0]["big"] == 9223372036854775807
    assert rows[0]["huge"] == 170141183460469231731687303715884105727
    assert rows[0]["float"] == 0.1 + 0.2
    assert '"exact":1.50' in text
    assert rows[0]["text"] == 'a,"b"\n币|'
    assert rows[0]["moment"] == "2024-06-30T12:34:00Z"
    assert rows[0]["naive"] == "2024-06-30T12:34:00.5"
    assert rows[0]["day"] == "2024-06-30"
    assert rows[0]["list"] == [1, 2]
    assert rows[1]["float"] is None
    assert rows[2]["float"] is None
    assert rows[2]["moment"] == "2024-06-30T12:34:00.000001Z"


def test_times_beyond_the_calendar_are_spelled(store: LakeStore) -> None:
    """All text formats write the infinities of times and days."""
    sql = "SELECT 'infinity'::TIMESTAMPTZ AS a, '-infinity'::TIMESTAMP AS b, 'infinity'::DATE AS c, '-infinity'::DATE AS d"
    assert list(csv.reader(io.StringIO(written(store, "csv", sql).decode())))[1] == [
        "infinity", "-infinity", "infinity", "-infinity",
    ]  # fmt: skip
    assert list(json.loads(written(store, "json", sql))[0].values()) == ["infinity", "-infinity"] * 2
    assert written(store, "table", sql).decode().splitlines()[2].split() == ["infinity", "-infinity"] * 2


def test_parquet_and_arrow_read_back(store: LakeStore) -> None:
    """The binary formats keep rows and types."""
    sql = "FROM candles ORDER BY candle_begin_time"
    expected = run(store, sql)
    assert pq.read_table(io.BytesIO(written(store, "parquet", sql))).equals(expected)
    assert pa.ipc.open_stream(written(store, "arrow", sql)).read_all().equals(expected)


def test_tsv_reads_back(store: LakeStore) -> None:
    """TSV separates values by tabs, and keeps a value that has a tab."""
    sql = "SELECT 'a' || chr(9) || 'b' AS x, 1 AS \"y\tz\", NULL AS n UNION ALL SELECT 'c', 2, NULL"
    text = written(store, "tsv", sql).decode()
    assert list(csv.reader(io.StringIO(text), delimiter="\t")) == [
        ["x", "y\tz", "n"], ["a\tb", "1", ""], ["c", "2", ""],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_sums_of_counts_stay_whole_numbers(store: LakeStore, name: str) -> None:
    """128-bit sums become 64-bit numbers in a file, or an error if they do not fit."""

    def read(sql: str) -> pa.Table:
        data = written(store, name, sql)
        return pq.read_table(io.BytesIO(data)) if name == "parquet" else pa.ipc.open_stream(data).read_all()

    found = read(
        "SELECT symbol, sum(trade_num) AS trades, sum(trade_num) FILTER (false) AS none FROM candles GROUP BY ALL"
    )
    assert found.schema.field("trades").type == pa.int64()
    assert found.to_pylist() == [{"symbol": "BTCUSDT", "trades": 1000, "none": None}]
    assert read(f"SELECT {2**63 - 1}::HUGEINT AS x").to_pylist() == [{"x": 2**63 - 1}]
    assert read("SELECT 1.5::DECIMAL(38, 1) AS x").schema.field("x").type == pa.decimal128(38, 1)
    with pytest.raises(QueryError, match="a whole number has more than 64 bits") as raised:
        read(f"SELECT {2**63}::HUGEINT AS x")
    assert raised.value.hint == "cast the column: x::DOUBLE, or x::VARCHAR"


def workbook(store: LakeStore, sql: str) -> list[tuple[Any, ...]]:
    sheet = openpyxl.load_workbook(io.BytesIO(written(store, "xlsx", sql))).active
    assert sheet is not None
    return [tuple(row) for row in sheet.iter_rows(values_only=True)]


def test_a_workbook_reads_back(store: LakeStore) -> None:
    """A workbook keeps numbers, booleans and times; other values are text with all digits.

    A number has the 16 digits that Excel itself reads.
    """
    header, first, second, third = workbook(store, EVERYTHING)
    assert header[:4] == ("id", "big", "huge", "float")
    assert first == (
        1, "9223372036854775807", "170141183460469231731687303715884105727", 0.3, 1.5, 'a,"b"\n币|',
        datetime(2024, 6, 30, 12, 34), datetime(2024, 6, 30, 12, 34, 0, 500_000), datetime(2024, 6, 30), True, "[1,2]",
        '{"k":"v"}', "1 month 2 days 03:00:00",
    )  # fmt: skip
    assert second == (2, *[None] * 12)
    assert third[3] == "inf"
    found = workbook(
        store,
        "SELECT '=1+1' AS formula, 'https://x.y' AS link, DATE '1899-01-01' AS old, 'infinity'::TIMESTAMP AS never",
    )
    assert found == [("formula", "link", "old", "never"), ("=1+1", "https://x.y", "1899-01-01", "infinity")]
    assert workbook(store, "SELECT 1 AS a, 'x' AS b WHERE false") == [("a", "b")]
    rows = either(20_000, 120_000)
    assert len(workbook(store, f"FROM range({rows})")) == 1 + rows


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("FROM range(20)", "a sheet holds 9 rows, and there are more"),
        ("SELECT repeat('币', 40000)", "a cell holds 32,767 characters, not 40,000"),
        ("SELECT repeat('😀', 16384)", "a cell holds 32,767 characters, not 16,384"),
        ("SELECT COLUMNS(*) FROM (SELECT 1, 2, 3, 4, 5, 6)", "a sheet holds 5 columns, not 6"),
    ],
)
def test_a_workbook_has_limits(
    store: LakeStore, sql: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An answer that a sheet cannot hold is one line with a hint, and leaves no temporary file."""
    monkeypatch.setattr(excel, "ROWS_MAX", 10)
    monkeypatch.setattr(excel, "COLUMNS_MAX", 5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(QueryError, match=message) as raised:
        written(store, "xlsx", sql)
    assert "FILE." in raised.value.hint
    assert not list(tmp_path.rglob("lakewriter-xlsx-*"))


def test_a_missing_xlsxwriter_is_told(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without XlsxWriter the error says how to install it."""
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(LakewriterError, match="XlsxWriter is not installed") as raised:
        written(store, "xlsx", "SELECT 1")
    assert "pip install 'lakewriter[excel]'" in raised.value.hint


def test_parquet_names_what_it_cannot_hold(store: LakeStore) -> None:
    """A type that Parquet lacks is an error with a hint."""
    with pytest.raises(QueryError, match="Parquet cannot hold") as raised:
        written(store, "parquet", "SELECT INTERVAL '1 day' AS x")
    assert "VARCHAR" in raised.value.hint


def test_table_is_aligned(store: LakeStore) -> None:
    """Numbers are aligned right and text left, and the last line has the number of rows."""
    sql = """SELECT symbol, 61234.5 AS price, 1e-8::DOUBLE AS tiny, TIMESTAMPTZ '2024-06-30 12:34:00+00' AS at
             FROM (VALUES ('BTCUSDT'), ('币安USDT')) t(symbol)"""
    assert written(store, "table", sql).decode().splitlines() == [
        "symbol      price        tiny  at",
        "────────  ───────  ──────────  ───────────────────",
        "BTCUSDT   61234.5  0.00000001  2024-06-30 12:34:00",
        "币安USDT  61234.5  0.00000001  2024-06-30 12:34:00",
        "(2 rows)",
    ]


def test_markdown_is_a_table(store: LakeStore) -> None:
    """Markdown aligns numbers, and escapes characters that would end a cell."""
    text = written(store, "markdown", "SELECT 'a|b' AS x, 1 AS n, chr(10) AS z").decode()
    assert text == "| x | n | z |\n| --- | ---: | --- |\n| a\\|b | 1 | \\\\n |\n"


@pytest.mark.parametrize("rows_max", [1, 2, 5, 99, 100, 101])
@pytest.mark.parametrize("sizes", [[100], [3, 0, 50, 47], [1] * 100, [60, 40]])
def test_long_tables_show_both_ends(rows_max: int, sizes: list[int]) -> None:
    """A long table shows the first and last rows, for any batches."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for size in sizes:
            yield pa.record_batch({"n": pa.array(range(start, start + size), pa.int64())})
            start += size

    rows = collect_rows(batches(), rows_max)
    assert rows.total == 100
    shown = [int(row[0]) for row in rows.shown()]
    assert shown == [
        n for n in range(100) if rows_max >= 100 or n < (rows_max + 1) // 2 or n >= 100 - rows_max // 2
    ]
    lines = list(table_lines(pa.schema([("n", pa.int64())]), rows))
    assert lines[-1] == ("(100 rows)" if rows_max >= 100 else f"(100 rows, {rows_max} shown)")
    assert any("…" in line for line in lines) == (rows_max < 100)


TIMELESS = """
SELECT ['infinity'::TIMESTAMP, NULL, TIMESTAMP '2024-06-30 12:00:00'] AS list, {'a': DATE '-infinity', 'b': [1]} AS struct,
    MAP {1: 'infinity'::TIMESTAMPTZ} AS map, [[DATE 'infinity']] AS deep
UNION ALL SELECT NULL, NULL, NULL, NULL
"""


def test_times_without_end_in_what_is_nested(store: LakeStore) -> None:
    """Infinite times inside lists, structs and maps are written as outside, in all text formats."""
    first, second = json.loads(written(store, "json", TIMELESS))
    assert first == {
        "list": ["infinity", None, "2024-06-30T12:00:00"],
        "struct": {"a": "-infinity", "b": [1]},
        "map": [[1, "infinity"]],
        "deep": [["infinity"]],
    }
    assert set(second.values()) == {None}
    _, row, _ = csv.reader(io.StringIO(written(store, "csv", TIMELESS).decode()))
    assert [json.loads(text) for text in row] == list(first.values())
    for name in ("table", "line", "markdown"):
        assert '[["infinity"]]' in written(store, name, TIMELESS).decode()
    assert Result(run(store, TIMELESS)).rows()[0][3] == [["infinity"]]


def test_no_rows_in_every_format(store: LakeStore) -> None:
    """An empty answer is valid in each format, and keeps its columns."""
    sql = "SELECT 1 AS a, 'x' AS b WHERE false"
    assert written(store, "csv", sql) == b"a,b\n"
    assert json.loads(written(store, "json", sql)) == []
    assert written(store, "ndjson", sql) == b""
    assert written(store, "table", sql).decode().splitlines() == ["a  b", "─  ─", "(0 rows)"]
    assert written(store, "table", sql, 40) == written(store, "table", sql)
    assert written(store, "markdown", sql) == b"| a | b |\n| ---: | --- |\n"
    assert pq.read_table(io.BytesIO(written(store, "parquet", sql))).column_names == ["a", "b"]
    assert pa.ipc.open_stream(written(store, "arrow", sql)).read_all().num_rows == 0


def test_plans_are_drawn(store: LakeStore) -> None:
    """EXPLAIN prints the drawing of the plan."""
    text = written(store, "table", "EXPLAIN SELECT count(*) FROM candles").decode()
    assert "│" in text
    assert "\\n" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (0.1 + 0.2, "0.3"),
        (1e-8, "0.00000001"),
        (1.2345e16, "12345000000000000"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (61234.0, "61234"),
        (Decimal("1.50"), "1.50"),
        (date(2024, 6, 30), "2024-06-30"),
        (datetime(2024, 6, 30, 12, 34, tzinfo=UTC), "2024-06-30 12:34:00"),
        (datetime(2024, 6, 30, 12, 34, 0, 123000, tzinfo=UTC), "2024-06-30 12:34:00.123"),
        ("\x1b[31mred\n", "\\u001b[31mred\\n"),
        (b"\x00\xff", "\\x00ff"),
        ([1, None, "x"], '[1,null,"x"]'),
    ],
)
def test_cells_read_well(value: object, text: str) -> None:
    """Each type of value has one text, and control characters are escaped."""
    assert format_value(value) == text


def test_csv_stays_flat(store: LakeStore) -> None:
    """CSV is written batch by batch, without collecting rows."""

    class Counter(io.RawIOBase):
        largest = 0

        def write(self, data: object) -> int:
            size = len(data)  # type: ignore[arg-type]
            self.largest = max(self.largest, size)
            return size

    out = Counter()
    with stream(store, "SELECT range AS n FROM range(500000)") as answer:
        write_answer("csv", answer, out, DisplayLimits())  # type: ignore[arg-type]
    assert 0 < out.largest < 2_000_000


def test_suffix_tells_the_format() -> None:
    """The suffix of `-o` sets the format, without `--format`."""
    assert format_of(".parquet") == "parquet"
    assert format_of(".JSONL") == "ndjson"
    assert format_of(".pqt") == "parquet"
    assert format_of(".unknown") is None


def test_result_has_every_shape(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One result gives the same rows as tuples, pandas, Polars and Arrow, with times in UTC."""
    sql = "SELECT candle_begin_time, open, sum(trade_num) OVER () AS trades FROM candles ORDER BY 1 LIMIT 2"
    monkeypatch.delitem(sys.modules, "pytz", raising=False)  # another test's
    result = Result(run(store, sql))
    first = datetime(2024, 6, 30, tzinfo=UTC)
    assert result.columns == ["candle_begin_time", "open", "trades"]
    assert result.rows()[0] == (first, 100.0, 1000)
    assert isinstance(result.rows()[0][2], int)
    assert len(result) == len(list(result)) == 2
    assert result.arrow().num_rows == 2
    assert sum(batch.num_rows for batch in result.batches()) == 2
    frame = result.df()
    assert frame["candle_begin_time"][0] == pd.Timestamp(first)
    assert str(frame["candle_begin_time"].dtype).endswith("UTC]")
    assert str(frame["trades"].dtype) == "int64"
    assert result.pl()["candle_begin_time"][0] == first
    assert isinstance(result.pl(), pl.DataFrame)
    assert "pytz" not in sys.modules


def test_answer_of_no_batches_has_its_columns() -> None:
    """An answer without batches has its schema."""
    answer = RowStream(pa.schema([("a", pa.int64())]), iter(()))
    out = io.BytesIO()
    write_answer("csv", answer, out, DisplayLimits())
    assert out.getvalue() == b"a\n"


@pytest.mark.parametrize("width", range(8, 60))
def test_a_wide_table_loses_columns_in_the_middle(width: int) -> None:
    """No line is wider than the terminal; middle columns are left out and counted, the first one stays."""
    names = [f"column{number}" for number in range(6)]
    batch = pa.record_batch([pa.array([number, 10**number]) for number in range(6)], names=names)
    with contextlib.closing(collect_rows([batch], None)) as rows:
        lines = list(table_lines(batch.schema, rows, width))
    whole = width >= 6 * 7 + 5 * 2
    assert all(len(line) <= max(width, 10) for line in lines[:-1])
    assert lines[0].startswith("column0")
    assert ("…" in lines[0]) is not whole
    shown = sum(name in lines[0] for name in names)
    assert lines[-1] == ("(2 rows)" if whole else f"(2 rows; 6 columns, {shown} shown)")


CANDLE_COLUMNS = (
    "market", "symbol", "interval", "date", "candle_begin_time", "candle_end_time", "open", "high", "low", "close",
    "volume", "quote_volume", "trade_num", "taker_buy_base_asset_volume", "taker_buy_quote_asset_volume",
    "event_time", "recv_time", "source",
)  # fmt: skip


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_a_wide_table_of_candles_keeps_its_prices(store: LakeStore, width: int) -> None:
    """The least important columns of candles are left out first, each run of them with one mark."""
    with (
        stream(store, "FROM candles LIMIT 3") as answer,
        contextlib.closing(collect_rows(answer.batches, None)) as rows,
    ):
        lines = list(table_lines(answer.schema, rows, width, "so all are shown"))
    assert all(len(line) <= max(width, 25) for line in lines[:-1])
    shown = lines[0].split()
    names = [name for name in shown if name != "…"]
    assert names == [name for name in CANDLE_COLUMNS if name in names]
    if width >= 50:
        assert {"symbol", "candle_begin_time", "close"} <= set(names)
    if width >= 100:
        assert {"market", "symbol", "candle_begin_time", "open", "high", "low", "close"} <= set(names)
    assert lines[-1] == f"(3 rows; 18 columns, {len(names)} shown; so all are shown)"
    runs = "".join("x" if name in names else "." for name in CANDLE_COLUMNS).replace("x", " ").split()
    assert shown.count("…") == len(runs)


def test_a_table_of_very_many_columns_is_shown_at_once() -> None:
    """Ten thousand columns, as a PIVOT makes, take no longer to lay out than their values."""
    batch = pa.record_batch([pa.array([1])] * 10_000, names=[f"column{n}" for n in range(10_000)])
    with contextlib.closing(collect_rows([batch], None)) as rows:
        began_s = time.thread_time()
        lines = list(table_lines(batch.schema, rows, 100))
    assert time.thread_time() - began_s < 2
    assert lines[-1].startswith("(1 row; 10000 columns, ")


def test_lines_show_every_value(store: LakeStore) -> None:
    """Each value has a line with its name; omitted middle rows keep their numbers."""
    sql = "SELECT range AS n, NULL AS nothing, 'a' || chr(10) AS \"名\", 1e-8::DOUBLE AS tiny FROM range(3)"
    assert written(store, "line", sql, 2).decode().splitlines() == [
        "── row 1 ──", "n        0", "nothing  NULL", "名       a\\n", "tiny     0.00000001",
        "…",
        "── row 3 ──", "n        2", "nothing  NULL", "名       a\\n", "tiny     0.00000001",
        "(3 rows, 2 shown)",
    ]  # fmt: skip
    assert written(store, "line", "SELECT 1 AS a WHERE false") == b"(0 rows)\n"


def batches_of(count: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, count, 5000):
        numbers = pa.array(range(first, first + 5000))
        texts = pa.array([f"币\t\n{number}" for number in range(first, first + 5000)])
        yield pa.record_batch([numbers, texts], names=["n", "text"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["table", pytest.param("line", marks=pytest.mark.long), pytest.param("markdown", marks=pytest.mark.long)],
)
def test_a_long_table_takes_no_memory(name: str) -> None:
    """A table to a file or pipe has all rows aligned, without holding them in memory."""

    def peak_bytes(count: int) -> int:
        answer = RowStream(next(batches_of(1)).schema, batches_of(count))
        tracemalloc.start()
        with Path(os.devnull).open("wb") as out:
            write_answer(name, answer, out, DisplayLimits())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # As Python's own objects 25,000 rows more would be 5 MB; in a spool they are half of one.
    assert peak_bytes(30_000) < peak_bytes(5000) + 2_000_000


def test_a_spool_gives_its_rows_as_often_as_asked() -> None:
    """A spool returns its rows any number of times, from memory or disk."""
    rows = [("", f"币{number}") for number in range(1000)]
    for memory_bytes_max in (10, 1_000_000):
        with contextlib.closing(RowSpool(memory_bytes_max)) as spool:
            spool.extend(rows[:600])
            spool.extend(rows[600:])
            assert (len(spool), list(spool), list(spool)) == (1000, rows, rows)
