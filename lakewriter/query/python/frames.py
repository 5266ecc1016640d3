"""pandas frames of Arrow tables, with pandas' own unit of time.

`pandas.merge_asof` joins only times of one unit. So the times of every frame have the
unit that pandas gives to parsed text: microseconds since pandas 3, nanoseconds before.
pandas is imported at the first frame.
"""

import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import pyarrow as pa

from lakewriter.candle import SCHEMA, VALUE_COLUMNS
from lakewriter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

IndexTime = Literal["candle_end_time", "candle_begin_time"]
Columns = Literal["ohlcv"] | Sequence[str]

SYMBOL = "symbol"

# The columns of a frame of candles without its index, in the original recorder's order.
FRAME_COLUMNS = ("candle_begin_time", *VALUE_COLUMNS)

# The names that vectorbt, backtesting.py and mplfinance expect.
_OHLCV = {name: name.capitalize() for name in ("open", "high", "low", "close", "volume")}


@cache
def time_unit() -> str:
    """Return the unit of times that pandas parses: "us" since pandas 3, "ns" before."""
    import pandas as pd  # noqa: PLC0415 - heavy

    return str(pd.DatetimeIndex(["2024-06-30"]).unit)


def to_frame(table: pa.Table) -> "pd.DataFrame":
    """Return a table as a DataFrame, with dates as times at 00:00."""
    for index, field in enumerate(table.schema):
        kind = _kind_in_pandas(field.type)
        if kind != field.type:
            table = table.set_column(index, field.name, _cast(table.column(index), kind))
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    return frame


class FrameShape(NamedTuple):
    """The index, columns and time zone of a frame of candles.

    Args:
        index_time: the column of the index.
        names: the names of the other columns in the lake, each with its name in the frame.
        tz: the time zone of all times; None is UTC without a zone.
    """

    index_time: IndexTime
    names: Mapping[str, str]
    tz: str | None

    @property
    def columns(self) -> list[str]:
        """The columns of the lake that the frame needs."""
        return [self.index_time, *self.names]


def frame_shape(columns: Columns | None, index: IndexTime, tz: str | None) -> FrameShape:
    """Return the shape of a frame of candles.

    Args:
        columns: "ohlcv", names of columns, or None for the times and values of candles.

    Raises:
        UsageError: if a column, the index or the time zone is unknown.
    """
    check_index(index)
    check_zone(tz)
    if columns == "ohlcv":
        return FrameShape(index, _OHLCV, tz)
    if isinstance(columns, str) or not isinstance(columns, Iterable | None):
        raise UsageError(f"columns: {columns!r} is unknown", 'columns="ohlcv", or columns=["close"]')
    chosen = ("candle_end_time", *FRAME_COLUMNS) if columns is None else columns
    for name in chosen:
        if name not in SCHEMA.names:
            raise UsageError(f"columns: {name!r} is unknown", f"choose from: {' '.join(SCHEMA.names)}")
    return FrameShape(index, {name: name for name in chosen if name != index}, tz)


def candle_frame(table: pa.Table, shape: FrameShape) -> "pd.DataFrame":
    """Return candles as a DataFrame indexed by a time.

    Args:
        table: the columns of the shape, and `symbol` if it has several symbols.
    """
    symbol = {SYMBOL: SYMBOL} if SYMBOL in table.column_names else {}
    names = {shape.index_time: shape.index_time, **symbol, **shape.names}
    values = [in_zone(table[name], shape.tz) for name in names]
    return to_frame(pa.table(values, names=list(names.values()))).set_index(shape.index_time)


def check_index(index: str) -> None:
    """Raise UsageError unless the column of an index is a time of a candle."""
    if index not in get_args(IndexTime):
        raise UsageError(f"index: {index!r} is no time of a candle", 'index="candle_begin_time"')


def check_zone(tz: str | None) -> None:
    """Raise UsageError if a time zone is unknown."""
    try:
        if tz is not None:
            zoneinfo.ZoneInfo(tz)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UsageError(
            f"tz: {tz!r} is no time zone", 'tz="Asia/Shanghai"; tz=None is UTC without a zone'
        ) from None


def in_zone(column: pa.ChunkedArray, tz: str | None) -> pa.ChunkedArray:
    """Return the times of a column in a time zone; None is UTC without a zone."""
    if not pa.types.is_timestamp(column.type):
        return column
    return column.cast(pa.timestamp(column.type.unit, tz))


def _kind_in_pandas(kind: Any) -> Any:
    if pa.types.is_timestamp(kind):
        return pa.timestamp(time_unit(), kind.tz)
    return pa.timestamp(time_unit()) if pa.types.is_date(kind) else kind


def _cast(column: pa.ChunkedArray, kind: Any) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # parts of a microsecond, or years outside of the unit's range
        return column
