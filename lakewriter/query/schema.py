"""The columns of `candles` in SQL: their names, their order, their types."""

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

# column → SQL type, in the order that `SELECT *` shows.
COLUMNS = PATH_COLUMNS | {field.name: SQL_TYPES[field.type] for field in SCHEMA}

# The same, for a SELECT.
COLUMN_LIST = ", ".join(f'"{name}"' for name in COLUMNS)
