"""The values of an answer as values of Python and as text. Pure."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

# The Arrow type of DuckDB's 128-bit integers, such as sums of counts.
HUGE_INTEGER = pa.decimal128(38, 0)


def python_values(column: Any) -> list[Any]:
    """Return an Arrow column's values as Python values. 128-bit integers become int.

    Times outside Python's range become the text "infinity" or "-infinity", also in
    nested values. Examples are DuckDB's infinity, and years after 9999.
    """
    try:
        values: list[Any] = column.to_pylist()
    except OverflowError:
        values = [_value_or_text(value) for value in column]
    if column.type == HUGE_INTEGER:
        return [int(value) if isinstance(value, Decimal) else value for value in values]
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return [value.to_pydatetime() if hasattr(value, "to_pydatetime") else value for value in values]
    return values


def _value_or_text(value: Any) -> Any:
    try:
        return value.as_py()
    except OverflowError:
        if isinstance(value, pa.StructScalar):
            return {name: _value_or_text(part) for name, part in value.items()}
        if isinstance(value, pa.MapScalar):
            return [(_value_or_text(part["key"]), _value_or_text(part["value"])) for part in value.values]
        if isinstance(value, pa.ListScalar):
            return [_value_or_text(part) for part in value.values]
        return "infinity" if value.value > 0 else "-infinity"


def utc_text(moment: datetime, separator: str) -> str:
    """Return a time as ISO 8601 to the second, with a fraction if it is not 0."""
    text = moment.replace(tzinfo=None).isoformat(separator)
    return text.rstrip("0") if moment.microsecond else text
