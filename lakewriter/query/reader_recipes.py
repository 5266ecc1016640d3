"""Recipes that let DuckDB, Polars, pandas and Spark read a lake without lakewriter.

Each recipe names the types of the columns in the paths. Otherwise a reader would
read `interval=1d` and `symbol=1F` as the number 1.0. These readers see flushed
candles, not the journal.
"""

import glob
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, urlencode

from lakewriter.errors import UsageError
from lakewriter.interval import INTERVALS, FilePeriod
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import LEVELS
from lakewriter.query.schema import COLUMNS, SPARK_TYPES

_TYPES = ", ".join(f"'{level}': '{COLUMNS[level]}'" for level in LEVELS)
# A macro's parameter hides a column with the same name, unless the SQL names its table.
_NAMES = ", ".join(f'c."{name}"' for name in COLUMNS)

# Columns for a lake without files.
_NO_ROWS = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in COLUMNS.items())

# `until` is exclusive, so a day that begins at `until` is excluded.
_DAYS = "generate_series(since::TIMESTAMP::DATE, (until::TIMESTAMP - INTERVAL 1 MICROSECOND)::DATE, INTERVAL 1 DAY)"

# Patterns for the directories that contain candles of a day. In a month or a year, the
# directory of another day belongs to its partition until `lakewriter compact` folds it.
_DATE_PATTERNS: dict[FilePeriod, str] = {"day": "%Y-%m-%d", "month": "%Y-%m-*", "year": "%Y-*"}

# A condition in SQL that selects the intervals matching a macro's parameter.
_MATCHING = 'IF i GLOB "interval"'

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class LakeUri(NamedTuple):
    """The address of a lake, for other readers.

    Args:
        root: a directory, or `s3://bucket/prefix`.
        endpoint, region: the object store's endpoint and region; "" leaves them to the reader.
    """

    root: str
    endpoint: str = ""
    region: str = ""

    @property
    def on_s3(self) -> bool:
        """Whether the lake is on S3."""
        return self.root.startswith("s3://")


def lake_uri(store: LakeStore) -> LakeUri:
    """Return the address of a lake.

    Raises:
        UsageError: if no recipe supports the lake's object store.
    """
    uri = LakeUri(store.name, store.endpoint, store.region)
    if store.is_remote and not uri.on_s3:
        raise UsageError(f"views: there are none for {store.name}", "a directory, or s3://bucket/prefix")
    return uri


def duckdb_recipe(uri: LakeUri) -> str:
    """Return SQL for a view of all candles, and for macros that list few directories.

    Raises:
        UsageError: if the path contains a backslash, which is a slash in DuckDB's patterns.
    """
    if "\\" in uri.root:
        raise UsageError(
            f"views: {uri.root}: DuckDB takes a backslash in a pattern for a slash",
            "--for polars, or a lake whose path has none",
        )
    root = glob.escape(uri.root)
    everywhere = f"{_sql_text(root + '/market=*/symbol=*/interval=')} || i || '/date=*/*.parquet'"
    start = _sql_text(root + "/market=")
    series = f"{start} || market || '/symbol=' || symbol || '/interval=' || i || '/date=' || "
    return f"""\
-- DuckDB 2.0 or newer: before it `allow_empty` is unknown.
{_sql_secret(uri) if uri.on_s3 else ""}SET TimeZone = 'UTC';

-- FROM candles WHERE …: lists every directory of the lake.
CREATE OR REPLACE VIEW candles AS
{_sql_rows(lambda _, intervals: f"[{everywhere} FOR i IN {intervals}]")};

-- FROM candles('BTCUSDT', market := 'spot', "interval" := '1m'): lists the directories of one symbol.
CREATE OR REPLACE MACRO candles(symbol, market := '*', "interval" := '*') AS TABLE
{_sql_rows(lambda _, intervals: f"[{series}'*/*.parquet' FOR i IN {intervals} {_MATCHING}]")};

-- FROM candles_between('BTCUSDT', '2024-06-30', '2024-07-02'): looks for the directories of these days.
-- `since` is in, `until` is out.
CREATE OR REPLACE MACRO candles_between(symbol, since, until, market := '*', "interval" := '*') AS TABLE
SELECT c.* FROM (
{_sql_rows(lambda period, intervals: _sql_day_paths(series, period, intervals))}
) AS c
WHERE c.candle_begin_time >= since::TIMESTAMPTZ AND c.candle_begin_time < until::TIMESTAMPTZ;
"""  # noqa: S608 - made of our own text and an escaped path


def _sql_secret(uri: LakeUri) -> str:
    options = ["TYPE s3", "PROVIDER credential_chain", f"SCOPE {_sql_text(uri.root)}"]
    if uri.region:
        options.append(f"REGION {_sql_text(uri.region)}")
    if uri.endpoint:
        scheme, _, host = uri.endpoint.rpartition("://")
        options += [
            f"ENDPOINT {_sql_text(host)}",
            f"USE_SSL {str(scheme != 'http').lower()}",
            "URL_STYLE 'path'",
        ]
    return f"""\
-- Reads S3 with the extension httpfs, and finds credentials with aws.
INSTALL httpfs; LOAD httpfs; INSTALL aws; LOAD aws;
CREATE OR REPLACE SECRET lake ({", ".join(options)});
"""


def _sql_day_paths(series: str, period: FilePeriod, intervals: str) -> str:
    dates = f"list_distinct([strftime(day, '{_DATE_PATTERNS[period]}') FOR day IN {_DAYS}])"
    return f"flatten([[{series}d || '/*.parquet' FOR d IN {dates}] FOR i IN {intervals} {_MATCHING}])"


def _sql_rows(paths: Callable[[FilePeriod, str], str]) -> str:
    """Return a SELECT of candles.

    Args:
        paths: returns SQL for a list of patterns. Its arguments are a period and SQL for
            the list of intervals with that period.
    """
    return "\nUNION ALL\n".join(
        _sql_part(period, paths(period, _sql_intervals(period))) for period in _DATE_PATTERNS
    )


def _sql_part(period: FilePeriod, paths: str) -> str:
    day = 'c.candle_begin_time::DATE AS "date"'
    names = _NAMES if period == "day" else _NAMES.replace('c."date"', day)
    return f"""\
SELECT {names}
FROM (
    SELECT {_NO_ROWS} WHERE false
    UNION ALL BY NAME
    SELECT * FROM read_parquet(
        {paths},
        allow_empty = true, hive_partitioning = true, hive_types_autocast = false,
        hive_types = {{{_TYPES}}}
    )
) AS c"""  # noqa: S608 - made of our own text and an escaped path


def _sql_intervals(period: FilePeriod) -> str:
    names = (f"'{name}'" for name, grid in INTERVALS.items() if grid.file_period == period)
    return f"[{', '.join(names)}]"


def _sql_text(text: str) -> str:
    """Return a DuckDB string, with escapes only if it contains a control character."""
    quoted = text.replace("'", "''")
    if not _CONTROL.search(text):
        return f"'{quoted}'"
    escaped = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", quoted.replace("\\", "\\\\"))
    return f"E'{escaped}'"


def polars_recipe(uri: LakeUri) -> str:
    """Return Python code for a LazyFrame of all candles."""
    types = {"VARCHAR": "polars.String", "DATE": "polars.Date"}
    hive = ", ".join(f'"{level}": {types[COLUMNS[level]]}' for level in LEVELS)
    options = {"aws_region": uri.region, "aws_endpoint_url": uri.endpoint}
    storage_options = ", ".join(f"{_text(name)}: {_text(value)}" for name, value in options.items() if value)
    if uri.endpoint.startswith("http://"):
        storage_options += ', "aws_allow_http": "true"'
    return f"""\
# Polars{", which finds credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if uri.on_s3 else ""}
import polars

hive = {{{hive}}}
candles = polars.scan_parquet(
    {_text(glob.escape(uri.root) + "/market=*/**/*.parquet")}, hive_partitioning=True, hive_schema=hive\
{f",{chr(10)}    storage_options={{{storage_options}}}," if storage_options else ""}
).with_columns(polars.col("candle_begin_time").dt.date().alias("date"))
# candles.filter(polars.col("symbol") == "BTCUSDT", polars.col("interval") == "1m").collect()
"""


def pandas_recipe(uri: LakeUri) -> str:
    """Return Python code for a function that reads selected candles, and opens only their files."""
    types = {"VARCHAR": "string", "DATE": "date32"}
    hive = ", ".join(f'("{level}", "{types[COLUMNS[level]]}")' for level in LEVELS)
    where = "root, filesystem=s3" if uri.on_s3 else _text(uri.root)
    return f"""\
# pandas
import pandas
import pyarrow
import pyarrow.dataset
{"import pyarrow.fs" + chr(10) if uri.on_s3 else ""}
hive = pyarrow.dataset.partitioning(pyarrow.schema([{hive}]), flavor="hive")
{_pandas_filesystem(uri) if uri.on_s3 else ""}

def candles(**wanted):
    \"\"\"Return a DataFrame: candles(market="spot", symbol="BTCUSDT", interval="1m", date="2024-06-30").\"\"\"
    day = wanted.pop("date", None)
    filters = [(name, "=", value) for name, value in wanted.items()]
    if day is not None:
        start = pandas.Timestamp(day, tz="UTC")
        filters += [("candle_begin_time", ">=", start), ("candle_begin_time", "<", start + pandas.Timedelta(days=1))]
        # The directories of its year, in which a file can have it.
        filters += [("date", ">=", start.replace(month=1, day=1).date()), ("date", "<=", start.date())]
    frame = pandas.read_parquet({where}, partitioning=hive, filters=filters or None)
    return frame.assign(date=frame["candle_begin_time"].dt.date)
"""


def _pandas_filesystem(uri: LakeUri) -> str:
    # Arrow decodes percent signs in a URI.
    options = {"region": uri.region, "endpoint_override": uri.endpoint}
    query = urlencode({name: value for name, value in options.items() if value})
    arrow_uri = f"s3://{quote(uri.root.removeprefix('s3://'))}{'?' if query else ''}{query}"
    return f"""\
s3, root = pyarrow.fs.FileSystem.from_uri({_text(arrow_uri)})  # credentials as for AWS's own tools
"""


def spark_recipe(uri: LakeUri) -> str:
    """Return Python code for a temporary view of all candles in the Spark session `spark`."""
    schema = ", ".join(f"`{name}` {SPARK_TYPES[kind]}" for name, kind in COLUMNS.items())
    names = ", ".join(
        'to_date("candle_begin_time").alias("date")' if name == "date" else f'"{name}"' for name in COLUMNS
    )
    path = "s3a" + uri.root.removeprefix("s3") if uri.on_s3 else "file://" + uri.root
    return f"""\
# Spark: `spark` is the SparkSession
from pyspark.sql.functions import to_date

{_spark_options(uri) if uri.on_s3 else ""}spark.conf.set("spark.sql.session.timeZone", "UTC")
candles = spark.read.schema(
    "{schema}"
).parquet({_text(_hadoop_escaped(path))}).select({names})
candles.createOrReplaceTempView("candles")
# spark.sql("SELECT * FROM candles WHERE symbol = 'BTCUSDT' AND interval = '1m'")
"""  # noqa: S608 - no statement


def _spark_options(uri: LakeUri) -> str:
    options = {"fs.s3a.endpoint": uri.endpoint, "fs.s3a.endpoint.region": uri.region}
    if uri.endpoint:
        options["fs.s3a.path.style.access"] = "true"
    lines = [f"spark.conf.set({_text(name)}, {_text(value)})\n" for name, value in options.items() if value]
    return (
        "# It needs the package org.apache.hadoop:hadoop-aws, in the version of its own Hadoop.\n"
        + "".join(lines)
    )


def _text(text: str) -> str:
    """Return a Python string literal, in double quotes if they need no escape."""
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else repr(text)


def _hadoop_escaped(path: str) -> str:
    """Return a path escaped for Hadoop's globs."""
    return "".join(f"\\{char}" if char in "*?[]{}\\" else char for char in path)


RECIPES: dict[str, Callable[[LakeUri], str]] = {
    "duckdb": duckdb_recipe,
    "spark": spark_recipe,
    "polars": polars_recipe,
    "pandas": pandas_recipe,
}
