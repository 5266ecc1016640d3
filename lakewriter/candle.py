"""The candle: its struct, its Arrow schema, its key, and the rule for duplicates.

A candle is one closed kline of one series. Its key is (market, symbol,
interval, begin_ms); within a partition the key is the begin time alone. Two
candles with the same key are duplicates. One rule decides which of them is kept.
`precedence` applies it to single candles, `deduplicate` to a table, by `ranks`.

To add a column, add a last field with a default to `Candle`. The default is needed
because lines of older journals lack the field. Then add the column to `SCHEMA`, and
to `VALUE_COLUMNS` if the exchange sends it. These modules name every column:

    binance/wire, binance/kline_rows        parse it
    binance/archive_csv                     parses it
    candle_arrays, candle_checks            check it
    importer/column_names                   names it in files of other tools
    importer/dialect                        names it in files without a header
    verify/aggregates, query/macros         compute it for longer candles
    follow/followed_candle                  hands it to followers
    follow/handed_values                    compares it
    query/output/column_fit                 leaves it out of narrow terminals
    sandbox/truth/candles                   generates it
    sandbox/http/archive                    serves it
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np
import pyarrow as pa

from lakewriter.series import Series

Source = Literal["stream", "rest", "archive"]

SOURCES: tuple[Source, ...] = get_args(Source)
IntArray = np.ndarray[tuple[int], np.dtype[np.int64]]
FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]
BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]

# The null of integer arrays. It is smaller than every other number.
UNKNOWN = int(np.iinfo(np.int64).min)


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One closed candle of one series.

    Args:
        market: "spot", "usdt_futures" or "coin_futures".
        symbol: upper case, as the exchange names it.
        interval: the interval's name on disk ("1m", "1mo").
        begin_ms: begin time, in milliseconds since the epoch, UTC.
        end_ms: begin + interval, exclusive.
        open, high, low, close: prices in the quote asset.
        volume: volume in the base asset; in contracts on coin_futures.
        quote_volume: volume in the quote asset; in the base asset on coin_futures.
        trade_num: number of trades.
        taker_buy_base_asset_volume: the part of `volume` that takers bought.
        taker_buy_quote_asset_volume: the part of `quote_volume` that takers bought.
        event_ms: the exchange's time when it sent the candle; None unless streamed.
        recv_us: the host's time when the candle was received, in microseconds since the epoch.
        source: "stream", "rest" or "archive": where the exchange published the candle.
    """

    market: str
    symbol: str
    interval: str
    begin_ms: int
    end_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trade_num: int
    taker_buy_base_asset_volume: float
    taker_buy_quote_asset_volume: float
    event_ms: int | None
    recv_us: int
    source: Source

    @property
    def series(self) -> Series:
        """The series of the candle."""
        return Series(self.market, self.symbol, self.interval)


_MS = pa.timestamp("ms", tz="UTC")
_US = pa.timestamp("us", tz="UTC")

# The columns of every file of the lake, in their order on disk.
SCHEMA = pa.schema(
    [
        ("candle_begin_time", _MS),
        ("candle_end_time", _MS),
        ("open", pa.float64()),
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),
        ("volume", pa.float64()),
        ("quote_volume", pa.float64()),
        ("trade_num", pa.int64()),
        ("taker_buy_base_asset_volume", pa.float64()),
        ("taker_buy_quote_asset_volume", pa.float64()),
        ("event_time", _MS),
        ("recv_time", _US),
        ("source", pa.string()),
    ]
)

# The field of `Candle` for a column of SCHEMA, if their names differ.
_FIELDS = {
    "candle_begin_time": "begin_ms",
    "candle_end_time": "end_ms",
    "event_time": "event_ms",
    "recv_time": "recv_us",
}

# Returns the fields of a candle in the order of SCHEMA.
_values = attrgetter(*(_FIELDS.get(name, name) for name in SCHEMA.names))

# The values of a candle. Duplicates that differ in one of them make a correction.
VALUE_COLUMNS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_num",
    "taker_buy_base_asset_volume",
    "taker_buy_quote_asset_volume",
)


# Short lists of candles share a table until it has so many rows. Larger tables are slower to read.
_ROWS_TOGETHER = 512


def to_table(candles: Iterable[Candle]) -> pa.Table:
    """Return the candles as an Arrow table of SCHEMA, with one row per candle, in order."""
    columns = tuple(zip(*map(_values, candles), strict=True)) or ((),) * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def to_tables(lists: Iterable[Sequence[Candle]]) -> Iterator[pa.Table]:
    """Yield each list of candles as a table of SCHEMA. Many short lists take less time than by `to_table`."""
    together: list[Sequence[Candle]] = []
    rows = 0
    for candles in lists:
        together.append(candles)
        rows += len(candles)
        if rows >= _ROWS_TOGETHER:
            yield from _split_table(together)
            together, rows = [], 0
    yield from _split_table(together)


def _split_table(lists: list[Sequence[Candle]]) -> Iterator[pa.Table]:
    table = to_table(chain.from_iterable(lists))
    stops = accumulate(map(len, lists))
    return (
        table.slice(stop - len(candles), len(candles)) for stop, candles in zip(stops, lists, strict=True)
    )


def precedence(candle: Candle) -> tuple[bool, int, float, int]:
    """Return the sort key of a duplicate; the maximum wins.

    Rows of the archive win, because they are the exchange's final record. Otherwise
    more trades win, because a candle never loses trades. If their number is unknown,
    as in some imported files, the volume decides. Among equal keys, the candle
    received later wins.
    """
    trades, volume = candle.trade_num, candle.volume
    if trades is not None:
        return (candle.source == "archive", trades, 0.0, candle.recv_us)
    known = volume is not None and not math.isnan(volume)
    return (candle.source == "archive", UNKNOWN, volume if known else -math.inf, candle.recv_us)


# The columns that `ranks` reads.
_RANKED = ["trade_num", "volume", "recv_time", "source"]


class Ranks(NamedTuple):
    """The parts of the `precedence` keys, each as an array over the rows of a table."""

    archive: BoolArray
    trades: IntArray
    volume: FloatArray
    received: IntArray


def ranks(table: pa.Table) -> Ranks:
    """Return the sort keys of the rows of a table of SCHEMA, as `precedence` defines them."""
    trades = int_column(table, "trade_num")
    unknown = trades == UNKNOWN
    volume: FloatArray = np.zeros(len(trades))
    if unknown.any():
        volume = np.where(unknown, np.nan_to_num(table["volume"].to_numpy(), nan=-np.inf, neginf=-np.inf), 0)
    archive = table["source"].to_numpy(zero_copy_only=False) == "archive"
    return Ranks(archive, trades, volume, int_column(table, "recv_time"))


def deduplicate(table: pa.Table) -> pa.Table:
    """Return the table sorted by begin time, with only the winner of each set of duplicates.

    Args:
        table: rows of one series in SCHEMA, in any order. If the sort keys of two
            duplicates are equal, the later row wins.

    Returns:
        a table of SCHEMA with strictly ascending begin times.
    """
    begins = int_column(table, "candle_begin_time")
    if bool(np.all(begins[1:] > begins[:-1])):
        return table
    order = np.argsort(begins, kind="stable")
    ascending = begins[order]
    last_of_key = np.append(ascending[1:] != ascending[:-1], True)
    # Only duplicates are ranked: they are few.
    is_duplicate = ~(last_of_key & np.append(True, last_of_key[:-1]))
    duplicates = order[is_duplicate]
    ranked = ranks(table.select(_RANKED).take(pa.array(duplicates)))
    # `lexsort` compares the last key first.
    order[is_duplicate] = duplicates[np.lexsort((*reversed(ranked), begins[duplicates]))]
    return table.take(pa.array(order[last_of_key]))


def int_column(table: pa.Table, name: str) -> IntArray:
    """Return a time or count column as int64, with UNKNOWN for null."""
    column = table[name]
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values: IntArray
    if array.type.bit_width == 64 and not array.null_count:
        # A time is stored as an integer, so a view needs no copy.
        values = array.view(pa.int64()).to_numpy()
    else:
        values = array.cast(pa.int64()).fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
    return values
