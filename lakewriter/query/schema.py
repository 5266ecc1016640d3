"""The columns of `candles` in SQL, with their names, order and types."""

import pyarrow as pa

from lakewriter.candle import SCHEMA

PATH_COLUMNS = {"market": "VARCHAR", "symbol": "VARCHAR", "interval": "VARCHAR", "date": "DATE"}

SQL_TYPES = {
    pa.float64(): "DOUBLE",
    pa.int64(): "BIGINT",
    pa.string(): "VARCHAR",
    pa.timestamp("ms", tz="UTC"): "TIMESTAMPTZ",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.date32(): "DATE",
}

# SQL type → Spark's type.
SPARK_TYPES = {
    "VARCHAR": "STRING",
    "DATE": "DATE",
    "DOUBLE": "DOUBLE",
    "BIGINT": "BIGINT",
    "TIMESTAMPTZ": "TIMESTAMP",
}

# Maximum number of rows of an answer with a row for each missing candle. A year of 1s
# candles has 31.5 million rows of about 120 bytes each.
FILLED_ROWS_MAX = 32_000_000

# Column → SQL type, in the order of `SELECT *`.
COLUMNS = PATH_COLUMNS | {field.name: SQL_TYPES[field.type] for field in SCHEMA}

# The quoted names of COLUMNS, for a SELECT.
COLUMN_LIST = ", ".join(f'"{name}"' for name in COLUMNS)
