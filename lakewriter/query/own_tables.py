"""Tables that the caller adds to a statement, beside those of the lake.

The caller hands over frames, never paths. So SQL reaches the lake's tables and these
tables, and nothing else. Each frame becomes one Arrow table, because a statement may
run several times.
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.query.macros import MACROS
from lakewriter.query.statement.guard import TABLES

# Maximum number of tables beside the lake's tables in one statement.
OWN_TABLES_MAX = 64
NAME_CHARS_MAX = 64

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# The engine's own views, and our internal tables.
_PREFIXES = ("duckdb_", "information_schema", "lake_", "pg_", "pragma_", "sqlite_")
_INTERNAL = frozenset(("arriving",))

# The words that DuckDB does not take as a table's name without quotes.
RESERVED_WORDS = frozenset(
    (
        "all", "analyse", "analyze", "and", "anti", "any", "array", "as", "asc", "asof",
        "asymmetric", "at", "authorization", "binary", "both", "by", "case", "cast", "check",
        "collate", "collation", "column", "concurrently", "constraint", "create", "cross",
        "default", "deferrable", "desc", "describe", "distinct", "do", "else", "end", "except",
        "false", "fetch", "for", "foreign", "freeze", "from", "full", "glob", "group", "having",
        "ilike", "in", "initially", "inner", "intersect", "into", "is", "isnull", "join", "lambda",
        "lateral", "leading", "left", "like", "limit", "natural", "not", "notnull", "null",
        "offset", "on", "only", "or", "order", "outer", "overlaps", "pivot", "pivot_longer",
        "pivot_wider", "placing", "positional", "primary", "qualify", "references", "returning",
        "right", "select", "semi", "show", "similar", "some", "summarize", "symmetric", "table",
        "tablesample", "then", "to", "trailing", "true", "union", "unique", "unpack", "unpivot",
        "using", "variadic", "verbose", "when", "where", "window", "with",
    )
)  # fmt: skip

# The name that pyarrow gives to an index without a name.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def check_table_name(name: str) -> None:
    """Raise UsageError unless a table of the caller can have this name."""
    lower = name.lower()
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        raise UsageError(f"table {name!r}: not a name", "letters, digits and _, such as trades")
    if lower in TABLES or lower in MACROS:
        raise UsageError(f"table {name}: the lake has one of this name", "choose another name")
    if lower in RESERVED_WORDS:
        raise UsageError(f"table {name}: the word is reserved in SQL", "choose another name")
    if lower in _INTERNAL or lower.startswith(_PREFIXES):
        raise UsageError(f"table {name}: the name is reserved", "choose another name")


def arrow_tables(given: Mapping[str, Any] | None) -> dict[str, pa.Table]:
    """Return the caller's tables by lower-case name.

    Args:
        given: frames of pandas, Polars or Arrow, or other objects with
            `__arrow_c_stream__`, by name.

    Raises:
        UsageError: if the tables have no names, a name is not possible or is given twice,
            or an object is no table.
    """
    tables: dict[str, pa.Table] = {}
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"tables: {type(given).__name__} has no names", 'tables={"trades": frame}')
    for name, frame in (given or {}).items():
        if not isinstance(name, str):
            raise UsageError(f"table {name!r}: not a name", "a text such as 'trades'")
        check_table_name(name)
        if name.lower() in tables:
            raise UsageError(f"table {name}: given twice", "names are the same in upper and lower case")
        tables[name.lower()] = _arrow_table(name, frame)
    if len(tables) > OWN_TABLES_MAX:
        raise UsageError(f"tables: {len(tables)} are more than {OWN_TABLES_MAX}")
    return tables


def _arrow_table(name: str, frame: Any) -> pa.Table:
    try:
        table = _converted(frame)
    except LakewriterError:
        raise
    except Exception as error:  # noqa: BLE001 - an exporter raises errors of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"table {name}: {reason}") from None
    if table is None:
        raise UsageError(
            f"table {name}: {type(frame).__name__} is not a table",
            "a pandas, Polars or Arrow table, or an object with __arrow_c_stream__",
        )
    if not table.num_columns:
        raise UsageError(f"table {name}: has no columns")
    twice = next((each for each, count in Counter(table.column_names).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"table {name}: column {twice} is there twice", "rename one of them")
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, _in_microseconds(table.column(index)))
        elif pa.types.is_float16(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.float32()))
        elif pa.types.is_decimal256(field.type):
            raise UsageError(
                f"table {name}: column {field.name}: {field.type} is too wide", "cast it to decimal128(38, …)"
            )
    return table


def _in_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times in microseconds if that is exact.

    The times of candles are microseconds in the engine. Naive times of another unit are
    types of their own there, which few functions and no comparison with candles take.
    """
    unit, zone = column.type.unit, column.type.tz
    try:
        return column.cast(pa.timestamp("us", zone))
    except pa.ArrowInvalid:  # parts of a microsecond, or years outside of the unit's range
        return column.cast(pa.timestamp("ns", "UTC")) if unit == "ns" and zone is None else column


def _converted(frame: Any) -> pa.Table | None:
    """Return a frame as an Arrow table; None if it is no frame."""
    if isinstance(frame, pa.Table):
        return frame
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        # Arrow keeps a named index as a column. An index without a name is no column.
        table = pa.Table.from_pandas(frame)
        unnamed = [each for each in table.column_names if _UNNAMED_INDEX.fullmatch(each)]
        return table.drop_columns(unnamed) if unnamed else table
    if isinstance(frame, pa.RecordBatchReader):
        return frame.read_all()
    if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
        return pa.table(frame)
    return None
