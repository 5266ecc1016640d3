"""Each reader returns the same rows of one lake, by the statements of the docs, on a disk and on S3.

DuckDB reads S3 by an extension, and Spark by jars; neither can be installed without its own
server. So these two cells are left out, and `lakewriter views` is tested for their text.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from lakewriter.lake.open import open_to_read
from lakewriter.query.python.reader import open_lake
from lakewriter.query.reader_recipes import lake_uri, pandas_recipe, polars_recipe
from support.matrix_lake import CHINESE, make_matrix_lake
from support.object_store import environment
from support.running import REPOSITORY
from support.seaweed import Bucket

pytestmark = pytest.mark.slow

KEY = ["market", "symbol", "interval", "candle_begin_time"]
MARKETS = {"BTCUSDT": "spot", "ETHUSDT": "spot", CHINESE: "usdt_futures"}


def statement(language: str, first_line: str) -> str:
    """Return the block of the docs whose first line is this comment."""
    pages = "\n".join(page.read_text() for page in (REPOSITORY / "docs" / "how-to").glob("*.md"))
    [block] = re.findall(rf"```{language}\n{re.escape(first_line)}\n(.*?)```", pages, re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_matrix_lake(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def rows(lake: Path) -> pa.Table:
    """All rows, as `lakewriter query` returns them."""
    table = rows_in_order(open_lake(lake).query("FROM candles").arrow())
    assert table.num_rows > 500 and set(table["symbol"].to_pylist()) == set(MARKETS)
    return table


def rows_in_order(table: pa.Table) -> pa.Table:
    """Return the rows sorted by key, in the types of SQL; fail if a type is of another kind.

    The column `date` is left out: in plain files it is the first day of the period.
    """
    from lakewriter.candle import SCHEMA

    fields = [(name, pa.string()) for name in KEY[:3]]
    fields += [
        (name, pa.timestamp("us", "UTC") if "time" in name else SCHEMA.field(name).type)
        for name in SCHEMA.names
    ]
    for name, wanted in fields:
        assert kind(table.schema.field(name).type) == kind(wanted), name
    ordered = table.select([name for name, _ in fields]).cast(pa.schema(fields))
    return ordered.sort_by([(name, "ascending") for name in KEY]).combine_chunks()


def kind(each: pa.DataType) -> str:
    """Return the kind of a type, which readers call differently."""
    if pa.types.is_dictionary(each):
        each = each.value_type
    if pa.types.is_timestamp(each):
        return f"time in {each.tz}"
    is_text = pa.types.is_string(each) or pa.types.is_large_string(each) or pa.types.is_string_view(each)
    return "text" if is_text else str(each)


def run_python(code: str, **names: Any) -> dict[str, Any]:
    exec(code, names)
    return names


def of_each_symbol(read: Callable[[str, str], pa.Table]) -> pa.Table:
    """Return the rows that a statement for one symbol returns for each of them."""
    return pa.concat_tables([rows_in_order(read(market, symbol)) for symbol, market in MARKETS.items()])


def chosen(code: str, market: str, symbol: str) -> str:
    """Return a statement for another series than that of the page."""
    assert "BTCUSDT" in code and "spot" in code
    return code.replace("spot", market).replace("BTCUSDT", symbol)


def test_duckdb(lake: Path, rows: pa.Table) -> None:
    """DuckDB returns the rows of each symbol, by the statement of the docs."""
    code = statement("sql", "-- DuckDB").replace("'data/", f"'{lake}/")

    def read(market: str, symbol: str) -> pa.Table:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.sql(chosen(code, market, symbol)).to_arrow_table()

    assert rows_in_order(of_each_symbol(read)).equals(rows)


def test_pandas(lake: Path, rows: pa.Table) -> None:
    """pandas returns the rows of each symbol, by the statement of the docs."""
    code = statement("python", "# pandas").replace('"data"', repr(str(lake)))

    def read(market: str, symbol: str) -> pa.Table:
        frame = run_python(chosen(code, market, symbol))["frame"]
        return pa.Table.from_pandas(frame, preserve_index=False)

    assert rows_in_order(of_each_symbol(read)).equals(rows)


def test_pyarrow(lake: Path, rows: pa.Table) -> None:
    """pyarrow returns all rows, by the statement of the docs."""
    code = statement("python", "# pyarrow").replace('"data"', repr(str(lake)))
    assert rows_in_order(run_python(code)["table"]).equals(rows)


def test_polars(lake: Path, rows: pa.Table) -> None:
    """Polars returns all rows, by the statement of the docs."""
    code = statement("python", "# Polars").replace('"data/', f'"{lake}/')
    assert rows_in_order(run_python(code)["frame"].to_arrow()).equals(rows)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_plain_spark(lake: Path, rows: pa.Table, spark: Any) -> None:
    """Spark returns all rows, by the statement of the docs."""
    code = statement("python", "# Spark").replace('"data"', repr(str(lake)))
    assert rows_in_order(run_python(code, spark=spark)["candles"].toArrow()).equals(rows)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_spark_by_our_source(lake: Path, rows: pa.Table, spark: Any) -> None:
    """`format("lakewriter")` returns all rows, by the statement of the docs."""
    code = statement("python", "# Spark, by lakewriter").replace('"data"', repr(str(lake)))
    assert rows_in_order(run_python(code, spark=spark)["candles"].toArrow()).equals(rows)


@pytest.fixture
def remote(lake: Path, bucket: Bucket) -> Iterator[str]:
    """The URI of the same lake on S3, with credentials in the environment."""
    bucket.upload(lake, "lake")
    with environment(**bucket.variables):
        yield f"s3://{bucket.name}/lake"


@pytest.mark.long
def test_lakewriter_on_s3(remote: str, rows: pa.Table) -> None:
    """`lakewriter query` returns the same rows of a lake on S3."""
    assert rows_in_order(open_lake(remote).query("FROM candles").arrow()).equals(rows)


@pytest.mark.long
def test_pandas_on_s3(remote: str, rows: pa.Table) -> None:
    """pandas, which reads S3 by pyarrow, returns all rows by `lakewriter views`."""
    frame = run_python(pandas_recipe(lake_uri(open_to_read(remote))))["candles"]()
    assert rows_in_order(pa.Table.from_pandas(frame, preserve_index=False)).equals(rows)


@pytest.mark.long
def test_polars_on_s3(remote: str, rows: pa.Table) -> None:
    """Polars returns all rows by `lakewriter views`."""
    frame = run_python(polars_recipe(lake_uri(open_to_read(remote))))["candles"]
    assert isinstance(frame, pl.LazyFrame)
    assert rows_in_order(frame.collect().to_arrow()).equals(rows)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_spark_by_our_source_on_s3(lake: Path, rows: pa.Table, bucket: Bucket, spark: Any) -> None:
    """`format("lakewriter")` returns all rows of a lake on S3, without a jar."""
    code = statement("python", "# Spark, by lakewriter").replace('"data"', repr(bucket.upload(lake, "lake")))
    assert rows_in_order(run_python(code, spark=spark)["candles"].toArrow()).equals(rows)
