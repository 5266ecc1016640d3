"""Statements for readers that do without lakewriter: DuckDB, Polars, pandas, Spark.

The one place that knows how each of them is told the types of what stands in
the paths alone: a lake of `interval=1d` would otherwise be read as the number
1.0, and a symbol `1F` too. Such readers see what is flushed, not the journal.
"""

import glob
from collections.abc import Callable
from pathlib import Path

from lakewriter.query.tables import COLUMNS

_LEVELS = ("market", "symbol", "interval", "date")

_SPARK_TYPES = {
    "VARCHAR": "STRING",
    "DATE": "DATE",
    "DOUBLE": "DOUBLE",
    "BIGINT": "BIGINT",
    "TIMESTAMPTZ": "TIMESTAMP",
}

_TYPES = ", ".join(f"'{level}': '{COLUMNS[level]}'" for level in _LEVELS)
# A macro's parameter would hide a column of its name if no table's stood before that.
_NAMES = ", ".join(f'c."{name}"' for name in COLUMNS)

# Where no file is, there are no columns either: these stand in for them.
_NO_ROWS = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in COLUMNS.items())

# A time in `until` itself is not wanted, and the day that begins there neither.
_DAYS = "generate_series(since::TIMESTAMP::DATE, (until::TIMESTAMP - INTERVAL 1 MICROSECOND)::DATE, INTERVAL 1 DAY)"


def duckdb_statements(root: Path) -> str:
    """Return a view of all candles, and macros that look into few directories; for DuckDB 2.0."""
    start = _sql_text(glob.escape(str(root)) + "/market=")
    series = f"{start} || market || '/symbol=' || symbol || '/interval=' || \"interval\" || '/date=' || "
    return f"""\
-- DuckDB 2.0 or newer
SET TimeZone = 'UTC';

-- FROM candles WHERE …: lists every directory of the lake.
CREATE OR REPLACE VIEW candles AS
{_sql_rows(_sql_text(glob.escape(str(root)) + "/market=*/symbol=*/interval=*/date=*/*.parquet"))};

-- FROM candles('BTCUSDT', market := 'spot', interval := '1m'): lists the directories of one symbol.
CREATE OR REPLACE MACRO candles(symbol, market := '*', "interval" := '*') AS TABLE
{_sql_rows(series + "'*/*.parquet'")};

-- FROM candles_between('BTCUSDT', '2024-06-30', '2024-07-02'): looks for the directories of these days.
-- `since` is in, `until` is out.
CREATE OR REPLACE MACRO candles_between(symbol, since, until, market := '*', "interval" := '*') AS TABLE
{_sql_rows(f"[{series}strftime(day, '%Y-%m-%d') || '/*.parquet' FOR day IN {_DAYS}]")}
WHERE c.candle_begin_time >= since::TIMESTAMPTZ AND c.candle_begin_time < until::TIMESTAMPTZ;
"""


def _sql_rows(paths: str) -> str:
    return f"""\
SELECT {_NAMES}
FROM (
    SELECT {_NO_ROWS} WHERE false
    UNION ALL BY NAME
    SELECT * FROM read_parquet(
        {paths},
        allow_empty = true, hive_partitioning = true, hive_types_autocast = false,
        hive_types = {{{_TYPES}}}
    )
) AS c"""  # noqa: S608 - made of our own text and an escaped path


def _sql_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def polars_statements(root: Path) -> str:
    """Return a LazyFrame of all candles."""
    types = {"VARCHAR": "polars.String", "DATE": "polars.Date"}
    hive = ", ".join(f'"{level}": {types[COLUMNS[level]]}' for level in _LEVELS)
    return f"""\
# Polars
import polars

hive = {{{hive}}}
candles = polars.scan_parquet(
    {_text(glob.escape(str(root)) + "/market=*/**/*.parquet")}, hive_partitioning=True, hive_schema=hive
)
# candles.filter(polars.col("symbol") == "BTCUSDT", polars.col("interval") == "1m").collect()
"""


def pandas_statements(root: Path) -> str:
    """Return a function that reads some candles, and does not open the files of others."""
    types = {"VARCHAR": "string", "DATE": "date32"}
    hive = ", ".join(f'("{level}", "{types[COLUMNS[level]]}")' for level in _LEVELS)
    return f"""\
# pandas
import pandas
import pyarrow
import pyarrow.dataset

hive = pyarrow.dataset.partitioning(pyarrow.schema([{hive}]), flavor="hive")


def candles(**wanted):
    \"\"\"Return a DataFrame: candles(market="spot", symbol="BTCUSDT", interval="1m").\"\"\"
    filters = [(name, "=", value) for name, value in wanted.items()]
    return pandas.read_parquet({_text(str(root))}, partitioning=hive, filters=filters or None)
"""


def spark_statements(root: Path) -> str:
    """Return a temporary view of all candles, in the Spark session `spark`."""
    schema = ", ".join(f"`{name}` {_SPARK_TYPES[kind]}" for name, kind in COLUMNS.items())
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    return f"""\
# Spark: `spark` is the SparkSession
spark.conf.set("spark.sql.session.timeZone", "UTC")
candles = spark.read.schema(
    "{schema}"
).parquet({_text("file://" + _hadoop_escaped(str(root)))}).select({names})
candles.createOrReplaceTempView("candles")
# spark.sql("SELECT * FROM candles WHERE symbol = 'BTCUSDT' AND interval = '1m'")
"""  # noqa: S608 - no statement


def _text(text: str) -> str:
    """Return a Python string, in double quotes unless there are some in it."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'


def _hadoop_escaped(path: str) -> str:
    """Return a path that Hadoop's globs take as it stands."""
    return "".join(f"\\{char}" if char in "*?[]{}\\" else char for char in path)


STATEMENTS: dict[str, Callable[[Path], str]] = {
    "duckdb": duckdb_statements,
    "spark": spark_statements,
    "polars": polars_statements,
    "pandas": pandas_statements,
}
