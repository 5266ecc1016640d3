"""The values of an answer, and of parameters, as values of Python and as text. Pure."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

# The Arrow type of DuckDB's 128-bit integers, such as sums of counts.
HUGE_INTEGER = pa.decimal128(38, 0)


# The methods with which pandas, NumPy, Polars and Arrow return values of Python.
_TO_PYTHON = ("to_list", "tolist", "to_pylist", "as_py")


def plain_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with columns of frames as lists, and scalars of NumPy as those of Python.

    The engine takes few types of these libraries.
    """
    return {name: _plain(value) for name, value in params.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str | bytes | datetime):
        return value
    # NumPy returns nanoseconds as an int, and the engine's unit as a datetime.
    if type(value).__module__ == "numpy" and str(getattr(value, "dtype", "")).startswith("datetime64"):
        value = value.astype("datetime64[us]")
    methods = (getattr(value, name, None) for name in _TO_PYTHON)
    method = next((each for each in methods if callable(each)), None)
    return value if method is None else method()


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
