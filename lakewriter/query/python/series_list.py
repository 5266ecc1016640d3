"""The list of the series in a lake: each with its first and last candle, and its number of candles."""

from typing import Any

import pyarrow as pa

from lakewriter.interval import INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence_many import presence_of_many
from lakewriter.query.python.series_rows import SymbolSelection
from lakewriter.series import Series

_TIME = pa.timestamp("ms", tz="UTC")
_SCHEMA = pa.schema(
    [
        *((level, pa.string()) for level in Series._fields),
        ("first", _TIME),
        ("last", _TIME),
        ("candles", pa.int64()),
    ]
)


def series_table(store: LakeStore, wanted: SymbolSelection) -> pa.Table:
    """Return the wanted series that have candles, with the begin times of the first and the last.

    The footer of a file suffices for most partitions.

    Returns:
        market, symbol, interval, first, last and candles, sorted by market, symbol and
        length of the interval.

    Raises:
        LakeError: if a file cannot be read.
    """
    journal = store.unflushed()
    unflushed = {series: journal.of(series) for series in journal.series()}
    chosen = {series for series in {*store.series(wanted), *unflushed} if _covers(wanted, series)}
    if not chosen:
        return _SCHEMA.empty_table()
    markets, symbols, intervals = (tuple(set(names)) for names in zip(*chosen, strict=True))
    rows = [
        (*presence.series, presence.first_ms, presence.last_ms, presence.candles)
        for presence in presence_of_many(
            store, PartitionFilter(markets, symbols, intervals), chosen, unflushed
        )
        if presence.series in chosen and presence.first_ms is not None
    ]
    order = list(INTERVALS)
    rows.sort(key=lambda row: (row[0], row[1], order.index(row[2])))
    columns: list[Any] = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )


def _covers(wanted: SymbolSelection, series: Series) -> bool:
    return all(wanted.keep(level, [name]) for level, name in zip(Series._fields, series, strict=True))
