"""The caller's tables in a statement: every kind of frame, names, and no more access than before."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.query.errors import QueryError
from lakewriter.query.macros import MACROS
from lakewriter.query.own_tables import OWN_TABLES_MAX, RESERVED_WORDS, arrow_tables, check_table_name
from lakewriter.query.python.reader import Lake, open_lake
from lakewriter.query.session import run
from lakewriter.query.statement.guard import TABLES, check
from support.escapes import ALLOWED, REFUSED, everything, filled
from support.lakes import make_lake, rest_candle
from support.watched_lake import WatchedLake, watched

__all__ = ["watched"]  # the fixture

TIMES = [dt.datetime(2024, 6, 30, 0, 1, 30, tzinfo=dt.UTC), dt.datetime(2024, 6, 30, 0, 5, tzinfo=dt.UTC)]
TRADES = {"time": TIMES, "symbol": ["BTCUSDT", "BTCUSDT"], "price": [101.5, 106.0]}

# Each trade beside the last candle that was closed by then.
ASOF = """
SELECT t.time, t.price, c.close FROM trades t
ASOF JOIN candles_of('spot', 'BTCUSDT', '1m') c ON c.symbol = t.symbol AND c.candle_end_time <= t.time
ORDER BY t.time
"""


class OnlyStream:
    """An object with only `__arrow_c_stream__`."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


class Broken:
    """An object whose `__arrow_c_stream__` fails."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        raise OSError("the disk is gone\nsecond line")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    make_lake(root / "lake", [rest_candle(n) for n in range(10)], hot=[rest_candle(10)])
    (root / "secret.csv").write_text("a,b\nhidden,1\n")
    return root


@pytest.fixture(scope="module")
def lake(place: Path) -> Lake:
    return open_lake(place / "lake")


def frames() -> Iterator[tuple[str, Any]]:
    table = pa.table(TRADES)
    yield "arrow", table
    yield "batch", table.to_batches()[0]
    yield "reader", table.to_reader()
    yield "stream", OnlyStream(table)
    yield "pandas", pd.DataFrame(TRADES)
    yield "pandas with an index", pd.DataFrame(TRADES).set_index("time")
    yield "pandas filtered", pd.DataFrame(TRADES)[lambda frame: frame.price > 0]
    yield "pandas with categories", pd.DataFrame(TRADES).astype({"symbol": "category"})
    yield "polars", pl.DataFrame(TRADES)
    yield "polars with categories", pl.DataFrame(TRADES).with_columns(pl.col("symbol").cast(pl.Categorical))
    yield "duckdb", duckdb.connect().from_arrow(table)


@pytest.mark.parametrize(("frame"), [frame for _, frame in frames()], ids=[name for name, _ in frames()])
def test_each_kind_of_frame_joins_candles(lake: Lake, frame: Any) -> None:
    """Frames of pandas, Polars and Arrow, and other Arrow streams, can be joined with candles."""
    assert lake.query(ASOF, tables={"trades": frame}).rows() == [
        (TIMES[0], 101.5, 101.0),
        (TIMES[1], 106.0, 105.0),
    ]


def test_an_answer_is_a_table_again(lake: Lake) -> None:
    """A frame of candles, with its index as a column, and an answer's Arrow table can be queried."""
    candles = lake.candles("spot", "BTCUSDT", "1m")
    mine = lake.query("SELECT max(candle_end_time) FROM mine", tables={"mine": candles})
    assert mine.rows() == lake.query("SELECT max(candle_end_time) FROM candles").rows()
    once = lake.query("SELECT close FROM candles")
    assert lake.query("SELECT count(*) FROM again", tables={"again": once.arrow()}).rows() == [(11,)]


def test_streams_read_them_too(lake: Lake) -> None:
    """`Lake.stream` takes tables as `Lake.query` does."""
    numbers = pa.table({"n": range(120_000)})
    with lake.stream("FROM numbers ORDER BY n", tables={"numbers": numbers}) as answer:
        batches = list(answer.batches)
    assert len(batches) > 1
    assert pa.Table.from_batches(batches).equals(numbers.cast(batches[0].schema))


def test_types_keep_their_values(lake: Lake) -> None:
    """Half floats, naive and zoned times of every unit, and nested values are read."""
    at = np.datetime64("2024-06-30T12:00:00")
    columns = {
        "half": pa.array(np.array([0.5], np.float16)),
        "naive": pa.array([at.astype("datetime64[ns]")]),
        "zoned": pa.array([1_719_748_800_000], pa.timestamp("ms", tz="Asia/Tokyo")),
        "nested": pa.array([{"a": [1, 2]}]),
        "unsigned": pa.array([2**64 - 1], pa.uint64()),
    }
    found = lake.query(
        "SELECT half, naive = zoned AS same, nested.a[2] AS second, unsigned FROM mine",
        tables={"mine": pa.table(columns)},
    )
    assert found.rows() == [(0.5, True, 2, 2**64 - 1)]
    with pytest.raises(UsageError, match=r"table mine: column wide: decimal256\(50, 2\) is too wide"):
        lake.query("FROM mine", tables={"mine": pa.table({"wide": pa.array([1], pa.decimal256(50, 2))})})


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_of_every_unit_are_times_of_the_engine(lake: Lake, unit: str, zone: str | None) -> None:
    """A CSV file has seconds and older pandas has nanoseconds; joins and functions take both."""
    times = pa.array(TIMES).cast(pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone))
    trades = pa.table(TRADES | {"time": times})
    found = lake.query(ASOF, tables={"trades": trades}).arrow()
    assert found["close"].to_pylist() == [101.0, 105.0]
    parts = lake.query("SELECT epoch_ms(time), hour(time) FROM trades LIMIT 1", tables={"trades": trades})
    assert parts.rows() == [(int(TIMES[0].timestamp() * 1000), TIMES[0].hour)]


COLUMN = pd.Series(["BTCUSDT", "NONE"])


@pytest.mark.parametrize(
    "symbols",
    [
        COLUMN,
        COLUMN.unique(),
        pd.Index(COLUMN),
        COLUMN.to_numpy(),
        pl.Series(list(COLUMN)),
        pa.array(list(COLUMN)),
    ],
    ids=lambda symbols: type(symbols).__name__,
)
def test_a_column_of_a_frame_is_a_list_parameter(lake: Lake, symbols: Any) -> None:
    """A parameter may be a column of a frame, and a number of NumPy."""
    sql = "SELECT count(*), max($low) FROM candles_of('spot', $symbols, '1m', since := $since) WHERE low >= $low"
    params = {"symbols": symbols, "low": np.int64(0), "since": np.datetime64("2024-06-30", "ns")}
    assert lake.query(sql, params).rows() == [(11, 0)]


def test_parts_of_a_microsecond_are_kept(lake: Lake) -> None:
    """Nanoseconds that are no whole microseconds stay, and can be compared with candles."""
    at = pa.array([1_719_748_800_000_000_001], pa.timestamp("ns"))
    found = lake.query(
        "SELECT t.at, count(*) FROM mine t JOIN candles c ON c.candle_begin_time <= t.at GROUP BY ALL",
        tables={"mine": pa.table({"at": at})},
    ).arrow()
    assert found.column(0).cast(pa.int64()).to_pylist() == [1_719_748_800_000_000_001]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("trades.csv", "table mine: str is not a table"),
        ([1, 2], "table mine: list is not a table"),
        (None, "table mine: NoneType is not a table"),
        (pa.table({}), "table mine: has no columns"),
        (pa.table([[1], [2]], names=["a", "a"]), "table mine: column a is there twice"),
        (pl.Series([1, 2]), "table mine: "),
        (pd.DataFrame({"a": [1, "x", object()]}), "table mine: "),
        (Broken(), "table mine: the disk is gone"),
    ],
)
def test_what_is_no_table_is_one_line(lake: Lake, frame: Any, message: str) -> None:
    """An object that is no table is refused, with its type or its own error."""
    with pytest.raises(UsageError) as raised:
        lake.query("FROM mine", tables={"mine": frame})
    assert raised.value.what.startswith(message)
    assert "\n" not in raised.value.what


@pytest.mark.parametrize("name", [*TABLES, "CANDLES", *MACROS])
def test_the_lakes_names_are_taken(name: str) -> None:
    """A name of the lake's tables or functions is refused in one line, in any case."""
    with pytest.raises(UsageError, match=f"table {name}: the lake has one of this name"):
        check_table_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a.b", "1a", "a-b", "é", "x" * 65, "a\n", '"a"', "select", "ASOF", "duckdb_tables", "pg_class",
     "sqlite_master", "pragma_version", "lake_held", "lake_unmerged", "information_schema", "arriving"],
)  # fmt: skip
def test_impossible_names_are_refused(lake: Lake, name: str) -> None:
    """A name that SQL cannot hold, or that hides an internal table, is refused before the engine sees it."""
    with pytest.raises(UsageError, match=r"^table .*: (not a name|.* reserved)"):
        lake.query("SELECT 1", tables={name: pa.table({"a": [1]})})


def test_names_are_the_same_in_either_case(lake: Lake) -> None:
    """Two names that differ only by case are refused."""
    table = pa.table({"a": [1]})
    assert lake.query("FROM trades UNION ALL FROM TRADES", tables={"Trades": table}).rows() == [(1,), (1,)]
    with pytest.raises(UsageError, match="table TRADES: given twice"):
        lake.query("FROM trades", tables={"trades": table, "TRADES": table})
    with pytest.raises(UsageError, match=f"are more than {OWN_TABLES_MAX}"):
        arrow_tables({f"t{n}": table for n in range(OWN_TABLES_MAX + 1)})


def test_reserved_words_are_those_of_this_duckdb() -> None:
    """The known reserved words are exactly those that DuckDB refuses as a table's name."""
    connection = duckdb.connect()
    words = connection.sql("SELECT keyword_name FROM duckdb_keywords()").fetchall()
    refused = set()
    for (word,) in words:
        try:
            connection.extract_statements(f"SELECT {word}.a FROM {word} JOIN candles USING (a)")
            connection.extract_statements(f"FROM candles ASOF JOIN {word} ON {word}.a > candles.a")
        except duckdb.ParserException:
            refused.add(word)
    assert refused == RESERVED_WORDS


def test_a_table_lasts_for_one_statement(lake: Lake) -> None:
    """A later statement does not see the table, even after a failure."""
    mine = {"mine": pa.table({"a": [1]})}
    assert lake.query("FROM mine", tables=mine).rows() == [(1,)]
    with pytest.raises(QueryError):
        lake.query("SELECT nothing FROM mine", tables=mine)
    with pytest.raises(QueryError, match="there is no table mine") as raised:
        lake.query("FROM mine")
    assert "--table NAME=FILE" in raised.value.hint


def test_lists_of_tables_name_them(lake: Lake) -> None:
    """SHOW TABLES, DESCRIBE and the hints of errors include the caller's tables."""
    mine = {"mine": pa.table({"a": [1]})}
    assert ("mine",) in lake.query("SHOW TABLES", tables=mine).rows()
    assert lake.query("DESCRIBE mine", tables=mine).rows()[0][:2] == ("a", "BIGINT")
    with pytest.raises(QueryError, match="there is no table yours") as raised:
        lake.query("FROM yours", tables=mine)
    assert "mine" in raised.value.hint


# Escapes by way of a table's name or contents. {outside} is a file beside the lake.
REFUSED_WITH_TABLES = [
    "INSERT INTO mine VALUES (1, 'x')",
    "WITH x AS (DELETE FROM mine RETURNING *) FROM x",
    "WITH x AS (UPDATE mine SET a = 2 RETURNING *) FROM x",
    "DROP VIEW mine",
    "CREATE OR REPLACE TEMP VIEW mine AS SELECT 1",
    "ALTER VIEW mine RENAME TO yours",
    "COPY mine TO '{new}'",
    "COPY mine FROM '{outside}'",
    "FROM query_table('mine')",
    "FROM query_table(['mine', '{outside}'])",
    "FROM read_text((SELECT path FROM mine))",
    "FROM mine, read_text(mine.path)",
    "FROM mine, LATERAL (FROM read_csv(mine.path))",
    "SELECT (SELECT content FROM read_text(mine.path)) FROM mine",
    "FROM query((SELECT sql FROM mine))",
    "FROM json_execute_serialized_sql((SELECT sql FROM mine))",
    "FROM \"mine\".\"{outside}\"",
    "FROM memory.main.mine",
    "FROM temp.main.mine",
    "FROM temp.mine",
    "FROM system.main.duckdb_tables",
    "FROM main.duckdb_tables",
    "FROM sqlite_master",
    "FROM main.sqlite_master",
    "FROM arriving",
    "FROM secret_frame, mine",
    "SELECT mine.* FROM mine JOIN secret_frame USING (a)",
    "PREPARE p AS FROM mine",
]  # fmt: skip

MINE = {
    "mine": pa.table({"a": [1], "path": ["/etc/passwd"], "sql": ["SELECT 1"]}),
    "secret": pa.table({"csv": ["a table by the name of a file"]}),
}


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"enable_external_access": False}) as connection:
        yield connection


@pytest.mark.parametrize("sql", [*REFUSED, *REFUSED_WITH_TABLES])
def test_refused_with_tables_present(place: Path, parser: duckdb.DuckDBPyConnection, sql: str) -> None:
    """With own tables all escapes are still refused."""
    with pytest.raises((QueryError, duckdb.ParserException)):
        check(parser, filled(place, sql), frozenset(MINE))


@pytest.mark.parametrize("sql", [*REFUSED[::5], *REFUSED_WITH_TABLES])
def test_refused_in_one_line_with_nothing_changed(
    place: Path, lake: Lake, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal shows no hidden table, and changes no file and no frame."""
    secret_frame = pa.table({"hidden": [1], "a": [1]})
    monkeypatch.chdir(place)
    before = everything(place)
    with pytest.raises(LakewriterError) as raised:
        lake.query(filled(place, sql), tables=MINE)
    assert everything(place) == before
    assert "\n" not in raised.value.what
    assert "hidden" not in str(raised.value)
    assert secret_frame is not None


@pytest.mark.parametrize("sql", ALLOWED[::3])
def test_allowed_with_tables_present(lake: Lake, sql: str) -> None:
    """Statements on the lake alone give the same answers with own tables."""
    lake.query(sql, tables=MINE)


@pytest.mark.parametrize("name", ["frame", "pd", "df", "place"])
def test_a_python_variable_is_no_table(lake: Lake, name: str) -> None:
    """A Python variable is no table, even if it is a frame."""
    frame = df = pl.DataFrame({"hidden": [1]})
    with pytest.raises(QueryError, match=f"there is no table {name}"):
        lake.query(f"FROM {name}, mine", tables=MINE)
    assert frame is df


@pytest.mark.parametrize(
    ("join", "where", "partitions"),
    [
        ("JOIN candles c USING (symbol)", "c.symbol = 'AUSDT' AND c.\"interval\" = '1m' AND c.market = 'spot'", 3),
        ("ASOF JOIN candles_of('spot', 'AUSDT', '1m') c ON c.symbol = t.symbol AND c.candle_end_time <= t.time", "true", 3),
        ("LEFT JOIN candles c ON c.symbol = t.symbol AND c.market = 'spot' AND c.\"interval\" = '5m'", "true", 9),
        ("SEMI JOIN candles c ON c.symbol = t.symbol AND c.market = 'spot'", "t.symbol = 'BUSDT'", 18),
        ("JOIN (FROM trades) u USING (symbol) JOIN candles c USING (symbol)", "c.symbol = 'AUSDT'", 12),
        ("CROSS JOIN candles c", "c.symbol = t.symbol AND c.symbol IN ('AUSDT', 'BUSDT')", 24),
        (", LATERAL (FROM candles c WHERE c.symbol = t.symbol AND c.market = 'spot') AS c", "true", 18),
    ],
)  # fmt: skip
def test_filters_of_a_join_choose_the_files(
    watched: WatchedLake, join: str, where: str, partitions: int
) -> None:
    """A statement with own tables lists only the partitions of its filters, and finds all rows."""
    trades = pa.table(
        {"symbol": ["AUSDT", "BUSDT"], "time": [dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)] * 2}
    )
    sql = f"SELECT count(*) FROM trades t {join} WHERE {where}"
    pruned = run(watched, sql, tables={"trades": trades})
    assert len(set(watched.listed)) == partitions
    literal = "(VALUES ('AUSDT', TIMESTAMPTZ '2024-07-01 12:00'), ('BUSDT', TIMESTAMPTZ '2024-07-01 12:00')) v(symbol, time)"
    assert pruned.equals(run(watched, f"WITH trades AS (FROM {literal}) {sql}"))
    assert pruned["count_star()"][0].as_py() > 0


def test_parameters_from_a_frame_choose_the_files(watched: WatchedLake) -> None:
    """A list of symbols and a time of pandas prune files, although a join itself does not."""
    trades = pd.DataFrame(
        {"symbol": ["AUSDT", "AUSDT", "币USDT"], "time": [pd.Timestamp("2024-07-02 00:30")] * 3}
    )
    sql = """
        SELECT count(c.close) AS n FROM trades t
        ASOF JOIN candles_of('spot', $symbols, '1m', since := $since) c
        ON c.symbol = t.symbol AND c.candle_end_time <= t.time + INTERVAL 1 HOUR
    """
    since = trades["time"].min() - pd.Timedelta("1h")
    params = {"symbols": list(trades["symbol"].unique()), "since": since}
    assert run(watched, sql, params, tables={"trades": trades}).to_pylist() == [{"n": 3}]
    listed = {(partition.symbol, str(partition.date)) for partition in watched.listed}
    assert listed == {(symbol, day) for symbol in ("AUSDT", "币USDT") for day in ("2024-07-01", "2024-07-02")}
