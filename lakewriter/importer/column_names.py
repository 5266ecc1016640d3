"""The names of a candle's columns in files of other tools. Pure.

Names are compared in lower case, with `_` between words. Single letters are the
exchange's own and keep their case: `v` is the volume, `V` the takers' part.
"""

import re
from collections.abc import Iterable

from lakewriter.evidence.columns import normal_name

# Our name comes first. Of several columns of times, the first in this list is read.
BEGINS = (
    "candle_begin_time", "open_time", "opentime", "open_timestamp", "kline_open_time", "open_date",
    "begin_time", "begin", "start_time", "starttime", "start", "start_at", "unix", "unix_time", "unixtime",
    "unix_timestamp", "epoch", "timestamp_ms", "time_ms", "ts_ms", "timestamp", "timestamp_utc", "ts", "t",
    "datetime", "datetime_utc", "date_time", "date_utc", "gmt_time", "time_utc", "time", "date", "day",
)  # fmt: skip
ENDS = (
    "candle_end_time", "close_time", "closetime", "close_timestamp", "kline_close_time", "close_date",
    "end_time", "endtime", "T",
)  # fmt: skip

VALUES = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "base_volume", "base_asset_volume", "volume_base"),
    "quote_volume": (
        "quote_volume", "quote_asset_volume", "quotevolume", "quote_av", "turnover", "q", "volume_quote",
        "quoteassetvolume",
    ),
    "trade_num": (
        "trade_num", "number_of_trades", "num_trades", "trades", "trade_count", "trades_count", "tradecount",
        "count", "n", "numberoftrades",
    ),
    "taker_buy_base_asset_volume": (
        "taker_buy_base_asset_volume", "taker_buy_base_volume", "taker_buy_volume", "taker_buy_base",
        "tb_base_av", "V", "takerbuybaseassetvolume", "taker_base_vol",
    ),
    "taker_buy_quote_asset_volume": (
        "taker_buy_quote_asset_volume", "taker_buy_quote_volume", "taker_buy_quote", "tb_quote_av", "Q",
        "takerbuyquoteassetvolume", "taker_quote_vol",
    ),
}  # fmt: skip
PRICES = ("open", "high", "low", "close")

# Volumes that name their asset, like "Volume BTC" and "Volume USDT", but not the
# averages and changes that charts add.
ASSET_VOLUME = re.compile(
    r"(?:volume|vol)_(?!base$|quote$|usd_|[es]?ma\d*$|avg|mean|std|change|delta|ratio|pct|osc)[a-z0-9]{2,10}"
    r"|amount|volumefrom|volumeto"
)

# pandas writes an unnamed index under these names.
_UNNAMED = re.compile(r"|_index_level_0_|unnamed:_0|index|level_0")

# In a table with other names, a letter can mean anything: `n` may number the rows.
_PRICE_LETTERS = frozenset("ohlc")
_VALUE_LETTERS = frozenset(each for names in VALUES.values() for each in names if len(each) == 1)

_FIELD_OF = {name: field for field, names in VALUES.items() for name in names}


def field_of(name: str) -> str | None:
    """Return the column of VALUE_COLUMNS with this name; None if there is none."""
    return _FIELD_OF.get(normal_name(name))


def stray_letters(names: Iterable[str]) -> frozenset[str]:
    """Return the single letters that are no values in a table with these columns."""
    return frozenset() if set(names) >= _PRICE_LETTERS else _VALUE_LETTERS


def is_number(name: str) -> bool:
    """Return whether a column with this name holds numbers of a candle."""
    return field_of(name) is not None or ASSET_VOLUME.fullmatch(normal_name(name)) is not None


def is_time(name: str) -> bool:
    """Return whether a column with this name holds begin or end times."""
    return normal_name(name) in BEGINS or normal_name(name) in ENDS


def is_begin(name: str) -> bool:
    """Return whether a column with this name holds begin times."""
    return normal_name(name) in BEGINS


def is_unnamed(name: str) -> bool:
    """Return whether a column with this name may be an unnamed index of pandas."""
    return _UNNAMED.fullmatch(normal_name(name)) is not None


def is_header(cells: Iterable[str]) -> bool:
    """Return whether a row of cells names all prices."""
    fields = {field_of(cell) for cell in cells}
    return all(price in fields for price in PRICES)
