"""A whole answer in memory, for Arrow, pandas, Polars or plain Python.

The module needs only Arrow. Times are UTC datetimes without pytz. Only the methods
for pandas and Polars import these libraries.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakewriter.errors import LakewriterError
from lakewriter.query.python.frames import to_frame
from lakewriter.query.values import HUGE_INTEGER, python_values

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

# Maximum number of rows that are shown whole, if pandas has no own limit.
_ROWS_SHOWN_MAX = 60


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
        return f"{self._shown(repr)}\n[{self._size()}]"

    def _repr_html_(self) -> str:
        """Return the first and the last rows as HTML, for notebooks."""
        return f"{self._shown(_html)}<p>{self._size()}</p>"

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as an Arrow stream, from which other libraries make their own tables."""
        return self._table.__arrow_c_stream__(requested_schema)

    def _size(self) -> str:
        return f"{len(self):,} rows × {len(self.columns)} columns"

    def _shown(self, render: "Callable[[pd.DataFrame], str]") -> str:
        """Return the rows that pandas would show, as text. Only these rows are converted."""
        import pandas as pd  # noqa: PLC0415 - heavy

        rows_max = pd.get_option("display.max_rows")
        rows_max = _ROWS_SHOWN_MAX if rows_max == 0 else rows_max  # 0 is the height of a terminal
        table = self._table
        omits = rows_max is not None and len(self) > rows_max
        ends = min(pd.get_option("display.min_rows") or len(self), rows_max or len(self)) // 2
        omits = omits and len(self) > 2 * ends + 2
        numbers: Sequence[int] = range(len(self))
        if omits:
            # One more row than is shown at each end, so pandas marks the omitted ones.
            head, tail = table.slice(0, ends + 1), table.slice(len(self) - ends - 1)
            table = pa.concat_tables([head, tail])
            numbers = [*numbers[: ends + 1], *numbers[-ends - 1 :]]
        frame = Result(table).df().set_index(pd.Index(numbers))
        rows_shown = 2 * ends if omits else None
        with pd.option_context(
            *("display.max_rows", rows_shown, "display.min_rows", rows_shown),
            *("display.show_dimensions", False),
        ):
            return render(frame)

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


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.float64())


def _html(frame: "pd.DataFrame") -> str:
    import pandas as pd  # noqa: PLC0415 - heavy

    rows_max, columns_max = pd.get_option("display.max_rows"), pd.get_option("display.max_columns")
    return str(frame.to_html(max_rows=rows_max, max_cols=columns_max, notebook=True))
