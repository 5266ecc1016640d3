"""A whole answer in memory, for Arrow, pandas, Polars or plain Python.

The module needs only Arrow. Times are UTC datetimes without pytz. Only the methods
for pandas and Polars import these libraries.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakewriter.errors import LakewriterError
from lakewriter.query.frames import to_frame

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

# The Arrow type of DuckDB's 128-bit integers, such as sums of counts.
HUGE_INTEGER = pa.decimal128(38, 0)


class Result:
    """The rows of one answer.

    Args:
        table: all rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order and unique."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"Result({len(self)} rows: {', '.join(self.columns)})"

    def arrow(self) -> pa.Table:
        """Return a pyarrow.Table."""
        return self._table

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as pyarrow.RecordBatch, tens of thousands at a time."""
        yield from self._table.to_batches()

    def df(self) -> "pd.DataFrame":
        """Return a pandas.DataFrame with times in UTC, and with 128-bit sums as int64 or float64.

        Times have pandas' own unit, so `merge_asof` works. Dates are times at 00:00.
        """
        table = self._table
        for index, field in enumerate(table.schema):
            if field.type == HUGE_INTEGER:
                table = table.set_column(index, field.name, _narrow(table.column(index)))
        return to_frame(table)

    def pl(self) -> "pl.DataFrame":
        """Return a polars.DataFrame.

        Raises:
            LakewriterError: if Polars is not installed.
        """
        try:
            import polars  # noqa: PLC0415 - optional, and heavy
        except ImportError:
            raise LakewriterError("query: Polars is not installed", "pip install polars") from None
        frame = polars.from_arrow(self._table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples, with times as UTC datetime and null as None."""
        return list(zip(*(python_values(column) for column in self._table.columns), strict=True))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows())


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


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.float64())
